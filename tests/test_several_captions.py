"""An image with several captions counts once and has one depth map and one set of negatives."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_resume import stop_at
from toys import Interrupted, all_losses, learned, toy_base, toy_dataset, toy_features, toy_run

from comfy_scoft import features
from comfy_scoft.data.crop import aligned
from comfy_scoft.data.dataset import load_folder, save_dataset
from comfy_scoft.data.prompts import record_prompts
from comfy_scoft.data.records import CultureRecord, Dataset, counted
from comfy_scoft.losses import DiffusionLoss
from comfy_scoft.metrics import memorization
from comfy_scoft.metrics.image_set import ImageSet
from comfy_scoft.negatives.depth import DepthEstimator, attach_depth
from comfy_scoft.negatives.generate import NegativeSettings, make_negatives
from comfy_scoft.training.batches import samples_of_batch
from comfy_scoft.training.job import read_job, run_job, write_job
from comfy_scoft.training.model_card import described_dataset
from comfy_scoft.training.model_card_text import card_text
from comfy_scoft.training.run import Callbacks
from comfy_scoft.training.trainer import train


def folder_of(root: Path, *rows: dict) -> Path:
    for n, name in enumerate(dict.fromkeys(row["file_name"] for row in rows)):
        Image.new("RGB", (72, 64), (40 * n, 90, 30)).save(root / name)
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return root


def with_captions(dataset: Dataset, *captions: str) -> Dataset:
    """The dataset with these captions at each of its images."""
    return dataset.replace(
        dataclasses.replace(
            record, caption=f"{i} {captions[0]}", other_captions=tuple(f"{i} {c}" for c in captions[1:])
        )
        for i, record in enumerate(dataset.records)
    )


def test_one_row_per_caption_is_one_image_with_all_of_them(tmp_path: Path) -> None:
    rows = [
        {"file_name": f"FOOD_{n}.png", "text": f"dish {n}, said {k}", "blip_text": ["food"], "verified_by": [f"p{k}"]}
        for k in range(4)
        for n in range(3)
    ]
    rows[0] |= {"collector": "Ana", "place": "Kora"}
    rows[3] |= {"collector": "Bo", "place": "Limu"}
    rows[6] |= {"collector": "Ana", "text": "dish 0, said 0"}
    dataset, report = load_folder(folder_of(tmp_path, *rows))
    first, second, _ = dataset.records
    assert [record.image.name for record in dataset.records] == ["FOOD_0.png", "FOOD_1.png", "FOOD_2.png"]
    assert first.captions == ("dish 0, said 0", "dish 0, said 1", "dish 0, said 3"), "the same caption counts once"
    assert second.captions == tuple(f"dish 1, said {k}" for k in range(4))
    assert (first.collector, first.place, first.generic_captions) == ("Ana; Bo", "Kora", ("food",))
    assert second.verified_by == ("p0", "p1", "p2", "p3")
    lines = report.splitlines()
    assert lines[:2] == [
        "3 images with 11 captions loaded, 0 left out",
        "Of several captions of an image, training samples one at each use",
    ]
    assert "The 4 rows of FOOD_0.png differ in place: what the first one says is used." in lines


def test_an_image_in_two_splits_stays_one_in_each(tmp_path: Path) -> None:
    rows = [{"file_name": "a.png", "text": f"in {split}", "split": split} for split in ("train", "test")]
    dataset, _ = load_folder(folder_of(tmp_path, *rows))
    assert [(record.split, record.captions) for record in dataset.records] == [
        ("train", ("in train",)),
        ("test", ("in test",)),
    ]


def test_text_may_be_a_list_and_comes_back_from_a_saved_dataset(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    rows = [{"file_name": "a.png", "text": [" one ", "", "two | halves"]}, {"file_name": "b.png", "text": "a | b"}]
    dataset, report = load_folder(folder_of(tmp_path / "a", *rows))
    assert [record.captions for record in dataset.records] == [("one", "two | halves"), ("a | b",)]
    assert report.startswith("2 images with 3 captions loaded")
    saved = save_dataset(dataset, tmp_path / "b")
    again, _ = load_folder(saved)
    assert [record.captions for record in again.records] == [("one", "two | halves"), ("a | b",)]
    texts = [json.loads(line)["text"] for line in (saved / "train/metadata.jsonl").read_text().splitlines()]
    assert texts == [["one", "two | halves"], "a | b"], "one caption stays plain text"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ([], 'metadata.jsonl line 1 has no caption for a.png: write one in "text".'),
        (["", " "], 'metadata.jsonl line 1 has no caption for a.png: write one in "text".'),
        (["a", 3], 'has something else in "text" than a text or a list of texts'),
        ({"en": "a"}, 'has something else in "text" than a text or a list of texts'),
        (["x" * 10_001], 'has more than 10,000 characters in "text": shorten it.'),
        (["x"] * 1_001, 'has more than 1,000 entries in "text": shorten it.'),
    ],
)
def test_a_list_that_holds_no_caption_is_left_out_and_named(text: object, sentence: str, tmp_path: Path) -> None:
    rows = [{"file_name": "a.png", "text": text}, {"file_name": "b.png", "text": "fine"}]
    dataset, report = load_folder(folder_of(tmp_path, *rows))
    assert len(dataset) == 1 and sentence in report


def test_depth_and_negatives_are_made_once_for_an_image(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    rows = [{"file_name": f"{n}.png", "text": f"caption {k}", "place": "kora"} for n in range(2) for k in range(4)]
    dataset, _ = load_folder(folder_of(tmp_path / "data", *rows))
    seen = Counter[str]()

    def estimate(image: torch.Tensor) -> torch.Tensor:
        seen["depth"] += 1
        return image[:, :1].add(1).div(2)

    def sample(request) -> torch.Tensor:
        seen["negatives"] += len(request.prompts)
        assert request.prompts == ("caption 0 in kora", "caption 1 in kora", "caption 2 in kora")
        return torch.zeros(len(request.prompts), *request.hint.shape[-2:], 3)

    deep = attach_depth(dataset, DepthEstimator("toy", "1", estimate), tmp_path / "depth")
    made = make_negatives(deep, NegativeSettings(3, resolution=64), sample, tmp_path / "negatives", "models")
    assert seen == {"depth": 2, "negatives": 6} and [len(record.negatives) for record in made.records] == [3, 3]


def test_each_use_samples_one_caption_from_the_seed_and_moves_no_other_random_number(tmp_path: Path) -> None:
    data = toy_dataset(tmp_path / "data")
    one, four = with_captions(data, "a"), with_captions(data, "a", "b", "c", "d")
    plain, several, again = (toy_run(tmp_path, [DiffusionLoss()], dataset=d, batch_size=4) for d in (one, four, four))

    def samples(run, batch: int) -> list:
        return samples_of_batch(run.caches()[0], run.settings, run.rollout, 1000, batch)

    drawn = Counter[str]()
    for batch in range(40):
        mine, other = samples(several, batch), samples(plain, batch)
        assert [s.caption for s in mine] == [s.caption for s in samples(again, batch)]
        for a, b in zip(mine, other, strict=True):
            assert (a.sample, a.t, a.generic, a.rollout_rand, a.loss_rand) == (
                b.sample, b.t, b.generic, b.rollout_rand, b.loss_rand,
            )  # fmt: skip
            assert torch.equal(a.noise, b.noise) and torch.equal(a.z, b.z)
            assert a.caption in four.records[a.sample[0]].captions and b.caption == f"{b.sample[0]} a"
            drawn[a.caption[-1]] += 1
    assert set(drawn) == set("abcd") and min(drawn.values()) > 20, drawn


def test_without_generic_captions_the_sampled_caption_stands_in_their_place(tmp_path: Path) -> None:
    """Else the memorization loss would tie two of a community's own captions to each other."""
    data = with_captions(toy_dataset(tmp_path / "data"), "a", "b", "c")
    data = data.replace(dataclasses.replace(record, generic_captions=()) for record in data.records)
    run = toy_run(tmp_path, [DiffusionLoss()], dataset=data, batch_size=4)
    for batch in range(10):
        for sample in samples_of_batch(run.caches()[0], run.settings, run.rollout, 1000, batch):
            assert sample.generic == sample.caption


