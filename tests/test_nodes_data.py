"""The nodes that load, make, take apart, show and save datasets."""

from __future__ import annotations

import os
import shutil
import timeit
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from node_datasets import batches, captioned, empty_folders, from_images, load, one_sentence, with_depth
from PIL import Image

from comfy_scoft.comfyui import dataset_folders
from comfy_scoft.comfyui.nodes import data as nodes_data
from comfy_scoft.comfyui.nodes import survey
from comfy_scoft.data.dataset import load_folder
from comfy_scoft.data.images import open_image
from comfy_scoft.mini_world import COMMUNITY


@pytest.fixture(autouse=True)
def comfy_folders(tmp_path, monkeypatch) -> Path:
    return empty_folders(tmp_path, monkeypatch)


def test_the_menu_lists_the_shipped_set_folders_with_datasets_and_saved_ones(comfy_folders):
    captioned(comfy_folders / "input/korea/train")
    captioned(comfy_folders / "input/a/deep/one")
    (comfy_folders / "input/empty").mkdir()
    captioned(comfy_folders / "output/scoft/datasets/mine")
    expected = [nodes_data.SHIPPED, "a/deep/one", "korea", "mine (saved)"]
    assert dataset_folders.dataset_names() == expected
    assert nodes_data.LoadDataset.INPUT_TYPES()["required"]["folder"][1]["options"] == expected
    for name in expected:
        assert len(load(name)[0]) >= 2


def test_thirty_thousand_images_without_captions_cost_a_menu_no_more_than_reading_their_names(comfy_folders):
    folder = comfy_folders / "input/photos"
    folder.mkdir()
    for n in range(30_000):
        (folder / f"IMG_{n}.jpg").touch()
    menus = (dataset_folders.dataset_names, dataset_folders.link_files, survey.answer_folders)
    names = best(lambda: [list(each) for each in os.walk(comfy_folders / "input")])
    changing = max(best(menu) for menu in menus)
    os.utime(folder, (1e9, 1e9))  # and nothing has changed for long
    at_rest = max(best(menu) for menu in menus)
    assert changing < 8 * names and at_rest < names, (names, changing, at_rest)


def best(call: Callable[[], object]) -> float:
    """The least seconds of three calls."""
    return min(timeit.repeat(call, number=1, repeat=3))


def test_a_menu_sees_every_change_of_a_folder_that_it_has_read(comfy_folders):
    folder = captioned(comfy_folders / "input/set", count=1)
    for at, change, listed in [
        (1e9, lambda: None, True),
        (2e9, (folder / "FOOD_0.txt").unlink, False),
        (1e9, lambda: (folder / "10_hanbok").mkdir(), False),
        (2e9, lambda: (folder / "10_hanbok/a.png").touch(), True),
    ]:
        change()
        for _ in range(2):
            assert ("set" in dataset_folders.dataset_names()) is listed
        for place in (folder, comfy_folders / "input"):
            os.utime(place, (at, at))


def test_the_shipped_set_loads_with_its_own_place_and_generic_captions():
    dataset, report = load(nodes_data.SHIPPED, place="elsewhere", split="train", limit=5).args
    assert len(dataset) == 5 and report.startswith("5 images loaded")
    assert load(nodes_data.SHIPPED, limit=5).ui == {"text": (load(nodes_data.SHIPPED, limit=5)[1],)}
    assert all(record.place == "nuvia" and record.generic_captions for record in dataset.records)
    assert dataset.root == COMMUNITY


def test_culture_place_and_categories_reach_the_records(comfy_folders):
    captioned(comfy_folders / "input/set")
    (comfy_folders / "input/set/FOOD_1.png").rename(comfy_folders / "input/set/CITY_1.png")
    (comfy_folders / "input/set/FOOD_1.txt").rename(comfy_folders / "input/set/CITY_1.txt")
    dataset = load("set", " Nuvian ", " Nuvia ", "nature, food & drink,")[0]
    (record,) = dataset.records
    assert (record.culture, record.place, record.category) == ("Nuvian", "Nuvia", "food & drink")


@pytest.mark.parametrize("name", ["../secret", "/etc", "a/../../secret", "C:\\secret", "", "nowhere", "x (saved)"])
def test_a_folder_outside_or_missing_is_refused_before_and_at_execution(comfy_folders, name):
    captioned(comfy_folders / "secret")
    assert isinstance(nodes_data.LoadDataset.validate_inputs(folder=name), str)
    with pytest.raises(ValueError) as error:
        load(name)
    one_sentence(error)


