"""Bad data gives one sentence and loses nothing: never a traceback of a library, never a silent loss."""

import json
import os
import shutil

import pytest
import torch
from bad_data import GOOD, cut, load_with, noise, one_sentence
from PIL import Image

from comfy_scoft.data.dataset import from_images, load_folder, save_dataset
from comfy_scoft.data.records import CultureRecord, Dataset


@pytest.fixture
def folder(tmp_path):
    """A good record and room for a bad one."""
    noise(tmp_path / "set/good.png")
    return tmp_path / "set"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere does not exist") as error:
        load_folder(tmp_path / "nowhere")
    one_sentence(error)


def test_an_empty_folder_says_what_was_expected(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "b/metadata.jsonl").write_text("\n\n")
    for name in ("a", "b"):
        with pytest.raises(ValueError, match="holds no dataset: it was expected") as error:
            load_folder(tmp_path / name)
        one_sentence(error)


def test_a_split_or_category_that_nobody_has_is_an_error(folder):
    (folder / "metadata.jsonl").write_text(json.dumps(GOOD))
    for wish in ({"split": "test"}, {"categories": ("city",)}):
        with pytest.raises(ValueError, match="None of the 1 records") as error:
            load_folder(folder, **wish)
        one_sentence(error)


def test_a_missing_caption_is_an_error_of_its_record(folder):
    for line in ({"file_name": "good.png"}, GOOD | {"text": "  "}, GOOD | {"text": None}):
        assert "line 2 has no caption for good.png" in load_with(folder, line)[0]


def test_an_image_without_its_text_file_is_reported(folder):
    noise(folder / "bare.png")
    (folder / "good.txt").write_text("fine")
    noise(folder / "blank.png")
    (folder / "blank.txt").write_text(" \n")
    dataset, report = load_folder(folder)
    assert len(dataset) == 1
    assert "- The image bare.png has no caption: write one into bare.txt beside it." in report
    assert "- The caption file blank.txt is empty" in report


def test_a_line_that_is_not_json_is_named_by_file_and_number(folder):
    lines = (b"{broken", b"[" * 100_000, b"9" * 10_000, b'{"file_name": "good.png", "text": "x"} trailing')
    faults = load_with(folder, *lines)
    for number, fault in enumerate(faults[:2] + faults[3:], 2):
        assert fault.startswith("metadata.jsonl line ") and "is not JSON" in fault, number
    assert faults[0].startswith("metadata.jsonl line 2 ") and faults[3].startswith("metadata.jsonl line 5 ")


def test_a_line_that_is_json_but_no_object_is_an_error(folder):
    for line in (b"[]", b"3", b'"text"', b"null"):
        assert "is JSON but not an object" in load_with(folder, line)[0]


def test_fields_of_the_wrong_type_are_named(folder):
    assert '"text"' in load_with(folder, GOOD | {"text": 5})[0]
    assert '"blip_text" than a text or a list of texts' in load_with(folder, GOOD | {"blip_text": [1]})[0]
    assert '"negative_imgpath"' in load_with(folder, GOOD | {"negative_imgpath": {"a": 1}})[0]
    assert '"licence"' in load_with(folder, GOOD | {"licence": True})[0]
    assert "names no image" in load_with(folder, {"text": "x"})[0]
    assert "has the era" in load_with(folder, GOOD | {"era": "baroque"})[0]
    assert "has the split" in load_with(folder, GOOD | {"split": "../x"})[0]
    assert "has the split" in load_with(folder, GOOD | {"split": "all"})[0]
    assert "not valid Unicode" in load_with(folder, b'{"file_name": "good.png", "text": "\\ud800"}')[0]


def test_a_missing_image_or_negative_or_depth_is_named(folder):
    assert "names gone.png, which is not in the folder" in load_with(folder, GOOD | {"file_name": "gone.png"})[0]
    assert "names n.png" in load_with(folder, GOOD | {"negative_imgpath": ["good.png", "n.png"]})[0]
    assert "names d.png" in load_with(folder, GOOD | {"depth": "d.png"})[0]
    assert "which is not in the folder" in load_with(folder, GOOD | {"file_name": "x" * 5000})[0]
    assert "which is not in the folder" in load_with(folder, GOOD | {"file_name": "a\0b"})[0]


@pytest.mark.parametrize("field", ["file_name", "negative_imgpath", "depth"])
def test_paths_outside_the_folder_are_refused(folder, tmp_path, field):
    secret = noise(tmp_path / "secret.png")
    noise(tmp_path / "set2/secret.png")
    (folder / "link.png").symlink_to(secret)
    (folder / "door").symlink_to(tmp_path)
    names = (
        str(secret),
        "../secret.png",
        "x/../../secret.png",
        "..\\secret.png",
        "../set2/secret.png",
        "C:\\secret.png",
        "C:secret.png",
        "\\\\host\\share\\a.png",
        "link.png",
        "door/secret.png",
    )
    for name in names:
        value = [name] if field == "negative_imgpath" else name
        assert "points outside the folder" in load_with(folder, GOOD | {field: value})[0], name


def test_an_absolute_path_into_the_folder_is_refused_too(folder):
    assert "use a path relative" in load_with(folder, GOOD | {"file_name": str(folder / "good.png")})[0]


