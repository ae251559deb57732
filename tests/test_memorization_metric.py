"""Memorization: similarity to the training image of the same words, and near copies, by hand and on real images."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from feature_files import timm_vit
from torch import Tensor
from torch.nn import functional as F
from toys import toy_dataset, toy_features

from comfy_scoft.data.dataset import load_folder
from comfy_scoft.data.records import Dataset
from comfy_scoft.features import FeatureNetwork, load_features
from comfy_scoft.metrics import memorization
from comfy_scoft.metrics.image_set import ImageSet
from comfy_scoft.metrics.inputs import embeddings, of_images, of_records
from comfy_scoft.mini_world import COMMUNITY

SIMILARITY = "similarity to training images of the same prompt · mini CLIP (layer 5)"
COPIES = "near copies of training images · mini CLIP (layer 5)"


@pytest.fixture(scope="module")
def mini() -> FeatureNetwork:
    return load_features("mini CLIP (layer 5)")


@pytest.fixture(scope="module")
def community() -> Dataset:
    return load_folder(COMMUNITY)[0]


def drawn_as(dataset: Dataset, label: str, change: float = 0.0) -> ImageSet:
    """A set that shows a dataset's own images under their captions; `change` mixes another image in."""
    images = of_records(dataset, (64, 64)).at(range(len(dataset)))
    images = (1 - change) * images + change * images.roll(1, 0)
    captions = tuple(record.caption for record in dataset.records)
    return ImageSet((images.permute(0, 2, 3, 1) + 1) / 2, captions, tuple(range(len(captions))), label)


def angles(*degrees: float) -> Tensor:
    return torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])


def test_similarity_by_hand_and_several_pictures_of_one_caption_are_averaged() -> None:
    training = 3.0 * angles(0, 60, 90)
    captions = ("a house", "a house", "a drum")
    found = memorization.similarities(angles(60, 30, 10), ("A  house ", "a drum", "a tree"), training, captions)
    assert found[:2] == pytest.approx([(0.5 + 1.0) / 2, 0.5]) and math.isnan(found[2])


def test_copies_by_hand() -> None:
    training = angles(0, 10, 40, 80, 80)  # the last two are one image: they count once
    apart = sorted(1 - math.cos(math.radians(d)) for d in (10, 10, 30, 40))
    for quantile, threshold in ((0.0, apart[0]), (1.0, apart[-1]), (1 / 3, apart[1])):
        found = memorization.copies(angles(1, 60, 11, 45), training, quantile)
        assert found.threshold == pytest.approx(threshold, abs=1e-6)
    few = memorization.copies(angles(1, 60, 11, 45), training, 0.0)
    assert few.nearest.tolist()[::2] == [0, 1] and few.copied.tolist() == [True, False, True, True]
    assert few.distances[0] == pytest.approx(1 - math.cos(math.radians(1)), abs=1e-6)


def test_fresh_pictures_of_the_same_kind_are_taken_for_copies_about_as_often_as_the_rule_says() -> None:
    generator = torch.Generator().manual_seed(0)
    shares = []
    for _ in range(40):
        training, fresh = torch.randn(2, 200, 6, generator=generator)
        shares.append(float(memorization.copies(fresh, training).copied.double().mean()))
    assert 0.03 < sum(shares) / len(shares) < 0.07


def test_training_pictures_themselves_are_all_copies_and_test_pictures_few(
    community: Dataset, mini: FeatureNetwork
) -> None:
    training = community.split("train")
    own = memorization.measure(drawn_as(training, "copied"), community, mini)
    alike, copied = own.scores.rows
    assert (alike.name, copied.name) == (SIMILARITY, COPIES) and alike.n == copied.n == len(training)
    assert alike.value == pytest.approx(1.0, abs=1e-6) and copied.value == 1.0 and copied.low < 1.0
    assert own.copies.nearest.tolist() == list(range(len(training))) and own.training == training
    assert "Compare with the base model" in copied.note