def test_a_link_out_of_the_input_folder_is_neither_listed_nor_opened(comfy_folders):
    os.symlink(captioned(comfy_folders / "secret"), comfy_folders / "input/link")
    assert dataset_folders.dataset_names() == [nodes_data.SHIPPED]
    with pytest.raises(ValueError, match="leads out of 'input'.* --input-directory") as error:
        load("link")
    one_sentence(error)
    assert "--input-directory" in nodes_data.LoadDataset.validate_inputs(folder="link")


def test_linked_images_and_folders_are_refused_with_the_reason_and_offered_only_beside_others(comfy_folders):
    captioned(comfy_folders / "elsewhere", 3)
    folder = comfy_folders / "input/linked"
    folder.mkdir()
    for path in (comfy_folders / "elsewhere").iterdir():
        (folder / path.name).symlink_to(path)
    assert dataset_folders.dataset_names() == [nodes_data.SHIPPED]
    with pytest.raises(ValueError, match="3 images are links that lead outside .* --input-directory") as error:
        load("linked")
    one_sentence(error)
    captioned(folder / "own")
    (folder / "door").symlink_to(comfy_folders / "elsewhere")
    assert dataset_folders.dataset_names() == [nodes_data.SHIPPED, "linked/own"]
    dataset, report = load("linked").args
    assert len(dataset) == 2
    assert "The folder door is a link that leads outside and is not entered" in report
    assert "FOOD_0.png, FOOD_1.png, FOOD_2.png" in report and report.count("--input-directory") == 2


def test_links_that_stay_inside_the_folder_are_followed(comfy_folders):
    folder = captioned(comfy_folders / "input/set")
    (folder / "again.png").symlink_to(folder / "FOOD_0.png")
    (folder / "again.txt").write_text("the same")
    (folder / ".store").mkdir()
    shutil.copy(folder / "FOOD_0.png", folder / ".store/one.png")
    (folder / "stored.png").symlink_to(folder / ".store/one.png")
    (folder / "stored.txt").write_text("stored")
    assert dataset_folders.dataset_names() == [nodes_data.SHIPPED, "set"]
    dataset = load("set")[0]
    assert len(dataset) == 3 and {"the same", "stored"} < set(dataset.captions) and len(dataset.captions) == 4


def test_broken_metadata_hides_no_good_folder_below(comfy_folders):
    (captioned(comfy_folders / "input/set/good") / "../metadata.jsonl").write_text("{broken")
    captioned(comfy_folders / "input/set/train")
    assert dataset_folders.dataset_names() == [nodes_data.SHIPPED, "set", "set/good", "set/train"]
    dataset, report = load("set").args
    assert len(dataset) == 4 and "metadata.jsonl line 1 is not JSON" in report


def test_a_folder_is_offered_whole_where_its_subfolders_hold_the_datasets(comfy_folders):
    for name in ("food", "city"):
        captioned(comfy_folders / f"input/korea/{name}")
    assert dataset_folders.dataset_names() == [nodes_data.SHIPPED, "korea", "korea/city", "korea/food"]
    assert [len(load(name)[0]) for name in ("korea", "korea/food")] == [4, 2]


def test_the_menu_reads_no_image_and_looks_at_each_name_once(comfy_folders, monkeypatch):
    folder = comfy_folders / "input/photos"
    folder.mkdir()
    for n in range(3000):
        (folder / f"{n}.jpg").touch()
    stats: list[object] = []
    real = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda path: stats.append(path) or real(path))
    monkeypatch.setattr(Path, "open", lambda *given: pytest.fail("a menu opened a file"))
    assert dataset_folders.dataset_names() == [nodes_data.SHIPPED]
    assert len(stats) < 30


def test_a_preview_goes_on_where_images_cannot_be_read_and_names_them_on_the_node(comfy_folders, monkeypatch):
    monkeypatch.setattr("comfy_scoft.data.dataset.folder.DECODED_AT_LOAD", 1)
    folder = captioned(comfy_folders / "input/set", 4, (40, 40))
    for n in (1, 2):
        Image.open(folder / f"FOOD_{n}.png").save(folder / f"FOOD_{n}.jpg")
        (folder / f"FOOD_{n}.png").unlink()
        data = (folder / f"FOOD_{n}.jpg").read_bytes()
        (folder / f"FOOD_{n}.jpg").write_bytes(data[: len(data) - 300])
    dataset, report = load("set").args
    assert len(dataset) == 4 and "only the headers are checked" in report
    result = nodes_data.PreviewDataset.execute(dataset, 12)
    (text,) = result.ui["text"]
    assert [line.split(" is ")[0] for line in text.splitlines()] == ["The image FOOD_1.jpg", "The image FOOD_2.jpg"]
    assert len(result.ui["images"]) == 2
    assert "text" not in nodes_data.PreviewDataset.execute(load(nodes_data.SHIPPED)[0], 3).ui