def test_metadata_and_captions_that_link_outside_are_not_read(folder, tmp_path):
    (tmp_path / "secret").write_text("password")
    (folder / "good.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="good.txt points outside the folder") as error:
        load_folder(folder)
    assert "password" not in one_sentence(error)
    (folder / "metadata.jsonl").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="metadata.jsonl points outside the folder"):
        load_folder(folder)


def test_a_line_of_ten_megabytes_costs_one_sentence(folder):
    line = b'{"file_name": "good.png", "text": "' + b"x" * 10_000_000 + b'"}'
    assert "line 2 is longer than 1,000,000 characters" in load_with(folder, line)[0]
    faults = load_with(folder, line, b"{broken")
    assert faults[1].startswith("metadata.jsonl line 3 ")


def test_other_encodings_are_named(folder):
    assert "line 2 is not UTF-8" in load_with(folder, '{"file_name": "good.png", "text": "é"}'.encode("latin-1"))[0]
    (folder / "metadata.jsonl").write_text(json.dumps(GOOD), encoding="utf-16")
    with pytest.raises(ValueError, match="not UTF-8 but UTF-16") as error:
        load_folder(folder)
    one_sentence(error)


def test_when_nothing_is_good_the_error_is_one_sentence_with_the_first_faults(folder):
    (folder / "metadata.jsonl").write_text("{\n" * 7)
    with pytest.raises(ValueError) as error:
        load_folder(folder)
    text = one_sentence(error)
    assert "line 1 " in text and "line 3 " in text and "line 4 " not in text and "and 4 more" in text


def test_messages_hold_no_control_characters_and_stay_short(folder):
    fault = load_with(folder, GOOD | {"file_name": "\x1b[31m\r\n" + "y" * 900})[0]
    assert fault.isprintable() and len(fault) < 300


def test_what_may_not_be_read_is_named(folder, monkeypatch):
    (folder / "metadata.jsonl").write_text(json.dumps(GOOD))

    def refuse(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(type(folder), "open", refuse)
        with pytest.raises(ValueError, match="metadata.jsonl in set may not be read") as error:
            load_folder(folder)
        one_sentence(error)
    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(ValueError, match="good.png may not be read") as error:
        load_folder(folder)
    one_sentence(error)


def test_a_failed_swap_brings_the_old_dataset_back(folder, tmp_path, monkeypatch):
    (folder / "metadata.jsonl").write_text(json.dumps(GOOD))
    dataset, _ = load_folder(folder)
    saved = save_dataset(dataset, tmp_path / "saved")
    replace = os.replace

    def fail(source, target):
        if str(source).endswith(".part"):
            raise OSError("disk full")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_dataset(dataset, saved, overwrite=True)
    assert len(load_folder(saved)[0]) == 1
    assert not list(tmp_path.glob(".*"))


def test_a_limit_below_zero_is_refused(folder):
    with pytest.raises(ValueError, match="limit is -1") as error:
        load_folder(folder, limit=-1)
    one_sentence(error)


def test_a_broken_record_does_not_use_up_the_limit(folder):
    cut(folder / "cut.png")
    shutil.copy(folder / GOOD["file_name"], folder / "another.png")
    lines = [GOOD | {"file_name": "cut.png"}, GOOD, GOOD | {"file_name": "another.png"}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    dataset, report = load_folder(folder, limit=1)
    assert [record.caption for record in dataset.records] == ["a good one"]
    assert report.startswith("1 image loaded, 1 left out") and "beyond the limit): 1" in report


def test_graph_images_that_do_not_fit_are_refused_and_leave_nothing(tmp_path):
    image = torch.zeros(4, 4, 3)
    for images, captions, generic in (
        ([], [], None),
        ([image], ["a", "b"], None),
        ([image], ["a"], ["b", "c"]),
        ([image], [" "], None),
        ([image[..., 0]], ["a"], None),
        ([image / 0], ["a"], None),
    ):
        with pytest.raises(ValueError) as error:
            from_images(images, captions, generic, "", "", tmp_path / "set")
        one_sentence(error)
    assert list(tmp_path.iterdir()) == []


def test_saving_never_destroys_what_is_there(folder, tmp_path):
    (folder / "metadata.jsonl").write_text(json.dumps(GOOD))
    dataset, _ = load_folder(folder)
    (tmp_path / "file").write_text("mine")
    saved = save_dataset(dataset, tmp_path / "saved")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.txt").write_text("mine")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    for target, overwrite, words in (
        (folder, True, "the one the dataset was read from"),
        (tmp_path, True, "the one the dataset was read from"),
        (tmp_path / "home", False, "already holds files"),
        (tmp_path / "home", True, "holds more than a dataset"),
        (tmp_path / "file", True, "is a file"),
        (saved, False, "already holds files"),
    ):
        with pytest.raises(ValueError, match=words) as error:
            save_dataset(dataset, target, overwrite=overwrite)
        one_sentence(error)
    gone = dataset.replace([*dataset.records, CultureRecord(folder / "gone.png", "x")])
    with pytest.raises(ValueError, match="gone.png of the dataset is missing"):
        save_dataset(gone, saved, overwrite=True)
    with pytest.raises(ValueError, match="has no records"):
        save_dataset(Dataset(folder, (), "none"), tmp_path / "new")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