@pytest.mark.long
def test_a_run_with_several_captions_resumes_and_leaves_comfyui_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(features.FEATURES, "toy", lambda path: toy_features())
    data = with_captions(toy_dataset(tmp_path / "data"), "a", "b", "c")
    shape = {"dataset": data, "batch_size": 2, "steps": 4}
    whole = toy_run(tmp_path, all_losses(), run_folder=tmp_path / "whole", **shape)
    path = write_job(toy_run(tmp_path, all_losses(), run_folder=tmp_path / "job run", **shape), tmp_path / "job")
    expected = train(whole).lora
    with pytest.raises(Interrupted):
        part = toy_run(tmp_path, all_losses(), run_folder=tmp_path / "parts", **shape)
        train(part, Callbacks(check_interrupt=stop_at(9, Interrupted())))
    parts = toy_run(tmp_path, all_losses(), base=toy_base(), run_folder=tmp_path / "parts", resume=True, **shape)
    train(parts)
    job = run_job(read_job(path), tmp_path / "elsewhere")[1].lora
    assert torch.equal(learned(whole), learned(parts))
    assert all(torch.equal(expected[key], job[key]) for key in expected)
    single = toy_run(
        tmp_path, all_losses(), run_folder=tmp_path / "one", **(shape | {"dataset": with_captions(data, "a")})
    )
    train(single)
    assert not torch.equal(learned(whole), learned(single))


