"""The forms people keep images with words in: captions beside images, kohya's folders, image folders, CCUB; and what
categories, eras and splits are read from. The counts are laid out as the paper's Table 3."""

from __future__ import annotations

import csv
import json
import os
import unicodedata
from pathlib import Path

import pytest
from ccub import TABLE_3
from PIL import Image

from comfy_scoft.common.errors import UserError
from comfy_scoft.data.dataset import counts, holds_dataset, load_folder, names, save_dataset
from comfy_scoft.data.dataset.metadata import category_and_era_of_name, category_and_era_of_tags, normal_category
from comfy_scoft.data.records import CATEGORIES, CultureRecord, Dataset
from comfy_scoft.reports.plots.tables import count_rows


def image(path: Path, words: str | None = None, ending: str = ".txt") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (10, 20, 30)).save(path)
    if words is not None:
        path.with_suffix(ending).write_text(words, encoding="utf-8")
    return path


def write_csv(path: Path, head: str, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")


def test_kohyas_folders_give_captions_categories_and_a_word_about_repeats(tmp_path):
    image(tmp_path / "10_hanbok/a2.png", "a red hanbok")
    image(tmp_path / "10_hanbok/a10.png", "a blue hanbok", ".caption")
    image(tmp_path / "10_hanbok/a3.png")
    image(tmp_path / "1_food/FEST_1.png", "a feast, people_and_action, modern")
    image(tmp_path / "1_food/2.png", "kimchi")
    image(tmp_path / "2_trad_clothing/1.png")
    assert holds_dataset(tmp_path)
    dataset, report = load_folder(tmp_path)
    assert [(r.image.parent.name, r.caption, r.category, r.era) for r in dataset.records] == [
        ("1_food", "kimchi", "food & drink", ""),
        ("1_food", "a feast, people_and_action, modern", "religion & festival", "modern"),
        ("2_trad_clothing", "trad clothing", "clothing", "traditional"),
        ("10_hanbok", "a red hanbok", "hanbok", ""),
        ("10_hanbok", "hanbok", "hanbok", ""),
        ("10_hanbok", "a blue hanbok", "hanbok", ""),
    ]
    notes = [line for line in report.splitlines() if "repeats" in line]
    assert [line.split(":")[0] for line in notes] == [
        "The folder 2_trad_clothing asks for 2 repeats",
        "The folder 10_hanbok asks for 10 repeats",
    ]
    assert report.startswith("6 images loaded, 0 left out")


def test_kohyas_folders_may_stand_in_folders_of_splits(tmp_path):
    image(tmp_path / "train/5_house/1.png", "a house")
    image(tmp_path / "val/5_house/1.png", "another house")
    assert [(r.caption, r.split) for r in load_folder(tmp_path)[0].records] == [
        ("a house", "train"),
        ("another house", "validation"),
    ]


def test_a_folder_of_kohyas_without_any_caption_is_offered_and_read(tmp_path):
    image(tmp_path / "3_my_town/1.png")
    assert holds_dataset(tmp_path)
    assert [r.caption for r in load_folder(tmp_path)[0].records] == ["my town"]
    image(tmp_path / "other/plain/1.png")
    assert not holds_dataset(tmp_path / "other")


def test_folders_of_kohya_with_any_repeats_are_read_and_years_are_not_repeats(tmp_path):
    image(tmp_path / "1000_hanbok/a.png")
    image(tmp_path / "12000_kimchi stew/a.png")
    image(tmp_path / "2023_trip/a.png")
    image(tmp_path / "2023_trip/b.png", "our trip")
    dataset, report = load_folder(tmp_path)
    assert sorted(r.caption for r in dataset.records) == ["hanbok", "kimchi stew", "our trip"]
    assert "The folder 1000_hanbok asks for 1000 repeats" in report
    assert "- The image 2023_trip/a.png has no caption: write one into a.txt beside it, or name the folder 1_trip." in (
        report.splitlines()
    )


@pytest.mark.parametrize("name", ["20230814_seoul", "230814_busan", "202308_trip", "100_FUJI", "101_PANA", "103_0412"])
def test_dates_and_folders_of_cameras_are_no_captions(name, tmp_path):
    image(tmp_path / name / "a.jpg")
    image(tmp_path / name / "b.jpg", "a market")
    dataset, report = load_folder(tmp_path)
    assert [(r.caption, r.category) for r in dataset.records] == [("a market", "")]
    assert f"The image {name}/a.jpg has no caption" in report and "repeats" not in report


def test_images_whose_caption_is_the_name_of_their_folder_are_named(tmp_path):
    for folder, number in (("01_market", 2), ("reg/1_woman", 1)):
        for n in range(number):
            image(tmp_path / folder / f"{n}.jpg")
    image(tmp_path / "01_market/own.jpg", "its own words")
    assert (
        "The captions of 3 images, which have no caption files, are the names of their folders (01_market/0.jpg, "
        "01_market/1.jpg, reg/1_woman/0.jpg)."
    ) in load_folder(tmp_path)[1].splitlines()


def test_a_caption_file_may_keep_the_ending_of_its_image(tmp_path):
    """As Hydrus and gallery-dl write them: a.jpg.txt."""
    image(tmp_path / "a.jpg")
    (tmp_path / "A.JPG.TXT").write_text("a market\nby night\n")
    image(tmp_path / "b.png")
    (tmp_path / "b.jpg.txt").write_text("of another image")
    image(tmp_path / "c.jpg", "first")
    (tmp_path / "c.jpg.txt").write_text("second")
    assert holds_dataset(tmp_path)
    dataset, report = load_folder(tmp_path)
    assert [r.caption for r in dataset.records] == ["a market by night", "first"]
    assert "b.jpg.txt is the caption of no image" in report and "The image b.png has no caption" in report
    assert "c.jpg.txt is not read, because its image has another caption file" in report


def test_a_photo_in_two_forms_with_one_caption_is_named(tmp_path):
    image(tmp_path / "IMG_1.JPG", "a market")
    image(tmp_path / "IMG_1.png")
    image(tmp_path / "IMG_2.JPG", "another")
    dataset, report = load_folder(tmp_path)
    assert len(dataset) == 3 and "IMG_1.png has the caption file of another image of its name: remove one" in report


def test_what_storage_devices_keep_of_deleted_images_is_not_read(tmp_path):
    image(tmp_path / "a.png", "kept")
    for name in ("#recycle", "@Recycle", "$RECYCLE.BIN", "lost+found"):
        image(tmp_path / name / "b.png", "deleted")
    assert [r.caption for r in load_folder(tmp_path)[0].records] == ["kept"]


def test_carriage_returns_end_lines_as_old_macs_and_excel_write_them(tmp_path):
    for name in "ab":
        image(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").write_bytes(b"one\rtwo\r")
    assert load_folder(tmp_path)[0].records[0].caption == "one two"
    (tmp_path / "metadata.csv").write_bytes(b'file_name,text\ra.png,one\rb.png,"two\rlines"\rb.png\r')
    dataset, report = load_folder(tmp_path)
    assert [r.caption for r in dataset.records] == ["one", "two\nlines"]
    assert "metadata.csv line 5 has no caption for b.png" in report


def test_utf_16_without_its_mark_is_no_caption(tmp_path):
    for n, encoding in enumerate(("utf-16-le", "utf-16-be", "utf-32-be")):
        image(tmp_path / f"{n}.png")
        (tmp_path / f"{n}.txt").write_bytes("a market".encode(encoding))
    image(tmp_path / "good.png", "good")
    dataset, report = load_folder(tmp_path)
    assert len(dataset) == 1 and report.count("line 1 is not UTF-8 text: save the file again as UTF-8") == 3


def test_where_nothing_could_be_loaded_files_that_may_hold_the_captions_are_named(tmp_path):
    for name in ("metadata.parquet", "captions.json", "captions/a.txt"):
        image(tmp_path / Path(name).stem / "images/a.png")
        (tmp_path / Path(name).stem / name).parent.mkdir(exist_ok=True)
        (tmp_path / Path(name).stem / name).write_text("words")
        with pytest.raises(ValueError, match=f"The image images/a.png has no caption.*{name} is "):
            load_folder(tmp_path / Path(name).stem)


def test_subfolders_are_walked_in_natural_order_and_give_their_split(tmp_path):
    for name in ("b.jpg", "images/c.jpg", "food/d.jpg", "food/soup 10/e.jpg", "food/soup 2/f.jpg", "TEST/food/g.jpg"):
        image(tmp_path / name, name)
    image(tmp_path / "korea/test/h.jpg", "korea/test/h.jpg")
    image(tmp_path / ".hidden/x.jpg", "no")
    image(tmp_path / "__MACOSX/x.jpg", "no")
    dataset, report = load_folder(tmp_path)
    assert [(r.caption, r.split) for r in dataset.records] == [
        ("b.jpg", "train"),
        ("images/c.jpg", "train"),
        ("food/d.jpg", "train"),
        ("food/soup 2/f.jpg", "train"),
        ("food/soup 10/e.jpg", "train"),
        ("korea/test/h.jpg", "test"),
        ("TEST/food/g.jpg", "test"),
    ]
    assert len(report.splitlines()) == 3


def test_metadata_in_subfolders_is_read_and_images_that_none_lists_are_named(tmp_path):
    for name in ("korea/a.png", "korea/b.png", "korea/food/c.png", "korea/food/d.png", "plain/e.png"):
        image(tmp_path / name, "beside" if name[-5] in "be" else None)
    write_csv(tmp_path / "korea/metadata.csv", "file_name,text", "a.png,in the table", "food/c.png,below the table")
    (tmp_path / "korea/metadata.csv").rename(tmp_path / "korea/Metadata.CSV")
    dataset, report = load_folder(tmp_path)
    assert [r.caption for r in dataset.records] == ["in the table", "below the table", "beside"]
    lines = report.splitlines()
    assert (
        "2 images are not listed in korea/Metadata.CSV: add a line for each, or remove them (korea/b.png, "
        "korea/food/d.png)." in lines
    )
    assert any(
        line.startswith("korea/b.txt is not read, because korea/Metadata.CSV gives the captions") for line in lines
    )


def test_metadata_without_one_valid_line_leaves_captions_beside_images_in_force(tmp_path):
    image(tmp_path / "a.png", "beside")
    image(tmp_path / "b.png")
    for text in ("", "{broken\n", '{"file_name": "gone.png", "text": "x"}\n'):
        (tmp_path / "metadata.jsonl").write_text(text)
        dataset, report = load_folder(tmp_path)
        assert [r.caption for r in dataset.records] == ["beside"]
        assert "b.png is an image that metadata.jsonl does not list" in report


def test_a_row_that_is_left_out_does_not_count_as_missing(tmp_path):
    for name in ("a.png", "b.png", "n.png"):
        image(tmp_path / name)
    lines = [
        {"file_name": "a.png", "text": "x", "negative_imgpath": ["n.png"], "split": "test"},
        {"file_name": "b.png"},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    report = load_folder(tmp_path, split="all")[1]
    assert "has no caption for b.png" in report and "not list" not in report


def test_names_are_the_same_however_they_are_composed_and_in_any_case_that_is_unambiguous(tmp_path):
    apart = unicodedata.normalize("NFD", "naïve café.png")
    image(tmp_path / apart)
    image(tmp_path / "Images/FOOD_1.JPG")
    image(tmp_path / "two.png")
    image(tmp_path / "TWO.png")
    names = ["naïve café.png", "images/food_1.jpg", "two.png", "Two.png"]
    lines = [json.dumps({"file_name": name, "text": name}, ensure_ascii=False) for name in names]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    dataset, report = load_folder(tmp_path)
    assert [r.image.relative_to(tmp_path.resolve()).as_posix() for r in dataset.records] == [
        apart,
        "Images/FOOD_1.JPG",
        "two.png",
    ]
    assert "metadata.jsonl line 4 names Two.png, which is not in the folder" in report


def test_a_caption_is_beside_its_image_in_any_case_and_composition(tmp_path):
    image(tmp_path / "IMG_1.JPG")
    (tmp_path / "IMG_1.TXT").write_text("shouted")
    image(tmp_path / unicodedata.normalize("NFD", "café.png"))
    (tmp_path / unicodedata.normalize("NFC", "café.Caption")).write_text("composed")
    image(tmp_path / "x.png")
    (tmp_path / "X.txt").write_text("one")
    (tmp_path / "x.TXT").write_text("another")
    assert holds_dataset(tmp_path)
    dataset, report = load_folder(tmp_path)
    assert {r.caption for r in dataset.records} == {"shouted", "composed"}
    assert "x.png has no caption" in report


def test_blanks_that_look_the_same_are_the_same(tmp_path):
    """macOS writes a narrow blank before PM into the names of screenshots, and web pages hold their blanks together."""
    image(tmp_path / "Screenshot 2024-01-01 at 3.04.05\u202fPM.png")
    image(tmp_path / "two\u00a0words.png")
    (tmp_path / "two words.txt").write_text("beside")
    assert [r.caption for r in load_folder(tmp_path)[0].records] == ["beside"]
    row = {"file_name": "Screenshot 2024-01-01 at 3.04.05 PM.png", "text": "listed"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    assert [r.caption for r in load_folder(tmp_path)[0].records] == ["listed"]


def test_a_name_with_a_backslash_or_a_colon_is_a_name_where_it_is_one(tmp_path):
    """A zip from Windows unpacked by a program that keeps its backslashes; Finder shows a colon as a slash."""
    for name in ("food\\a", "c:b"):
        image(tmp_path / f"{name}.png", name)
    assert [r.caption for r in load_folder(tmp_path)[0].records] == ["c:b", "food\\a"]
    write_csv(tmp_path / "metadata.csv", "file_name,text", "food\\a.png,listed")
    assert [r.caption for r in load_folder(tmp_path)[0].records] == ["listed"]


def test_cultures_places_categories_and_splits_are_composed(tmp_path):
    words = {"culture": "Réunion", "place": "Forêt", "category": "Fête", "split": "Übung"}
    for name, form in (("a.png", "NFC"), ("b.png", "NFD")):
        image(tmp_path / name)
        row = {"file_name": name, "text": "x"} | {key: unicodedata.normalize(form, v) for key, v in words.items()}
        with (tmp_path / "metadata.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
    for form in ("NFC", "NFD"):
        asked = [unicodedata.normalize(form, words["category"])]
        dataset, _ = load_folder(tmp_path, categories=asked, split=unicodedata.normalize(form, "übung"))
        assert len(dataset) == 2 and len({(r.culture, r.place, r.category, r.split) for r in dataset.records}) == 1
    image(tmp_path / "more/c.png", "x")
    given = load_folder(tmp_path / "more", unicodedata.normalize("NFD", "Réunion"))[0].records[0]
    assert given.culture == dataset.records[0].culture


def test_joined_files_and_those_of_an_old_mac_are_read_line_by_line(tmp_path):
    for name in ("a.png", "b.png"):
        image(tmp_path / name)
    rows = [json.dumps({"file_name": name, "text": name}) for name in ("a.png", "b.png")]
    (tmp_path / "metadata.jsonl").write_bytes("".join(f"\ufeff{row}\n" for row in rows).encode())
    assert len(load_folder(tmp_path)[0]) == 2
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "metadata.csv").write_bytes(b"file_name,text\ra.png,soup\rc.png,gone\rb.png,rice\r")
    dataset, report = load_folder(tmp_path)
    assert [r.caption for r in dataset.records] == ["soup", "rice"] and "metadata.csv line 3 names c.png" in report


@pytest.mark.parametrize("name", ["metadata.json", "metadata.jsonl.txt"])
def test_where_no_image_has_a_caption_the_files_beside_them_are_named(tmp_path, name):
    image(tmp_path / "a.png")
    (tmp_path / name).write_text("[]")
    with pytest.raises(UserError, match=f"a.png has no caption.*{name} is "):
        load_folder(tmp_path)


@pytest.mark.parametrize("name", ["a.txt", "metadata.jsonl"])
def test_a_caption_or_metadata_file_that_is_a_link_to_nothing_is_said_to_be_one(tmp_path, name):
    image(tmp_path / "a.png")
    (tmp_path / name).symlink_to("annex")
    with pytest.raises(UserError, match=f"{name} is a link to a file that is not there"):
        load_folder(tmp_path)


def test_the_menu_follows_few_of_many_links(tmp_path, monkeypatch):
    (tmp_path / "set").mkdir()
    (tmp_path / "elsewhere.png").touch()
    for n in range(300):
        (tmp_path / f"set/{n}.png").symlink_to(tmp_path / "elsewhere.png")
        (tmp_path / f"set/{n}.txt").touch()
    followed = []
    real = names.real
    monkeypatch.setattr(names, "real", lambda path: followed.append(path) or real(path))
    assert not holds_dataset(tmp_path / "set") and len(followed) <= 100
    image(tmp_path / "set/z.png", "no link")
    followed.clear()
    assert holds_dataset(tmp_path / "set") and followed == []


def test_what_is_not_used_is_named_a_few_of_each_kind_and_counted(tmp_path):
    image(tmp_path / "good.png", "good")
    for n in range(30):
        image(tmp_path / f"bare {n}.png")
        (tmp_path / f"alone {n}.txt").write_text("x")
        (tmp_path / f"raw {n}.CR2").write_bytes(b"II*\0")
        (tmp_path / f"cache {n}.npz").write_bytes(b"PK")
        (tmp_path / f"broken {n}.jpg").write_bytes(b"text")
        (tmp_path / f"broken {n}.txt").write_text("words")
    image(tmp_path / "unnamed.png").rename(tmp_path / "unnamed")
    (tmp_path / "good.caption").write_text("a second one")
    report = load_folder(tmp_path)[1]
    lines = report.splitlines()
    assert lines[0].startswith("1 image loaded,") and " 60 left out" in lines[0]
    assert len(lines) < 40 and all(len(line) < 400 for line in lines)
    for start in (
        "30 caption files have no image: ",
        "good.caption is not read, because its image has another caption file",
        "30 files are of kinds that are not read: export them as JPEG, PNG or TIFF (raw 0.CR2, raw 1.CR2",
        "unnamed is an image by its content, but not by its name",
        "30 files are neither images nor captions and are not used (cache 0.npz",
        "- 30 images have no caption: write one into a .txt file of the same name beside each (bare 0.png, bare 1.png",
        "- The file broken 0.jpg is not an image",
        "- 10 more to which the same applies: replace it or remove it.",
    ):
        assert any(line.startswith(start) for line in lines), start


@pytest.mark.parametrize("table", [False, True])
def test_links_to_nothing_and_in_a_circle_are_named(tmp_path, table):
    image(tmp_path / "good.png", "good")
    for name, target in (("round.png", "round.png"), ("gone.png", "../annex/gone.png"), ("loop", "loop")):
        (tmp_path / name).symlink_to(target)
        (tmp_path / name).with_suffix(".txt").write_text("words")
    if table:
        (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "good.png", "text": "listed"}))
    dataset, report = load_folder(tmp_path)
    assert len(dataset) == 1
    assert [name for name in ("round.png", "gone.png", "loop") if name not in report] == []
    assert table or "2 images are links to files that are not there" in report


def test_only_regular_files_are_opened(tmp_path):
    image(tmp_path / "good.png", "good")
    for name in ("pipe", "pipe.png", "pipe.txt", "pipe.json"):
        os.mkfifo(tmp_path / name)
    dataset, report = load_folder(tmp_path)
    assert len(dataset) == 1 and "pipe" in report


def test_a_folder_that_may_not_be_read_does_not_hide_the_others(tmp_path, monkeypatch):
    image(tmp_path / "good.png", "good")
    image(tmp_path / "shut/a.png", "shut")
    real = os.scandir

    def scandir(path):
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    dataset, report = load_folder(tmp_path)
    assert len(dataset) == 1 and "- shut in " in report and "may not be read" in report


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
