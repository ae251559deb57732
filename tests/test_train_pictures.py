"""What a run sees of its images: crops of their own aspect, one crop for an image and its negatives, and what the
rollout's image is decoded from and with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_train_options import cut_and_whole
from toys import PlainFeatures, all_losses, learned, toy_autoencoder, toy_base, toy_dataset, toy_features, toy_run

from comfy_scoft.data.crop import bucket
from comfy_scoft.data.records import Dataset
from comfy_scoft.losses import ContrastiveLoss, DiffusionLoss, LossContext, PerceptualLoss
from comfy_scoft.training.batches import passes_of, samples_of_batch
from comfy_scoft.training.latent_cache import Cache, center
from comfy_scoft.training.memory import MemoryOptions
from comfy_scoft.training.objective import weighted_loss
from comfy_scoft.training.run import Run
from comfy_scoft.training.trainer import train


def of_mixed_aspects(folder: Path, same: bool = False) -> Dataset:
    """A wide, a tall and a square image with one negative each; `same`: which is the image itself."""
    data = toy_dataset(folder, (1, 1, 1), size=96)
    for record, (width, height) in zip(data.records, [(192, 96), (96, 150), (110, 110)], strict=True):
        for path in (record.image, *record.negatives):
            with Image.open(record.image if same else path) as image:
                image.resize((width, height), Image.Resampling.BICUBIC).save(path)
    return data


@pytest.mark.parametrize(
    "width, height, resolution, expected",
    [
        (1000, 1000, 512, (512, 512)),
        (1500, 1000, 512, (384, 640)),  # 640 × 384 is 1.67, 576 × 448 is 1.29; the first is nearer to 1.5
        (1000, 1500, 512, (640, 384)),
        (1920, 1080, 512, (384, 640)),  # 704 × 320 is 2.2, more than two to one
        (5000, 1000, 512, (384, 640)),
        (1000, 1000, 1024, (1024, 1024)),
        (1500, 1000, 1024, (832, 1216)),  # 1.46; 1280 × 768 is 1.67
        (1920, 1080, 1024, (768, 1344)),  # 1.75
        (100, 100, 64, (64, 64)),
        (200, 100, 64, (48, 80)),  # 1.67; 88 × 40 is 2.2
        (100, 150, 64, (80, 48)),  # 0.6; 56 × 72 is 0.78
    ],
)
def test_buckets_by_hand(width: int, height: int, resolution: int, expected: tuple[int, int]) -> None:
    """Of the largest height for each width, the nearest in aspect."""
    assert bucket(width, height, resolution) == expected


def test_a_bucket_is_never_larger_than_its_square_nor_longer_than_two_to_one() -> None:
    for resolution in (64, 200, 256, 512, 768, 1024):
        unit = 64 if resolution >= 256 else 8
        for width, height in [(1, 9), (3, 4), (9, 10), (10, 9), (16, 9), (30, 1)]:
            high, wide = bucket(width, height, resolution)
            assert high * wide <= resolution**2 and high % unit == wide % unit == 0 and 0.5 <= wide / high <= 2.0
            assert (wide >= high) == (width >= height) or wide == high


@pytest.mark.long
def test_pictures_of_mixed_aspects_share_an_optimizer_step(tmp_path: Path) -> None:
    """Three shapes of latents in three passes; the terms are the mean over all three images."""
    data = of_mixed_aspects(tmp_path / "data")
    shape = {"dataset": data, "buckets": True, "batch_size": 3, "every": 1}
    run = toy_run(tmp_path, all_losses(), **shape)
    cache = run.caches()[0]
    drawn = samples_of_batch(cache, run.settings, run.rollout, 1000, 0)
    assert sorted(tuple(draw.z.shape[1:]) for draw in drawn) == [(6, 10), (8, 8), (10, 6)]
    assert [len(group) for group in passes_of(drawn, 0)] == [1, 1, 1]
    result = cut_and_whole(tmp_path, all_losses(), **shape)
    terms: dict[str, list[float]] = {}
    train(dataclasses.replace(run, settings=dataclasses.replace(run.settings, steps=1), folder=tmp_path / "one"))
    fresh = toy_run(tmp_path, all_losses(), base=toy_base(), **shape)
    for some in passes_of(drawn, 0):
        for name, values in weighted_loss(fresh, fresh.caches()[0], some, MemoryOptions(), lambda: None)[1].items():
            terms.setdefault(name, []).extend(values)
    assert all(len(values) == 3 for values in terms.values())
    for name, values in terms.items():  # a fresh LoRA changes nothing, so the base model's terms are the first step's
        assert result.metrics[0][name] == pytest.approx(sum(values) / 3, rel=1e-4), name


def test_in_a_bucket_too_a_picture_and_its_negatives_share_one_crop_and_flip(tmp_path: Path) -> None:
    data, network = of_mixed_aspects(tmp_path / "data", same=True), toy_features()
    cache = Cache(toy_base(), data, 64, buckets=True)
    for index in range(3):
        for flip in (False, True):
            positive, negatives = cache.features(network, (index, flip))
            assert torch.equal(positive, negatives[0])
            pixels, others = cache.pixels((index, flip))
            assert torch.equal(pixels, others[0]) and pixels.shape[1:] == cache.size(index)
    difference = ContrastiveLoss(network, form="difference")
    run = toy_run(tmp_path, [difference], dataset=data, buckets=True, batch_size=3, every=1, steps=2)
    assert [row["contrastive"] for row in train(run).metrics] == pytest.approx([0.0, 0.0], abs=1e-6)


def image_and_features(
    run: Run, memory_options: MemoryOptions, monkeypatch: pytest.MonkeyPatch
) -> tuple[torch.Tensor, ...]:
    """Of the first micro-step: the latent that is decoded, the rollout's image, and what the loss holds that to."""
    network, seen, decode = PlainFeatures(), [], type(run.base).decode
    run.base.decode = lambda z, small=False: (seen.append(z.detach()), decode(run.base, z, small=small))[1]  # type: ignore

    def keep(self: PerceptualLoss, context: LossContext) -> torch.Tensor:
        seen.extend([context.image.detach(), context.positive(network), context.negatives(network)[0]])
        return context.image.square().flatten(1).mean(1)

    monkeypatch.setattr(PerceptualLoss, "__call__", keep)
    cache = run.caches()[0]
    drawn = samples_of_batch(cache, run.settings, run.rollout, len(run.base.schedule), 0)
    weighted_loss(run, cache, drawn, memory_options, lambda: None)
    return tuple(seen)


