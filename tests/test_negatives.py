"""Negatives: their prompts, their noise, and their names on disk."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from comfy_scoft.common.fingerprints import noise_seed
from comfy_scoft.data.prompts import build_prompt, record_prompts
from comfy_scoft.data.records import CultureRecord, Dataset
from comfy_scoft.negatives.generate import (
    NegativeSettings,
    Request,
    attach_negatives,
    make_negatives,
    pixel_hash,
    sampled_size,
    saved_size,
)

SMALL = NegativeSettings(per_image=3, steps=1, resolution=16)


@pytest.mark.parametrize(
    ("template", "place", "expected"),
    [
        ("{generic} in {place}", "nuvia", "a house in nuvia"),
        ("{generic} in {place}", "", "a house"),
        ("{generic} in {place}", "  ", "a house"),
        ("{generic}, {place}", "", "a house"),
        ("{generic} in {place}, photo", "", "a house, photo"),
        ("in {place}, {generic}", "", "a house"),
        ("an image taken in {place} of {generic}", "", "an image taken of a house"),
        ("{place} {generic}", "", "a house"),
        ("{generic} from {place}", "Côte d'Ivoire", "a house from Côte d'Ivoire"),
        ("{generic}", "nuvia", "a house"),
        ("{generic}在{place}", "", "a house"),
        ("{generic} {{sic}} in {place}", "nuvia", "a house {sic} in nuvia"),
        ("  {generic}   in\n{place} ", "new  nuvia", "a house in new nuvia"),
        ("{generic} of {culture} in {place}", "nuvia", "a house in nuvia"),
    ],
)
def test_a_template_gives_a_clean_prompt_with_and_without_a_place(template, place, expected):
    assert build_prompt(template, generic="a house", place=place) == expected


def test_a_place_that_the_words_name_already_is_not_said_twice():
    assert build_prompt("{generic} in {place}", "a house in Nuvia", "nuvia") == "a house in Nuvia"
    assert build_prompt("{generic} in {place}", "a house by the nuvian sea", "nuvia") == (
        "a house by the nuvian sea in nuvia"
    )


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("{generic} in {place", "single brace"),
        ("{generic} in {city}", "names {city}"),
        ("{generic.__class__}", "names {generic.__class__}"),
        ("{generic} {}", "names {}"),
        ("a house in {place}", "must name"),
        ("", "must name"),
    ],
)
def test_a_bad_template_is_one_sentence_before_anything_is_drawn(template, fault):
    with pytest.raises(ValueError, match=r"^[^\n]+$") as error:
        NegativeSettings(prompt_template=template)
    assert fault in str(error.value) and str(error.value).endswith(".")


@pytest.mark.parametrize("field", ["per_image", "steps", "cfg", "strength", "resolution", "batch_size"])
def test_settings_that_cannot_be_are_refused_by_name(field):
    with pytest.raises(ValueError, match=rf"^{field} is -1, .+\.$"):
        NegativeSettings(**{field: -1})


def test_generic_captions_take_turns_and_the_caption_serves_where_there_are_none(tmp_path):
    record = CultureRecord(tmp_path / "x.png", "our house", ("a house", "a hut"), place="nuvia")
    assert record_prompts(record, "{generic} in {place}", 3) == (
        "a house in nuvia",
        "a hut in nuvia",
        "a house in nuvia",
    )
    bare = dataclasses.replace(record, generic_captions=(), place="")
    assert record_prompts(bare, "{generic} in {place}", 2) == ("our house", "our house")


def test_sizes_keep_the_pictures_shape():
    assert sampled_size(64, 64, 64, 16) == (64, 64)
    assert sampled_size(3000, 2000, 512, 64) == (640, 448)
    assert sampled_size(4000, 10, 512, 64)[1] == 64
    assert saved_size(3000, 2000, 512) == (627, 418)
    assert saved_size(100, 60, 512) == (100, 60)


def test_a_seed_is_fixed_by_seed_record_and_number_and_by_nothing_else():
    seeds = {noise_seed(s, c, k) for s in (0, 1, 2**64 - 1) for c in ("a", "b") for k in range(5)}
    assert len(seeds) == 30 and all(0 <= seed < 2**63 for seed in seeds)
    assert noise_seed(0, "a", 0) == noise_seed(0, "a", 0)
    noise = Request(("x", "y"), (1, 2), torch.zeros(1, 3, 32, 16)).noise(4)
    assert noise.shape == (2, 4, 4, 2)
    alone = torch.randn(1, 4, 4, 2, generator=torch.Generator().manual_seed(2))
    assert torch.equal(noise[1:], alone)


class Painter:
    """Draws in place of a model: what it paints depends on the prompt, the seed and the depth, and it counts."""

    def __init__(self, fail_at: int = -1) -> None:
        self.requests: list[Request] = []
        self.fail_at = fail_at

    def __call__(self, request: Request) -> torch.Tensor:
        if len(self.requests) == self.fail_at:
            raise InterruptedError
        self.requests.append(request)
        height, width = request.hint.shape[-2:]
        noise = request.noise(3, factor=1).permute(0, 2, 3, 1).sigmoid()
        words = torch.tensor([len(prompt) / 100 for prompt in request.prompts]).view(-1, 1, 1, 1)
        assert noise.shape[1:] == (height, width, 3)
        return noise * 0.5 + words + request.hint.mean() * 0.1


@pytest.fixture
def dataset(tmp_path):
    rng = np.random.default_rng(0)
    records = []
    for n in range(4):
        image, depth = tmp_path / f"{n}.png", tmp_path / f"depth_{n}.png"
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(image)
        Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(depth)
        records.append(CultureRecord(image, f"our {n}", (f"thing {n}", f"object {n}"), place="nuvia", depth=depth))
    return Dataset(tmp_path, tuple(records), "four")


def make(dataset, folder, painter=None, settings=SMALL, identity="model", **more):
    return make_negatives(dataset, settings, painter or Painter(), folder, identity, multiple=16, **more)


def contents(dataset):
    return {record.image.name: [path.read_bytes() for path in record.negatives] for record in dataset.records}


def test_a_record_is_drawn_in_one_batch_with_its_prompts_and_its_depth(dataset, tmp_path):
    painter = Painter()
    found = make(dataset, tmp_path / "n", painter)
    assert [len(record.negatives) for record in found.records] == [3] * 4 and len(painter.requests) == 4
    request = painter.requests[1]
    assert request.prompts == ("thing 1 in nuvia", "object 1 in nuvia", "thing 1 in nuvia")
    depth = torch.from_numpy(np.array(Image.open(dataset.records[1].depth))).float() / 255
    assert torch.allclose(request.hint, depth.expand(1, 3, 16, 16), atol=1e-6)
    assert len({path.read_bytes() for record in found.records for path in record.negatives}) == 12
    for old, new in zip(dataset.records, found.records, strict=True):
        assert old.negatives == () and dataclasses.replace(new, negatives=()) == old


def test_a_records_negatives_do_not_depend_on_order_company_or_file_names(dataset, tmp_path):
    whole = contents(make(dataset, tmp_path / "a"))
    assert contents(make(dataset.replace(dataset.records[::-1]), tmp_path / "b")) == whole
    assert contents(make(dataset.replace(dataset.records[2:3]), tmp_path / "c"))["2.png"] == whole["2.png"]
    moved = tmp_path / "elsewhere.png"
    moved.write_bytes(dataset.records[0].image.read_bytes())
    alone = make(dataset.replace([dataclasses.replace(dataset.records[0], image=moved)]), tmp_path / "d")
    assert contents(alone)["elsewhere.png"] == whole["0.png"]


def test_what_is_there_is_not_drawn_again(dataset, tmp_path):
    first = make(dataset, tmp_path / "n")
    times = [path.stat().st_mtime_ns for record in first.records for path in record.negatives]
    painter = Painter()
    second = make(dataset, tmp_path / "n", painter)
    assert painter.requests == [] and second == first
    assert [path.stat().st_mtime_ns for record in second.records for path in record.negatives] == times


def test_an_interrupted_run_goes_on_where_it_was_and_ends_with_the_same_files(dataset, tmp_path):
    whole = contents(make(dataset, tmp_path / "whole"))
    with pytest.raises(InterruptedError):
        make(dataset, tmp_path / "n", Painter(fail_at=2))
    painter = Painter()
    assert contents(make(dataset, tmp_path / "n", painter)) == whole
    assert len(painter.requests) == 2


def test_a_lost_negative_comes_back_the_same(dataset, tmp_path):
    first = make(dataset, tmp_path / "n")
    before = contents(first)
    first.records[3].negatives[1].unlink()
    painter = Painter()
    assert contents(make(dataset, tmp_path / "n", painter)) == before and len(painter.requests) == 1


@pytest.mark.parametrize(
    "change",
    [{"per_image": 2}, {"steps": 2}, {"cfg": 1.0}, {"strength": 0.5}, {"seed": 1}, {"sampler": "ddim"}]
    + [{"scheduler": "karras"}, {"prompt_template": "{generic}"}, {"resolution": 32}, {"batch_size": 3}],
    ids=lambda change: next(iter(change)),
)
def test_every_setting_that_counts_is_drawn_anew(dataset, tmp_path, change):
    one = dataset.replace(dataset.records[:1])
    make(one, tmp_path / "n")
    painter = Painter()
    make(one, tmp_path / "n", painter, dataclasses.replace(SMALL, **change))
    assert len(painter.requests) == 1


def test_a_smaller_batch_draws_the_same_noise_and_goes_on_inside_a_record(dataset, tmp_path):
    whole = contents(make(dataset, tmp_path / "whole"))
    two = dataclasses.replace(SMALL, batch_size=2)
    with pytest.raises(InterruptedError):
        make(dataset, tmp_path / "n", Painter(fail_at=3), two)
    painter = Painter()
    assert contents(make(dataset, tmp_path / "n", painter, two)) == whole  # the painter rounds alike in any batch
    assert [len(request.seeds) for request in painter.requests] == [1, 2, 1, 2, 1]
    assert painter.requests[0].prompts == ("thing 1 in nuvia",)
    assert (SMALL.steps_each(), two.steps_each()) == (1, 2)


def test_each_record_keeps_where_its_negatives_come_from(dataset, tmp_path):
    found = make(dataset, tmp_path / "n", identity="these models")
    said = json.loads(found.records[2].negatives[0].with_name("provenance.json").read_text(encoding="utf-8"))
    assert said["models"] == "these models" and said["settings"]["steps"] == 1
    assert said["prompts"] == ["thing 2 in nuvia", "object 2 in nuvia", "thing 2 in nuvia"]
    assert said["seeds"] == [noise_seed(0, said["picture and depth"], k) for k in range(3)]


def test_another_model_depth_or_picture_is_drawn_anew(dataset, tmp_path):
    one = dataset.replace(dataset.records[:1])
    make(one, tmp_path / "n")
    painter = Painter()
    make(one, tmp_path / "n", painter, identity="another")
    Image.new("L", (16, 16), 9).save(one.records[0].depth)
    make(one, tmp_path / "n", painter)
    Image.new("RGB", (16, 16), 9).save(one.records[0].image)
    make(one, tmp_path / "n", painter)
    assert len(painter.requests) == 3


def test_a_negative_has_the_shape_of_its_picture_though_it_is_drawn_in_multiples(dataset, tmp_path):
    Image.new("RGB", (50, 23)).save(dataset.records[0].image)
    Image.new("L", (50, 23)).save(dataset.records[0].depth)
    painter = Painter()
    settings = dataclasses.replace(SMALL, resolution=64)
    found = make(dataset.replace(dataset.records[:1]), tmp_path / "n", painter, settings)
    assert painter.requests[0].hint.shape == (1, 3, 48, 96)
    assert {Image.open(path).size for path in found.records[0].negatives} == {(50, 23)}


def test_progress_is_told_after_each_record(dataset, tmp_path):
    seen = []
    make(dataset, tmp_path / "n", observe=lambda done, total, path: seen.append((done, total, path.is_file())))
    assert seen == [(n, 4, True) for n in (1, 2, 3, 4)]


def test_without_depth_the_sentence_says_what_to_connect(dataset, tmp_path):
    bare = dataset.replace([dataset.records[0], dataclasses.replace(dataset.records[1], depth=None)])
    painter = Painter()
    with pytest.raises(ValueError, match=r"^1 of 2 records have no depth map \(1\.png .+: connect Estimate D.+\.$"):
        make(bare, tmp_path / "n", painter)
    assert painter.requests == []
    with pytest.raises(ValueError, match=r"^The dataset has no records: [^.]+\.$"):
        make(dataset.replace([]), tmp_path / "n")


def images(count):
    return list(torch.rand(count, 16, 16, 3, generator=torch.Generator().manual_seed(3)))


def test_attached_images_go_to_the_records_in_order(dataset, tmp_path):
    given = images(8)
    found = attach_negatives(dataset, given, tmp_path / "attached")
    for n, record in enumerate(found.records):
        for k, path in enumerate(record.negatives):
            values = torch.from_numpy(np.array(Image.open(path))).float() / 255
            assert torch.allclose(values, given[2 * n + k], atol=1 / 500)
    assert all(record.negatives == () for record in dataset.records)
    times = {path: path.stat().st_mtime_ns for record in found.records for path in record.negatives}
    assert attach_negatives(dataset, given, tmp_path / "attached") == found
    assert times == {path: path.stat().st_mtime_ns for path in times}


@pytest.mark.parametrize("count", [0, 3, 5])
def test_a_count_of_images_that_does_not_fit_is_one_sentence(dataset, tmp_path, count):
    with pytest.raises(ValueError, match=rf"^There are {count} images for 4 records, but .+\.$"):
        attach_negatives(dataset, images(count), tmp_path)


def test_an_image_that_is_none_is_named(dataset, tmp_path):
    given = images(4)
    given[2] = torch.full((16, 16, 3), float("nan"))
    with pytest.raises(ValueError, match=r"^Image 3 is not an image of .+\.$"):
        attach_negatives(dataset, given, tmp_path / "attached")
    assert not (tmp_path / "attached").exists()


def test_a_pixel_hash_is_of_what_is_written():
    image = images(1)[0]
    assert pixel_hash(image) == pixel_hash(image.double()) == pixel_hash((image * 255).round() / 255)
    assert pixel_hash(image) != pixel_hash(image.permute(1, 0, 2))
    assert pixel_hash(torch.zeros(2, 8, 3)) != pixel_hash(torch.zeros(4, 4, 3))
