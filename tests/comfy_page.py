"""ComfyUI's own page in a real browser: what a person does with it, and what is then to be seen.

Every step waits for what it is meant to bring about, never for a time. Images of the page are kept in the folder that
SCOFT_SCREENSHOTS names, else in the test's temporary folder.
"""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import comfy_queue
from browser import LANGUAGE
from comfy_server import PACK_NAME, ROOT, ComfyServer
from playwright.sync_api import Browser, Error, Locator, Page, TimeoutError, expect

WINDOW = {"width": 1600, "height": 1000}
PATIENCE = 120_000
"""Milliseconds that the page may take for one step on a slow machine; a run has a limit of its own."""
RUN = 900.0
"""Seconds that a run may take."""
WORKFLOWS = ROOT / "workflows"
MINI = WORKFLOWS / "train-cultural-lora-mini.json"

READY = "() => window.app?.extensionManager?.workflow?.activeWorkflow && !document.querySelector('.p-blockui-mask')"
"""The editor has opened the workflow that it begins with."""
SET = "async given => { for (const [k, v] of Object.entries(given)) await app.extensionManager.setting.set(k, v) }"
NO_BANNER = "if (location.protocol === 'http:') localStorage.setItem('vueNodesBannerDismissed', 'true')"
"""What ComfyUI announces at the top of its page would move all that is below it, some time after it has opened."""
STEADY = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Pointer.DoubleClickTime": 1000,  # a busy machine sends the second click late,
    "Comfy.Pointer.ClickBufferTime": 1000,  # and lets a button go late, which would be a drag
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.Workflow.ShowMissingModelsWarning": False,  # it comes some time after the workflow, over what is clicked
    "Comfy.NodeSearchBoxImpl.FollowCursor": False,  # newer pages hang a new node on the cursor till the next click,
    "Comfy.RightSidePanel.IsOpen": False,  # and have a panel there that one test opens over the nodes of the next
}
"""Settings of the page in which what a test does cannot be taken for something else."""
SHOWS = """([vue, dark]) =>
    LiteGraph.vueNodesMode === vue && dark === Boolean(document.querySelector(":is(html, body).dark-theme"))"""
CHANGE = """given => {
    for (const node of app.graph.nodes)
        for (const [name, value] of Object.entries(given[node.type] ?? {}))
            node.widgets.find(widget => widget.name === name).value = value;
}"""
PLACE = """id => {
    app.canvas.draw(true, true);
    const node = app.graph.getNodeById(id), view = app.canvas.ds, box = app.canvas.canvas.getBoundingClientRect();
    const at = (x, y) => [box.x + (x + view.offset[0]) * view.scale, box.y + (y + view.offset[1]) * view.scale];
    return {
        title: at(node.pos[0] + 60, node.pos[1] - 15),
        inputs: node.inputs.map((_, i) => at(...node.getConnectionPos(true, i))),
        outputs: node.outputs.map((_, i) => at(...node.getConnectionPos(false, i))),
    };
}"""
LOOK_AT = """([id, scale]) => {
    const node = app.graph.getNodeById(id), view = app.canvas.ds, canvas = app.canvas.canvas;
    view.scale = scale;
    view.offset[0] = -node.pos[0] + (canvas.clientWidth / scale - node.size[0]) / 2;
    view.offset[1] = -node.pos[1] + Math.max(120, (canvas.clientHeight / scale - node.size[1]) / 2);
    app.canvas.draw(true, true);
}"""
CLEAR = "() => { app.graph.clear(); app.canvas.ds.reset(); app.canvas.setDirty(true, true); }"
DISPATCH = """async ([event, detail]) => {
    const { api } = await import('/scripts/api.js');
    api.dispatchEvent(new CustomEvent(event, { detail }));
}"""
DRAWN = """() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
    app.canvas.draw(true, true);
    requestAnimationFrame(done);
})))"""
"""What waits for the next frame is done then: a new workflow is fitted into the view, widgets get their places."""
SEARCH = ":is(.comfy-vue-node-search-container, [role=search])"
OPTION = f"{SEARCH} [role=option]"
DIALOG = ":is(.p-dialog-mask, [data-testid=dialog-overlay])"
"""These are the floor's page's, and a newer one's."""
BYPASS = 4
"""LiteGraph's number of a node that is passed by."""