def test_a_cropped_decode_is_the_centre_and_so_are_the_pictures_it_is_held_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = toy_run(tmp_path, [PerceptualLoss(toy_features())], flip=False)  # type: ignore[arg-type]
    whole = image_and_features(run, MemoryOptions(), monkeypatch)
    part = image_and_features(run, MemoryOptions(decode="crop"), monkeypatch)
    assert whole[1].shape == (1, 3, 64, 64) and part[1].shape == (1, 3, 32, 32)
    assert torch.equal(part[0], whole[0][..., 2:6, 2:6])
    for full, cropped in zip(whole[2:], part[2:], strict=True):
        assert torch.equal(cropped, full[..., 16:48, 16:48])
    assert torch.equal(center(torch.arange(100.0).view(10, 10)), torch.arange(100.0).view(10, 10)[2:7, 2:7])


def test_taesd_decodes_the_whole_latent_with_the_small_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = toy_run(tmp_path, [PerceptualLoss(toy_features())], base=toy_base(kl=True), flip=False)
    run.base.small_vae = toy_autoencoder(seed=9)
    whole = image_and_features(run, MemoryOptions(), monkeypatch)
    small = image_and_features(run, MemoryOptions(decode="TAESD"), monkeypatch)
    run.base.small_vae = toy_autoencoder(seed=10)
    other = image_and_features(run, MemoryOptions(decode="TAESD"), monkeypatch)
    assert all(torch.equal(small[i], whole[i]) for i in (0, 2, 3)), "the same latent, held to the same images"
    assert (small[1] - whole[1]).abs().max() > 0.1 and (small[1] - other[1]).abs().max() > 0.1


@pytest.mark.parametrize("decode", ["crop", "TAESD"])
@pytest.mark.long
def test_a_run_that_decodes_with_less_goes_on_bit_for_bit(decode: str, tmp_path: Path, monkeypatch) -> None:
    from test_train_options import fresh

    def with_small(precision: str = "fp32"):
        base = fresh(precision)
        base.small_vae = toy_autoencoder(seed=9)
        return base

    monkeypatch.setattr("test_train_options.fresh", with_small)
    data = toy_dataset(tmp_path / "data")
    found = cut_and_whole(tmp_path, all_losses(), dataset=data, decode=decode, every=1)
    full = cut_and_whole(tmp_path / "full", all_losses(), dataset=data, every=1)
    assert found.metrics[0]["diffusion"] == full.metrics[0]["diffusion"]
    assert found.metrics[0]["perceptual"] != full.metrics[0]["perceptual"]
    assert found.memory_options.decode == decode


def test_taesd_that_is_not_there_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="decode is TAESD, but there is no TAESD decoder of this model: put its file"):
        train(toy_run(tmp_path, all_losses(), decode="TAESD"))


def test_without_flips_no_picture_is_mirrored(tmp_path: Path) -> None:
    data, found = toy_dataset(tmp_path / "data"), {}
    for flip in (True, False):
        run = toy_run(tmp_path, [DiffusionLoss()], run_folder=tmp_path / str(flip), dataset=data, flip=flip, steps=6)
        train(run)
        found[flip] = learned(run)
        assert any(flipped for _, flipped in run.caches()[0].latents) == flip
    assert not torch.equal(found[True], found[False])
