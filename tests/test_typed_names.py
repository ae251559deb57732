"""Names that people type into nodes: checked before anything runs, and as ComfyUI's own save nodes take them."""

from __future__ import annotations

import shutil
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from comfy_inprocess import start
from every import every
from node_datasets import captioned, empty_folders, load, one_sentence

start()
from comfy_scoft.comfyui import dataset_folders, typed_names  # noqa: E402
from comfy_scoft.comfyui.nodes import collect, correct, data, survey, training  # noqa: E402
from comfy_scoft.training import run_folder as runs  # noqa: E402

NAMED = {
    training.SaveLora: "filename_prefix",
    training.TrainLora: "run_name",
    training.ExportJob: "job_name",
    correct.SavePreference: "filename_prefix",
    data.SaveDataset: "name",
    collect.DownloadLinks: "name",
}
TAKEN = ["my lora", "sub/dir", "people/2026/lora", "Cook (v2)", "a [b] {c}", "हिन्दी", "한국어 모델", "naïve & café"]
TAKEN += ["%date%", "%date:yyyy-MM-dd%/kora", "%year%-%month%", "%KSampler.seed%", "50%", "v1.5", "a..b", "it's, +1!"]
TAKEN += ["a/../b", "sub\\dir", "sub//dir/", " kora ", "🎎 dolls"]
REFUSED = ["", "  ", "..", "../up", "a/../../up", "/etc/x", "\\x", "C:\\x", "a:b", "a?", "a\nb", "a\x00", "\u202eab"]
REFUSED += ["漢" * 100, ".", "\u200d", "a/.b", "a/b.", "a/con"]


@pytest.fixture(autouse=True)
def comfy_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return empty_folders(tmp_path, monkeypatch)


@every("name", TAKEN)
def test_what_stock_nodes_save_is_taken_before_anything_runs(name: str) -> None:
    for node, widget in NAMED.items():
        assert node.validate_inputs(**{widget: name}) is True, node
        assert node.validate_inputs() is True, "a name by a link is not known yet"


@every("name", REFUSED)
def test_what_leads_out_or_no_file_system_has_is_refused_before_anything_runs(name: str) -> None:
    for node, widget in NAMED.items():
        answer = node.validate_inputs(**{widget: name})
        if node is collect.DownloadLinks and not name.strip():
            continue  # the list's own name
        assert isinstance(answer, str) and "\n" not in answer and answer.endswith("."), node


def test_a_survey_without_a_title_is_refused_before_anything_runs() -> None:
    assert survey.BuildSurvey.validate_inputs(title=" \n ").startswith("The survey has no title")
    assert survey.BuildSurvey.validate_inputs(title="한국?") is survey.BuildSurvey.validate_inputs() is True


def test_a_name_that_leads_out_by_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "output/loras").mkdir()
    (tmp_path / "output/loras/out").symlink_to(tmp_path / "input")
    assert "leads out of 'loras'" in str(training.SaveLora.validate_inputs(filename_prefix="out/lora"))


@pytest.mark.parametrize(
    "text, filled",
    [
        ("%date%", "2026-03-05"),
        ("%date:yy.M.d%/%date:hh_mm_ss%", "26.3.5/07_08_09"),
        ("%date:h:m:s%", "7-8-9"),
        ("%year%%month%%day%-%hour%%minute%%second%", "20260305-070809"),
        ("100% of %width% and %a.b% %date", "100% of %width% and %a.b% %date"),
    ],
)
def test_dates_are_filled_in_as_comfyui_and_its_page_fill_them_in(text: str, filled: str, monkeypatch: Any) -> None:
    now = time.struct_time((2026, 3, 5, 7, 8, 9, 3, 64, 0))
    real = time.strftime
    monkeypatch.setattr(typed_names.time, "strftime", lambda form: real(form, now))
    assert typed_names.dated(text) == filled


def test_a_dataset_in_a_sub_folder_is_saved_and_listed(tmp_path: Path) -> None:
    captioned(tmp_path / "input/set")
    data.SaveDataset.execute(load("set")[0], "korea/food (2)")
    assert (tmp_path / "output/scoft/datasets/korea/food (2)/train/metadata.jsonl").is_file()
    assert "korea/food (2) (saved)" in dataset_folders.dataset_names()
    assert len(load("korea/food (2) (saved)")[0]) == 2
    with pytest.raises(ValueError) as error:
        data.SaveDataset.execute(load("set")[0], "../up")
    one_sentence(error)


def test_a_name_that_is_composed_in_another_way_is_the_one_on_the_disk(tmp_path: Path) -> None:
    """As a Mac writes it, or a workflow from there names it."""
    here, apart = (unicodedata.normalize(form, "café/été") for form in ("NFC", "NFD"))
    for on_disk, given in ((here, apart), (apart, here)):
        for name in ("input", "output/scoft/runs", "output/scoft/datasets"):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
        folder = captioned(tmp_path / "input" / on_disk)
        assert data.LoadDataset.validate_inputs(folder=given) is True
        assert dataset_folders.dataset_folder(given) == folder.resolve()
        (tmp_path / "output/scoft/runs" / on_disk / "checkpoint-00000001").mkdir(parents=True)
        root, name = typed_names.placed(tmp_path / "output/scoft/runs", given, "run")
        assert runs.run_folder(root, "other", name) == tmp_path / "output/scoft/runs" / on_disk
        saved = captioned(tmp_path / "output/scoft/datasets" / on_disk)
        assert dataset_folders.dataset_place(tmp_path / "output/scoft/datasets", given) == saved


def test_a_folder_with_a_colon_is_offered_and_taken(tmp_path: Path) -> None:
    """Finder writes a slash in a name as a colon."""
    folder = captioned(tmp_path / "input/food: korea")
    assert "food: korea" in dataset_folders.dataset_names()
    assert dataset_folders.dataset_folder("food: korea") == folder.resolve()


def test_runs_in_sub_folders_are_listed_and_go_on(tmp_path: Path) -> None:
    place = typed_names.typed(tmp_path, "korea/my run", "run name")
    folder = runs.run_folder(*place)
    assert folder == tmp_path / "korea/my run" and runs.run_folder(*place).name == "my run-2"
    (folder / "checkpoint-00000001").mkdir()
    (tmp_path / "other/checkpoint-last").mkdir(parents=True)
    assert runs.run_names(tmp_path) == ["korea/my run"]
    root, name = typed_names.placed(tmp_path, "korea/my run", "run")
    assert runs.run_folder(root, "other", name) == folder
