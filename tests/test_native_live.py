"""The chart on Train LoRA in ComfyUI's page, with events as the server sends them: points 29 and 30 of what is native.

Point 31, metrics that survive a closed browser, needs a run: test_page_run.py.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy_inprocess
import pytest
from comfy_page import ComfyPage, opened, up_to, workflow
from comfy_server import ComfyServer
from playwright.sync_api import Browser, expect

comfy_inprocess.start()

from comfy_scoft.comfyui import live_chart  # noqa: E402  (needs a started ComfyUI)

NODE = "SCoFT_TrainLora"
LINES, WORDS = 3.0, 4.5
"""Contrast that lines and words need (WCAG 2, levels AA)."""
NAMES = ("diffusion", "memorization", "perceptual", "contrastive")
LOOKS = [(renderer, theme) for renderer in ("canvas", "vue") for theme in ("dark", "light")]
COLORS = """place => {
    const all = [...place.querySelectorAll('.trend')], style = getComputedStyle(place);
    return { behind: style.backgroundColor, words: style.color, lines: all.map(line => getComputedStyle(line).stroke) };
}"""


@pytest.fixture(scope="module")
def editor(comfy: ComfyServer, chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyPage]:
    with opened(chromium, comfy, tmp_path_factory.mktemp("pages")) as found:
        yield found


BOX = """() => {
    const box = document.querySelector(".scoft-training")?.getBoundingClientRect();
    return box && box.width > 150 && box.height > 80 && box.height < 250;
}"""
WIDGETS = "() => app.graph.nodes.filter(node => node.widgets?.some(widget => widget.name === 'scoft_training')).length"


def begin(editor: ComfyPage, name: str, renderer: str = "canvas", theme: str = "dark") -> None:
    """Open the graph of that name and look at Train LoRA; the chart of the test before is gone."""
    editor.settings(renderer, theme)
    editor.load(graph(name))
    expect(editor.chart).to_have_count(0)
    editor.look_at(editor.node(NODE))


def settled(editor: ComfyPage) -> dict:
    """What would be saved, when nodes have the size that what is on them needs."""
    before, found = None, editor.graph()
    while before != found:
        editor.drawn()
        before, found = found, editor.graph()
    return found


def graph(name: str) -> dict:
    """Train LoRA alone with what it needs, with an identity of its own, so that no other test's run is found."""
    return {**up_to(workflow(), NODE), "id": str(uuid.uuid5(uuid.NAMESPACE_OID, name))}


def told(name: str, step: int, state: str = "running", steps: int = 300, **more: Any) -> dict[str, Any]:
    """What the server sends to that graph after so many steps, made as the server makes it."""
    run = live_chart.LiveChart("nuvia", steps, NAMES, "19", graph(name)["id"])
    for done in range(1, step + 1):
        row = {name: (i + 1) * 0.1 / math.sqrt(done) + 0.01 * (done * 7 % 5) for i, name in enumerate(NAMES)}
        run.add({"step": done, **row} | ({"validation": 0.3 - done / 2000} if done % 50 == 0 else {}))
    return {"node": run.node, "workflow": run.workflow, **run.data(state), **more}


