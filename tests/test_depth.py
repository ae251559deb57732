"""Depth maps: near is bright, made once for each image, and the mini estimator sees the figure's relief."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from model_folders import depth_anything_folder, dpt_folder, midas_folder
from PIL import Image

from comfy_scoft.data.images import read_pixels, write_png
from comfy_scoft.data.records import CultureRecord, Dataset
from comfy_scoft.mini_world import world
from comfy_scoft.models.mini import depth_net
from comfy_scoft.negatives import depth as depth_module
from comfy_scoft.negatives.depth import DEPTH, DepthEstimator, attach_depth, attach_depth_images, load_depth

ROOT = Path(__file__).resolve().parent.parent


def image_file(path, size=(12, 8), color=(10, 20, 30)):
    Image.new("RGB", size, color).save(path)
    return path


class Brightness:
    """An estimator by hand: bright is near. It counts how often it is asked."""

    def __init__(self, identity: str = "v1") -> None:
        self.calls = 0
        self.estimator = DepthEstimator("brightness", identity, self.estimate)

    def estimate(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return (images.mean(1, keepdim=True) + 1) / 2


@pytest.fixture
def dataset(tmp_path):
    colors = [(0, 0, 0), (128, 128, 128), (255, 255, 255)]
    images = [image_file(tmp_path / f"{n}.png", (12, 8 + n), color) for n, color in enumerate(colors)]
    return Dataset(tmp_path, tuple(CultureRecord(image, f"image {n}") for n, image in enumerate(images)), "three")


def test_each_record_gets_a_map_of_its_own_size_and_the_dataset_is_left_as_it_was(dataset, tmp_path):
    found = attach_depth(dataset, Brightness().estimator, tmp_path / "depth")
    for old, new, value in zip(dataset.records, found.records, (0, 128, 255), strict=True):
        with Image.open(new.depth) as depth:
            assert depth.mode == "L" and depth.size == Image.open(old.image).size
            assert np.unique(np.asarray(depth)).tolist() == [value]
        assert old.depth is None and dataclasses.replace(new, depth=None) == old


def test_a_map_is_made_once_for_a_picture_wherever_it_lies_and_by_whatever_name(dataset, tmp_path):
    brightness = Brightness()
    first = attach_depth(dataset, brightness.estimator, tmp_path / "depth")
    times = [record.depth.stat().st_mtime_ns for record in first.records]
    copy = tmp_path / "copy.png"
    copy.write_bytes(dataset.records[0].image.read_bytes())
    again = dataset.replace([dataclasses.replace(dataset.records[0], image=copy), *dataset.records[:0:-1]])
    second = attach_depth(again, brightness.estimator, tmp_path / "depth")
    assert brightness.calls == 3
    assert [r.depth for r in second.records] == [first.records[k].depth for k in (0, 2, 1)]
    assert [record.depth.stat().st_mtime_ns for record in first.records] == times


def test_another_picture_or_another_estimator_is_another_map(dataset, tmp_path):
    before = attach_depth(dataset, Brightness().estimator, tmp_path / "depth").records[0].depth
    assert attach_depth(dataset, Brightness("v2").estimator, tmp_path / "depth").records[0].depth != before
    image_file(dataset.records[0].image, color=(1, 1, 1))
    assert attach_depth(dataset, Brightness().estimator, tmp_path / "depth").records[0].depth != before


def test_an_observer_sees_each_record_and_may_stop_the_work(dataset, tmp_path):
    seen = []

    def stop_at_two(done, total, path):
        seen.append((done, total, path.is_file()))
        if done == 2:
            raise InterruptedError

    brightness = Brightness()
    with pytest.raises(InterruptedError):
        attach_depth(dataset, brightness.estimator, tmp_path / "depth", stop_at_two)
    assert seen == [(1, 3, True), (2, 3, True)] and brightness.calls == 2
    attach_depth(dataset, brightness.estimator, tmp_path / "depth")
    assert brightness.calls == 3


def test_faults_are_one_sentence(dataset, tmp_path):
    with pytest.raises(ValueError, match=r"^The dataset has no records: [^.]+\.$"):
        attach_depth(dataset.replace([]), Brightness().estimator, tmp_path)
    with pytest.raises(
        ValueError, match=r"^There is no depth estimator named 'x'; choose one of relief \(mini\), .+\.$"
    ):
        load_depth("x")
    dataset.records[1].image.unlink()
    with pytest.raises(ValueError, match=r"^The file 1\.png cannot be read \(No such [^.]+\): [^.]+\.$"):
        attach_depth(dataset, Brightness().estimator, tmp_path / "depth")


def test_a_picture_that_cannot_be_written_leaves_no_part_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("comfy_scoft.common.files.os.replace", full)
    with pytest.raises(OSError, match="no space"):
        write_png(torch.zeros(4, 4), tmp_path / "deep" / "a.png")
    assert list((tmp_path / "deep").iterdir()) == []


def test_written_and_read_pixels_are_the_same(tmp_path):
    values = torch.randint(0, 256, (5, 7, 3), generator=torch.Generator().manual_seed(0)).float() / 255
    write_png(values, tmp_path / "a.png")
    assert torch.allclose(read_pixels(tmp_path / "a.png"), values.permute(2, 0, 1) * 2 - 1, atol=1e-6)


def renderings(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of the unbiased world that the build did not draw, and their true depth (B, 1, 64, 64)."""
    rng = np.random.default_rng((77, 5))
    names, palettes = list(world.concepts()), list(world.PALETTES)
    drawn = [world.render(str(rng.choice(names)), str(rng.choice(palettes)), rng) for _ in range(count)]
    pixels = torch.from_numpy(np.stack([d.rgb for d in drawn])).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pixels, torch.from_numpy(np.stack([d.depth for d in drawn])).unsqueeze(1).float() / 255


