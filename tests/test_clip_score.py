"""CLIPScore: open_clip's own computation, on the mini CLIP and at full shape, and never without the paper's caution."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from feature_files import clip_file, timm_vit
from toys import toy_features

from comfy_scoft.data.dataset import load_folder
from comfy_scoft.features import FeatureNetwork, load_features
from comfy_scoft.metrics import clip_score
from comfy_scoft.metrics.image_set import ImageSet
from comfy_scoft.metrics.inputs import embeddings, of_images, of_records
from comfy_scoft.mini_world import COMMUNITY
from comfy_scoft.models.mini.clip import image_text_cosine

NAME = "CLIPScore · mini CLIP (layer 5)"


@pytest.fixture(scope="module")
def mini() -> FeatureNetwork:
    return load_features("mini CLIP (layer 5)")


@pytest.fixture(scope="module")
def community() -> ImageSet:
    """The community's own images with their captions, as if a model had drawn them."""
    records = load_folder(COMMUNITY)[0].split("train").records[:12]
    images = of_records(load_folder(COMMUNITY)[0].replace(records), (64, 64)).at(range(12))
    pixels = (images.permute(0, 2, 3, 1) + 1) / 2
    return ImageSet(pixels, tuple(r.caption for r in records), tuple(range(12)), "the community")


def test_it_is_the_mini_clips_own_cosine_in_hundredths(community: ImageSet, mini: FeatureNetwork) -> None:
    found = clip_score.measure(community, mini)
    (row,) = found.rows
    assert "100 max(cos, 0)" in found.settings[0][1] and "published CLIPScore: 2.5 max(cos, 0)" in found.settings[0][1]
    pixels = community.images.permute(0, 3, 1, 2) * 2 - 1
    expected = 100 * image_text_cosine(pixels, list(community.prompts)).clamp(min=0)
    assert row.value == pytest.approx(float(expected.mean()), abs=1e-3)
    assert (row.name, row.group, row.n) == (NAME, "the community", 12) and row.low < row.value < row.high


def test_right_words_score_higher_than_those_of_another_picture(community: ImageSet, mini: FeatureNetwork) -> None:
    wrong = replace(community, prompts=community.prompts[6:] + community.prompts[:6], label="mixed up")
    right, other = clip_score.measure(community, mini).rows[0], clip_score.measure(wrong, mini).rows[0]
    assert right.low > other.high


@pytest.mark.parametrize(
    ("name", "architecture"),
    [("CLIP RN50 (layer 5)", "RN50-quickgelu"), ("CLIP ViT-B/32", "ViT-B-32-quickgelu")],
)
@pytest.mark.long
def test_at_full_shape_it_is_open_clips_own_encoders(name: str, architecture: str, tmp_path: Path) -> None:
    import open_clip

    path, model = clip_file(tmp_path, architecture)
    network = load_features(name, path)
    images = torch.rand(2, 224, 224, 3, generator=torch.Generator().manual_seed(1))
    prompts = ("a house in nuvia", "a teacher " * 60)
    found = embeddings(network, of_images(images, "two"))
    with torch.no_grad():
        own = model.encode_image(network.preprocess(images.permute(0, 3, 1, 2) * 2 - 1), normalize=True)
        words = model.encode_text(open_clip.get_tokenizer(architecture)(list(prompts)), normalize=True)
    assert torch.allclose(torch.nn.functional.normalize(found, dim=1), own, atol=1e-5)
    scores = clip_score.clip_scores(found, network.text_embedding(prompts))
    assert scores == pytest.approx((100 * (own * words).sum(1)).clamp(min=0).tolist(), abs=1e-3)


def test_an_angle_beyond_ninety_degrees_counts_as_nothing() -> None:
    images, texts = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[-1.0, 0.0], [1.0, 1.0]])
    assert clip_score.clip_scores(images, texts) == pytest.approx([0.0, 100 * 0.5**0.5])


def test_the_papers_caution_goes_with_every_figure(community: ImageSet, mini: FeatureNetwork) -> None:
    other = replace(community, images=community.images.flip(1), label="upside down")
    found = clip_score.measure(other, mini, compared_with=community)
    assert [row.group for row in found.rows] == ["the community", "upside down", "change"]
    assert all("does not measure cultural competence" in row.note and "fell" in row.note for row in found.rows)
    assert found.rows[2].value == pytest.approx(found.rows[1].value - found.rows[0].value)
    assert found.csv().count("does not measure cultural competence") == 3


def test_order_and_batches_do_not_matter(community: ImageSet, mini: FeatureNetwork) -> None:
    (expected,) = clip_score.measure(community, mini, batch=12).rows
    order = [3, 1, 11, 0, 2, 5, 4, 10, 9, 8, 7, 6]
    prompts, seeds = (tuple(part[i] for i in order) for part in (community.prompts, community.seeds))
    mixed = ImageSet(community.images[order], prompts, seeds, community.label)
    for images, batch in ((community, 1), (community, 5), (mixed, 5)):
        (row,) = clip_score.measure(images, mini, batch=batch).rows
        assert (row.value, row.low, row.high) == pytest.approx((expected.value, expected.low, expected.high), abs=1e-3)


def test_networks_without_words_and_pictures_without_prompts_are_one_sentence(
    community: ImageSet, mini: FeatureNetwork, tmp_path: Path
) -> None:
    path, _ = timm_vit(tmp_path, "vit_small_patch14_dinov2.lvd142m", normed=False)
    for network in (toy_features(), load_features("DINOv2 S/14", path)):
        with pytest.raises(ValueError, match="does not compare images with words: choose a CLIP") as error:
            clip_score.measure(community, network)
        assert str(error.value).count(". ") == 0
    bare = replace(community, prompts=("", *community.prompts[1:]))
    with pytest.raises(ValueError, match="Some images have no prompt"):
        clip_score.measure(bare, mini)
    with pytest.raises(ValueError, match="has one image"):
        clip_score.measure(ImageSet(community.images[:1], ("a",), (1,), "lone"), mini)
