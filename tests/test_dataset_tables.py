"""Metadata tables: their columns, categories and eras, and counts as in the paper's Table 3."""

from __future__ import annotations

import csv
import json

import pytest
from ccub import TABLE_3
from dataset_files import image, write_csv

from comfy_scoft.data.dataset import counts, holds_dataset, load_folder, save_dataset
from comfy_scoft.data.dataset.metadata import category_and_era_of_name, category_and_era_of_tags, normal_category
from comfy_scoft.data.records import CATEGORIES, CultureRecord, Dataset
from comfy_scoft.reports.plots.tables import count_rows


def test_an_image_folder_with_csv_metadata_in_each_split_is_read(tmp_path):
    for split in ("train", "validation", "test"):
        image(tmp_path / split / "0001.png")
        write_csv(tmp_path / split / "metadata.csv", "file_name,text", f'0001.png,"{split}, in words"')
    assert holds_dataset(tmp_path)
    dataset, report = load_folder(tmp_path)
    assert [(r.caption, r.split) for r in dataset.records] == [
        ("train, in words", "train"),
        ("test, in words", "test"),
        ("validation, in words", "validation"),
    ]
    assert "Splits: train 1, test 1, validation 1" in report


def test_one_csv_for_all_splits_takes_them_from_the_paths(tmp_path):
    names = ["train/a.png", "val/b.png", "images/c.png"]
    for name in names:
        image(tmp_path / name)
    write_csv(tmp_path / "metadata.csv", "file_name;caption", *(f"{name};{name} it is" for name in names))
    assert [r.split for r in load_folder(tmp_path)[0].records] == ["train", "validation", "train"]


def test_columns_of_a_csv_reach_every_field(tmp_path):
    for name in ("a.png", "n1.png", "n2.png", "d.png"):
        image(tmp_path / name)
    row = {
        "file_name": "a.png",
        "text": 'a "great" bowl,\nwarm',
        "blip_text": "a bowl | a dish",
        "negative_imgpath": "n1.png|n2.png",
        "depth": "d.png",
        "culture": "Nuvian",
        "place": "Nuvia",
        "tags": "#modern|food",
        "split": "Test",
        "source": "family album",
        "collector": "Kora",
        "license": "CC0",
        "consent": "yes",
        "verified_by": "Limu|Sana",
        "unknown": "ignored",
    }
    with (tmp_path / "metadata.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)
    (record,) = load_folder(tmp_path)[0].records
    assert record.caption == 'a "great" bowl,\nwarm' and record.generic_captions == ("a bowl", "a dish")
    assert [path.name for path in record.files()] == ["a.png", "n1.png", "n2.png", "d.png"]
    assert (record.culture, record.place, record.category) == ("Nuvian", "Nuvia", "food & drink")
    assert (record.era, record.split, record.source) == ("modern", "test", "family album")
    assert (record.collector, record.licence, record.consent) == ("Kora", "CC0", "yes")
    assert record.verified_by == ("Limu", "Sana")
    save_dataset(Dataset(tmp_path, (record,), "x"), tmp_path / "again")
    (again,) = load_folder(tmp_path / "again")[0].records
    assert {**vars(again), "image": 0, "negatives": 0, "depth": 0} == {
        **vars(record),
        "image": 0,
        "negatives": 0,
        "depth": 0,
    }


@pytest.mark.parametrize(
    ("stem", "category", "era"),
    [
        ("FOOD_27", "food & drink", ""),
        ("TRAD_FOOD_27", "food & drink", "traditional"),
        ("food-mod-27", "food & drink", "modern"),
        ("modern city 3", "city", "modern"),
        ("MOD_12", "", "modern"),
        ("FOOD27", "food & drink", ""),
        ("my_food_1", "", ""),
        ("FOOD_CITY_1", "food & drink", ""),
        ("modernist_1", "", ""),
        ("portrait", "", ""),
        ("food", "", ""),
        ("27", "", ""),
        ("", "", ""),
    ],
)
def test_prefixes_of_a_name_tell_category_and_era(stem, category, era):
    assert category_and_era_of_name(stem) == (category, era)


def test_tags_tell_category_and_era_where_nothing_else_does(tmp_path):
    assert category_and_era_of_tags(["blue", "#Food", "city", " Traditional", "modern"]) == (
        "food & drink",
        "traditional",
    )
    assert category_and_era_of_tags(["people_and_action"]) == ("people & action", "") and category_and_era_of_tags(
        []
    ) == ("", "")
    image(tmp_path / "MOD_CITY_1.png", "street, food, traditional")
    image(tmp_path / "b.png", "street, city, traditional")
    image(tmp_path / "c.png", "modern")
    assert [(r.category, r.era) for r in load_folder(tmp_path)[0].records] == [
        ("city", "modern"),
        ("city", "traditional"),
        ("", ""),
    ]
    lines = [
        {"file_name": "b.png", "text": "x", "tags": ["food", "modern"], "category": "nature", "era": "traditional"},
        {"file_name": "MOD_CITY_1.png", "text": "x", "tags": "food|traditional"},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert [(r.category, r.era) for r in load_folder(tmp_path)[0].records] == [
        ("nature", "traditional"),
        ("food & drink", "traditional"),
    ]


def test_a_category_that_reads_like_an_era_survives_saving(tmp_path):
    record = CultureRecord(image(tmp_path / "a.png"), "x", category="mod")
    save_dataset(Dataset(tmp_path, (record,), "x"), tmp_path / "saved")
    (again,) = load_folder(tmp_path / "saved")[0].records
    assert (again.category, again.era) == ("mod", "")


HEADINGS = (
    *("food & drink", "people & actions", "clothing", "architecture", "city", "dance music art", "nature"),
    *("utensil & tool", "religion & festival"),
)
TOTALS = (152, 136, 110, 116, 121, 107, 56, 58, 68, 924)


def test_every_heading_of_the_papers_table_is_one_of_our_categories():
    assert sorted(map(normal_category, HEADINGS)) == sorted(CATEGORIES)
    spellings = ("Food and Drink", "dance, music and visual arts", "UTENSILS & TOOLS", "weaving")
    assert [normal_category(text) for text in spellings] == [CATEGORIES[4], CATEGORIES[3], CATEGORIES[8], "weaving"]


def test_a_dataset_of_the_papers_size_is_counted_as_in_its_table_3(tmp_path):
    records = [
        CultureRecord(tmp_path / "a.png", "x", culture=culture, category=normal_category(heading), era=era)
        for culture, row in TABLE_3.items()
        for heading, count in zip(HEADINGS, row, strict=True)
        for era in ("traditional", "modern") * (count // 2) + ("modern",) * (count % 2)
    ]
    columns, rows = count_rows(Dataset(tmp_path, tuple(records), "CCUB"))
    assert len(records) == 924 and set(columns) == {*CATEGORIES, "total"} and columns[-1] == "total"
    order = [columns.index(normal_category(heading)) for heading in HEADINGS]
    totals = {culture: cells for culture, era, cells in rows if era == "total"}
    assert {c: tuple(cells[k] for k in order) for c, cells in totals.items() if c != "all"} == TABLE_3
    assert [cells[-1] for culture, cells in totals.items()] == [162, 189, 140, 134, 148, 151, 924]
    assert (*(totals["all"][k] for k in order), totals["all"][-1]) == TOTALS
    for culture in TABLE_3:
        halves = [cells for name, era, cells in rows if name == culture and era in ("traditional", "modern")]
        assert [sum(pair) for pair in zip(*halves, strict=True)] == totals[culture]
    assert sum(counts(Dataset(tmp_path, tuple(records), "CCUB")).values()) == 924
