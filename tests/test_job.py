"""Exported jobs give the very LoRA of the run they came from; runs on disk are never overwritten."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from toys import Interrupted, toy_base, toy_features, toy_run

from comfy_scoft import features
from comfy_scoft.__main__ import main
from comfy_scoft.cli.train import ON_THE_CARD
from comfy_scoft.common import names
from comfy_scoft.common.files import file_hash
from comfy_scoft.losses import ContrastiveLoss, DiffusionLoss, MemorizationLoss, PerceptualLoss
from comfy_scoft.models.stable_diffusion import FAMILIES
from comfy_scoft.training import job, job_models
from comfy_scoft.training import run_folder as runs
from comfy_scoft.training.model_card import CardFields
from comfy_scoft.training.run import Callbacks
from comfy_scoft.training.settings import TrainSettings


@pytest.fixture(autouse=True)
def toy_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(features.FEATURES, "toy", lambda path: toy_features())


def every_loss() -> list:
    network = toy_features()
    return [DiffusionLoss(), MemorizationLoss(), PerceptualLoss(network), ContrastiveLoss(network, form="difference")]


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def export(tmp_path: Path, **changes) -> Path:
    run = toy_run(tmp_path, every_loss(), **changes)
    return job.write_job(run, tmp_path / "jobs" / "toys")


@pytest.mark.parametrize("kl", [False, True], ids=["tiny autoencoder", "autoencoder with a posterior"])
def test_a_job_trains_the_same_lora_to_the_bit(tmp_path: Path, kl: bool) -> None:
    path = export(tmp_path, base=toy_base(kl=kl), batch_size=2, accumulation=2)
    shutil.rmtree(tmp_path / "data")
    original = toy_run(tmp_path, every_loss(), base=toy_base(kl=kl), batch_size=2, accumulation=2)
    expected, rows = runs.train_and_log(original)
    _, found, its_rows = job.run_job(job.read_job(path), tmp_path / "elsewhere")
    assert same(found.lora, expected.lora)
    assert its_rows == rows and {"diffusion", "memorization", "perceptual", "contrastive"} < set().union(*rows)


def test_resolution_0_is_the_models_own_in_runs_and_jobs_and_another_one_is_said(tmp_path: Path) -> None:
    run = toy_run(tmp_path, [DiffusionLoss()], resolution=0)
    assert run.settings.resolution == 64 and run.size_note == ""
    path = job.write_job(run, tmp_path / "jobs" / "toys")
    content = json.loads(path.read_bytes())
    assert content["settings"]["train"]["resolution"] == 64
    content["settings"]["train"]["resolution"] = 0  # as somebody may write it
    path.write_text(json.dumps(content))
    _, found, _ = job.run_job(job.read_job(path), tmp_path / "elsewhere")
    named = toy_run(tmp_path / "named", [DiffusionLoss()], resolution=64)
    assert same(found.lora, runs.train_and_log(named)[0].lora)

    said: list[str] = []
    path = job.write_job(toy_run(tmp_path, [DiffusionLoss()], resolution=128), tmp_path / "jobs" / "large")
    job.run_job(job.read_job(path), tmp_path / "large", callbacks=Callbacks(on_message=said.append))
    assert "Trains at 128 pixels; the model's own resolution (0) is 64." in said


def test_each_family_has_its_own_resolution() -> None:
    def resolution(family: str, prediction: str = "epsilon") -> int:
        base = toy_base(prediction=prediction)
        base.family = family
        return base.resolution

    assert [resolution(each) for each in FAMILIES] == [512, 512, 1024, 64] and resolution("sd2", "v_prediction") == 768
    with pytest.raises(ValueError, match=r"^resolution is 40, but it must be a multiple of 8 from 64, or 0 for the"):
        TrainSettings(resolution=40)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_job_that_an_editor_saved_with_a_byte_order_mark_is_read(tmp_path: Path, encoding: str) -> None:
    path = export(tmp_path)
    content = path.read_text(encoding="utf-8")
    path.write_text(content, encoding=encoding)
    assert path.read_bytes()[:2] != b"{\n" and job.read_job(path).content == json.loads(content)


@pytest.mark.long
def test_the_largest_seed_of_comfyui_trains_the_same_lora_in_a_job(tmp_path: Path) -> None:
    largest = {"seed": 2**64 - 1, "preview_every": 1, "preview_prompt": "a house", "validate_every": 1}
    path = export(tmp_path, **largest)
    expected, _ = runs.train_and_log(toy_run(tmp_path, every_loss(), **largest))
    _, found, _ = job.run_job(job.read_job(path), tmp_path / "elsewhere")
    other, _ = runs.train_and_log(toy_run(tmp_path / "other", every_loss(), **largest | {"seed": 2**63 - 1}))
    assert same(found.lora, expected.lora) and not same(found.lora, other.lora)


def test_half_precision_and_v_prediction_survive_a_job(tmp_path: Path) -> None:
    make = {"prediction": "v_prediction", "dtype": torch.bfloat16}
    path = export(tmp_path, base=toy_base(**make))
    run = job.load_run(job.read_job(path.parent), tmp_path / "run")
    assert run.base.schedule.prediction == "v_prediction"
    original = toy_base(**make)
    assert torch.equal(run.base.schedule.alphas_cumprod, original.schedule.alphas_cumprod)
    for ours, theirs in ((run.base.unet, original.unet), (run.base.vae, original.vae)):
        weights = theirs.state_dict()
        assert same({k: v.float() for k, v in ours.state_dict().items()}, {k: v.float() for k, v in weights.items()})


def test_without_losses_on_pictures_no_picture_is_exported(tmp_path: Path) -> None:
    run = toy_run(tmp_path, [DiffusionLoss()], flip=False)
    path = job.write_job(run, tmp_path / "jobs" / "plain")
    tensors = job.read_job(path).tensors
    assert not any("pixels" in name for name in tensors)
    assert sum(name.endswith(".mean") for name in tensors) == len(run.dataset)
    _, found, _ = job.run_job(job.read_job(path), tmp_path / "elsewhere")
    assert same(found.lora, runs.train_and_log(toy_run(tmp_path, [DiffusionLoss()], flip=False))[0].lora)


def test_the_command_line_trains_a_job_and_goes_on_with_it(tmp_path: Path, capsys) -> None:
    path, out = export(tmp_path, steps=2), tmp_path / "out"
    assert main(["train", str(path), "--out", str(out)]) == 0
    lora = out / "toys_00001.safetensors"
    assert capsys.readouterr().out.splitlines()[0] == str(lora)
    assert "Toyland" in lora.with_suffix(".md").read_text(encoding="utf-8")
    assert [row["step"] for row in runs.read_metrics(out / "runs" / "toys")] == [1, 2]
    assert main(["train", str(path), "--out", str(out), "--resume"]) == 0
    assert "resuming run toys\n" in capsys.readouterr().err and not (out / "runs" / "toys-2").exists()
    assert main(["train", str(path), "--out", str(tmp_path / "other"), "--resume"]) == 0
    assert "There is no run named toys to go on with, so a new one begins." in capsys.readouterr().err
    assert main(["train", str(path), "--out", str(out)]) == 0
    assert (out / "runs" / "toys-2").is_dir() and (out / "toys_00003.safetensors").is_file()


def test_what_only_people_can_say_is_said_on_the_command_line(tmp_path: Path) -> None:
    assert set(ON_THE_CARD) == {field.name for field in fields(CardFields)}
    words = {name: f"the {name} of toyland" for name in ON_THE_CARD}
    given = [part for name, text in words.items() for part in (f"--{name.replace('_', '-')}", text)]
    path, out = export(tmp_path, steps=1), tmp_path / "out"
    assert main(["train", str(path), "--out", str(out), *given]) == 0
    lora = out / "toys_00001.safetensors"
    card = lora.with_suffix(".md").read_text(encoding="utf-8")
    assert all(text in card for text in words.values())
    with safe_open(lora, "pt") as file:
        assert file.metadata()["modelspec.author"] == words["authors"]


def test_a_job_that_cannot_be_run_is_refused_in_a_sentence(tmp_path: Path, capsys) -> None:
    path = export(tmp_path)
    content = json.loads(path.read_text())

    def refused(changes: dict, match: str) -> None:
        path.write_text(json.dumps(content | changes))
        with pytest.raises(ValueError, match=match) as error:
            job.load_run(job.read_job(path), tmp_path / "run")
        assert str(error.value).count("\n") == 0

    refused({"format": "other"}, "is not a SCoFT job")
    refused({"version": 99}, "has version 99")
    refused({"name": "../up"}, "cannot name a file")
    refused({"settings": {}}, "does not say how many steps")
    refused({"settings": {**content["settings"], "lora": {"size": 4}}}, "is not complete")
    refused(
        {"settings": {**content["settings"], "lora": {"rank": 0}}},
        "rank is 0, but it must be a whole number from 1 to 1024",
    )
    refused({"losses": [{"name": "unheard of"}]}, "'unheard of', which is not known")
    refused({"base": {**content["base"], "vae": "StableDiffusionPipeline"}}, "which is not known")
    wanted = {"name": "../../secret.safetensors", "sha256": "0"}
    refused({"base": {**content["base"], "file": wanted}}, "needs the file 'secret.safetensors'")
    (path.parent / "secret.safetensors").write_bytes(b"another one")
    refused({"base": {**content["base"], "file": wanted}}, "its hash differs")
    path.write_text("{")
    assert main(["train", str(path)]) == 1 and "not a job that can be read" in capsys.readouterr().err
    with pytest.raises(ValueError, match="There is no job at"):
        job.read_job(tmp_path / "nothing.json")
    path.write_text(json.dumps(content))
    (path.parent / job.TENSORS).write_bytes(b"short")
    with pytest.raises(ValueError, match="missing or damaged"):
        job.read_job(path)


def test_a_fault_on_the_command_line_is_one_sentence_and_begins_no_run(tmp_path: Path, capsys) -> None:
    path, out = export(tmp_path), tmp_path / "out"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"losses": [{"name": "unheard of"}]}))
    assert main(["train", str(path), "--out", str(out)]) == 1
    assert "'unheard of', which is not known" in capsys.readouterr().err and list((out / "runs").iterdir()) == []
    (tmp_path / "file").write_text("where a folder should be")
    assert main(["train", str(path), "--out", str(tmp_path / "file")]) == 1
    assert "cannot be written below 'runs'" in capsys.readouterr().err.splitlines()[-1]


def test_a_failed_export_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop() -> None:
        raise Interrupted

    run = toy_run(tmp_path, every_loss())
    with pytest.raises(Interrupted):
        job.write_job(run, tmp_path / "jobs" / "toys", check_interrupt=stop)
    assert list((tmp_path / "jobs").iterdir()) == []


def test_a_job_whose_name_is_taken_meanwhile_gets_the_next_one(tmp_path: Path) -> None:
    taken = tmp_path / "jobs" / "toys" / job.JOB

    def other_export() -> None:
        taken.parent.mkdir(exist_ok=True)
        taken.write_text("another's")

    run = toy_run(tmp_path, [DiffusionLoss()])
    path = job.write_job(run, taken.parent, check_interrupt=other_export)
    assert path == tmp_path / "jobs" / "toys-2" / job.JOB and job.read_job(path).name == "toys-2"
    assert taken.read_text() == "another's" and len(list((tmp_path / "jobs").iterdir())) == 2


def test_a_run_is_never_overwritten_and_the_newest_goes_on(tmp_path: Path) -> None:
    names = [runs.run_folder(tmp_path, "mini").name for _ in range(3)]
    assert names == ["mini", "mini-2", "mini-3"]
    assert runs.run_folder(tmp_path, "mini", runs.LATEST).name == "mini-3"
    assert runs.run_folder(tmp_path, "mini-2", runs.LATEST).name == "mini-2"
    assert runs.run_folder(tmp_path, "new", runs.LATEST).name == "new"


def test_a_named_run_goes_on_and_one_that_is_not_there_is_said_with_those_that_are(tmp_path: Path) -> None:
    run = toy_run(tmp_path, [DiffusionLoss()], run_folder=tmp_path / "runs" / "toys")
    runs.train_and_log(run)
    (tmp_path / "runs" / "empty").mkdir()
    assert runs.run_folder(tmp_path / "runs", "other", "toys") == run.folder and runs.run_names(tmp_path / "runs") == [
        "toys"
    ]
    with pytest.raises(ValueError, match="no run named 'toy' to go on with; those there are: toys."):
        runs.run_folder(tmp_path / "runs", "other", "toy")
    with pytest.raises(ValueError, match="cannot name a file"):
        runs.run_folder(tmp_path / "runs", "other", "../toys")


BAD_NAMES = ["", "..", "a/b", "a\\b", "/etc", "C:x", ".hidden", "end.", "nul", "a\nb", "x" * 221]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_with_a_path_in_it_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a file"):
        names.checked_name(name)


def test_names_in_any_script_are_names() -> None:
    for name in ("mini", "Kora-2.1_b", "한국", "Ìlú", "हिन्दी", "x", "two words", "Cook (v2)", "50% [a]", "🎎"):
        assert names.checked_name(name) == name


def test_metrics_of_an_interrupted_run_go_on_without_a_gap_or_a_repeat(tmp_path: Path) -> None:
    def stop_at(step: int, row: dict) -> None:
        if step == 2:
            raise Interrupted

    whole, expected = runs.train_and_log(toy_run(tmp_path / "a", every_loss(), steps=4))
    run = toy_run(tmp_path / "b", every_loss(), steps=4)
    with pytest.raises(Interrupted):
        runs.train_and_log(run, Callbacks(on_step=stop_at))
    with (run.folder / runs.METRICS).open("a") as file:  # a killed server: a step that no checkpoint knows, half a line
        file.write(json.dumps({"step": 3, "diffusion": 9.0}) + '\n{"step": 4, "diff')
    found, rows = runs.train_and_log(toy_run(tmp_path / "b", every_loss(), steps=4, resume=True, dataset=run.dataset))
    assert rows == expected == runs.read_metrics(run.folder) and same(found.lora, whole.lora)


def test_losses_are_weighted_and_comparable_from_step_to_step() -> None:
    losses = [DiffusionLoss(weight=0.5), ContrastiveLoss(toy_features(), weight=2.0)]
    rows = [{"step": 1, "diffusion": 4.0, "contrastive": 1.0}, {"step": 2, "diffusion": 2.0}]
    assert runs.weighted_losses(rows, losses) == [2.0, 1.0]
    assert runs.weighted_losses(rows, losses[1:]) == [2.0]
    assert runs.weighted_losses([], losses) == []


def test_a_checkpoint_that_is_only_named_must_be_the_same_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader of checkpoints is another module's; here it hands out the toy whatever the file holds."""
    monkeypatch.setattr(job_models, "load_base", lambda path, prediction: toy_base())
    monkeypatch.setattr(job, "load_base", lambda path, prediction: toy_base())
    file = tmp_path / "models" / "deep" / "toy.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"the toy")
    path = job.write_job(toy_run(tmp_path, [DiffusionLoss()]), tmp_path / "jobs" / "named", file)
    assert not (path.parent / "unet").exists() and str(tmp_path) not in path.read_text()
    run = job.load_run(job.read_job(path), tmp_path / "run", models=tmp_path / "models")
    assert same(run.base.unet.state_dict(), toy_base().unet.state_dict())
    with pytest.raises(ValueError, match="needs the file 'toy.safetensors'"):
        job.load_run(job.read_job(path), tmp_path / "run")
    composed = {"name": "caf\u00e9.bin", "sha256": file_hash(file)}
    apart = file.rename(file.with_name("cafe\u0301.bin"))  # as macOS writes it
    assert job_models.find(path.parent, composed, tmp_path / "models") == apart
    other = toy_run(tmp_path, [DiffusionLoss()], base=toy_base(seed=9))
    with pytest.raises(ValueError, match="The MODEL is not the one in 'toy.safetensors'"):
        job.write_job(other, tmp_path / "jobs" / "other", file)
