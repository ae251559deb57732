"""The forms people keep images with words in: captions beside images, kohya's folders, sub-folders, metadata."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dataset_files import image, write_csv

from comfy_scoft.data.dataset import holds_dataset, load_folder


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
