"""Depth maps: near is bright, made once for each picture, and the mini estimator sees the figure's relief."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from comfy_scoft.depth import DEPTH, DepthEstimator, attach_depth, load_depth, read_pixels, write_png
from comfy_scoft.mini import depth_net, world
from comfy_scoft.records import CultureRecord, Dataset


def picture(path, size=(12, 8), colour=(10, 20, 30)):
    Image.new("RGB", size, colour).save(path)
    return path


class Brightness:
    """An estimator by hand: bright is near. It counts how often it is asked."""

    def __init__(self, identity: str = "v1") -> None:
        self.calls = 0
        self.estimator = DepthEstimator("brightness", identity, self.estimate)

    def estimate(self, pictures: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return (pictures.mean(1, keepdim=True) + 1) / 2


@pytest.fixture
def dataset(tmp_path):
    colours = [(0, 0, 0), (128, 128, 128), (255, 255, 255)]
    images = [picture(tmp_path / f"{n}.png", (12, 8 + n), colour) for n, colour in enumerate(colours)]
    return Dataset(tmp_path, tuple(CultureRecord(image, f"picture {n}") for n, image in enumerate(images)), "three")


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
    picture(dataset.records[0].image, colour=(1, 1, 1))
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
    with pytest.raises(ValueError, match=r"^There is no depth estimator named 'x'; choose one of relief \(mini\)\.$"):
        load_depth("x")
    dataset.records[1].image.unlink()
    with pytest.raises(ValueError, match=r"^The file 1\.png cannot be read: [^.]+\.$"):
        attach_depth(dataset, Brightness().estimator, tmp_path / "depth")


def test_a_picture_that_cannot_be_written_leaves_no_part_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("comfy_scoft.depth.os.replace", full)
    with pytest.raises(OSError, match="no space"):
        write_png(torch.zeros(4, 4), tmp_path / "deep" / "a.png")
    assert list((tmp_path / "deep").iterdir()) == []


def test_written_and_read_pixels_are_the_same(tmp_path):
    values = torch.randint(0, 256, (5, 7, 3), generator=torch.Generator().manual_seed(0)).float() / 255
    write_png(values, tmp_path / "a.png")
    assert torch.allclose(read_pixels(tmp_path / "a.png"), values.permute(2, 0, 1) * 2 - 1, atol=1e-6)


def renderings(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures of the unbiased world that the build did not draw, and their true depth (B, 1, 64, 64)."""
    rng = np.random.default_rng((77, 5))
    names, palettes = list(world.concepts()), list(world.PALETTES)
    drawn = [world.draw(str(rng.choice(names)), str(rng.choice(palettes)), rng) for _ in range(count)]
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