def test_the_mini_estimator_sees_the_relief_of_held_out_renderings():
    pixels, depth = renderings(96)
    found = load_depth("relief (mini)").estimate(pixels)
    assert found.shape == depth.shape and found.min() >= 0 and found.max() <= 1
    assert (found - depth).abs().mean() < 0.04
    figure = depth > 0.75
    assert ((found > 0.6) == figure).float().mean() > 0.95


def test_the_mini_estimator_answers_in_the_size_of_the_picture_and_alike_for_any_batch():
    pixels, _ = renderings(3)
    estimate = DEPTH["relief (mini)"]().estimate
    together, alone = estimate(pixels), torch.cat([estimate(p.unsqueeze(0)) for p in pixels])
    assert torch.allclose(together, alone, atol=1e-5)
    large = torch.nn.functional.interpolate(pixels, (128, 96), mode="bicubic", antialias=True)
    shrunk = torch.nn.functional.interpolate(estimate(large), (64, 64), mode="bilinear", antialias=True)
    assert estimate(large).shape == (3, 1, 128, 96)
    assert (shrunk - together).abs().mean() < 0.06


def test_the_estimators_weights_are_small_and_a_lost_file_is_named(monkeypatch, tmp_path):
    assert (depth_net.WEIGHTS / depth_net.FILE).stat().st_size < 500_000
    depth_net.load.cache_clear()
    monkeypatch.setattr(depth_net, "WEIGHTS", tmp_path)
    with pytest.raises(ValueError, match=rf"^The weights file {depth_net.FILE} is missing from the pack: [^.]+\.$"):
        depth_net.load()


def test_depth_images_of_a_graph_go_to_the_records_in_order(dataset, tmp_path):
    noise = torch.Generator().manual_seed(5)
    images = [torch.rand(2 * (8 + n), 24, 3, generator=noise) for n in range(3)]
    found = attach_depth_images(dataset, images, tmp_path / "depth")
    for image, record in zip(images, found.records, strict=True):
        kept = torch.from_numpy(np.array(Image.open(record.depth))).float() / 255
        assert torch.allclose(kept, image.mean(-1), atol=1 / 500)
    assert all(record.depth is None for record in dataset.records)
    assert attach_depth_images(dataset, images, tmp_path / "depth") == found


def test_depth_images_that_do_not_fit_are_one_sentence(dataset, tmp_path):
    fitting = [torch.zeros(8 + n, 12, 1) for n in range(3)]
    with pytest.raises(ValueError, match=r"^There are 2 depth images for 3 records: [^.]+\.$"):
        attach_depth_images(dataset, fitting[:2], tmp_path)
    cropped = [*fitting[:2], torch.zeros(12, 12, 3)]
    with pytest.raises(ValueError, match=r"^Depth image 3 has 12 × 12 pixels, another shape than its image 2\.png"):
        attach_depth_images(dataset, cropped, tmp_path)
    with pytest.raises(ValueError, match=r"^Depth image 1 is not an image of numbers: [^.]+\.$"):
        attach_depth_images(dataset, [torch.full((8, 12, 3), float("nan")), *fitting[1:]], tmp_path)


def scene(height: int, width: int, count: int = 1) -> torch.Tensor:
    """Smooth random images (count, 3, height, width) in [-1, 1], of 8-bit values."""
    coarse = torch.rand(count, 3, 5, 7, generator=torch.Generator().manual_seed(9))
    large = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return large.mul(255).round().div(127.5).sub(1)


