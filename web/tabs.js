/* Which workflow a prompt belongs to. The page may show another one by the time a node ends: what the node gave is kept
here, and shown when its workflow is open again. (The page keeps it too, but not of prompts whose answer came late, as that
of a prompt of cached nodes does.) */

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const KEPT = 500; // maximum number of prompts, and of nodes that ended, kept while the page is open
const STOCK = new Set(["SaveImage", "PreviewImage", "PreviewAny"]);
export const SWITCHED = 50; // milliseconds after which the page has made the tab of a graph that it loaded the open one

const owners = new Map(); // prompt -> its owner: the tab that queued it, and the id of the workflow there
const ended = new Map(); // "prompt/node" -> { owner, detail } of the server's event
let again = false; // whether events come from here

/* The root graph, whichever subgraph is open. */
export function whole() {
    return app.rootGraph ?? app.graph?.rootGraph ?? app.graph;
}

function opened() {
    return { tab: app.extensionManager?.workflow?.activeWorkflow, id: whole()?.id };
}

function limit(map) {
    while (map.size > KEPT) map.delete(map.keys().next().value);
}

/* The owner of what a prompt gives. Of one that was queued elsewhere, or before the page was loaded: the workflow with
that id, if the server names it, else the open one. */
export function ownerOf(prompt, workflow) {
    return owners.get(prompt) ?? (workflow ? { id: workflow } : opened());
}

export function isOpen(owner) {
    const here = opened();
    return owner.id === here.id && (!owner.tab || owner.tab === here.tab);
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

/* Tell the page again what the nodes of the open workflow gave. */
function showAgain() {
    again = true;
    for (const { owner, detail } of ended.values()) {
        const kind = isOpen(owner) && find(detail.display_node ?? detail.node)?.comfyClass;
        if (!kind || !(kind.startsWith("SCoFT_") || STOCK.has(kind))) continue;
        api.dispatchEvent(new CustomEvent("executed", { detail }));
    }
    again = false;
}

const queuePrompt = api.queuePrompt;
api.queuePrompt = async function (...given) {
    const owner = opened();
    const answer = await queuePrompt.apply(this, given);
    if (answer?.prompt_id) owners.set(answer.prompt_id, owner);
    limit(owners);
    return answer;
};

app.registerExtension({
    name: "SCoFT.Tabs",
    setup() {
        api.addEventListener("executed", ({ detail }) => {
            if (again || !detail?.output) return;
            const owner = ownerOf(detail.prompt_id), node = detail.display_node ?? detail.node;
            for (const [key, each] of ended) { // an older run of the same node
                const same = each.owner.tab === owner.tab && each.owner.id === owner.id;
                if (same && key.endsWith(`/${node}`)) ended.delete(key);
            }
            ended.set(`${detail.prompt_id}/${node}`, { owner, detail });
            limit(ended);
        });
    },
    afterConfigureGraph() {
        setTimeout(showAgain, SWITCHED);
    },
});
