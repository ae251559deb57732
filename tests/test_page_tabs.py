"""What a run shows belongs to the workflow that was queued, in the tab that queued it, whichever tab is open then."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import build_workflows
import comfy_inprocess
import pytest
import workflow_survey
from comfy_page import MINI, ComfyPage, opened, up_to
from comfy_server import ComfyServer
from playwright.sync_api import Browser, expect
from workflow_form import Workflow

comfy_inprocess.start()

from comfy_scoft.comfyui import live_chart  # noqa: E402  (needs a started ComfyUI)

NODE = "SCoFT_TrainLora"
TO_TAB = """async number => {
    const tab = app.extensionManager.workflow.openWorkflows.at(number);
    await app.loadGraphData(JSON.parse(JSON.stringify(tab.activeState)), true, true, tab);
}"""
"""What the page does when somebody clicks on a tab."""
TEXTS = "() => [...document.querySelectorAll('.scoft-text')].map(each => each.textContent).filter(Boolean)"
PICTURES = "kind => app.graph.nodes.find(n => n.type === kind).imgs?.length ?? 0"


@pytest.fixture
def editor(comfy: ComfyServer, chromium: Browser, tmp_path: Path) -> Iterator[ComfyPage]:
    with opened(chromium, comfy, tmp_path) as found:
        yield found


def shipped() -> dict[str, Any]:
    """Train LoRA of the shipped workflow alone with what it needs."""
    return up_to(json.loads(MINI.read_text(encoding="utf-8")), NODE)


def survey() -> dict[str, Any]:
    """The second half of the survey workflow: answers to findings and plots, in seconds."""
    workflow = Workflow("survey", json.loads(build_workflows.SCHEMAS.read_text(encoding="utf-8")))
    workflow_survey.answers(workflow)
    return workflow.ui()


def told(editor: ComfyPage, **place: Any) -> dict[str, Any]:
    run = live_chart.LiveChart("nuvia", 3, ["diffusion"])
    run.add({"step": 1, "diffusion": 0.5})
    return {"node": editor.node(NODE), **place, **run.data("running")}


def graph_id(editor: ComfyPage) -> str:
    return str(editor.page.evaluate("() => app.graph.id"))


@pytest.mark.long
@pytest.mark.parametrize("renderer", ["canvas", "vue"])
def test_a_fresh_copy_of_a_shipped_workflow_shows_no_run_of_another(editor: ComfyPage, renderer: str) -> None:
    assert "id" not in shipped()
    editor.settings(renderer, "dark")
    editor.load(shipped())
    first = graph_id(editor)
    editor.dispatch(live_chart.EVENT, told(editor, workflow=first))
    editor.look_at(editor.node(NODE))
    editor.charted("nuvia", "running", 1)
    editor.load(shipped())
    editor.look_at(editor.node(NODE))
    assert graph_id(editor) != first
    editor.dispatch(live_chart.EVENT, told(editor, workflow=first))
    editor.drawn()
    expect(editor.chart).to_have_count(0)
    editor.page.evaluate(TO_TAB, -2)
    assert graph_id(editor) == first
    editor.charted("nuvia", "running", 1)


@pytest.mark.long
@pytest.mark.parametrize("renderer", ["canvas", "vue"])
def test_texts_and_previews_of_nodes_that_ended_in_another_tab_are_there_when_it_is_opened(
    editor: ComfyPage, renderer: str
) -> None:
    editor.settings(renderer, "dark")
    editor.load(survey())
    kinds = [f"SCoFT_{name}Survey" for name in ("Aggregate", "Plot")]
    editor.run()
    editor.page.wait_for_function("() => app.extensionManager.workflow.activeWorkflow")
    editor.load(survey())  # another tab with the same nodes, before the first has ended
    editor.idle()
    editor.drawn()
    assert editor.page.evaluate(TEXTS) == [], "they are not this tab's"
    editor.page.evaluate(TO_TAB, -2)
    editor.page.wait_for_function(f"() => ({TEXTS})().length === 3")
    editor.look_at(editor.node(kinds[1]))
    if renderer == "canvas":
        editor.page.wait_for_function(f"kind => ({PICTURES})(kind) === 4", arg=kinds[1])
    else:
        expect(editor.page.locator("img[src*='/view']").first).to_be_visible()
    editor.shot(f"tabs-{renderer}")
    editor.page.evaluate(TO_TAB, -1)
    editor.drawn()
    assert editor.page.evaluate(TEXTS) == []
    editor.page.evaluate(TO_TAB, -2)
    editor.page.wait_for_function(f"() => ({TEXTS})().length === 3")


@pytest.mark.long
def test_a_name_with_a_date_and_a_nodes_value_is_filled_in_when_it_is_queued(editor: ComfyPage) -> None:
    editor.load(shipped())
    editor.change(SCoFT_TrainLora={"run_name": "%date:yyyy%/kora %SCoFT_TrainLora.seed%"})
    (given,) = [node["inputs"] for node in editor.prompt().values() if node["class_type"] == NODE]
    year = editor.page.evaluate("() => new Date().getFullYear()")
    assert given["run_name"] == f"{year}/kora 1024"
    assert editor.graph()["nodes"][-1]["widgets_values"][6] == "%date:yyyy%/kora %SCoFT_TrainLora.seed%"
