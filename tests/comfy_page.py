"""ComfyUI's own page in a real browser: what a person does with it, and what is then to be seen.

Every step waits for what it is meant to bring about, never for a time. Pictures of the page are kept in the folder that
SCOFT_SCREENSHOTS names, else in the test's temporary folder.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from comfy_server import PACK_NAME, ROOT, ComfyServer
from playwright.sync_api import Browser, Error, Locator, Page, TimeoutError

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
CHANGE = """given => {
    for (const node of app.graph.nodes)
        for (const [name, value] of Object.entries(given[node.type] ?? {}))
            node.widgets.find(widget => widget.name === name).value = value;
}"""
PLACE = """id => {
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
    app.canvas.setDirty(true, true);
}"""
CLEAR = "() => { app.graph.clear(); app.canvas.ds.reset(); app.canvas.setDirty(true, true); }"
DISPATCH = """async ([event, detail]) => {
    const { api } = await import('/scripts/api.js');
    api.dispatchEvent(new CustomEvent(event, { detail }));
}"""
DRAWN = "() => app.canvas.draw(true, true)"
OPTION = ".comfy-vue-node-search-container [role=option]"


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

    def open(self) -> None:
        """Go to the editor, as one who has been here before; nodes drawn on the canvas, the dark theme."""
        wanted = {"Comfy.TutorialCompleted": True, **looks("canvas", "dark")}
        assert self.page.request.post(f"{self.server.url}/settings", data=wanted).ok
        self.page.goto(self.server.url)
        self.ready()

    def ready(self) -> None:
        self.page.wait_for_function(READY)

    def settings(self, renderer: str, theme: str) -> None:
        """renderer: "canvas" or "vue"; theme: the name of a colour palette."""
        self.page.evaluate(SET, looks(renderer, theme))

    def load(self, graph: dict) -> None:
        """Open a workflow in its UI form, as from a file."""
        self.page.evaluate("async graph => { await app.loadGraphData(graph) }", graph)
        self.has_nodes(len(graph["nodes"]))

    def has_nodes(self, count: int) -> None:
        self.page.wait_for_function("count => app.graph.nodes.length === count", arg=count)

    def template(self, name: str) -> None:
        """Open one of the pack's workflows from the template browser."""
        self.page.get_by_role("button", name="Templates", exact=True).click()
        window = self.page.locator(".workflow-template-selector-dialog")
        window.get_by_text("comfy_scoft", exact=True).first.click()
        window.get_by_test_id(f"template-workflow-{name}").click()
        window.wait_for(state="hidden")

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
        """Double-click on the empty canvas and type: what the search offers.

        A page that is busy takes the two clicks for single ones; a person tries again then, and so does this.
        """
        field = self.page.locator(".comfy-vue-node-search-container input")
        end = time.monotonic() + PATIENCE / 1000
        while not field.is_visible():
            assert time.monotonic() < end, "a double click on the canvas opens no search"
            self.page.mouse.dblclick(*at)
            with suppress(TimeoutError):
                field.wait_for(state="visible", timeout=3000)
        field.fill(words)
        return self.page.locator(OPTION)

    def add(self, title: str, at: tuple[int, int]) -> int:
        """Search for a node by its title and take it: the id of the node that this adds."""
        before = self.page.evaluate("() => app.graph.nodes.length")
        self.searched(title, at).filter(has_text=title).first.click()
        self.has_nodes(before + 1)
        self.page.locator(OPTION).first.wait_for(state="hidden")
        return int(self.page.evaluate("() => Math.max(...app.graph.nodes.map(n => n.id))"))

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
        """Press Run."""
        self.page.get_by_role("button", name="Run", exact=True).click()

    def idle(self) -> None:
        """Wait until nothing runs."""
        end = time.monotonic() + RUN
        while self.server.client.running():
            assert time.monotonic() < end, self.server.tail()
            self.page.wait_for_timeout(200)  # between two looks; the page goes on meanwhile

    @property
    def chart(self) -> Locator:
        return self.page.locator(".scoft-training")

    def charted(self, run: str, state: str, step: int = 0) -> None:
        """Wait until the chart is of that run and says so; step: at least so many are done."""
        self.page.wait_for_function(
            """([run, state, step]) => {
                const found = document.querySelector('.scoft-training')?.dataset;
                return found?.run === run && found.state === state && Number(found.step) >= step;
            }""",
            arg=[run, state, step],
            timeout=RUN * 1000,
        )

    def shot(self, name: str) -> None:
        path = Path(os.environ.get("SCOFT_SCREENSHOTS") or self.shots) / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.evaluate(DRAWN)
        self.page.screenshot(path=path)


@contextmanager
def opened(found: Browser, server: ComfyServer, shots: Path, without: str = "", **context: Any) -> Iterator[ComfyPage]:
    """The editor in a profile of its own. An error of the pack's own script fails the test.

    without: files of the page that cannot be had, as a pattern; context: what Playwright's new_context takes.
    """
    profile = found.new_context(viewport=WINDOW, **context)
    try:
        if without:
            profile.route(without, lambda route: route.abort())
        editor = ComfyPage(profile.new_page(), server, shots)
        editor.open()
        yield editor
    finally:
        profile.close()
    assert not editor.faults, f"the pack's script failed: {editor.faults}"


def looks(renderer: str, theme: str) -> dict[str, Any]:
    return {"Comfy.VueNodes.Enabled": renderer == "vue", "Comfy.ColorPalette": theme}


def workflow(path: Path = MINI) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


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