def test_an_empty_folder_is_one_sentence(comfy_folders):
    (comfy_folders / "input/empty").mkdir()
    with pytest.raises(ValueError, match="holds no dataset") as error:
        load("empty")
    one_sentence(error)


def test_the_fingerprint_follows_the_files(comfy_folders):
    folder = captioned(comfy_folders / "input/set")

    def now():
        return nodes_data.LoadDataset.fingerprint_inputs(folder="set", culture="", place="x")

    seen = [now()]
    assert now() == seen[0]
    (folder / "FOOD_0.txt").write_text("changed!", encoding="utf-8")
    seen.append(now())
    os.utime(folder / "FOOD_1.png", ns=(1, 1))
    seen.append(now())
    (folder / "deep").mkdir()
    (folder / "deep/new.png").write_bytes(b"")
    seen.append(now())
    (folder / "deep/new.png").rename(folder / "deep/other.png")
    seen.append(now())
    assert len(set(seen)) == 5
    assert nodes_data.LoadDataset.fingerprint_inputs(folder=None) == ""


def test_lists_in_lists_out_are_the_same():
    images = batches((1, 8, 12), (2, 5, 7))
    captions, generic = ["one", "two\nlines", "three"], ["a\nb", "", "c"]
    dataset = from_images(images, captions, generic)
    assert [record.generic_captions for record in dataset.records] == [("a", "b"), (), ("c",)]
    assert {(record.culture, record.place) for record in dataset.records} == {("c", "p")}
    pictures, words, plain, prompts, _ = nodes_data.DatasetToLists.execute(dataset).args
    flat = nodes_data.flat_images(images)
    assert all(torch.equal(a[0], b) for a, b in zip(pictures, flat, strict=True))
    assert (words, plain) == (captions, generic)
    assert prompts == ["a in p", "two lines in p", "c in p"]
    again = from_images(pictures, words, plain)
    assert again == dataset and again.root == dataset.root


def test_transparency_of_images_from_a_graph_becomes_white_as_in_files():
    image = torch.tensor([0.2, 0.4, 0.6, 1.0]).repeat(1, 8, 12, 1)
    image[:, :, 6:, 3] = 0
    (record,) = from_images([image], ["a market"]).records
    left, right = (open_image(record.image).getpixel((x, 4)) for x in (2, 9))
    assert (left, right) == ((51, 102, 153), (255, 255, 255))


def test_the_shipped_set_survives_lists_and_back():
    dataset = load(nodes_data.SHIPPED, limit=4)[0]
    images, words, plain, _, _ = nodes_data.DatasetToLists.execute(dataset).args
    again = from_images(images, words, plain, "nuvia", "nuvia")
    for old, new in zip(dataset.records, again.records, strict=True):
        assert (old.caption, old.generic_captions, old.place) == (new.caption, new.generic_captions, new.place)
        assert Image.open(old.image).tobytes() == Image.open(new.image).tobytes()


def test_the_same_images_give_the_same_files_untouched_and_other_words_another_folder():
    images = batches((2, 8, 8))
    first = from_images(images, ["a", "b"])
    before = {path: path.stat().st_mtime_ns for record in first.records for path in record.files()}
    second = from_images(images, ["a", "b"])
    assert second == first and second.fingerprint() == first.fingerprint()
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert from_images(images, ["a", "c"]).root != first.root
    assert from_images(images, ["a", "b"], place="q").root != first.root
    assert from_images([images[0] * 0.5], ["a", "b"]).root != first.root


def test_one_text_with_a_line_for_each_image_will_do():
    images = batches((3, 8, 8))
    assert [r.caption for r in from_images(images, ["a\n\n b \nc\n"]).records] == ["a", "b", "c"]
    assert [r.generic_captions for r in from_images(images, ["a", "b", "c"], ["x\ny\nz"]).records] == [
        ("x",),
        ("y",),
        ("z",),
    ]
    assert from_images([images[0][:1]], ["a"], ["x\ny"]).records[0].generic_captions == ("x", "y")