def contrast(one: str, two: str) -> float:
    """Ratio of two colors "rgb(r, g, b)" (WCAG 2, relative luminance)."""

    def light(color: str) -> float:
        parts = [int(float(part)) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((light(one), light(two)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_contrast_is_computed_right() -> None:
    assert contrast("rgb(255, 255, 255)", "rgb(0, 0, 0)") == pytest.approx(21.0)
    assert contrast("rgb(119, 119, 119)", "rgb(255, 255, 255)") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize(
    "renderer, theme", [LOOKS[0], *(pytest.param(*look, marks=pytest.mark.long) for look in LOOKS[1:])]
)
def test_the_chart_is_seen_in_both_renderers_and_in_both_themes(editor: ComfyPage, renderer: str, theme: str) -> None:
    """Native 30."""
    name = f"{renderer}-{theme}"
    begin(editor, name, renderer, theme)
    editor.dispatch(live_chart.EVENT, told(name, 2))
    editor.charted("nuvia", "running", 2)
    editor.dispatch(live_chart.EVENT, told(name, 200))
    editor.charted("nuvia", "running", 200)
    editor.chart.locator("polyline.trend").nth(4).wait_for(state="attached")
    editor.page.wait_for_function(BOX)
    expect(editor.chart.locator("th")).to_have_text([*NAMES, "validation"])
    colors = editor.chart.evaluate(COLORS)
    assert min(contrast(line, colors["behind"]) for line in colors["lines"]) >= LINES, colors
    assert contrast(colors["words"], colors["behind"]) >= WORDS, colors
    assert len(set(colors["lines"])) == 5
    editor.shot(f"chart-{name}")


@pytest.mark.parametrize("renderer", ["canvas", "vue"])
@pytest.mark.long
def test_a_workflow_is_saved_and_queued_as_if_there_were_no_chart(editor: ComfyPage, renderer: str) -> None:
    begin(editor, f"saved-{renderer}", renderer)
    before, prompt = settled(editor), editor.prompt()
    editor.dispatch(live_chart.EVENT, told(f"saved-{renderer}", 200))
    editor.charted("nuvia", "running", 200)
    after = settled(editor)
    if renderer == "vue":  # these nodes are as tall as what is on them, and may be
        for node in (*before["nodes"], *after["nodes"]):
            node.pop("size")
    assert json.dumps(after) == json.dumps(before) and editor.prompt() == prompt
    editor.chart.evaluate("place => { place.dataset.run = 'that of before' }")
    editor.load(after)
    editor.charted("nuvia", "running", 200)
    assert editor.graph()["nodes"][-1].get("widgets_values") == after["nodes"][-1].get("widgets_values")


def test_the_last_picture_of_a_run_comes_with_the_nodes_output(editor: ComfyPage) -> None:
    begin(editor, "kept")
    kept = live_chart.of_rows("kept", NAMES, [{"step": 1, "diffusion": 0.5}], 1)
    editor.dispatch("executed", {"node": "19", "output": {live_chart.OUTPUT: [kept]}, "prompt_id": "x"})
    editor.charted("kept", "done", 1)
    expect(editor.chart.locator("caption")).to_have_text("kept · step 1 of 1 · done")


def test_a_chart_is_read_out_as_a_table_with_words_for_each_line(editor: ComfyPage) -> None:
    begin(editor, "read out")
    editor.dispatch(live_chart.EVENT, told("read out", 10, "stopped"))
    editor.charted("nuvia", "stopped")
    group = editor.page.get_by_role("group", name="Training losses of nuvia")
    group.get_by_role("table", name="nuvia · step 10 of 300 · stopped").wait_for()
    expect(group.get_by_role("rowheader")).to_have_text(list(NAMES))
    values = told("read out", 10)["curves"][0]["values"]
    label = f"diffusion: from {values[0]:#.3g} to {values[-1]:#.3g}, lowest {min(values):#.3g}"
    expect(group.get_by_role("img").first).to_have_attribute("aria-label", label)


def test_other_graphs_and_other_nodes_are_left_alone(editor: ComfyPage) -> None:
    begin(editor, "another")
    editor.dispatch(live_chart.EVENT, told("first", 10))
    editor.dispatch(live_chart.EVENT, told("another", 10, node="2"))
    editor.dispatch(live_chart.EVENT, told("another", 10, node="99"))
    assert editor.page.evaluate(WIDGETS) == 0
    editor.load(graph("first"))  # it shows what was told of it as soon as it is opened
    editor.charted("nuvia", "running", 10)
    assert editor.page.evaluate(WIDGETS) == 1


def test_nothing_on_the_chart_is_animated(editor: ComfyPage) -> None:
    """So that who asked for less motion need not ask here."""
    begin(editor, "still")
    for step in (10, 20):
        editor.dispatch(live_chart.EVENT, told("still", step))
        editor.charted("nuvia", "running", step)
        assert editor.chart.evaluate("place => place.getAnimations({ subtree: true }).length") == 0


@pytest.mark.long
def test_the_words_are_those_of_the_pages_language(comfy: ComfyServer, chromium: Browser, tmp_path: Path) -> None:
    """In a page of its own: one whose language changes loads its workflow again, some time later."""
    with opened(chromium, comfy, tmp_path, language="es") as editor:
        begin(editor, "es")
        editor.dispatch(live_chart.EVENT, told("es", 60, "done"))
        editor.charted("nuvia", "done", 60)
        expect(editor.chart.locator("caption")).to_have_text("nuvia · paso 60 de 300 · terminado")
        expect(editor.chart.locator("th").last).to_have_text("validación")


def test_the_script_takes_nothing_but_the_editor_and_its_api() -> None:
    text = (Path(__file__).parent.parent / "web" / "training.js").read_text(encoding="utf-8")
    imports = [line for line in text.splitlines() if line.startswith("import ") or "import(" in line]
    assert imports == [
        'import { app } from "../../scripts/app.js";',
        'import { api } from "../../scripts/api.js";',
        'import { find, isOpen, ownerOf, SWITCHED, whole } from "./tabs.js";',
    ]
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
