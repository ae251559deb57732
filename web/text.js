/* Shows a node's text output: a model card, a report, the path of a file. ComfyUI shows the images of any node, but text
only on its own nodes. It is set as text, never as HTML, and is not saved in the workflow. A page that a node wrote gets
a link that opens it. */

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { find, isOpen, ownerOf } from "./tabs.js";

const PREFIX = "SCoFT_";
const DRAWN = "SCoFT_ScoreTable"; // its text is the table that its image shows
const WIDGET = "scoft_text";
const LEAST = 70, MOST = 320, LINE = 17; // pixels

const CSS = `.scoft-text { box-sizing: border-box; width: 100%; height: 100%; overflow: auto; padding: 6px 8px;
    border-radius: 4px; white-space: pre-wrap; overflow-wrap: anywhere; user-select: text; font: 12px/${LINE}px sans-serif;
    color: var(--input-text, #ddd); background: var(--comfy-input-bg, #222); }
    .scoft-text a { display: block; color: inherit; font-weight: bold; text-decoration: underline; cursor: pointer; }`;

function height(text) {
    return Math.min(MOST, Math.max(LEAST, LINE * (text.split("\n").length + 2)));
}

/* Show the text of an output of this pack's nodes, and none where that has none. */
function tell(id, output) {
    const node = find(id), text = [].concat(output?.text ?? []).join("\n");
    if (!node?.comfyClass?.startsWith(PREFIX) || node.comfyClass === DRAWN) return;
    if (text) show(node, text, output.page?.[0]);
    else node.widgets?.find((each) => each.name === WIDGET)?.element.replaceChildren(); // of an earlier run
}

/* ComfyUI has browsers download HTML, so a page is opened from its bytes. Where no tab may be opened, it is downloaded. */
function link(page) {
    const view = `/view?${new URLSearchParams(page)}`;
    const anchor = document.createElement("a");
    Object.assign(anchor, { href: api.apiURL(view), download: page.filename, textContent: `Open ${page.filename}` });
    anchor.onclick = async (event) => {
        const tab = window.open("");
        if (!tab) return;
        event.preventDefault();
        tab.opener = null;
        const answer = await api.fetchApi(view);
        const page = new Blob([await answer.arrayBuffer()], { type: "text/html;charset=utf-8" });
        tab.location = answer.ok ? URL.createObjectURL(page) : anchor.href;
    };
    return anchor;
}

function show(node, text, page) {
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
    widget.element.replaceChildren(...(page ? [link(page)] : []), text);
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
        api.addEventListener("executed", ({ detail }) => {
            if (isOpen(ownerOf(detail.prompt_id))) tell(detail.display_node ?? detail.node, detail.output);
        });
    },
});
