/* Shows a node's text output: a model card, a report, the path of a file. ComfyUI shows the images of any node, but text
only on its own nodes. It is set as text, never as HTML, and is not saved in the workflow. */

import { app } from "../../scripts/app.js";

const PREFIX = "SCoFT_";
const DRAWN = "SCoFT_ScoreTable"; // its text is the table that its image shows
const WIDGET = "scoft_text";
const LEAST = 70, MOST = 320, LINE = 17; // pixels

const CSS = `.scoft-text { box-sizing: border-box; width: 100%; height: 100%; overflow: auto; padding: 6px 8px;
    border-radius: 4px; white-space: pre-wrap; overflow-wrap: anywhere; user-select: text; font: 12px/${LINE}px sans-serif;
    color: var(--input-text, #ddd); background: var(--comfy-input-bg, #222); }`;

function height(text) {
    return Math.min(MOST, Math.max(LEAST, LINE * (text.split("\n").length + 2)));
}

function show(node, text) {
    let widget = node.widgets?.find((each) => each.name === WIDGET);
    if (!widget) {
        const place = document.createElement("div");
        Object.assign(place, { className: "scoft-text", tabIndex: 0 });
        place.setAttribute("role", "region");
        place.setAttribute("aria-label", node.title);
        const size = () => height(place.textContent);
        widget = node.addDOMWidget(WIDGET, "scoft-text", place, { serialize: false, hideOnZoom: false, getMinHeight: size });
        widget.serialize = false;
    }
    widget.element.textContent = text;
    const [width, tall] = node.computeSize();
    node.setSize?.([Math.max(width, node.size[0]), Math.max(tall, node.size[1])]);
    node.setDirtyCanvas?.(true, true);
}

app.registerExtension({
    name: "scoft.text",
    setup() {
        const style = document.createElement("style");
        style.textContent = CSS;
        document.head.append(style);
    },
    nodeCreated(node) {
        if (!node.comfyClass?.startsWith(PREFIX) || node.comfyClass === DRAWN) return;
        const before = node.onExecuted;
        node.onExecuted = function (output) {
            const result = before?.apply(this, arguments);
            const text = output?.text;
            if (text?.length) show(this, [].concat(text).join("\n"));
            return result;
        };
    },
});