def test_held_out_pictures_say_what_is_near(community: Dataset, mini: FeatureNetwork) -> None:
    held_out = community.split("test")
    fresh = replace(drawn_as(held_out, "fresh"), prompts=("a farmer in nuvia",) * len(held_out))
    plain, told = (memorization.measure(fresh, community, mini, held_out=h).scores.rows[1] for h in (None, held_out))
    assert plain.value > 0.5, "the subjects of the test images are among the training images"
    assert told.value <= 1 / 8 and not told.note and told.n == 8
    both = memorization.measure(fresh, community, mini, held_out=community).scores.rows[1]
    assert both == told, "training images among the held-out ones are left out"
    with pytest.raises(ValueError, match="Every held-out image is a training image too"):
        memorization.measure(fresh, community, mini, held_out=community.split("train"))
    own = memorization.measure(drawn_as(community.split("train"), "copied"), community, mini, held_out=held_out)
    assert own.scores.rows[1].value == 1.0 and "as only 5% of 8 held-out images are" in own.scores.settings[1][1]


def test_a_change_is_paired_and_changed_pictures_are_less_alike(community: Dataset, mini: FeatureNetwork) -> None:
    training = community.split("train")
    before, after = drawn_as(training, "copied"), drawn_as(training, "mixed", 0.5)
    rows = memorization.measure(after, community, mini, compared_with=before).scores.rows
    assert [(r.name, r.group) for r in rows] == [
        (n, g) for n in (SIMILARITY, COPIES) for g in ("copied", "mixed", "change")
    ]
    for first, second, change in (rows[:3], rows[3:]):
        assert change.value == pytest.approx(second.value - first.value) and change.high < 0


def test_prompts_that_are_no_caption_are_left_out_with_a_note(community: Dataset, mini: FeatureNetwork) -> None:
    images = drawn_as(community.split("train"), "set")
    strange = replace(images, prompts=("a robot", *images.prompts[1:]))
    rows = memorization.measure(strange, community, mini).scores.rows
    assert rows[0].n == len(images.prompts) - 1 and rows[1].n == len(images.prompts)
    assert rows[0].note == f"1 of {len(images.prompts)} prompts are no caption of a training image and are left out."


def test_dino_compares_by_the_class_token_that_timm_gives(tmp_path: Path) -> None:
    images = torch.rand(2, 224, 224, 3, generator=torch.Generator().manual_seed(1))
    path, _ = timm_vit(tmp_path, "vit_small_patch14_dinov2.lvd142m", normed=False)
    network = load_features("DINOv2 S/14", path)
    seen = network.preprocess(images.permute(0, 3, 1, 2) * 2 - 1)
    expected = network.module.forward_head(network.module.forward_features(seen), pre_logits=True)
    found = embeddings(network, of_images(images, "two"), batch=1)
    assert torch.allclose(F.normalize(found, dim=1), F.normalize(expected, dim=1).detach(), atol=1e-5)


def test_order_and_batches_do_not_matter(community: Dataset, mini: FeatureNetwork) -> None:
    images = drawn_as(community.split("train"), "set", 0.3)
    order = torch.randperm(len(images.prompts), generator=torch.Generator().manual_seed(0)).tolist()
    mixed = ImageSet(images.images[order], tuple(images.prompts[i] for i in order), tuple(order), "set")
    turned = community.replace(reversed(community.records))
    expected = memorization.measure(images, community, mini).scores.rows
    for given, data, batch in ((images, community, 7), (mixed, turned, 16)):
        for one, other in zip(memorization.measure(given, data, mini, batch=batch).scores.rows, expected, strict=True):
            assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), abs=1e-4)


def test_what_cannot_be_measured_is_one_sentence(community: Dataset, mini: FeatureNetwork, tmp_path: Path) -> None:
    images, toys = drawn_as(community.split("train"), "set"), toy_dataset(tmp_path, (0, 0))
    strangers = replace(images, prompts=("a robot",) * len(images.prompts))
    cases = [
        ((strangers, community, mini), r"0 image\(s\) of the set 'set' have a prompt that is the caption"),
        ((images, community.split("test"), mini), "has no image of the split 'train'"),
        ((images, community, replace(toy_features(), viewable=False)), "gives no vector for one"),
        ((images, toys, mini), r"has 2 different image\(s\)"),
        ((ImageSet(images.images[:1], images.prompts[:1], (1,), "lone"), community, mini), "has one image"),
    ]
    for given, sentence in cases:
        with pytest.raises(ValueError, match=sentence) as error:
            memorization.measure(*given)
        assert str(error.value).endswith(".") and "\n" not in str(error.value)