class ComfyPage:
    """One page of the editor. `page` is Playwright's; `faults` is what went wrong in the pack's own script."""

    def __init__(self, page: Page, server: ComfyServer, shots: Path) -> None:
        self.page, self.server, self.shots = page, server, shots
        self.faults: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", self._note)

    def _note(self, error: Error) -> None:
        """ComfyUI's own page has faults too, as when a run tells it something while it is still opening."""
        if f"/extensions/{PACK_NAME}/" in (error.stack or ""):
            self.faults.append(f"{error.message}\n{error.stack}")

    def open(self, language: str = "en") -> None:
        """Go to the editor, as one who has been here before; nodes drawn on the canvas, the dark theme."""
        wanted = {**STEADY, "Comfy.Locale": language, **looks("canvas", "dark")}
        assert self.page.request.post(f"{self.server.url}/settings", data=wanted).ok
        self.page.goto(self.server.url)
        self.ready()

    def ready(self) -> None:
        self.page.wait_for_function(READY)
        self.drawn()

    def drawn(self) -> None:
        """Wait until what was asked of the page is on the screen."""
        self.page.evaluate(DRAWN)

    def settings(self, renderer: str, theme: str) -> None:
        """renderer: "canvas" or "vue"; theme: "dark" or "light"."""
        self.page.evaluate(SET, looks(renderer, theme))
        self.page.wait_for_function(SHOWS, arg=[renderer == "vue", theme == "dark"])
        self.drawn()

    def load(self, graph: dict) -> None:
        """Open a workflow in its UI form, as from a file."""
        self.page.evaluate("async graph => { await app.loadGraphData(graph) }", graph)
        self.has_nodes(len(graph["nodes"]))
        self.drawn()

    def has_nodes(self, count: int) -> None:
        self.page.wait_for_function("count => app.graph.nodes.length === count", arg=count)

    def template(self, name: str) -> None:
        """Open one of the pack's workflows from the template browser."""
        self.page.get_by_role("button", name="Templates", exact=True).click()
        window = self.page.get_by_role("dialog")
        window.get_by_text("comfy_scoft", exact=True).first.click()
        window.get_by_test_id(f"template-workflow-{name}").click()
        self.no_dialog()
        opened = "name => app.extensionManager.workflow.activeWorkflow?.path.includes(name)"
        self.page.wait_for_function(opened, arg=name)
        self.drawn()

    def change(self, **kinds: Mapping[str, Any]) -> None:
        """Set widgets: every node of a kind gets these values by widget name."""
        self.page.evaluate(CHANGE, kinds)

    def graph(self) -> dict:
        """What would be saved."""
        return self.page.evaluate("() => app.graph.serialize()")

    def prompt(self) -> dict:
        """What would be queued."""
        return self.page.evaluate("async () => (await app.graphToPrompt()).output")

    def node(self, kind: str) -> int:
        """Id of the only node of a kind."""
        (found,) = self.page.evaluate("kind => app.graph.nodes.filter(n => n.type === kind).map(n => n.id)", kind)
        return int(found)

    def clear(self) -> None:
        self.page.evaluate(CLEAR)

    def look_at(self, node: int, scale: float = 0.8) -> None:
        self.page.evaluate(LOOK_AT, [node, scale])

    def place(self, node: int) -> dict[str, Any]:
        """Where a node's title and its sockets are on the screen."""
        return self.page.evaluate(PLACE, node)

    def searched(self, words: str, at: tuple[int, int]) -> Locator:
        """Double-click on the empty canvas and type: what the search offers, which at first are all nodes.

        A page that is busy may take the two clicks for single ones; a person tries again then, and so does this.
        """
        field = self.page.locator(f"{SEARCH} input")
        end = time.monotonic() + PATIENCE / 1000
        while True:
            self.page.mouse.dblclick(*at)
            with suppress(TimeoutError):
                field.fill(words, timeout=10_000)
                return self.page.locator(OPTION)
            assert time.monotonic() < end, "a double click on the canvas opens no search"

    def add(self, title: str, at: tuple[int, int]) -> int:
        """Search for a node by its title and take it: the id of the node that this adds."""
        before = self.page.evaluate("() => app.graph.nodes.length")
        found = self.page.locator(".highlight")  # in the list of what was typed, and not in the one before it
        named = self.page.locator("span", has_text=re.compile(rf"^\s*{re.escape(title)}\s*$"), has=found)
        self.searched(title, at).filter(has=named).first.click()
        self.has_nodes(before + 1)
        self.no_dialog()
        return int(self.page.evaluate("() => Math.max(...app.graph.nodes.map(n => n.id))"))

    def no_dialog(self) -> None:
        """Wait until nothing lies over the canvas; a dialog that closes takes clicks until it has gone."""
        expect(self.page.locator(DIALOG)).to_have_count(0, timeout=PATIENCE)

    def dismiss(self) -> None:
        """Press Escape until there is no dialog: one that is still opening does not hear it."""
        end = time.monotonic() + PATIENCE / 1000
        while self.page.locator(DIALOG).count():
            assert time.monotonic() < end, "Escape closes no dialog"
            self.page.keyboard.press("Escape")
            with suppress(AssertionError):
                expect(self.page.locator(DIALOG)).to_have_count(0, timeout=3000)

    def pass_by(self, node: int) -> None:
        """Click on a node's title and press what passes it by."""
        self.page.mouse.click(*self.place(node)["title"])
        self.page.wait_for_function("id => app.canvas.selected_nodes[id]", arg=node)
        self.page.keyboard.press("Control+b")
        self.page.wait_for_function("([id, mode]) => app.graph.getNodeById(id).mode === mode", arg=[node, BYPASS])

    def drag(self, start: list[float], end: list[float]) -> None:
        mouse = self.page.mouse
        mouse.move(*start)
        mouse.down()
        mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, steps=3)
        mouse.move(*end, steps=3)
        mouse.up()

    def dispatch(self, event: str, detail: Any) -> None:
        """Let the page believe that the server sent an event."""
        self.page.evaluate(DISPATCH, [event, detail])

    def run(self) -> None:
        """Press Run; newer pages give the menu beside it the same name."""
        self.page.get_by_role("button", name="Run", exact=True).first.click()

    def idle(self) -> None:
        """Wait until nothing runs, or waits to."""
        end = time.monotonic() + RUN
        while comfy_queue.unfinished(self.server.client):
            assert time.monotonic() < end, self.server.tail()
            self.page.wait_for_timeout(200)  # between two looks; the page goes on meanwhile

    @property
    def chart(self) -> Locator:
        return self.page.locator(".scoft-training")

    def charted(self, run: str, state: str = "", step: int = 0) -> None:
        """Wait until the chart is of that run and says so; state: "" for any; step: at least so many are done."""
        self.page.wait_for_function(
            """([run, state, step]) => {
                const found = document.querySelector('.scoft-training')?.dataset;
                return found?.run === run && [found.state, ""].includes(state) && Number(found.step) >= step;
            }""",
            arg=[run, state, step],
            timeout=RUN * 1000,
        )

    def shot(self, name: str) -> None:
        path = Path(os.environ.get("SCOFT_SCREENSHOTS") or self.shots) / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.drawn()
        self.page.screenshot(path=path)


