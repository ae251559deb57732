"""Captions of more than 75 tokens: read in full as ComfyUI reads prompts, or cut as in the paper."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from toys import WIDTH, all_losses, toy_base, toy_dataset, toy_embed, toy_features, toy_run

from comfy_scoft import features
from comfy_scoft.corrector.prompt_gate import learn_place
from comfy_scoft.data.dataset import load_folder
from comfy_scoft.data.records import Dataset
from comfy_scoft.features import load_features
from comfy_scoft.losses import DiffusionLoss
from comfy_scoft.metrics import clip_score
from comfy_scoft.metrics.image_set import ImageSet
from comfy_scoft.models import single_file
from comfy_scoft.models.mini import layout
from comfy_scoft.models.stable_diffusion import BaseModel, TextEmbedding, repeated
from comfy_scoft.models.text_encoder import END, START, LongCaptions, is_long, token_ids
from comfy_scoft.training.job import JOB, TENSORS, read_job, run_job, write_job
from comfy_scoft.training.memory import MemoryOptions
from comfy_scoft.training.memory_estimate import need
from comfy_scoft.training.model_card import training_record
from comfy_scoft.training.model_card_text import card_text
from comfy_scoft.training.resume import run_identity
from comfy_scoft.training.run import Callbacks
from comfy_scoft.training.trainer import train

CHECKPOINT = layout.WEIGHTS / "checkpoints" / layout.CHECKPOINT
EIGHTY = "a house in nuvia and " * 16
"""Eighty words, of at least a token each."""


def named(dataset: Dataset, *captions: str) -> Dataset:
    """The dataset with these captions in turn, and without generic ones."""
    return dataset.replace(
        dataclasses.replace(record, caption=captions[i % len(captions)], generic_captions=())
        for i, record in enumerate(dataset.records)
    )


def windowed(caption: str) -> TextEmbedding:
    """A toy text encoder with a window for each part between bars."""
    return TextEmbedding(torch.cat([toy_embed(part).hidden for part in caption.split("|")], dim=1))


def windowed_base() -> BaseModel:
    base = toy_base()
    base.embed = cache(windowed)
    return base


def test_tokens_are_split_into_windows_of_75() -> None:
    (word,) = token_ids("house")[0, 1:2].tolist()
    assert token_ids("").tolist() == [[START] + [END] * 76]
    assert token_ids("house " * 75).tolist() == [[START] + [word] * 75 + [END]]
    first, second, third = token_ids("house " * 151, 0).tolist()
    assert first == second == [START] + [word] * 75 + [END]
    assert third == [START, word, END] + [0] * 74
    assert [is_long("house " * count) for count in (1, 75, 76)] == [False, False, True]


@pytest.mark.long
@pytest.mark.parametrize("long_captions", LongCaptions)
def test_what_stands_after_eighty_words_is_learned_unless_captions_are_cut(
    long_captions: LongCaptions, tmp_path: Path
) -> None:
    data = toy_dataset(tmp_path / "data", (0,))
    loras = []
    for end in ("a farmer", "a church"):
        base = single_file.load_base(CHECKPOINT, long_captions=long_captions)
        changes = {"base": base, "steps": 1, "long_captions": long_captions, "run_folder": tmp_path / end}
        loras.append(train(toy_run(tmp_path, [DiffusionLoss()], dataset=named(data, EIGHTY + end), **changes)).lora)
    same = all(torch.equal(loras[0][key], loras[1][key]) for key in loras[0])
    assert same is (long_captions is LongCaptions.FIRST)


def test_texts_of_different_lengths_in_one_call_are_predicted_as_each_alone() -> None:
    """By a mask, and by ComfyUI's way for samplers that take none: shorter texts repeated."""
    base, captions = windowed_base(), ["one", "two|more", "three|and|more"]
    z, t = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([10, 500, 900])
    with torch.no_grad():
        together = base.predict(z, t, captions)
        alone = torch.cat([base.predict(z[i : i + 1], t[i : i + 1], captions[i : i + 1]) for i in range(3)])
        hidden = repeated([base.embed(caption).hidden for caption in captions])
        again = base.unet(z, t, encoder_hidden_states=hidden, return_dict=False)[0]
        short = base.predict(z, t, ["a", "b", "c"])
        plain = base.unet(z, t, torch.cat([toy_embed(c).hidden for c in "abc"]), return_dict=False)[0]
    assert hidden.shape == (3, 42, WIDTH) and base.calls == 5
    assert torch.allclose(together, alone, atol=1e-5) and torch.allclose(again, alone, atol=1e-5)
    assert (together[1] - base.predict(z, t, ["one", "two", "three"])[1]).abs().max() > 1e-3
    assert torch.equal(short, plain), "texts of one length go to the network as they always did"


def test_a_job_trains_the_same_lora_with_captions_of_several_lengths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(features.FEATURES, "toy", lambda path: toy_features())
    data = named(toy_dataset(tmp_path / "data"), "short", "of two|windows", "of|three|windows")
    shape = {"dataset": data, "batch_size": 2, "accumulation": 2, "every": 1}
    path = write_job(toy_run(tmp_path, all_losses()[::2], base=windowed_base(), **shape), tmp_path / "job")
    here = train(toy_run(tmp_path, all_losses()[::2], base=windowed_base(), **shape)).lora
    job = read_job(path)
    assert job.tensors["text.tokens"].tolist() == [7, 7, 14, 21]  # "" first
    there = run_job(job, tmp_path / "there")[1].lora
    assert all(torch.equal(here[key], there[key]) for key in here) and any(here[key].any() for key in here)


