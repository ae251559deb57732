"""The nodes that build a survey, load its answers, aggregate and plot them, in a real ComfyUI's folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import build_workflows
import pytest
import torch
import workflow_survey
from comfy_page import WORKFLOWS, opened, up_to, workflow
from comfy_server import ComfyServer
from node_datasets import empty_folders
from playwright.sync_api import Browser, expect
from survey_pages import UNANSWERED, badged
from survey_toys import LABELS, data_of, image_sets
from workflow_form import Workflow, compact

from comfy_scoft.comfyui.nodes import survey as nodes_survey
from comfy_scoft.comfyui.nodes.survey import EXAMPLE, SHIPPED, AggregateSurvey, BuildSurvey, LoadResponses, PlotSurvey
from comfy_scoft.reports.plots import score_table
from comfy_scoft.survey.build import SurveySettings, build, save

REPORT = {
    "1": {"class_type": "SCoFT_LoadResponses", "inputs": {"folder": SHIPPED}},
    "2": {"class_type": "SCoFT_PlotSurvey", "inputs": {"survey": ["1", 0]}},
}


@pytest.fixture(autouse=True)
def comfy_folders(tmp_path, monkeypatch) -> Path:
    return empty_folders(tmp_path, monkeypatch)


def test_the_menu_lists_the_example_and_folders_that_hold_answers(comfy_folders):
    shutil.copytree(EXAMPLE, comfy_folders / "input/survey/answers")
    other = comfy_folders / "input/workflows"
    other.mkdir()
    (other / "a.json").write_text('{"nodes": []}', encoding="utf-8")
    assert nodes_survey.answer_folders() == [SHIPPED, "survey/answers"]
    assert LoadResponses.INPUT_TYPES()["required"]["folder"][1]["options"] == [SHIPPED, "survey/answers"]


@pytest.mark.parametrize("name", ["../x", "/etc", "nowhere", "a\0b"])
def test_folders_outside_the_menu_are_refused(name):
    assert LoadResponses.validate_inputs(folder=name) is not True
    with pytest.raises(ValueError, match="."):
        LoadResponses.execute(name)


@pytest.mark.long
def test_from_the_shipped_answers_to_scores_pictures_and_the_report_page(comfy_folders):
    survey, report = LoadResponses.execute(SHIPPED).args
    assert report.startswith("24 answer files read: 24 participants used")
    scores, findings = AggregateSurvey.execute(survey).args
    assert "Consensus of all (MMSR + Vote): SCoFT+MPC > SCoFT+MP > SCoFT+M > Stable Diffusion." in findings
    assert score_table(scores.rows).shape[2] == 3
    *images, path = PlotSurvey.execute(survey).args
    assert len(images) == 4 and all(image.ndim == 4 and image.shape[0] == 1 for image in images)
    page = Path(path)
    assert page.parent == comfy_folders / "output/scoft/surveys" and page.name.endswith(".report.html")
    assert page.read_text(encoding="utf-8").count("<img ") == 4
    assert PlotSurvey.execute(survey).args[-1] == path  # the same survey has one report


def test_answers_without_their_key_use_the_one_that_build_survey_wrote(comfy_folders):
    folder = comfy_folders / "input/answers"
    shutil.copytree(EXAMPLE, folder)
    (folder / "synthetic.survey.json").unlink()
    with pytest.raises(ValueError, match="No key file fits the answers in 'answers'"):
        LoadResponses.execute("answers")
    (comfy_folders / "output/scoft/surveys").mkdir(parents=True)
    shutil.copy(EXAMPLE / "synthetic.survey.json", comfy_folders / "output/scoft/surveys")
    assert len(LoadResponses.execute("answers").args[0].responses) == 24


def test_a_new_answer_file_makes_the_node_run_again(comfy_folders):
    folder = comfy_folders / "input/answers"
    shutil.copytree(EXAMPLE, folder)
    before = LoadResponses.fingerprint_inputs(folder="answers")
    data = json.loads((folder / "synthetic-01.json").read_text(encoding="utf-8"))
    (folder / "new.json").write_text(json.dumps(data), encoding="utf-8")
    assert LoadResponses.fingerprint_inputs(folder="answers") != before
    assert "1 a participant's second file" in LoadResponses.execute("answers").args[1]


def test_the_node_writes_the_page_and_its_key_under_comfyuis_output(comfy_folders):
    widgets = compact(BuildSurvey.GET_NODE_INFO_V1())["inputs"]
    given = {name: entry["default"] for name, entry in widgets.items() if entry["widget"]}
    first, second, third = image_sets()
    with torch.inference_mode():
        answer = BuildSurvey.execute(first, second, **{**given, "pages": 2, "set_4": third})
    survey, path = answer.args
    assert Path(path) == comfy_folders / "output/scoft/surveys" / "how-do-these-pictures-show-your-culture.html"
    assert survey.generators == LABELS[:3] and len(survey.pages) == 3
    assert answer.ui["text"][0].startswith("output/scoft/surveys/how-do-these-pictures-show-your-culture.html\n")
    assert answer.ui["page"] == ({"filename": Path(path).name, "subfolder": "scoft/surveys", "type": "output"},)
    assert data_of(Path(path).read_bytes())["id"] == survey.id
    assert given == {name: getattr(SurveySettings(), name) for name in given}


@pytest.mark.long
def test_from_answers_to_figures_in_a_running_comfyui(comfy: ComfyServer):
    """The second half of the survey workflow, as it is shipped, over HTTP."""
    workflow = Workflow("survey", json.loads(build_workflows.SCHEMAS.read_text(encoding="utf-8")))
    workflow_survey.answers(workflow)
    prompt = workflow.api()
    outputs = comfy.client.run(prompt, timeout=300)["outputs"]
    by_kind = {prompt[number]["class_type"]: shown for number, shown in outputs.items()}
    assert "24 participants used" in by_kind["SCoFT_LoadResponses"]["text"][0]
    assert "SCoFT+MPC > SCoFT+MP > SCoFT+M > Stable Diffusion" in by_kind["SCoFT_AggregateSurvey"]["text"][0]
    assert len(by_kind["SCoFT_PlotSurvey"]["images"]) == 4
    path, answered = by_kind["SCoFT_PlotSurvey"]["text"][0].split("\n")
    assert path.startswith("output/scoft/surveys/") and (comfy.base / path).is_file()
    assert answered.startswith("24 people answered: ") and "People preferred the images of SCoFT+MPC to " in answered
    (page,) = by_kind["SCoFT_PlotSurvey"]["page"]
    with urlopen(f"{comfy.url}/view?{urlencode(page)}") as served:  # noqa: S310
        assert served.read() == (comfy.base / path).read_bytes()


@pytest.mark.long
def test_links_on_the_nodes_open_the_survey_and_the_report(
    comfy: ComfyServer, chromium: Browser, tmp_path: Path
) -> None:
    graph = up_to(workflow(WORKFLOWS / "survey.json"), "SCoFT_PlotSurvey", "SCoFT_BuildSurvey")
    survey, html = build(image_sets(2), SurveySettings(title="Which are right?", pages=1, attention_checks=0))
    path = save(survey, html, comfy.base / "output/scoft/surveys")
    view = {"filename": path.name, "subfolder": "scoft/surveys", "type": "output"}
    with opened(chromium, comfy, tmp_path) as editor:
        editor.load(graph)
        shown = comfy.client.run(REPORT, timeout=300)["outputs"]
        plotted = next(output for output in shown.values() if "page" in output)
        for kind, output in (("SCoFT_BuildSurvey", {"text": ["x"], "page": [view]}), ("SCoFT_PlotSurvey", plotted)):
            node = editor.node(kind)
            editor.look_at(node)
            editor.dispatch("executed", {"node": str(node), "display_node": str(node), "output": output})
            link = editor.page.get_by_role("link", name=f"Open {output['page'][0]['filename']}")
            editor.shot(f"link-{kind}")
            with editor.page.context.expect_page() as opening:
                link.click()
            page = opening.value
            if kind == "SCoFT_PlotSurvey":
                expect(page.locator(".result")).to_contain_text("People preferred the images of SCoFT+MPC")
                continue
            expect(page.locator("h1")).to_have_text("Which are right?")
            page.check("#agree")
            page.fill("#country", "Nuvia")
            page.click(".start .main")
            page.locator(UNANSWERED).first.click()
            page.reload()
            badged(page, ["1", "2"], "answers are kept there too")
