"""Takes the images of the shipped workflows' graphs, as ComfyUI's editor shows them: `docs/workflows/<name>.jpg`.

    python tools/screenshot_workflows.py http://127.0.0.1:8188 [name …] [--run] [--chromium /usr/bin/chromium]

Needs Playwright for Python and a Chromium, and a running ComfyUI with this pack. With --run the workflow is run first,
from the editor itself, so that its images, chart and table are seen too.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER, GRAPHS = ROOT / "workflows", ROOT / "docs" / "workflows"
WIDTH = 3200
QUALITY = 80
PATIENCE = 120_000
"""Milliseconds to wait for the editor."""

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SETTINGS = """async () => {
    const settings = window.app.extensionManager.setting;
    await settings.set("Comfy.TutorialCompleted", true);
    await settings.set("LiteGraph.Canvas.MinFontSizeForLOD", 0);
}"""
"""No template browser on a first visit, and words on nodes however small they are."""

RUN = "async () => { await window.app.queuePrompt(0); }"
QUEUE = "async () => (await (await fetch('/queue')).json())"
LOAD = "async graph => { await window.app.loadGraphData(graph); }"
STYLE = "css => document.head.append(Object.assign(document.createElement('style'), {textContent: css}))"
ONLY_THE_GRAPH = """
    body * { visibility: hidden !important; }
    #graph-canvas, .dom-widget, .dom-widget * { visibility: visible !important; }
"""
FIT = """([x, y, width, height]) => {
    const view = window.app.canvas;
    const scale = Math.min(view.canvas.clientWidth / width, view.canvas.clientHeight / height);
    view.show_info = false;
    view.ds.scale = scale;
    view.ds.offset[0] = -x + (view.canvas.clientWidth / scale - width) / 2;
    view.ds.offset[1] = -y + (view.canvas.clientHeight / scale - height) / 2;
    view.setDirty(true, true);
}"""


def frame(graph: dict) -> tuple[int, int, int, int]:
    """Left, top, width and height of all groups, with a margin (pixels of the canvas)."""
    boxes = [group["bounding"] for group in graph["groups"]]
    left, top = min(b[0] for b in boxes) - 40, min(b[1] for b in boxes) - 40
    right, bottom = max(b[0] + b[2] for b in boxes) + 40, max(b[1] + b[3] for b in boxes) + 40
    return left, top, right - left, bottom - top


def take(url: str, names: Sequence[str], chromium: str, run: bool) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        for name in names:
            graph = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
            view = frame(graph)
            page = browser.new_page(viewport={"width": WIDTH, "height": round(WIDTH * view[3] / view[2])})
            for _ in range(2):  # the second visit has the settings of the first
                page.goto(url, timeout=PATIENCE)
                page.wait_for_function("() => window.app?.graph && window.app.extensionManager", timeout=PATIENCE)
                page.wait_for_timeout(3000)
                page.evaluate(SETTINGS)
            page.evaluate(LOAD, graph)
            if run:
                page.evaluate(RUN)
                while any(page.evaluate(QUEUE).values()):
                    page.wait_for_timeout(1000)
            page.evaluate(STYLE, ONLY_THE_GRAPH)
            page.wait_for_timeout(2000)
            page.evaluate(FIT, list(view))
            page.wait_for_timeout(3000)
            page.screenshot(path=GRAPHS / f"{name}.jpg", type="jpeg", quality=QUALITY)
            page.close()
            print(f"{name}.jpg: {(GRAPHS / f'{name}.jpg').stat().st_size / 1e3:.0f} kB")
        browser.close()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", help="address of the running ComfyUI")
    parser.add_argument("names", nargs="*", help="workflows to show (default: all)")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser's program")
    parser.add_argument("--run", action="store_true", help="run each workflow before its image is taken")
    options = parser.parse_args(arguments)
    names = options.names or sorted(path.stem for path in FOLDER.glob("*.json"))
    take(options.server, names, options.chromium, options.run)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