def test_a_job_from_before_long_captions_were_read_trains_what_it_trained_then(tmp_path: Path) -> None:
    run = toy_run(tmp_path, [DiffusionLoss()], run_folder=tmp_path / "here")
    path = write_job(run, tmp_path / "job")
    content, tensors = json.loads(path.read_text()), load_file(path.parent / TENSORS)
    del content["settings"]["train"]["long_captions"]
    tensors["text.hidden"] = tensors["text.hidden"].unflatten(0, (len(tensors.pop("text.tokens")), -1)).contiguous()
    (path.parent / JOB).write_text(json.dumps(content | {"version": 2}))
    save_file(tensors, path.parent / TENSORS)
    again, result, _ = run_job(read_job(path), tmp_path / "there")
    here = train(run).lora
    assert again.settings.long_captions is LongCaptions.FIRST
    assert all(torch.equal(here[key], result.lora[key]) for key in here)


def test_a_run_is_resumed_only_with_captions_read_as_before(tmp_path: Path) -> None:
    data = toy_dataset(tmp_path / "data")
    short = toy_run(tmp_path, [DiffusionLoss()], dataset=data)
    cut = toy_run(tmp_path, [DiffusionLoss()], dataset=data, long_captions=LongCaptions.FIRST)
    assert run_identity(short) == run_identity(cut), "where no caption is long the setting changes nothing"
    shape = {"dataset": named(data, EIGHTY, "short"), "steps": 1, "run_folder": tmp_path / "long"}
    train(toy_run(tmp_path, [DiffusionLoss()], long_captions=LongCaptions.FIRST, **shape))
    with pytest.raises(ValueError, match="other settings \\(train.long captions none → 1\\)"):
        train(toy_run(tmp_path, [DiffusionLoss()], resume=True, **shape))


@pytest.mark.parametrize(
    ("long_captions", "how"),
    [(LongCaptions.ALL, "read in full"), (LongCaptions.FIRST, "cut to 75")],
)
def test_training_and_card_say_how_many_captions_are_long(
    long_captions: LongCaptions, how: str, tmp_path: Path
) -> None:
    data = named(toy_dataset(tmp_path / "data"), EIGHTY + "a", EIGHTY + "b", "short")
    run, said = toy_run(tmp_path, [DiffusionLoss()], dataset=data, steps=1, long_captions=long_captions), []
    result = train(run, Callbacks(on_message=said.append))
    assert said[0] == f"Captions of more than 75 tokens: 2, {how}."
    card = card_text({"scoft": json.dumps({"fields": {}, "record": training_record(run, result, result.metrics, 1.0)})})
    assert "with one caption each (3 of more than 75 tokens), 0 generic captions" in card


def test_the_report_of_loading_says_how_many_captions_are_long(tmp_path: Path) -> None:
    for name, caption in (("a", EIGHTY), ("b", "a house"), ("c", EIGHTY + "at night")):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(caption)
    report = load_folder(tmp_path)[1]
    assert "Captions of more than 75 tokens: 2. They are read in full, or cut if long_captions" in report
    (tmp_path / "a.txt").write_text("short")
    (tmp_path / "c.txt").write_text("short")
    assert "75 tokens" not in load_folder(tmp_path)[1]


def test_long_captions_count_in_the_memory_that_is_needed(tmp_path: Path) -> None:
    data = toy_dataset(tmp_path / "data")
    needs = [
        need(toy_run(tmp_path, [DiffusionLoss()], base=windowed_base(), dataset=named(data, caption)), MemoryOptions())
        for caption in ("short", "as short", "in|twelve|windows" + "|" * 9)
    ]
    assert needs[0] == needs[1] and needs[2].unet > needs[0].unet


def test_the_prompt_gate_finds_a_place_after_eighty_words() -> None:
    base = single_file.load_base(CHECKPOINT)

    def embed(text: str) -> torch.Tensor:
        return base.embed(text).hidden

    things = ("a cook", "a tree", "a house", "a church", "a farmer", "a teacher")
    captions = [f"{'a house and ' * 27}{thing} in nuvia" for thing in things]
    gate, _ = learn_place(embed, captions, "nuvia", ["borea", "caldia"], torch.Generator().manual_seed(0))
    opened = {
        place: float(gate(embed(f"{'a tree and ' * 27}a house{place}"))) for place in (" in nuvia", " in borea", "")
    }
    assert opened[" in nuvia"] > 0.8 and max(opened[" in borea"], opened[""]) < 0.2


def test_clipscore_says_that_it_compares_the_first_75_tokens_only() -> None:
    network = load_features("mini CLIP (layer 5)")
    images = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(0))

    def measured(*prompts: str) -> tuple[float, str]:
        scores = clip_score.measure(ImageSet(images, prompts, (0, 1), "set"), network)
        return scores.rows[0].value, scores.methods()[scores.rows[0].name]

    value, method = measured(EIGHTY + "a farmer", "a house")
    other, _ = measured(EIGHTY + "a church", "a house")
    assert value == other and "of 1 prompts only the first 75 tokens count, which is all that a CLIP compares" in method
    assert "75 tokens" not in measured("a farmer", "a house")[1]
