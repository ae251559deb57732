"""DIV: mean distance among images of one prompt, by hand, with LPIPS's package, and whatever order and batches."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import torch
from feature_files import vgg_file
from toys import PlainFeatures, toy_features

from comfy_scoft.features import FeatureOptions, load_features
from comfy_scoft.metrics import diversity
from comfy_scoft.metrics.image_set import ImageSet
from comfy_scoft.metrics.intervals import bootstrap_mean


def set_of(label: str, counts: tuple[int, ...], side: int = 24, seed: int = 0, alike: float = 0.0) -> ImageSet:
    """`counts`: images of each prompt; `alike`: how much of each image is one and the same gray."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(sum(counts), side, side, 3, generator=generator) * (1 - alike) + 0.5 * alike
    prompts = tuple(f"prompt {k}" for k, count in enumerate(counts) for _ in range(count))
    return ImageSet(images, prompts, tuple(i for count in counts for i in range(count)), label)


def test_it_is_the_mean_over_all_pairs_of_a_prompt_by_hand() -> None:
    features = torch.tensor([[0.0], [1.0], [3.0], [5.0], [5.0], [9.0]])
    found = diversity.diversities(features, ("a", "a", "a", "b", "b", "c"), PlainFeatures().distance)
    assert found == pytest.approx({"a": (1 + 9 + 4) / 3, "b": 0.0})


def test_it_is_the_mean_over_prompts_with_an_interval_over_them() -> None:
    network, images = toy_features(), set_of("base", (3, 2, 4))
    (row,) = diversity.measure(images, network).rows
    features = network.extract(images.images.permute(0, 3, 1, 2) * 2 - 1)
    by_prompt = []
    for start, end in ((0, 3), (3, 5), (5, 9)):
        pairs = [network.distance(features[[i]], features[[j]]) for i, j in combinations(range(start, end), 2)]
        by_prompt.append(float(torch.cat(pairs).mean()))
    assert row.value == pytest.approx(sum(by_prompt) / 3, abs=1e-6)
    assert (row.low, row.high) == pytest.approx(bootstrap_mean(by_prompt)[1:], abs=1e-6) and row.low >= 0.0
    assert (row.name, row.group, row.n) == ("diversity within a prompt · toy", "base", 9)


@pytest.mark.long
def test_with_lpips_it_is_the_packages_own_mean(tmp_path: Path) -> None:
    import lpips

    path, convolutions = vgg_file(tmp_path)
    network, images = load_features("LPIPS VGG16", path), set_of("base", (3, 2), side=32)
    own = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    slices = [getattr(own.net, f"slice{n}") for n in range(1, 6)]
    torch.nn.ModuleDict({n: part for piece in slices for n, part in piece.named_children()}).load_state_dict(
        convolutions.state_dict()
    )
    pixels = images.images.permute(0, 3, 1, 2) * 2 - 1
    with torch.no_grad():
        first = [float(own(pixels[[i]], pixels[[j]])) for i, j in combinations(range(3), 2)]
        second = float(own(pixels[[3]], pixels[[4]]))
    (row,) = diversity.measure(images, network).rows
    assert row.value == pytest.approx((sum(first) / 3 + second) / 2, rel=1e-4)


def test_sets_that_are_more_alike_are_less_diverse_and_the_change_is_paired() -> None:
    network = load_features("mini CLIP (layer 5)", options=FeatureOptions(layer=2))
    before, after = set_of("base", (3, 3, 3), 64), set_of("LoRA", (3, 3, 3), 64, alike=0.7)
    rows = diversity.measure(after, network, compared_with=before).rows
    assert [row.group for row in rows] == ["base", "LoRA", "change"]
    assert rows[2].value == pytest.approx(rows[1].value - rows[0].value) and rows[2].high < 0
    same = diversity.measure(replace(before, label="again"), network, compared_with=before).rows[2]
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_order_and_batches_do_not_matter() -> None:
    network, images = toy_features(), set_of("base", (3, 2, 4))
    (expected,) = diversity.measure(images, network, batch=9).rows
    order = [8, 3, 0, 5, 1, 7, 2, 6, 4]
    prompts, seeds = (tuple(part[i] for i in order) for part in (images.prompts, images.seeds))
    for given in (images, ImageSet(images.images[order], prompts, seeds, "base")):
        (row,) = diversity.measure(given, network, batch=2).rows
        assert (row.value, row.low, row.high) == pytest.approx((expected.value, expected.low, expected.high), abs=1e-5)
    features = network.extract(images.images.permute(0, 3, 1, 2) * 2 - 1)
    alone = diversity.diversities(features, images.prompts, network.distance, pairs=1)
    assert alone == pytest.approx(diversity.diversities(features, images.prompts, network.distance), abs=1e-6)


def test_prompts_of_one_picture_are_left_out_and_one_prompt_has_no_interval() -> None:
    (row,) = diversity.measure(set_of("base", (2, 1, 2)), toy_features()).rows
    assert row.note == "1 of 3 prompts have one image and are left out." and math.isfinite(row.low)
    assert row.n == 4, "only those that count"
    (lone,) = diversity.measure(set_of("base", (3,)), toy_features()).rows
    assert math.isnan(lone.low) and math.isfinite(lone.value) and "no interval" in lone.note


def test_it_counts_pictures_and_can_be_stopped_between_pairs() -> None:
    counted: list[tuple[int, int]] = []
    diversity.measure(set_of("base", (2, 2)), toy_features(), observe=lambda *seen: counted.append(seen), batch=2)
    assert counted == [(2, 6), (4, 6), (5, 6), (6, 6)], "two batches, then the pairs of each prompt"

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        diversity.diversities(torch.zeros(2, 1), ("a", "a"), PlainFeatures().distance, check=stop)


def test_what_cannot_be_measured_is_one_sentence() -> None:
    network, images = toy_features(), set_of("base", (2, 2))
    cases = [
        ({"images": set_of("thin", (1, 1))}, "Every prompt of the set 'thin' has one image"),
        ({"images": set_of("none", ())}, "The set 'none' has no image"),
        ({"compared_with": set_of("other", (2, 2), side=32)}, "24 × 24 pixels and those of 'other' 32 × 32"),
        ({"compared_with": set_of("other", (2, 3))}, "not made with the same prompts and seeds"),
    ]
    for change, sentence in cases:
        with pytest.raises(ValueError, match=sentence) as error:
            diversity.measure(**({"images": images, "network": network} | change))
        assert str(error.value).endswith(".") and "\n" not in str(error.value)