@pytest.mark.parametrize(("captions", "generic"), [(["a"], None), (["a", "b", "c"], None), (["a", "b"], ["x"])])
def test_counts_that_differ_are_one_sentence(captions, generic):
    with pytest.raises(ValueError, match=r"^There are 2 images but \d (generic )?captions: .+") as error:
        from_images(batches((2, 8, 8)), captions, generic)
    one_sentence(error)


def test_an_empty_caption_is_one_sentence_and_leaves_nothing(comfy_folders):
    with pytest.raises(ValueError, match="caption of image 2 is empty") as error:
        from_images(batches((2, 8, 8)), ["a", " "])
    one_sentence(error)
    assert not list((comfy_folders / "output").rglob("*.png"))


def test_depth_leaves_as_a_list_only_when_every_record_has_it(comfy_folders):
    dataset = from_images(batches((2, 8, 12)), ["a", "b"])
    blocked = nodes_data.DatasetToLists.execute(dataset)[4]
    assert "connect Estimate Depth" in blocked.message
    depth = nodes_data.DatasetToLists.execute(with_depth(dataset, comfy_folders))[4]
    assert [tuple(map.shape) for map in depth] == [(1, 8, 12, 3)] * 2 and depth[1].unique().tolist() == [
        pytest.approx(40 / 255)
    ]


def test_attached_negatives_follow_the_records(comfy_folders):
    dataset = from_images(batches((2, 8, 8)), ["a", "b"])
    images = batches((2, 8, 8), (1, 4, 4), (1, 8, 8))
    (found,) = nodes_data.AttachNegatives.execute([dataset], images).args
    sizes = [[Image.open(path).size for path in record.negatives] for record in found.records]
    assert sizes == [[(8, 8), (8, 8)], [(4, 4), (8, 8)]]
    assert all(path.is_relative_to(comfy_folders / "output") for r in found.records for path in r.negatives)
    with pytest.raises(ValueError, match="^There are 3 images for 2 records") as error:
        nodes_data.AttachNegatives.execute([dataset], images[:2])
    one_sentence(error)


def test_a_preview_is_two_pictures_shown_on_the_node(comfy_folders):
    result = nodes_data.PreviewDataset.execute(load(nodes_data.SHIPPED)[0], 3)
    sheet, table = result.args
    assert sheet.shape[0] == table.shape[0] == 1 and sheet.shape[-1] == table.shape[-1] == 3
    shown = [comfy_folders / "temp" / image["filename"] for image in result.ui["images"]]
    assert [Image.open(path).size for path in shown] == [(i.shape[2], i.shape[1]) for i in (sheet, table)]


def test_a_saved_dataset_comes_back_whole_and_is_listed(comfy_folders):
    dataset = with_depth(from_images(batches((2, 8, 8)), ["a", "b"], ["x\ny", "z"]), comfy_folders)
    (dataset,) = nodes_data.AttachNegatives.execute([dataset], batches((2, 8, 8))).args
    (saved,) = nodes_data.SaveDataset.execute(dataset, " été 1 ").args
    assert saved.root == comfy_folders / "output/scoft/datasets/été 1"
    assert all(path.is_relative_to(saved.root) for record in saved.records for path in record.files())
    assert load("été 1 (saved)")[0] == saved
    for old, new in zip(dataset.records, saved.records, strict=True):
        assert [p.read_bytes() for p in old.files()] == [p.read_bytes() for p in new.files()]
        assert (old.caption, old.generic_captions) == (new.caption, new.generic_captions)


@pytest.mark.parametrize("name", ["", "..", "../b", "a/../../b", "/a", "C:a", ".hidden", "a\0", "x" * 300, "a."])
def test_a_name_with_a_path_in_it_is_refused_and_nothing_is_written(comfy_folders, name):
    dataset = load(nodes_data.SHIPPED, limit=1)[0]
    with pytest.raises(ValueError, match="cannot name a file|leads out of") as error:
        nodes_data.SaveDataset.execute(dataset, name)
    one_sentence(error)
    assert not list((comfy_folders / "output").iterdir())


def test_a_saved_dataset_is_replaced_only_when_asked(comfy_folders):
    one, two = (load(nodes_data.SHIPPED, limit=n)[0] for n in (1, 2))
    nodes_data.SaveDataset.execute(one, "set")
    with pytest.raises(ValueError, match="already holds files") as error:
        nodes_data.SaveDataset.execute(two, "set")
    one_sentence(error)
    assert len(load("set (saved)")[0]) == 1
    nodes_data.SaveDataset.execute(two, "set", overwrite=True)
    assert len(load_folder(comfy_folders / "output/scoft/datasets/set")[0]) == 2
