"""KID: equal to torch-fidelity's on the same features, by hand, and whatever batches and order the images come in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_kid import kid_features_to_metric
from toys import toy_dataset, toy_features

from comfy_scoft.features import FeatureNetwork
from comfy_scoft.metrics import kid
from comfy_scoft.metrics.image_set import ImageSet
from comfy_scoft.metrics.kid import KidSettings

AS_THEY_ARE, OF_ONE_LENGTH = KidSettings(), KidSettings(normalise=True)


def drawn(count: int, seed: int, shift: float = 0.0, width: int = 24) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) + shift


def by_torch_fidelity(x: Tensor, y: Tensor, size: int, subsets: int) -> tuple[float, float]:
    """With the rows in the order that `kid` gives them, for the subsets are drawn by row."""
    x, y = (rows[rows.double().sum(1).argsort()].double() for rows in (x, y))
    found = kid_features_to_metric(x, y, kid_subset_size=size, kid_subsets=subsets, rng_seed=2020, verbose=False)
    return found["kernel_inception_distance_mean"], found["kernel_inception_distance_std"]


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_all_at_once_equals_torch_fidelity(shift: float) -> None:
    x, y = drawn(50, 1, shift), drawn(50, 2)
    assert kid.kid(x, y, AS_THEY_ARE).value == pytest.approx(by_torch_fidelity(x, y, 50, 1)[0], abs=1e-6)


def test_the_mean_over_random_subsets_equals_torch_fidelity() -> None:
    x, y = drawn(60, 3, 0.2), drawn(45, 4)
    found = kid.kid(x, y, replace(AS_THEY_ARE, subset_size=20, subsets=30))
    assert found.value == pytest.approx(by_torch_fidelity(x, y, 20, 30)[0], abs=1e-6)
    assert found.low < found.value < found.high


def test_subsets_take_seeds_of_more_than_32_bits() -> None:
    x, y = drawn(30, 3, 0.2), drawn(25, 4)
    one, other = (kid.kid(x, y, replace(AS_THEY_ARE, subset_size=5, subsets=3, seed=s)) for s in (2**64 - 1, 2**32 - 1))
    assert one.value != other.value


def test_the_mean_over_very_many_subsets_comes_to_all_at_once() -> None:
    x, y = drawn(30, 5, 0.3), drawn(30, 6)
    many = kid.kid(x, y, replace(AS_THEY_ARE, subset_size=15, subsets=4000, resamples=10))
    spread = by_torch_fidelity(x, y, 15, 4000)[1]
    assert many.value == pytest.approx(kid.kid(x, y, AS_THEY_ARE).value, abs=4 * spread / 4000**0.5)


def test_by_hand_of_two_pictures_each() -> None:
    x, y = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 1.0], [2.0, 0.0]])
    within, between = [1.0, (0.5 * 2.0 + 1.0) ** 3], [1.5**3, 2.0**3, 2.0**3, 1.0]
    assert kid.kid(x, y, AS_THEY_ARE).value == pytest.approx(sum(within) - 2.0 * sum(between) / 4.0)
    half = 1.0 + 0.5**0.5  # the cosine of (1, 1) to each axis, and coef
    unit = [1.0 + half**3, (half**3 + half**3 + 2.0**3 + 1.0) / 4.0]
    found = kid.kid(x, y, OF_ONE_LENGTH).value
    assert found == pytest.approx(unit[0] - 2.0 * unit[1]), "normalized, only directions count"
    assert kid.kid(7.0 * x, y, OF_ONE_LENGTH).value == pytest.approx(found)


def test_the_order_of_the_pictures_does_not_matter() -> None:
    x, y = drawn(25, 7, 0.2), drawn(20, 8)
    shuffled = torch.randperm(25, generator=torch.Generator().manual_seed(0))
    for settings in (KidSettings(), KidSettings(subset_size=10)):
        assert kid.kid(x[shuffled], y.flip(0), settings) == pytest.approx(kid.kid(x, y, settings), abs=1e-12)
    pairs = kid.kid_change(x + 0.1, x, y), kid.kid_change((x + 0.1)[shuffled], x[shuffled], y.flip(0))
    assert pairs[0] == pytest.approx(pairs[1], abs=1e-12)


@pytest.mark.long
def test_the_interval_holds_the_true_value_about_as_often_as_it_says() -> None:
    settings = replace(AS_THEY_ARE, resamples=300)
    large = drawn(4000, 9, 0.0, 8), drawn(4000, 10, 0.0, 8)
    large[0][:, 0] += 1.0
    true = kid.kid(*large, replace(settings, resamples=2)).value
    held = 0
    for trial in range(100):
        x = drawn(50, 100 + trial, 0.0, 8)
        x[:, 0] += 1.0
        found = kid.kid(x, drawn(50, 500 + trial, 0.0, 8), settings)
        held += found.low <= true <= found.high
    assert 90 <= held <= 100


def test_a_paired_change_is_the_difference_and_narrower_than_that_of_two_sets_of_their_own() -> None:
    before, y = drawn(60, 11, 0.4), drawn(60, 12)
    after = before - 0.1
    change = kid.kid_change(after, before, y)
    one, two = kid.kid(after, y), kid.kid(before, y)
    assert change.value == pytest.approx(one.value - two.value) and change.high < 0.0
    assert change.high - change.low < (one.high - one.low) / 2.0
    assert kid.kid_change(before, before, y) == pytest.approx((0.0, 0.0, 0.0))


def set_of(label: str, count: int = 6, side: int = 24, seed: int = 0) -> ImageSet:
    images = torch.rand(count, side, side, 3, generator=torch.Generator().manual_seed(seed))
    return ImageSet(images, tuple(f"prompt {i % 3}" for i in range(count)), tuple(range(count)), label)


def test_a_set_is_measured_to_records_to_another_set_and_to_a_batch_in_thousandths(tmp_path: Path) -> None:
    network, images = toy_features(), set_of("LoRA")
    data = toy_dataset(tmp_path / "data", (0, 0, 0))
    for reference, name in (
        (data, "toys, train"),
        (set_of("others", seed=5), "others"),
        (torch.rand(4, 24, 24, 3), "other images"),
    ):
        counted: list[tuple[int, int]] = []
        found = kid.measure(images, reference, network, observe=lambda done, total, c=counted: c.append((done, total)))
        (row,) = found.rows
        assert (row.name, row.group, row.n) == (f"KID ×10³ to {name} · toy", "LoRA", 6)
        assert found.settings[0][0] == row.name and "all images at once" in found.settings[0][1]
        assert (
            counted[-1][0]
            == counted[-1][1]
            == 6 + len(reference.images if isinstance(reference, ImageSet) else reference)
        )
    pixels = images.images.permute(0, 3, 1, 2) * 2 - 1, reference.permute(0, 3, 1, 2) * 2 - 1
    assert row.value == pytest.approx(1000.0 * kid.kid(*map(network.embedding, pixels)).value, abs=1e-3)
    assert kid.measure(images, reference, network, name="a folder").rows[0].name == "KID ×10³ to a folder · toy"


def test_what_is_not_published_kid_is_called_by_another_name_and_says_so() -> None:
    images, other = set_of("LoRA"), set_of("others", seed=5)
    usual = kid.measure(images, other, toy_features())
    assert usual.rows[0].name == "KID ×10³ to others · toy" and "as they are" in usual.settings[0][1]
    scaled = kid.measure(images, other, toy_features(), OF_ONE_LENGTH)
    assert scaled.rows[0].name == "normalized KID ×10³ to others · toy"
    assert "not published KID" in scaled.settings[0][1] and scaled.rows[0].value != usual.rows[0].value


def test_two_sets_get_their_paired_change_and_batches_do_not_matter(tmp_path: Path) -> None:
    data = toy_dataset(tmp_path / "data", (0, 0, 0, 0))
    before, after = set_of("base"), set_of("LoRA", seed=1)
    found = kid.measure(after, data, toy_features(), compared_with=before)
    assert [row.group for row in found.rows] == ["base", "LoRA", "change"]
    assert found.rows[2].value == pytest.approx(found.rows[1].value - found.rows[0].value)
    alone = kid.measure(after, data, toy_features(), compared_with=before, batch=1)
    for one, other in zip(found.rows, alone.rows, strict=True):
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), abs=1e-2)


def test_it_can_be_stopped() -> None:
    def stop(done: int, total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        kid.measure(set_of("a"), set_of("b"), toy_features(), observe=stop)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"images": set_of("none", 0)}, "The set 'none' has no image, but a metric with an interval needs"),
        ({"images": set_of("lone", 1)}, "The set 'lone' has one image"),
        ({"reference": set_of("b", 1)}, "The reference 'b' has 1 image"),
        ({"reference": set_of("b", side=32)}, "24 × 24 pixels and those of 'b' 32 × 32"),
        ({"compared_with": set_of("base", side=32)}, "24 × 24 pixels and those of 'base' 32 × 32"),
        ({"compared_with": set_of("a")}, "Both sets are labeled 'a'"),
        ({"compared_with": set_of("base", 5)}, "not made with the same prompts and seeds"),
        ({"settings": KidSettings(subset_size=7)}, "There are 6 images and 6 of the reference, but KID needs"),
        ({"network": replace(toy_features(), viewable=False)}, "toy compares whole images and gives no vector"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_one_sentence(change: dict, sentence: str) -> None:
    given = {"images": set_of("a"), "reference": set_of("b", seed=1), "network": toy_features(), **change}
    with pytest.raises(ValueError, match=sentence) as error:
        kid.measure(**given)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


def test_features_of_another_network_and_impossible_subsets_are_refused() -> None:
    with pytest.raises(ValueError, match="take both from the same network"):
        kid.kid(drawn(4, 1), drawn(4, 2, width=8))
    with pytest.raises(ValueError, match="sets of the same size"):
        kid.kid_change(drawn(4, 1), drawn(5, 1), drawn(4, 2))
    with pytest.raises(ValueError, match="^subset_size is 1, but a KID subset needs at least 2 images"):
        KidSettings(subset_size=1)


def test_a_chosen_layer_is_what_is_measured() -> None:
    from comfy_scoft.features import FeatureOptions, load_features

    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    own: FeatureNetwork = load_features("mini CLIP (layer 5)")
    third = load_features("mini CLIP (layer 5)", options=FeatureOptions(layer=3))
    assert own.embedding(images).shape == (2, 96), "CLIP's own space, which it shares with words"
    expected = third.extract(images).flatten(2).mean(2)
    assert np.allclose(third.embedding(images), expected) and expected.shape == (2, 128)
    with pytest.raises(ValueError, match="does not compare images with words"):
        third.text_embedding(["a word"])
