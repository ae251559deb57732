"""Records and datasets: immutable, and a fingerprint that follows the content."""

import dataclasses
import os

import pytest
from PIL import Image

from comfy_scoft.data.records import CultureRecord, Dataset


@pytest.fixture
def dataset(tmp_path):
    records = []
    for n in range(3):
        path = tmp_path / f"FOOD_{n}.png"
        Image.new("RGB", (8, 8), (n, 0, 0)).save(path)
        records.append(CultureRecord(path, f"dish {n}", split="test" if n == 2 else "train"))
    return Dataset(tmp_path, tuple(records), "food")


def test_a_split_holds_its_records_only_and_all_holds_every_one(dataset):
    assert [record.caption for record in dataset.split("train").records] == ["dish 0", "dish 1"]
    assert [record.caption for record in dataset.split("test").records] == ["dish 2"]
    assert dataset.split("all") is dataset
    assert len(dataset.split("elsewhere")) == 0


def test_records_and_datasets_cannot_be_changed_in_place(dataset):
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset.records[0].caption = "other"
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset.name = "other"
    assert len(dataset.replace(dataset.records[:1])) == 1
    assert len(dataset) == 3


def test_the_files_of_a_record_are_image_negatives_and_depth(tmp_path):
    a, b, c = (tmp_path / name for name in "abc")
    assert CultureRecord(a, "x").files() == (a,)
    assert CultureRecord(a, "x", negatives=(b,), depth=c).files() == (a, b, c)


def test_the_fingerprint_is_the_same_for_the_same_content(dataset):
    assert dataset.fingerprint() == dataset.replace(dataset.records).fingerprint()
    assert len(dataset.fingerprint()) == 64


def test_the_fingerprint_changes_with_a_caption_an_order_or_a_negative(dataset):
    first, second, third = dataset.records
    seen = {dataset.fingerprint()}
    for records in (
        (dataclasses.replace(first, caption="else"), second, third),
        (dataclasses.replace(first, generic_captions=("a plate",)), second, third),
        (dataclasses.replace(first, negatives=(second.image,)), second, third),
        (dataclasses.replace(first, depth=second.image), second, third),
        (second, first, third),
        (first, second),
    ):
        seen.add(dataset.replace(records).fingerprint())
    assert len(seen) == 7


def test_the_fingerprint_changes_with_a_file_its_time_and_its_loss(dataset):
    seen = {dataset.fingerprint()}
    path = dataset.records[0].image
    os.utime(path, (1, 1))
    seen.add(dataset.fingerprint())
    path.write_bytes(path.read_bytes() + b"more")
    os.utime(path, (1, 1))
    seen.add(dataset.fingerprint())
    path.unlink()
    seen.add(dataset.fingerprint())
    assert len(seen) == 4


def test_the_fingerprint_does_not_depend_on_where_the_folder_lies(dataset, tmp_path_factory):
    other = tmp_path_factory.mktemp("moved")
    records = []
    for record in dataset.records:
        stat, path = record.image.stat(), other / record.image.name
        path.write_bytes(record.image.read_bytes())
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        records.append(dataclasses.replace(record, image=path))
    assert Dataset(other, tuple(records), "food").fingerprint() == dataset.fingerprint()
