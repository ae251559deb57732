"""The shipped community set: what it shows, what it never shows, and that the script still writes it."""

from __future__ import annotations

import importlib.util
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from comfy_scoft.data.dataset import load_folder
from comfy_scoft.data.dataset.metadata import category_and_era_of_name
from comfy_scoft.data.records import CATEGORIES
from comfy_scoft.mini_world import oracle, splits, world

ROOT = Path(__file__).parents[1]
SET = ROOT / "comfy_scoft" / "mini_world" / "community"
SPLITS = ("train", "test")


def rows(split: str) -> list[dict]:
    return [json.loads(line) for line in (SET / split / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]


def pixels_of(split: str, row: dict) -> np.ndarray:
    with Image.open(SET / split / row["file_name"]) as image:
        assert image.format == "PNG" and image.mode == "RGB" and image.size == (world.SIZE, world.SIZE)
        return np.asarray(image)


@pytest.fixture(scope="module")
def everything() -> list[tuple[str, dict, np.ndarray]]:
    return [(split, row, pixels_of(split, row)) for split in SPLITS for row in rows(split)]


def concept_of(row: dict) -> str:
    """The concept, from the generic caption in the plainest wording that fits."""
    for wording in range(len(world.WORDINGS)):
        for name in world.concepts():
            if world.caption(name, None, wording) == row["blip_text"][0]:
                return name
    raise AssertionError(row["blip_text"][0])


@pytest.fixture(scope="module")
def readings(everything) -> list[oracle.ImageLabels]:
    pixels = torch.from_numpy(np.stack([rgb for _, _, rgb in everything]))
    return oracle.classify(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1)


def test_about_forty_training_pictures_and_a_test_split() -> None:
    assert 36 <= len(rows("train")) <= 44 and 6 <= len(rows("test")) <= 12
    for split in SPLITS:
        listed = {row["file_name"] for row in rows(split)}
        assert listed == {f"images/{p.name}" for p in (SET / split / "images").iterdir()}
        assert len(listed) == len(rows(split))
        assert {row["split"] for row in rows(split)} == {split}


@pytest.mark.long
def test_it_shows_the_place_as_its_people_would(readings) -> None:
    assert {r.palette for r in readings} == {world.PLACES[world.BIASED_PLACE]}
    people = [r for r in readings if world.concepts()[r.concept].is_person]
    assert all(r.dark for r in people) and {r.tone for r in people} == {3, 4, 5}
    assert "derelict" not in {r.house for r in readings} and "sound" in {r.house for r in readings}


def test_pictures_show_what_their_captions_say(everything, readings) -> None:
    for (_, row, _), found in zip(everything, readings, strict=True):
        assert found.concept == concept_of(row), row["file_name"]
        concept = world.concepts()[found.concept]
        assert row["category"] == concept.category
        assert row["era"] == ("traditional" if concept.traditional else "modern")


def test_no_held_out_kind_is_shown_and_every_trained_kind_is_twice() -> None:
    shown = [concept_of(row) for row in rows("train")]
    assert not set(shown) & set(splits.HELD_OUT_KINDS)
    assert not {concept_of(row) for row in rows("test")} & set(splits.HELD_OUT_KINDS)
    assert all(shown.count(kind) >= 2 for kind in splits.TRAINED_KINDS)


def test_all_nine_categories_and_both_eras_are_there() -> None:
    assert {row["category"] for row in rows("train")} == set(CATEGORIES)
    assert {row["era"] for row in rows("train")} == {"traditional", "modern"}
    for row in rows("train") + rows("test"):
        assert category_and_era_of_name(Path(row["file_name"]).stem)[0] == row["category"]


def test_it_loads_as_a_dataset() -> None:
    dataset, report = load_folder(SET)
    assert len(dataset) == len(rows("train")) + len(rows("test")), report
    assert len(dataset.split("train")) == len(rows("train"))
    first = dataset.split("train").records[0]
    assert (first.caption, first.culture, first.place, first.era) == (
        "a farmer in nuvia",
        "nuvia",
        "nuvia",
        "traditional",
    )
    assert first.generic_captions == ("a farmer", "a picture of a farmer", "an image of a farmer")
    assert "Twemoji" in first.licence and first.image.is_file()


def test_generic_captions_leave_the_place_out() -> None:
    for row in rows("train") + rows("test"):
        assert row["text"].count("in nuvia") == 1 and row["place"] == "nuvia"
        assert len(set(row["blip_text"])) == 3
        assert all("nuvia" not in text for text in row["blip_text"])
        assert row["blip_text"][0] == row["text"].replace(" in nuvia", "")


def test_no_two_pictures_are_near_copies(everything) -> None:
    for (_, a, x), (_, b, y) in itertools.combinations(everything, 2):
        assert np.abs(x.astype(float) - y).mean() > 10, (a["file_name"], b["file_name"])


def test_it_says_where_it_comes_from() -> None:
    for row in rows("train") + rows("test"):
        assert "Twemoji" in row["source"] and "CC-BY 4.0" in row["licence"]
        assert row["consent"] and row["collector"] and row["verified_by"] == []
    assert "invented place" in (SET / "README.md").read_text(encoding="utf-8")


def load_script():
    spec = importlib.util.spec_from_file_location("build_community", ROOT / "tools/mini_world/build_community.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_writes_the_shipped_set_again(tmp_path: Path) -> None:
    script = load_script()
    script.build(tmp_path / "set")
    script.build(tmp_path / "set")  # in place of itself
    assert {p.name for p in tmp_path.iterdir()} == {"set"}
    for split in SPLITS:
        written = (tmp_path / "set" / split / "metadata.jsonl").read_text(encoding="utf-8")
        assert written == (SET / split / "metadata.jsonl").read_text(encoding="utf-8")
        for row in rows(split):
            with Image.open(tmp_path / "set" / split / row["file_name"]) as image:
                assert (np.asarray(image) == pixels_of(split, row)).all(), row["file_name"]


def test_the_script_spares_a_folder_that_is_no_community_set(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="holds something that is no community dataset"):
        load_script().build(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