@contextmanager
def opened(
    found: Browser, server: ComfyServer, shots: Path, without: str = "", language: str = "en"
) -> Iterator[ComfyPage]:
    """The editor in a profile of its own. An error of the pack's own script fails the test.

    without: files of the page that cannot be had, as a pattern; language: the editor's.
    """
    profile = found.new_context(viewport=WINDOW, locale=LANGUAGE)
    profile.add_init_script(NO_BANNER)
    try:
        if without:
            profile.route(without, lambda route: route.abort())
        editor = ComfyPage(profile.new_page(), server, shots)
        editor.open(language)
        yield editor
    finally:
        profile.close()
    assert not editor.faults, f"the pack's script failed: {editor.faults}"


def looks(renderer: str, theme: str) -> dict[str, Any]:
    return {"Comfy.VueNodes.Enabled": renderer == "vue", "Comfy.ColorPalette": theme}


def workflow(path: Path = MINI) -> dict:
    """A workflow as somebody has saved it: the shipped one, which has no id, with an id."""
    return {"id": str(uuid.uuid5(uuid.NAMESPACE_OID, path.stem)), **json.loads(path.read_text(encoding="utf-8"))}


def up_to(graph: dict, *kinds: str) -> dict:
    """A workflow in UI form without what these kinds of nodes do not need."""
    above: dict[int, set[int]] = {}
    for _, source, _, target, *_ in graph["links"]:
        above.setdefault(target, set()).add(source)
    wanted = [node["id"] for node in graph["nodes"] if node["type"] in kinds]
    kept: set[int] = set()
    while wanted:
        kept.add(found := wanted.pop())
        wanted += above.get(found, set()) - kept
    links = [link for link in graph["links"] if {link[1], link[3]} <= kept]
    there = {link[0] for link in links}
    nodes = [dict(node) for node in graph["nodes"] if node["id"] in kept]
    for node in nodes:
        node["outputs"] = [
            {**out, "links": [n for n in out.get("links") or [] if n in there]} for out in node["outputs"]
        ]
    return {**graph, "nodes": nodes, "links": links, "groups": []}
