"""Training from ComfyUI's own page: a run is started, watched, left, found again, stopped, and refused with a sentence.

Each run is small; what is asked here does not depend on how long it takes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from comfy_page import PATIENCE, RUN, ComfyPage, opened, up_to, workflow
from comfy_server import ComfyServer
from playwright.sync_api import Browser, expect

from comfy_scoft.training import checkpoint
from comfy_scoft.training import run_folder as runs

pytestmark = pytest.mark.long

NODE = "SCoFT_TrainLora"
SMALL = {
    "SCoFT_LoadDataset": {"limit": 4},
    "SCoFT_MakeNegatives": {"per_image": 2, "steps": 2},
    "SCoFT_RolloutOptions": {"every": 4, "steps": 2},
    "SCoFT_LoraOptions": {"rank": 2, "alpha": 2.0},
    "SCoFT_GenerateSet": {"steps": 2, "images_per_prompt": 1},
    "PrimitiveStringMultiline": {"value": "a cook in nuvia\na hero in borea\na judge"},
}
WATCHED = {"batch_size": 2, "validate_every": 5, "preview_every": 5}
ENDLESS = 5_000
"""Steps of a run that is stopped."""
SCRIPT = "**/extensions/comfy_scoft/**"
TEXT = "id => app.graph.getNodeById(id).widgets.find(w => w.name === '$$node-text-preview')?.value ?? ''"
PICTURES = "id => (app.graph.getNodeById(id).imgs ?? []).filter(image => image.src.includes('/view')).length"
LORAS = "id => app.graph.getNodeById(id).widgets.find(w => w.name === 'lora_name').options.values"


@pytest.fixture
def editor(comfy: ComfyServer, chromium: Browser, tmp_path: Path) -> Iterator[ComfyPage]:
    with opened(chromium, comfy, tmp_path) as found:
        yield found


def prepare(editor: ComfyPage, run: str, whole: bool = False, **changes: object) -> int:
    """Open workflow 1, or as much of it as training needs, make it small, and look at Train LoRA: its id."""
    editor.load(workflow() if whole else up_to(workflow(), NODE))
    training = {**WATCHED, "run_name": run, **changes}
    editor.change(**SMALL, SCoFT_TrainLora=training, SCoFT_SaveLora={"filename_prefix": run})
    node = editor.node(NODE)
    editor.look_at(node)
    return node


def stop(editor: ComfyPage) -> None:
    """Cancel the run: by the button, or by the keys where it is off, as on newer pages that were loaded again."""
    button = editor.page.get_by_role("button", name="Cancel current run")
    if button.is_enabled():
        button.click()
    else:
        editor.page.keyboard.press("Control+Alt+Enter")


def fails(editor: ComfyPage, sentence: str) -> None:
    """Wait until the page says why a run failed; newer pages say first that it did, and more to who asks."""
    told, more = editor.page.get_by_text(sentence).first, editor.page.get_by_role("button", name="View details")
    expect(told.or_(more).first).to_be_visible(timeout=PATIENCE)
    if more.is_visible():
        more.click()
    told.wait_for()


def rows(server: ComfyServer, run: str) -> list[dict[str, float]]:
    """The run's figures, one row a step."""
    return [row for row in runs.read_metrics(folder(server, run)) if "validation" not in row]


def folder(server: ComfyServer, run: str) -> Path:
    return server.base / "output" / "scoft" / "runs" / run


def test_workflow_1_trains_from_the_page_and_its_lora_is_listed_without_a_restart(editor: ComfyPage) -> None:
    node = prepare(editor, "page-whole", whole=True, steps=24)
    editor.run()
    editor.charted("page-whole", "done", 24)
    editor.page.wait_for_function(f"id => ({TEXT})(id).startsWith('page-whole: 24 steps done.')", arg=node)
    editor.idle()
    assert len(rows(editor.server, "page-whole")) == 24
    editor.page.wait_for_function(f"id => ({PICTURES})(id) === 1", arg=node)
    editor.shot("run-whole-done")
    editor.clear()
    with editor.page.expect_response("**/object_info"):
        editor.page.keyboard.press("r")  # what a person presses to see new files
    loader = editor.add("Load LoRA", (700, 400))
    editor.page.wait_for_function(f"id => ({LORAS})(id).includes('page-whole_00001.safetensors')", arg=loader)
    editor.change(LoraLoader={"lora_name": "page-whole_00001.safetensors"})
    editor.shot("lora-listed")


