"""What a person follows a run with in ComfyUI: held-out images, previews, the line of text, runs to go on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from test_nodes_training import KNOBS, estimated, execute, place, quick, same, sockets, train  # noqa: F401  (fixtures)
from toys import toy_dataset

from comfy_scoft.comfyui.nodes import options as nodes_options
from comfy_scoft.comfyui.nodes import training as nodes_training
from comfy_scoft.comfyui.runtime import Progress
from comfy_scoft.common.progress import duration
from comfy_scoft.models.lora import LoraSettings
from comfy_scoft.training import run_folder as runs
from comfy_scoft.training.settings import TrainSettings


def folder(place: Path, name: str = "run") -> Path:  # noqa: F811
    return place / "output" / "scoft" / "runs" / name


@pytest.mark.long
def test_held_out_pictures_are_measured_and_shown_and_teach_nothing(
    place: Path,  # noqa: F811
    sockets: dict,  # noqa: F811
    estimated: None,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Progress, "say", lambda self, text: said.append(text))
    plain = train(sockets, run_name="plain")[0]
    held_out = toy_dataset(tmp_path / "held out", negatives=(0, 0, 0))
    lora, _, _, chart, _ = train(sockets, validation=held_out, validate_every=1)
    assert same(plain, lora)
    rows = [row for row in runs.read_metrics(folder(place)) if "validation" in row]
    assert [row["step"] for row in rows] == [0, 1, 2] and all("training_pictures" in row for row in rows)
    assert lora.record["held_out"]["pictures"] == 3 and "held-out images" in lora.record["held_out"]["reading"]
    assert "held-out images" in said[-1] and any("Memory: about" in text for text in said)
    assert chart.shape[1] > 500


@pytest.mark.long
def test_a_data_set_connected_twice_holds_out_what_is_not_trained_on(
    place: Path,  # noqa: F811
    sockets: dict,  # noqa: F811
) -> None:
    records = list(sockets["dataset"].records)
    test = sockets["dataset"].replace(
        [*records, records[0].__class__(records[0].negatives[0], "another", split="test")]
    )
    lora = train({**sockets, "dataset": test}, validation=test)[0]
    assert lora.record["held_out"]["pictures"] == 1 and lora.record["dataset"]["pictures"] == len(records)
    with pytest.raises(ValueError, match="Every image of the validation set 'toys' is trained on"):
        train(sockets, validation=sockets["dataset"])


@pytest.mark.long
def test_previews_are_of_one_noise_and_move(place: Path, sockets: dict, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    shown: list[Any] = []
    real = Progress.update

    def update(self: Progress, done: int, text: str = "", preview: Any = None) -> None:
        shown.append(preview)
        real(self, done, text, preview)

    monkeypatch.setattr(Progress, "update", update)
    train(sockets, preview_every=1, preview_prompt="a thing", lora=LoraSettings(rank=2, alpha=64.0))
    files = sorted((folder(place) / "previews").iterdir())
    assert [path.name for path in files] == [f"step-{step:08d}.png" for step in (0, 1, 2)]
    images = [Image.open(path) for path in files]
    assert all(image.size == (64, 64) for image in images)
    assert images[0].tobytes() != images[2].tobytes()
    assert any(isinstance(image, Image.Image) for image in shown)
    again = train(sockets, preview_every=2, preview_prompt="a thing", lora=LoraSettings(rank=2, alpha=64.0))
    first = Image.open(folder(place, "run-2") / "previews" / files[0].name)
    assert first.tobytes() == images[0].tobytes() and again[4] == 2


def test_a_finished_run_has_its_lora_beside_its_metrics(place: Path, sockets: dict) -> None:  # noqa: F811
    from safetensors.torch import load_file

    lora = train(sockets)[0]
    assert same(load_file(folder(place) / "run.safetensors"), lora)


@pytest.mark.long
def test_a_run_is_chosen_by_name_and_other_settings_are_listed(place: Path, sockets: dict) -> None:  # noqa: F811
    train(sockets)
    (resume,) = [i for i in nodes_training.TrainLora.define_schema().inputs if i.id == "resume"]
    assert resume.options == ["off", "latest", "run"]
    assert train(sockets, run_name="other", resume="run")[4] == 2 and not folder(place, "other").exists()
    with pytest.raises(ValueError, match=r"other settings \(train.seed 5 → 6\)"):
        train(sockets, seed=6, resume="run")


@pytest.mark.long
def test_training_goes_on_from_a_lora_of_the_folder(place: Path, sockets: dict) -> None:  # noqa: F811
    lora = train(sockets)[0]
    words = dict.fromkeys(("title", "trigger_phrase", "authors", "licence", "consent"), "")
    execute(nodes_training.SaveLora, lora=lora, filename_prefix="first", **words)
    (options,) = execute(
        nodes_options.LoraOptions,
        rank=2,
        alpha=2.0,
        targets="attention",
        dropout=0.0,
        start_from="first_00001.safetensors",
    )
    assert options.start_from == "first_00001.safetensors"
    second = train(sockets, lora=options)[0]
    assert second.keys() == lora.keys() and not same(second, lora)
    near = [
        torch.cosine_similarity(second[k].float().flatten(), v.float().flatten(), 0) for k, v in lora.items() if v.any()
    ]
    assert min(near) > 0.5, "it starts where the first one ended"
    with pytest.raises(ValueError, match="choose one from the list"):
        execute(nodes_options.LoraOptions, rank=2, alpha=2.0, targets="attention", dropout=0.0, start_from="../x")


@pytest.mark.long
def test_an_exported_job_holds_what_is_held_out_and_gives_the_same_curves(
    place: Path,  # noqa: F811
    sockets: dict,  # noqa: F811
    tmp_path: Path,
) -> None:
    from comfy_scoft.training import job

    more = {"validation": toy_dataset(tmp_path / "held out", negatives=(0, 0)), "validate_every": 1, "buckets": True}
    lora = train(sockets, **more)[0]
    (path,) = execute(
        nodes_training.ExportJob, **sockets, **KNOBS, **more, job_name="tiny", checkpoint="stored in the job"
    )
    sockets["losses"][2].features.to(torch.device("cpu"))
    _, result, rows = job.run_job(job.read_job(Path(path)), tmp_path / "elsewhere")
    assert same(result.lora, lora) and rows == runs.read_metrics(folder(place))
    settings = json.loads(Path(path).read_text())["settings"]["train"]
    assert settings["validate_every"] == 1 and set(settings) == set(TrainSettings.__dataclass_fields__)


@pytest.mark.parametrize(
    "seconds, text", [(0, "0 s"), (89.4, "89 s"), (95, "2 min"), (5400, "1 h 30 min"), (7500, "2 h 05 min")]
)
def test_times_are_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text
