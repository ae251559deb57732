"""Takes the images of the documents with a real browser.

    python tools/screenshots.py workflows http://127.0.0.1:8188 [name …] [--run]      docs/workflows/<name>.jpg
    python tools/screenshots.py help http://127.0.0.1:8188 [node id …] [--no-run]     web/docs/pictures/<node id>.webp
    python tools/screenshots.py survey                                                docs/survey-{phone,desktop}.png

`workflows` shows whole graphs in ComfyUI's editor. With --run each is run first, from the editor itself, so that its
images, chart and table are seen too. `help` shows each node with its wires, in a shipped workflow or in a small graph
of help_graphs.py; graphs on the mini world are run first, with --no-run none is. Both need a running ComfyUI with this
pack. `survey` shows the survey's page; its images are drawn by the mini world's renderer, not by a model.

Needs Playwright for Python and a Chromium; CHROMIUM_PATH names another than the system's.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import checkout
from browser import PHONE, chromium, open_page
from help_graphs import OWN, SHOWN, View, form
from PIL import Image
from survey_toys import image_sets
from thumbnails import GRAPHS, WORKFLOWS, frame, shipped
from workflow_form import compact

from comfy_scoft.survey.build import SurveySettings, build, save

HELP = checkout.ROOT / "web" / "docs" / "pictures"
GRAPH_WIDTH, GRAPH_QUALITY = 3200, 80
HELP_WINDOW = {"width": 2000, "height": 2400}
"""Large enough for the tallest node."""
HELP_SCALE, HELP_WIDEST, HELP_QUALITY = 1.5, 900, 82
"""Pixels of the image per pixel of the graph; pixels of an image at most, as the help panel is narrower."""
HELP_MARGINS = (44, 26)
"""Left and right, above and below a node (pixels of the graph): its wires are seen, its neighbors are not."""
PATIENCE = 120_000
"""Milliseconds to wait for the editor."""
SURVEY = SurveySettings(
    pages=4, attention_checks=0, seed=2, quality=95, culture="Nuvia", title="How do these images show Nuvia?"
)
BEST_FIRST = (1, 2, 3, 0)
"""Order of the sets in survey_toys.LOOKS: those in nuvia's own palette, then the others."""
SURVEY_VIEWS: dict[str, dict[str, Any]] = {
    "survey-phone": {**PHONE, "viewport": {"width": 360, "height": 780}, "device_scale_factor": 1.25},
    "survey-desktop": {"viewport": {"width": 960, "height": 716}},
}

SETTINGS = """async () => {
    const settings = window.app.extensionManager.setting;
    await settings.set("Comfy.TutorialCompleted", true);
    await settings.set("LiteGraph.Canvas.MinFontSizeForLOD", 0);
}"""
"""No template browser on a first visit, and text on nodes at any zoom."""
LOAD = "async graph => { await window.app.loadGraphData(graph); }"
RUN = """async kinds => {
    const nodes = window.app.graph.nodes.filter(node => kinds.includes(node.type));
    const ends = nodes.length && nodes.every(node => node.constructor.nodeData?.output_node);
    await window.app.queuePrompt(0, 1, ends ? nodes.map(node => String(node.id)) : undefined);
}"""
"""Runs the whole graph, or only what these kinds of nodes need where all of them are output nodes."""
QUEUE = "async () => (await (await fetch('/queue')).json())"
STYLE = "css => document.head.append(Object.assign(document.createElement('style'), {textContent: css}))"
ONLY_THE_GRAPH = """
    body * { visibility: hidden !important; }
    #graph-canvas, .dom-widget, .dom-widget * { visibility: visible !important; }
"""
BOX = """views => {
    const boxes = views.map(([kind, title]) => {
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
SHOW = """([x, y, width, height, scale]) => {
    const view = window.app.canvas;
    scale ??= Math.min(view.canvas.clientWidth / width, view.canvas.clientHeight / height);
    view.show_info = false;
    view.deselectAll();
    view.ds.scale = scale;
    view.ds.offset[0] = -x;
    view.ds.offset[1] = -y;
    view.setDirty(true, true);
    const at = view.canvas.getBoundingClientRect();
    return {x: at.left, y: at.top, width: width * scale, height: height * scale};
}"""
"""Shows a part of the graph, as large as the window allows where no scale is given; returns where it is on the page."""


def open_editor(browser: Any, url: str, window: dict[str, int]) -> Any:
    """A page with ComfyUI's editor."""
    page = browser.new_page(viewport=window)
    for _ in range(2):  # the second visit has the settings of the first
        page.goto(url, timeout=PATIENCE)
        page.wait_for_function("() => window.app?.graph && window.app.extensionManager", timeout=PATIENCE)
        page.wait_for_timeout(3000)
        page.evaluate(SETTINGS)
    return page