def test_a_loss_node_that_is_passed_by_is_the_ablation(editor: ComfyPage) -> None:
    prepare(editor, "page-ablation", steps=4)
    loss = editor.node("SCoFT_MemorizationLoss")
    editor.look_at(loss)
    editor.pass_by(loss)
    editor.shot("ablation-passed-by")
    editor.run()
    editor.charted("page-ablation", "done", 4)
    editor.idle()
    found = rows(editor.server, "page-ablation")
    assert len(found) == 4 and all("diffusion" in row and "memorization" not in row for row in found)
    assert any("contrastive" in row for row in found)
    expect(editor.chart.locator("th")).to_have_text(["diffusion", "contrastive", "validation"])


def test_a_page_that_is_loaded_again_shows_the_run_from_its_beginning_and_can_stop_it(editor: ComfyPage) -> None:
    node = prepare(editor, "page-endless", steps=ENDLESS)
    editor.run()
    editor.charted("page-endless", "running", 6)
    editor.page.wait_for_function(f"id => ({TEXT})(id).startsWith('page-endless: step ')", arg=node)
    editor.shot("run-endless")
    editor.page.reload()
    editor.ready()
    editor.charted("page-endless", "running", 7)
    editor.look_at(editor.node(NODE))
    first = editor.chart.locator("polyline").first.get_attribute("points") or ""
    assert len(first.split()) >= 7, "a point for each step, those from before the page was loaded too"
    editor.shot("run-reloaded")
    editor.settings("vue", "light")
    editor.charted("page-endless", "running", 8)
    editor.shot("run-reloaded-vue")
    stop(editor)
    editor.charted("page-endless", "stopped")
    editor.idle()
    editor.shot("run-stopped")
    done = len(rows(editor.server, "page-endless"))
    assert 7 <= done < ENDLESS
    assert checkpoint.newest_step(folder(editor.server, "page-endless")) == done, "what was learned is kept"
    sentence = f"Stopped at step {done} and saved. Set resume to latest to go on."
    expect(editor.chart.locator("p")).to_have_text(sentence)
    shown = editor.page.evaluate(f"id => ({TEXT})(id)", node)
    assert shown in ("", sentence), "newer pages take the line away, none keeps the time that was left"


def test_a_run_goes_on_when_its_browser_is_closed(comfy: ComfyServer, chromium: Browser, tmp_path: Path) -> None:
    with opened(chromium, comfy, tmp_path) as editor:
        prepare(editor, "page-alone", steps=ENDLESS)
        editor.run()
        editor.charted("page-alone", "running")
    done, end = len(rows(comfy, "page-alone")), time.monotonic() + RUN
    while len(rows(comfy, "page-alone")) < done + 5:
        assert time.monotonic() < end and comfy.client.running(), comfy.tail()
        time.sleep(0.2)


def test_the_figures_of_a_run_survive_a_browser_that_is_closed(
    comfy: ComfyServer, chromium: Browser, tmp_path: Path
) -> None:
    """Native 31."""
    with opened(chromium, comfy, tmp_path) as first:
        prepare(first, "page-closed", steps=16)
        first.run()
        first.charted("page-closed")
    with opened(chromium, comfy, tmp_path) as second:
        second.idle()
        found = rows(comfy, "page-closed")
        assert [row["step"] for row in found] == list(range(1, 17))
        second.load(up_to(workflow(), NODE))
        second.charted("page-closed", "done", 16)
        second.look_at(second.node(NODE))
        last = second.chart.locator("tr").first.locator("td").last.inner_text()
        assert float(last) == pytest.approx(found[-1]["diffusion"], rel=0.01)
        second.shot("run-found-again")


def test_without_its_script_the_page_has_the_chart_as_a_picture(
    comfy: ComfyServer, chromium: Browser, tmp_path: Path
) -> None:
    """Native 30. With previews, ComfyUI's canvas keeps the last of them; the image is then in its queue."""
    with opened(chromium, comfy, tmp_path, without=SCRIPT) as plain:
        node = prepare(plain, "page-plain", steps=3, preview_every=0)
        plain.run()
        plain.page.wait_for_function(f"id => ({PICTURES})(id) === 1", arg=node)
        plain.idle()
        plain.drawn()
        assert not plain.chart.count() and len(rows(comfy, "page-plain")) == 3
        plain.shot("run-without-script")


def test_a_wrong_input_is_told_in_a_sentence_on_its_node(editor: ComfyPage) -> None:
    node = prepare(editor, "a:path", steps=2)
    editor.run()
    fails(editor, "cannot name a file: leave out ':'")
    assert editor.page.evaluate("() => Object.keys(app.lastNodeErrors)") == [str(node)], "before anything ran"
    editor.shot("wrong-input")
    editor.dismiss()
    editor.look_at(node)
    editor.shot("wrong-input-on-the-node")
