/* Which workflow a prompt belongs to, and which nodes are its. The page may show another workflow by the time the server
tells something: then it waits until that one is open again. */

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const KEPT = 500; // maximum number of prompts kept while the page is open
const tabs = new Map(); // prompt -> the tab that queued it

function openTab() {
    return app.extensionManager?.workflow?.activeWorkflow;
}

const queuePrompt = api.queuePrompt;
api.queuePrompt = async function (...given) {
    const tab = openTab();
    const answer = await queuePrompt.apply(this, given);
    if (answer?.prompt_id) tabs.set(answer.prompt_id, tab);
    if (tabs.size > KEPT) tabs.delete(tabs.keys().next().value);
    return answer;
};

/* The root graph, whichever subgraph is open. */
export function whole() {
    return app.rootGraph ?? app.graph?.rootGraph ?? app.graph;
}

/* The owner of what a prompt gives: its tab. Of a prompt that was queued elsewhere, or before the page was loaded, it is
the workflow's id, if the server names it, else the open workflow. */
export function ownerOf(prompt, workflow) {
    return tabs.get(prompt) ?? workflow ?? openTab();
}

export function isOpen(owner) {
    return owner === openTab() || owner === whole()?.id;
}

/* The node with the server's id, "outer:inner" in a subgraph. */
export function find(id) {
    let place = whole(), node;
    for (const part of String(id).split(":")) {
        node = place?.getNodeById(part) ?? place?.getNodeById(Number(part));
        place = node?.subgraph;
    }
    return node;
}
