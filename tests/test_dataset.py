"""Folders become records, records become aligned tensors, and a saved dataset comes back as it was."""

import dataclasses
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from comfy_scoft.data.crop import aligned
from comfy_scoft.data.dataset import counts, from_images, holds_dataset, load_folder, save_dataset
from comfy_scoft.data.images import open_image
from comfy_scoft.data.records import CultureRecord, Dataset


def image_file(path, size=(12, 8), color=(10, 20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def write_lines(folder, *lines, name="metadata.jsonl"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(json.dumps(line) for line in lines) + "\n", encoding="utf-8")


@pytest.fixture
def ccub(tmp_path):
    """The released form: train/ with negatives, test/ without."""
    root = tmp_path / "korea"
    for n in range(3):
        image_file(root / f"train/images/FOOD_{n}.jpg", color=(n * 40, 0, 0))
    image_file(root / "test/images/ARCH_0.jpg")
    for k in range(2):
        image_file(root / f"train/negatives/FOOD_0_{k}.png")
    write_lines(
        root / "train",
        {
            "file_name": "images/FOOD_0.jpg",
            "text": "a bowl of bibimbap",
            "blip_text": ["a bowl of food", "a bowl of rice"],
            "negative_imgpath": ["negatives/FOOD_0_0.png", "train/negatives/FOOD_0_1.png"],
        },
        {"file_name": "images/FOOD_1.jpg", "text": "kimchi", "blip_text": "a plate of food", "negative_imgpath": ""},
        {"file_name": "images\\FOOD_2.jpg", "text": " tteok ", "place": "Busan", "era": "Traditional", "split": "val"},
    )
    write_lines(root / "test", {"file_name": "images/ARCH_0.jpg", "text": "a hanok", "blip_text": None})
    return root


def test_the_released_form_is_read_with_splits_categories_and_negatives(ccub):
    dataset, report = load_folder(ccub, culture="Korean", place="Korea")
    bowl, kimchi, cake, house = dataset.records
    assert report.splitlines()[0] == "4 images loaded, 0 left out"
    assert bowl.generic_captions == ("a bowl of food", "a bowl of rice")
    assert [path.name for path in bowl.negatives] == ["FOOD_0_0.png", "FOOD_0_1.png"]
    assert (kimchi.generic_captions, kimchi.negatives) == (("a plate of food",), ())
    assert (cake.caption, cake.place, cake.era, cake.split) == ("tteok", "Busan", "traditional", "validation")
    assert (house.category, house.split, house.generic_captions) == ("architecture", "test", ())
    assert {record.culture for record in dataset.records} == {"Korean"}
    assert bowl.place == "Korea"
    assert all(path.is_absolute() for record in dataset.records for path in record.files())


def test_filters_keep_what_was_asked_for_and_the_report_tells_the_rest(ccub):
    assert [r.caption for r in load_folder(ccub, split="test")[0].records] == ["a hanok"]
    assert len(load_folder(ccub, categories=("FOOD",))[0]) == 3
    assert len(load_folder(ccub, categories=("Food & Drink", "architecture"))[0]) == 4
    dataset, report = load_folder(ccub, limit=2)
    assert [r.caption for r in dataset.records] == ["a bowl of bibimbap", "kimchi"]
    assert report.startswith("2 images loaded, 0 left out\n")
    assert "Not asked for (another split or category, or beyond the limit): 2" in report


def test_images_with_text_files_are_read_in_natural_order(tmp_path):
    for name in ("FOOD_10", "FOOD_2", "portrait"):
        image_file(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(f"{name}\nin words\n", encoding="utf-8")
    image_file(tmp_path / "test/images/CITY_1.webp")
    (tmp_path / "test/images/CITY_1.txt").write_text("a street", encoding="utf-8")
    image_file(tmp_path / "._FOOD_2.png")
    dataset, _ = load_folder(tmp_path)
    assert [r.caption for r in dataset.records] == [
        "FOOD_2 in words",
        "FOOD_10 in words",
        "portrait in words",
        "a street",
    ]
    assert [r.category for r in dataset.records] == ["food & drink", "food & drink", "", "city"]
    assert [r.split for r in dataset.records] == ["train", "train", "train", "test"]


def test_huggingface_imagefolder_metadata_is_read(tmp_path):
    image_file(tmp_path / "a.png")
    write_lines(tmp_path, {"file_name": "a.png", "text": "words", "label": 3, "width": None})
    assert load_folder(tmp_path)[0].records[0].caption == "words"


def test_a_byte_order_mark_and_blank_lines_are_accepted(tmp_path):
    image_file(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text('\ufeff{"file_name": "a.png", "text": "ñandú"}\r\n\r\n', encoding="utf-8")
    assert load_folder(tmp_path)[0].records[0].caption == "ñandú"


def test_counts_follow_the_order_of_ccub(ccub):
    dataset, _ = load_folder(ccub)
    assert list(counts(dataset).items()) == [
        (("architecture", ""), 1),
        (("food & drink", ""), 2),
        (("food & drink", "traditional"), 1),
    ]


def test_a_menu_offers_folders_with_a_dataset_only(ccub, tmp_path):
    assert holds_dataset(ccub)
    assert not holds_dataset(tmp_path / "nowhere")
    image_file(tmp_path / "plain/a.png")
    assert not holds_dataset(tmp_path / "plain")
    (tmp_path / "plain/a.txt").write_text("words")
    assert holds_dataset(tmp_path / "plain")


def test_an_image_is_turned_upright_by_its_exif(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (12, 8)).save(tmp_path / "a.jpg", exif=exif)
    assert open_image(tmp_path / "a.jpg").size == (8, 12)


def test_transparency_becomes_white_and_sixteen_bits_are_scaled(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert open_image(tmp_path / "clear.png").getpixel((1, 1)) == (255, 255, 255)
    Image.fromarray(np.full((4, 4), 128 * 257, np.uint16)).save(tmp_path / "depth.png")
    assert open_image(tmp_path / "depth.png").getpixel((1, 1)) == (128, 128, 128)


def marked(path, size, corner, color=(255, 0, 0)):
    """A black image whose named corner, a quarter of each side, is colored."""
    array = np.zeros((size[1], size[0], 3), np.uint8)
    rows = slice(0, size[1] // 4) if corner[0] == "top" else slice(-(size[1] // 4), None)
    columns = slice(0, size[0] // 4) if corner[1] == "left" else slice(-(size[0] // 4), None)
    array[rows, columns] = color
    Image.fromarray(array).save(path)
    return path


@pytest.mark.parametrize("flip", [False, True])
def test_image_and_negatives_share_one_crop_and_one_flip(tmp_path, flip):
    image = marked(tmp_path / "x.png", (64, 64), ("top", "left"))
    same = marked(tmp_path / "n0.png", (64, 64), ("top", "left"))
    larger = marked(tmp_path / "n1.png", (256, 256), ("top", "left"))
    pixels, negatives = aligned(CultureRecord(image, "x", negatives=(same, larger)), 32, flip=flip)
    assert pixels.shape == (3, 32, 32) and negatives.shape == (2, 3, 32, 32)
    corner, away = ((0, 28), (0, 3)) if flip else ((0, 3), (0, 28))
    for tensor in (pixels, *negatives):
        assert tensor[0][corner] > 0.9 and tensor[0][away] < -0.9
    assert torch.equal(pixels, negatives[0])
    assert (pixels - negatives[1]).abs().mean() < 0.02


def test_the_crop_is_central_and_keeps_the_aspect(tmp_path):
    array = np.zeros((20, 60, 3), np.uint8)
    array[:, 20:40] = 255
    Image.fromarray(array).save(tmp_path / "x.png")
    pixels, negatives = aligned(CultureRecord(tmp_path / "x.png", "x"), 20, flip=False)
    assert pixels.min() == 1.0
    assert negatives.shape == (0, 3, 20, 20)
    assert aligned(CultureRecord(tmp_path / "x.png", "x"), (10, 30), flip=False)[0].shape == (3, 10, 30)


def test_a_picture_of_the_right_size_is_only_rescaled_to_minus_one_and_one(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "x.png")
    pixels, _ = aligned(CultureRecord(tmp_path / "x.png", "x"), 16, flip=False)
    assert torch.equal(pixels, torch.from_numpy(array).permute(2, 0, 1).float() / 127.5 - 1)
    flipped, _ = aligned(CultureRecord(tmp_path / "x.png", "x"), 16, flip=True)
    assert torch.equal(flipped, pixels.flip(-1))


def test_shrinking_averages_instead_of_aliasing(tmp_path):
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).convert("RGB").save(tmp_path / "x.png")
    pixels, _ = aligned(CultureRecord(tmp_path / "x.png", "x"), 8, flip=False)
    assert pixels.abs().max() < 0.05


@pytest.mark.parametrize("seed", range(25))
def test_any_size_fits_any_target(tmp_path, seed):
    width, height, target_height, target_width = np.random.default_rng(seed).integers(1, 41, 4).tolist()
    flip = seed % 2 == 1
    path = image_file(tmp_path / "x.png", (width, height), (255, 255, 255))
    pixels, _ = aligned(CultureRecord(path, "x"), (target_height, target_width), flip=flip)
    assert pixels.shape == (3, target_height, target_width)
    assert pixels.min() == pixels.max() == 1.0


def content(record):
    """A record with the bytes of its files in place of their paths."""
    paths = {"image": record.image.read_bytes(), "negatives": tuple(p.read_bytes() for p in record.negatives)}
    paths["depth"] = record.depth.read_bytes() if record.depth else None
    return dataclasses.asdict(record) | paths


def rich_dataset(folder):
    records = []
    for n, split in enumerate(("train", "train", "test", "held out")):
        image = image_file(folder / f"a/{n}.{'jpg' if n % 2 else 'png'}", color=(n, n, n))
        negatives = tuple(image_file(folder / f"b/{n}_{k}.png", color=(n, k, 9)) for k in range(n))
        records.append(
            CultureRecord(
                image,
                f"décor №{n} “quoted”\nsecond line",
                generic_captions=("a", "b")[:n],
                culture="Nuvian",
                place="Nuvia",
                category=("food & drink", "", "weaving", "arts & crafts")[n],
                era=("", "modern", "traditional", "")[n],
                split=split,
                negatives=negatives,
                depth=image_file(folder / f"d/{n}.png") if n % 2 else None,
                source="https://example.org/x",
                collector="A. B.",
                licence="CC BY 4.0",
                consent="written",
                verified_by=("C.", "D.")[:n],
            )
        )
    return Dataset(folder, tuple(records), "rich")


def test_a_saved_dataset_comes_back_with_the_same_content(tmp_path):
    dataset = rich_dataset(tmp_path / "from")
    folder = save_dataset(dataset, tmp_path / "to")
    again, report = load_folder(folder)
    assert report.startswith("4 images loaded")
    read, written = (sorted(repr(content(record)) for record in data.records) for data in (again, dataset))
    assert read == written
    assert again.root == folder == (tmp_path / "to").resolve()
    lines = [json.loads(line) for line in (folder / "train/metadata.jsonl").read_text("utf-8").splitlines()]
    assert [line["file_name"] for line in lines] == ["images/FOOD_0.png", "images/IMAGE_0.jpg"]
    assert {"file_name", "text", "blip_text", "negative_imgpath"} <= set(lines[0])
    assert not list(tmp_path.glob(".*"))


def test_saving_twice_gives_the_same_files(tmp_path):
    dataset = rich_dataset(tmp_path / "from")
    first, second = (save_dataset(dataset, tmp_path / name) for name in ("one", "two"))
    names = [sorted(p.relative_to(f).as_posix() for p in f.rglob("*")) for f in (first, second)]
    assert names[0] == names[1]


def test_overwriting_replaces_a_dataset_whole(tmp_path):
    dataset = rich_dataset(tmp_path / "from")
    folder = save_dataset(dataset, tmp_path / "to")
    save_dataset(dataset.replace(dataset.records[:1]), folder, overwrite=True)
    assert len(load_folder(folder)[0]) == 1
    assert sorted(path.name for path in folder.iterdir()) == ["train"]
    assert not list(tmp_path.glob(".*"))


def test_an_empty_folder_may_be_saved_into(tmp_path):
    (tmp_path / "to").mkdir()
    save_dataset(rich_dataset(tmp_path / "from"), tmp_path / "to")
    assert holds_dataset(tmp_path / "to")


def test_images_from_a_graph_become_a_dataset(tmp_path):
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(6, 9, 3, generator=generator), torch.rand(5, 5, 4, generator=generator)]
    dataset = from_images(images, ["one", "two"], [["a", "b"], "c"], "Nuvian", "Nuvia", tmp_path / "set")
    assert [r.caption for r in dataset.records] == ["one", "two"]
    assert [r.generic_captions for r in dataset.records] == [("a", "b"), ("c",)]
    assert {(r.culture, r.place, r.split) for r in dataset.records} == {("Nuvian", "Nuvia", "train")}
    for record, image in zip(dataset.records, images, strict=True):
        assert np.array_equal(np.asarray(open_image(record.image)), (image[..., :3] * 255).round().byte().numpy())
    assert [len(r.generic_captions) for r in load_folder(tmp_path / "set")[0].records] == [2, 1]
    assert from_images(images, ["one", "two"], None, "", "", tmp_path / "b").records[0].generic_captions == ()


def test_a_large_set_is_not_decoded_at_load_but_its_faults_are_found_on_first_use(tmp_path, monkeypatch):
    monkeypatch.setattr("comfy_scoft.data.dataset.folder.DECODED_AT_LOAD", 1)
    for n in range(2):
        array = np.random.default_rng(n).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(array).save(tmp_path / f"{n}.jpg")
        (tmp_path / f"{n}.txt").write_text("words")
    path = tmp_path / "1.jpg"
    path.write_bytes(path.read_bytes()[:-900])
    dataset, _ = load_folder(tmp_path)
    assert len(dataset) == 2
    with pytest.raises(ValueError, match="1.jpg is truncated or damaged"):
        aligned(dataset.records[1], 8, flip=False)


def test_nothing_outside_the_named_folder_is_written(tmp_path):
    before = {path for path in tmp_path.rglob("*")}
    dataset = rich_dataset(tmp_path / "from")
    source = set(tmp_path.rglob("*")) - before
    save_dataset(dataset, tmp_path / "deep/er/to")
    written = set(tmp_path.rglob("*")) - source - before
    assert all(os.path.commonpath([path, tmp_path / "deep"]) == str(tmp_path / "deep") for path in written)