def load(page: Any, graph: dict[str, Any], run: Sequence[str] | None) -> None:
    """Show a graph in the editor. run: kinds of nodes to run it for, empty for all; None does not run it."""
    page.evaluate(LOAD, graph)
    page.wait_for_timeout(2000)
    if run is not None:
        page.evaluate(RUN, list(run))
        page.wait_for_timeout(2000)
        while any(page.evaluate(QUEUE).values()):
            page.wait_for_timeout(1000)
        page.wait_for_timeout(2000)
    page.evaluate(STYLE, ONLY_THE_GRAPH)


def take_workflows(url: str, names: Sequence[str], *, run: bool) -> None:
    with chromium() as browser:
        for name in names or sorted(path.stem for path in WORKFLOWS.glob("*.json")):
            graph = shipped(name)
            area = frame(graph)
            page = open_editor(browser, url, {"width": GRAPH_WIDTH, "height": round(GRAPH_WIDTH * area[3] / area[2])})
            load(page, graph, [] if run else None)
            page.evaluate(SHOW, [*area, None])
            page.wait_for_timeout(3000)
            path = GRAPHS / f"{name}.jpg"
            page.screenshot(path=path, type="jpeg", quality=GRAPH_QUALITY)
            page.close()
            report(path)


def take_help(url: str, names: Sequence[str], *, run: bool) -> None:
    names = names or list(SHOWN)
    HELP.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        page = open_editor(browser, url, HELP_WINDOW)
        schemas = {name: compact(info) for name, info in page.request.get(f"{url}/object_info").json().items()}
        for graph in dict.fromkeys(SHOWN[name].graph for name in names):
            here = [name for name in names if SHOWN[name].graph == graph]
            wanted = [name for name in here if run and SHOWN[name].run]
            load(page, form(graph, schemas) if graph in OWN else shipped(graph), wanted or None)
            for name in here:
                take_node(page, name, SHOWN[name])


def take_node(page: Any, name: str, view: View) -> None:
    """The image of one node, cut out with its wires."""
    (x, y, width, height), (beside, above) = page.evaluate(BOX, [list(entry) for entry in view.nodes]), HELP_MARGINS
    area = [x - beside, y - above, width + 2 * beside, height + 2 * above, HELP_SCALE]
    page.evaluate(SHOW, area)
    page.wait_for_timeout(1500)
    image = opened(page.screenshot(clip=page.evaluate(SHOW, area)))
    if image.width > HELP_WIDEST:
        size = (HELP_WIDEST, round(image.height * HELP_WIDEST / image.width))
        image = image.resize(size, Image.Resampling.LANCZOS)
    path = HELP / f"{name}.webp"
    image.save(path, quality=HELP_QUALITY, method=6)
    report(path)


def take_survey() -> None:
    """The second question of the first page, with two images ranked: those in nuvia's own colors."""
    survey, html = build(image_sets(4), SURVEY)
    order = {page.prompt: [page.images[k] for k in BEST_FIRST] for page in survey.pages}
    with tempfile.TemporaryDirectory() as folder:
        url = save(survey, html, Path(folder)).as_uri()
        for name, view in SURVEY_VIEWS.items():
            with open_page(**view) as page:
                page.goto(url)
                page.check("#agree")
                page.fill("#country", "Nuvia")
                page.click(".start .main")
                best = order[page.locator(".prompt").text_content() or ""]
                for count in (3, 2):
                    for image in best[:count]:
                        page.click(f'[data-image="{image}"] button:first-of-type')
                    if count == 3:
                        page.click(".onward .main")
                page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
                page.wait_for_timeout(500)
                path = checkout.ROOT / "docs" / f"{name}.png"
                opened(page.screenshot()).save(path, optimize=True)
                report(path)


def opened(shot: bytes) -> Image.Image:
    with Image.open(io.BytesIO(shot)) as image:
        return image.convert("RGB")


def report(path: Path) -> None:
    print(f"{path.relative_to(checkout.ROOT)}: {path.stat().st_size / 1e3:.0f} kB", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("survey")
    for command in ("workflows", "help"):
        editor = commands.add_parser(command)
        editor.add_argument("server", help="address of the running ComfyUI")
        editor.add_argument("names", nargs="*", help="what to show (default: all)")
        editor.add_argument("--run", action=argparse.BooleanOptionalAction, default=command == "help")
    options = parser.parse_args(arguments)
    if options.command == "survey":
        take_survey()
    else:
        take = take_workflows if options.command == "workflows" else take_help
        take(options.server.rstrip("/"), options.names, run=options.run)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