def test_what_identifies_a_dataset_names_all_its_captions_and_is_as_before_for_one_each(tmp_path: Path) -> None:
    data = toy_dataset(tmp_path / "data")
    several = with_captions(data, "a", "b")
    assert with_captions(data, "a").identity() != several.identity() != with_captions(data, "a", "c").identity()
    assert with_captions(data, "a").fingerprint() != several.fingerprint()
    assert data.identity() == toy_dataset(tmp_path / "data").identity()


def test_sheet_and_card_count_images_and_captions_apart(tmp_path: Path) -> None:
    data = toy_dataset(tmp_path / "data")
    assert counted(data.records) == "4 images" and counted(data.records[:1]) == "1 image"
    assert counted(with_captions(data, "a", "b").records) == "4 images with 8 captions"
    found = described_dataset(with_captions(data, "a", "b"))
    assert (found["pictures"], found["captions"]) == (4, 8)
    record = {"dataset": found, "base": {}, "train": {}, "losses": []}
    card = card_text({"scoft": json.dumps({"fields": {}, "record": record})})
    assert "4 images of the set “toys” with 8 captions, 7 generic captions and 6 negatives." in card
    assert "with one caption each" in card_text(
        {"scoft": json.dumps({"fields": {}, "record": {**record, "dataset": described_dataset(data)}})}
    )


def test_any_caption_of_an_image_finds_it_in_the_memorization_metric(tmp_path: Path) -> None:
    data = with_captions(toy_dataset(tmp_path / "data", (0, 0, 0, 0)), "a", "b")
    network = dataclasses.replace(toy_features(), embed=lambda x: x.flatten(1))
    pixels = torch.stack([aligned(record, 64, flip=False)[0] for record in data.records]).add(1).div(2).movedim(1, -1)
    prompts = ("0 b", "1 a", "2 b", "none")
    result = memorization.measure(ImageSet(pixels, prompts, (0, 1, 2, 3), "copies"), data, network)
    assert result.scores.rows[0].value == pytest.approx(1.0, abs=1e-5)
    assert "1 of 4 prompts are no caption of a training image" in result.scores.rows[0].note


def test_templates_use_the_captions_in_turn() -> None:
    record = CultureRecord(Path("a.png"), "one", place="Kora", other_captions=("two",))
    assert record_prompts(record, "{caption} near {place}", 3) == ("one near Kora", "two near Kora", "one near Kora")
    assert record_prompts(record, "{generic}", 2) == ("one", "two")
