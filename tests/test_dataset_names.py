"""Names in a dataset's folder, links, and what is not used: composed, in any case, named file by file."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest
from dataset_files import image, write_csv

from comfy_scoft.common.errors import UserError
from comfy_scoft.data.dataset import holds_dataset, load_folder, names


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