def holds_the_contract(estimator: DepthEstimator, height: int, width: int) -> None:
    """Each map is of its image's size, spans [0, 1], is the same again and does not depend on the others."""
    images = scene(height, width, 2)
    maps = estimator.estimate(images)
    assert maps.shape == (2, 1, height, width) and maps.dtype == torch.float32
    assert maps.amin((2, 3)).tolist() == [[0.0], [0.0]] and maps.amax((2, 3)).tolist() == [[1.0], [1.0]]
    assert torch.equal(maps, estimator.estimate(images)) and not torch.allclose(maps[0], maps[1], atol=1e-3)
    assert torch.allclose(estimator.estimate(images[1:]), maps[1:], atol=1e-4)


FOLDERS = {"DPT-hybrid (transformers)": dpt_folder, "Depth Anything V2 (transformers)": depth_anything_folder}


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.long)], ids=["small", "real size"])
def test_networks_of_transformers_give_maps_from_their_own_folders(name, real, tmp_path):
    estimator = load_depth(name, FOLDERS[name](tmp_path / "model", real))
    holds_the_contract(estimator, 90, 130)


@pytest.mark.parametrize("name", FOLDERS)
def test_maps_of_transformers_are_those_of_its_own_pipeline(name, tmp_path):
    from transformers import pipeline

    folder = FOLDERS[name](tmp_path / "model")
    picture = scene(70, 98)
    image = Image.fromarray(picture[0].add(1).mul(127.5).round().byte().permute(1, 2, 0).numpy())
    theirs = pipeline("depth-estimation", model=str(folder), device="cpu")(image)["predicted_depth"].squeeze()
    theirs = (theirs - theirs.min()) / (theirs.max() - theirs.min())
    ours = load_depth(name, folder).estimate(picture)[0, 0]
    assert (ours - theirs).abs().mean() < 0.02  # they enlarge by cubic, we by linear interpolation


def test_a_network_that_answers_in_metres_is_turned_so_that_near_is_bright(tmp_path):
    near = load_depth(list(FOLDERS)[1], depth_anything_folder(tmp_path / "near"))
    metres = load_depth(
        list(FOLDERS)[1],
        depth_anything_folder(tmp_path / "far", depth_estimation_type="metric", max_depth=20),
    )
    one, other = (estimator.estimate(scene(70, 98)).flatten() for estimator in (near, metres))
    assert torch.corrcoef(torch.stack([one, other]))[0, 1] < -0.5  # the same weights: what was near is now far


def test_a_flat_answer_is_a_dark_map():
    flat = depth_module._near_is_bright(torch.full((1, 4, 4), 3.0), 8, 8)
    assert torch.equal(flat, torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize("name", [name for name in DEPTH if name != "relief (mini)"])
def test_a_network_without_its_folder_says_what_to_put_there(name, tmp_path):
    with pytest.raises(ValueError, match=r"needs a folder with its weights: put all small files and .+\.$"):
        load_depth(name)
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match=r"^The folder 'other' holds no .+\.$"):
        load_depth(name, tmp_path / "other")
    loader = DEPTH[name]
    (tmp_path / "other" / "config.json").write_text(f'{{"model_type": "{loader.model_type}"}}', encoding="utf-8")
    (tmp_path / "other" / loader.weights).write_bytes(b"no weights at all")
    with pytest.raises(ValueError, match=r"'other' is incomplete, damaged or of another kind: [^.]+\.$"):
        load_depth(name, tmp_path / "other")


@pytest.mark.long
def test_midas_gives_the_maps_of_controlnet_aux(tmp_path, monkeypatch):
    """At a quarter of its resolution, for the tests' time; the network is the real one."""
    monkeypatch.setattr(depth_module, "MIDAS_SIDE", 128)
    folder = midas_folder(tmp_path / "annotators")
    estimator = load_depth("MiDaS (controlnet-aux)", folder)
    holds_the_contract(estimator, 90, 130)
    from controlnet_aux import MidasDetector

    detector = MidasDetector.from_pretrained(str(folder))
    picture = scene(128, 192)
    image = picture[0].add(1).mul(127.5).round().byte().permute(1, 2, 0).numpy()
    theirs = detector(image, detect_resolution=128, image_resolution=128)[..., 0]
    ours = estimator.estimate(picture)[0, 0].mul(255)
    assert theirs.shape == (128, 192)
    assert (ours - torch.from_numpy(theirs).float()).abs().max() <= 1.0  # theirs is cut to whole numbers


@pytest.mark.long
def test_loading_midas_leaves_the_models_of_timm_as_they_were():
    program = """
import timm
from timm.models import _registry
before = dict(_registry._model_entrypoints)
from comfy_scoft.negatives.depth import _timm_as_it_was
with _timm_as_it_was():
    import controlnet_aux
    assert dict(_registry._model_entrypoints) != before, "controlnet-aux replaces nothing any more: drop the guard"
assert dict(_registry._model_entrypoints) == before
assert _registry._module_to_models["resnet"]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
