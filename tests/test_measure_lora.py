"""`measure`: the metrics of the workflow evaluate for a LoRA and its base model, from files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from toys import learned, toy_base, toy_dataset, toy_features, toy_run

from comfy_scoft.__main__ import main
from comfy_scoft.data.images import read_pixels
from comfy_scoft.experiments import measure_lora
from comfy_scoft.experiments.measure_lora import BASE, LORA, Measurement, MeasureSettings, as_json, save, text_table
from comfy_scoft.losses import DiffusionLoss
from comfy_scoft.metrics import denoising_gap, kid
from comfy_scoft.metrics.denoising_gap import DenoisingLosses
from comfy_scoft.metrics.scores import CHANGE
from comfy_scoft.mini_world import COMMUNITY
from comfy_scoft.models.lora import export_kohya, switched_off
from comfy_scoft.models.mini import layout
from comfy_scoft.training.latent_cache import Cache
from comfy_scoft.training.trainer import train

SMALL = MeasureSettings(images_per_prompt=2, captions=3, steps=2, resolution=64, batch_size=4)
CHECKPOINT = Path(layout.__file__).parent / "weights" / "checkpoints" / "scoft-mini.safetensors"


def base_of_photographs() -> Any:
    base = toy_base()
    base.family = "sd1"
    return base


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    run = toy_run(folder, [DiffusionLoss()], base=base_of_photographs(), steps=3, learning_rate=0.1)
    save_file(train(run).lora, folder / "taught.safetensors")
    assert learned(run).abs().max() > 0.05
    return folder / "taught.safetensors"


def measurement(folder: Path, lora: Path, held_out: int = 3, **changes: Any) -> Measurement:
    trained, others = toy_dataset(folder / "data"), toy_dataset(folder / "others", (0,) * held_out, seed=8)
    given = {"settings": SMALL, "images": folder / "images", **changes}
    return Measurement(base_of_photographs(), lora, trained, others, toy_features(), **given)


def test_a_lora_is_measured_against_its_base_with_the_evaluate_workflows_metrics(tmp_path: Path, lora: Path) -> None:
    seen: list[tuple[int, int]] = []
    one = measurement(tmp_path, lora, observe=lambda done, total, text: seen.append((done, total)))
    found = one.run()
    names = list(dict.fromkeys(row.name for row in found.scores.rows))
    starts = ("KID ×10³ to held-out images", "similarity to training images", "near copies", "diversity", "denoising")
    assert [name.startswith(starts) for name in names] == [True] * len(names) and len(names) == 7
    for name in names:
        assert [row.group for row in found.scores.rows if row.name == name] == [BASE, LORA, CHANGE]
    assert found.left_out == ("toy reads no prompts, so there is no CLIPScore.",)

    # the numbers are those of the metrics themselves, on the images that are kept
    folders = {
        path.name.split("-")[0]: path for path in (tmp_path / "images").iterdir() if len(list(path.glob("*.png"))) == 6
    }
    assert set(folders) == {BASE, LORA}
    held_out, trained = found.sets["held-out captions"], found.sets["training captions"]
    expected = kid.measure(held_out[LORA], one.held_out, toy_features(), compared_with=held_out[BASE]).rows
    rows = [row for row in found.scores.rows if row.name.startswith("KID")]
    assert [row.value for row in rows] == [row.value for row in expected]
    assert trained[BASE].prompts == ("a 0 thing of ours",) * 2 + ("a 1 thing of ours",) * 2 + ("a 2 thing of ours",) * 2
    assert trained[BASE].seeds == (1, 2) * 3 and not torch.equal(trained[BASE].images, trained[LORA].images)
    caches = [Cache(one.base, part, 64) for part in (one.trained, one.held_out)]
    with_lora = DenoisingLosses(*(denoising_gap.losses(one.base, cache, 1) for cache in caches))
    with switched_off(one.base.unet):
        without = DenoisingLosses(*(denoising_gap.losses(one.base, cache, 1) for cache in caches))
    gaps = [row.value for row in found.scores.rows if row.name == denoising_gap.GAP]
    assert gaps == pytest.approx(
        [
            row.value
            for row in denoising_gap.gap_scores([("a", without), ("b", with_lora)]).rows
            if row.name == denoising_gap.GAP
        ]
    )

    # progress counts all of it
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len({total for _, total in seen}) == 1 and seen[-1][0] == seen[-1][1]


def test_what_was_generated_is_kept_with_its_prompt_and_not_made_again(
    tmp_path: Path, lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measurement(tmp_path, lora).run()
    files = sorted((tmp_path / "images").rglob("*.png"))
    assert len(files) == 2 * 6, "the toys' held-out captions are those of the others"
    assert all(path.with_suffix(".txt").read_text().endswith("thing of ours") for path in files)
    files[0].unlink()
    calls: list[int] = []
    real = measure_lora.ddim_sample
    monkeypatch.setattr(measure_lora, "ddim_sample", lambda *a, **k: (calls.append(1), real(*a, **k))[1])
    again = measurement(tmp_path, lora).run()
    assert len(calls) == 1 and again.scores == first.scores
    other = measurement(tmp_path, lora, settings=replace(SMALL, strength=0.5)).run()
    assert other.scores != first.scores and len(list((tmp_path / "images").iterdir())) == 3, (
        "the base model's are taken"
    )


def test_at_strength_0_nothing_changes(tmp_path: Path, lora: Path) -> None:
    found = measurement(tmp_path, lora, settings=replace(SMALL, strength=0.0)).run()
    changes = [row for row in found.scores.rows if row.group == CHANGE]
    assert len(changes) == 7 and all(abs(row.value) < 1e-6 for row in changes)


def test_scores_are_printed_and_written(tmp_path: Path, lora: Path) -> None:
    one = measurement(tmp_path, lora, held_out=0)
    found = one.run()
    assert found.left_out[0] == "No images are held out, so there is no KID to them and no denoising gap."
    lines = list(text_table(found.scores))
    assert lines[0].startswith("similarity") and lines[1].startswith("    base ") and "   change " in lines[1]
    paths = save(one, found, tmp_path / "out")
    assert [path.name for path in paths] == ["scores.json", "scores.csv", "table.png", "training-captions.png"]
    content = json.loads(paths[0].read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert content == as_json(one, found) and content["lora"] == "taught.safetensors" and content["left out"]
    assert {row["group"] for row in content["scores"]} == {BASE, LORA, CHANGE} and content["settings"][
        "resolution"
    ] == 64
    assert read_pixels(paths[2]).shape[0] == 3


def test_what_cannot_be_measured_is_said_before_anything_is_generated(
    tmp_path: Path, lora: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="The dataset has 2 image"):
        Measurement(
            toy_base(),
            lora,
            toy_dataset(tmp_path / "few", (0, 0)),
            toy_dataset(tmp_path / "o"),
            toy_features(),
            tmp_path,
            SMALL,
        )
    blind = replace(toy_features(), viewable=False)
    with pytest.raises(ValueError, match="give --features a network such as"):
        Measurement(
            toy_base(), lora, toy_dataset(tmp_path / "data"), toy_dataset(tmp_path / "p"), blind, tmp_path, SMALL
        )
    given = ["measure", str(lora), "--checkpoint", str(CHECKPOINT), "--dataset", str(COMMUNITY)]
    for more, sentence in (
        (["--cfg", "nan"], "cfg is nan, but it must be a number from 0 to 100."),
        (["--resolution", "100"], "resolution is 100, but it must be a multiple of 64, or 0."),
        (["--held-out", str(tmp_path / "no")], "does not exist"),
    ):
        assert main([*given, *more]) == 1 and sentence in capsys.readouterr().err
    assert (
        main(["measure", "no.safetensors", *given[2:]]) == 1
        and "There is no LoRA 'no.safetensors'" in capsys.readouterr().err
    )


@pytest.mark.long
def test_the_command_line_measures_a_lora_of_the_mini_model_and_its_bias(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from comfy_scoft.models.lora import LoraSettings, attach
    from comfy_scoft.models.single_file import load_base

    unet = load_base(CHECKPOINT).unet
    attach(unet, LoraSettings(rank=2, alpha=2.0), torch.Generator().manual_seed(0))
    save_file(export_kohya(unet), tmp_path / "工作.safetensors")
    command = [
        "measure",
        str(tmp_path / "工作.safetensors"),
        "--checkpoint",
        str(CHECKPOINT),
        "--dataset",
        str(COMMUNITY),
    ]
    assert (
        main([*command, "--out", str(tmp_path / "out"), "--captions", "3", "--steps", "2", "--images-per-prompt", "2"])
        == 0
    )
    printed = capsys.readouterr()
    assert "CLIPScore · mini CLIP (layer 5)\n    base " in printed.out and "dark skin · nuvia\n" in printed.out
    rows = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))["scores"]
    assert all(abs(row["value"]) < 1e-6 for row in rows if row["group"].startswith(CHANGE)), "it has learned nothing"
    assert printed.err.splitlines()[-1] == "bias"
