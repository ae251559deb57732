/* Fills in %date:yyyy-MM-dd% and %node.widget% in names of files and folders when a workflow is queued, as ComfyUI's page
does for its own save nodes. On a page without that function the server fills in dates (comfyui/typed_names.py). */

import { app } from "../../scripts/app.js";

const NAMES = new Set(["filename_prefix", "run_name", "job_name", "name"]);

function filled(text) {
    try {
        return window.comfyAPI.utils.applyTextReplacements(app, text);
    } catch {
        return text;
    }
}

app.registerExtension({
    name: "SCoFT.Names",
    nodeCreated(node) {
        if (!node.comfyClass?.startsWith("SCoFT_")) return;
        for (const widget of node.widgets ?? []) {
            if (NAMES.has(widget.name)) widget.serializeValue = () => filled(widget.value);
        }
    },
});
