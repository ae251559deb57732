"""Takes the images of the help pages: `web/docs/images/<node id>.webp`, each node as ComfyUI's editor shows it.

    python tools/screenshot_help.py http://127.0.0.1:8188 [node id …] [--no-run] [--chromium /usr/bin/chromium]

Needs Playwright for Python and a Chromium, and a running ComfyUI with this pack. A node is shown with its wires in a
shipped workflow, or in a small graph of help_graphs.py. Graphs on the mini world are run first, from the editor itself,
so that images, charts and tables on nodes are those of a real run; with --no-run nothing is run.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
from collections.abc import Sequence
from typing import Any

from help_graphs import FOLDER, OWN, SHOWN, View, form
from PIL import Image
from screenshot_workflows import FLAGS, LOAD, ONLY_THE_GRAPH, PATIENCE, QUEUE, SETTINGS, STYLE
from workflow_form import compact

PICTURES = FOLDER.parent / "web" / "docs" / "pictures"
SCALE = 1.5
"""Pixels of the image a pixel of the graph."""
WIDEST = 900
"""Pixels of an image at most; the help panel is narrower."""
ROOM = (44, 26)
"""What is seen left and right, and above and below a node (pixels of the graph): its wires, and not its neighbours."""
QUALITY = 82

BOX = """wanted => {
    const boxes = wanted.map(([kind, title]) => {
        const node = window.app.graph._nodes.find(n => n.type === kind && (!title || n.title === title));
        if (!node) throw new Error(`no node ${kind} ${title}`);
        return node;
    }).map(node => {
        node.title = node.constructor.title;
        return [...node.getBounding()];
    });
    const left = Math.min(...boxes.map(b => b[0])), top = Math.min(...boxes.map(b => b[1]));
    const right = Math.max(...boxes.map(b => b[0] + b[2])), bottom = Math.max(...boxes.map(b => b[1] + b[3]));
    return [left, top, right - left, bottom - top];
}"""
RUN = """async kinds => {
    const nodes = window.app.graph.nodes.filter(node => kinds.includes(node.type));
    const ends = nodes.every(node => node.constructor.nodeData?.output_node);
    await window.app.queuePrompt(0, 1, ends ? nodes.map(node => String(node.id)) : undefined);
}"""
"""Runs what the nodes that are shown need: the whole graph, unless all of them are ends of it."""
SHOW = """([x, y, width, height, scale]) => {
    const view = window.app.canvas;
    view.show_info = false;
    view.deselectAll();
    view.ds.scale = scale;
    view.ds.offset[0] = -x;
    view.ds.offset[1] = -y;
    view.setDirty(true, true);
    const at = view.canvas.getBoundingClientRect();
    return {x: at.left, y: at.top, width: width * scale, height: height * scale};
}"""


def open_editor(browser: Any, url: str) -> Any:
    """A page with the editor on it, large enough for the tallest node."""
    page = browser.new_page(viewport={"width": 2000, "height": 2400})
    for _ in range(2):  # the second visit has the settings of the first
        page.goto(url, timeout=PATIENCE)
        page.wait_for_function("() => window.app?.graph && window.app.extensionManager", timeout=PATIENCE)
        page.wait_for_timeout(3000)
        page.evaluate(SETTINGS)
    return page


def load(page: Any, graph: dict[str, Any], run: Sequence[str]) -> None:
    """Show a graph in the editor and, where there are kinds of nodes in `run`, run it for them."""
    page.evaluate(LOAD, graph)
    page.wait_for_timeout(2000)
    if run:
        page.evaluate(RUN, list(run))
        page.wait_for_timeout(2000)
        while any(page.evaluate(QUEUE).values()):
            page.wait_for_timeout(1000)
        page.wait_for_timeout(2000)
    page.evaluate(STYLE, ONLY_THE_GRAPH)


def take(page: Any, name: str, view: View) -> None:
    """The image of one node, cut out with its wires."""
    x, y, width, height = page.evaluate(BOX, [list(entry) for entry in view.nodes])
    room_x, room_y = ROOM
    area = [x - room_x, y - room_y, width + 2 * room_x, height + 2 * room_y, SCALE]
    page.evaluate(SHOW, area)
    page.wait_for_timeout(1500)
    shot = page.screenshot(clip=page.evaluate(SHOW, area))
    with Image.open(io.BytesIO(shot)) as image:
        picture = image.convert("RGB")
    if picture.width > WIDEST:
        picture = picture.resize((WIDEST, round(picture.height * WIDEST / picture.width)), Image.Resampling.LANCZOS)
    path = PICTURES / f"{name}.webp"
    picture.save(path, quality=QUALITY, method=6)
    print(f"{path.name}: {picture.width} x {picture.height}, {path.stat().st_size / 1e3:.0f} kB", flush=True)


def take_all(url: str, names: Sequence[str], chromium: str | None, run: bool) -> None:
    from playwright.sync_api import sync_playwright

    PICTURES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page = open_editor(browser, url)
        info = page.request.get(f"{url}/object_info").json()
        schemas = {name: compact(found) for name, found in info.items()}
        for graph in dict.fromkeys(SHOWN[name].graph for name in names):
            if graph in OWN:
                shown = form(graph, schemas)
            else:
                shown = json.loads((FOLDER / f"{graph}.json").read_text(encoding="utf-8"))
            wanted = [name for name in names if SHOWN[name].graph == graph]
            load(page, shown, [name for name in wanted if run and SHOWN[name].run])
            for name in wanted:
                take(page, name, SHOWN[name])
        browser.close()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", help="address of the running ComfyUI")
    parser.add_argument("names", nargs="*", help="node ids to show (default: all)")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser's program")
    parser.add_argument("--no-run", action="store_true", help="show the graphs as they are, without running any")
    options = parser.parse_args(arguments)
    take_all(options.server.rstrip("/"), options.names or list(SHOWN), options.chromium, not options.no_run)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
