"""What surrounds the feature networks: distances, layers, views, names, the cache, precision, and refusals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import feature_files as files
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toys import toy_base, toy_dataset, toy_features

from comfy_scoft.features import FeatureNetwork, FeatureOptions, load_features
from comfy_scoft.features.distances import cosine, cosine_over_tokens, mean_square
from comfy_scoft.features.options import configured, split_name
from comfy_scoft.features.views import Views
from comfy_scoft.training.latent_cache import Cache

MINI = "mini CLIP (layer 5)"


@pytest.fixture(scope="module")
def mini() -> FeatureNetwork:
    return load_features(MINI)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def smooth(side: int, seed: int = 0) -> Tensor:
    return F.interpolate(noise(2, 3, 5, 5, seed=seed), (side, side), mode="bicubic").clamp(-1, 1)


def test_distances_by_hand() -> None:
    a = torch.tensor([[3.0, 0.0], [4.0, 1.0]]).unsqueeze(0)  # 2 channels, 2 tokens
    b = torch.tensor([[4.0, 0.0], [3.0, -2.0]]).unsqueeze(0)
    # over channels: (3, 4)·(4, 3)/25 = .96 and (0, 1)·(0, −2)/2 = −1: mean of .04 and 2
    assert cosine(a, b).tolist() == pytest.approx([1.02])
    # over tokens: (3, 0)·(4, 0)/12 = 1 and (4, 1)·(3, −2)/√(17·13) = 10/14.866: mean of 0 and .3273
    assert cosine_over_tokens(a, b).tolist() == pytest.approx([(1 - 10 / math.sqrt(17 * 13)) / 2], abs=1e-6)
    assert cosine(a[:, :, 0], b[:, :, 0]).tolist() == pytest.approx([0.04])  # one vector an image
    # squares: 1, 0, 1, 9
    assert mean_square(a, b).tolist() == [11 / 4]
    assert all(d(a.expand(3, 2, 2), b.expand(3, 2, 2)).shape == (3,) for d in (cosine, cosine_over_tokens, mean_square))


def test_the_mini_clip_is_to_the_bit_what_it_was(mini: FeatureNetwork) -> None:
    """Its images are stretched and not cut to [0, 1]: the mini world's figures were measured so."""
    images, visual = noise(2, 3, 96, 80), mini.module
    x = F.interpolate(images.float().add(1.0).div(2.0), (64, 64), mode="bicubic", antialias=True, align_corners=False)
    half = torch.tensor((0.5, 0.5, 0.5)).view(3, 1, 1)
    x = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem((x - half) / half)))))
    assert torch.equal(mini.extract(images), x.float())


def test_layers_are_open_clips_own_maps(mini: FeatureNetwork) -> None:
    images = noise(2, 3, 64, 64)
    maps = mini.module.forward_intermediates(mini.preprocess(images), intermediates_only=True)["image_intermediates"]
    assert len(maps) == 5
    for layer, wanted in enumerate(maps, 1):
        network = configured(mini, FeatureOptions(layer=layer))
        assert torch.equal(network.extract(images), wanted) and network.name == f"mini CLIP (layer {layer})"


def token_network() -> FeatureNetwork:
    """Tokens (B, 4, 9) of 12 px images by one convolution."""
    conv = files.random_weights(nn.Conv2d(3, 4, 4, 4), 1)
    half = (0.5,) * 3
    return FeatureNetwork("tokens", conv, 12, half, half, lambda x: conv(x).flatten(2), tokens=True, clamp=True)


def test_a_views_features_are_those_of_the_view_and_the_picture_itself_comes_first() -> None:
    network, images = token_network(), smooth(40)
    found = configured(network, FeatureOptions(views=3)).extract(images)
    assert found.shape == (2, 4, 4, 9)
    assert torch.allclose(found[:, :, 0], network.extract(images), atol=1e-6)
    for number, view in enumerate(Views(3)(images.add(1).div(2), 12), 1):
        assert torch.allclose(found[:, :, number], network.extract(view * 2 - 1), atol=1e-5)


def test_a_distance_with_views_is_the_mean_of_the_views_distances() -> None:
    """As the authors' code: the plain pair and the augmented pairs count alike."""
    for distance in ("own", "over tokens"):
        plain = configured(token_network(), FeatureOptions(distance=distance))
        network = configured(token_network(), FeatureOptions(distance=distance, views=4))
        a, b = network.extract(smooth(40)), network.extract(smooth(40, seed=1))
        each = torch.stack([plain.distance(a[:, :, v], b[:, :, v]) for v in range(5)])
        assert torch.allclose(network.distance(a, b), each.mean(0), atol=1e-6) and each.std(0).min() > 1e-4


def test_views_are_the_same_for_every_picture_and_every_time() -> None:
    network = configured(token_network(), FeatureOptions(views=5))
    images = smooth(40)
    state = torch.random.get_rng_state()
    together = network.extract(images)
    assert torch.equal(torch.random.get_rng_state(), state), "the global seed is not drawn from"
    alone = configured(token_network(), FeatureOptions(views=5)).extract(images[1:])
    assert torch.allclose(together[1:], alone, atol=1e-6)
    assert torch.equal(Views(5).bank[:3], Views(3).bank) and not torch.equal(Views(3, seed=1).bank, Views(3).bank)


@pytest.mark.parametrize("height, width", [(96, 96), (72, 120)])
def test_a_view_is_torchvisions_perspective_and_crop(height: int, width: int) -> None:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as T

    views = Views(4)
    x = F.interpolate(noise(1, 3, 6, 6), (height, width), mode="bicubic").add(1).div(2).clamp(0, 1)
    for drawn, ours in zip(views.bank, views(x, 48), strict=True):
        start, end = (points.tolist() for points in views.corners(drawn, height, width))
        turned = T.perspective(x, start, end, InterpolationMode.BILINEAR, 0)
        top, left, side = views.box(drawn, height, width)
        assert side == min(round(math.sqrt(0.8 * height * width)), height, width)
        assert 0 <= top <= height - side and 0 <= left <= width - side
        wanted = T.resized_crop(turned, top, left, side, side, [48, 48], InterpolationMode.BILINEAR, antialias=True)
        assert (ours - wanted).abs().mean() < 0.01  # torchvision's grid lies half a pixel off
        assert (ours == 0).float().mean() < 0.6
    for drawn in Views(200).bank:
        start, end = views.corners(drawn, height, width)
        moved = (end - start).abs()
        assert (moved[:, 0] <= width / 4).all() and (moved[:, 1] <= height / 4).all()


def test_views_pass_the_gradient_on_to_the_picture() -> None:
    network = configured(token_network(), FeatureOptions(views=3))
    image, target = smooth(40)[:1].mul(0.8).requires_grad_(), network.extract(smooth(40, seed=1)[:1])
    (gradient,) = torch.autograd.grad(network.distance(network.extract(image), target).sum(), image)
    step = gradient / gradient.norm() * 0.05
    with torch.no_grad():
        ahead, behind = (network.distance(network.extract(image + s * step), target) for s in (1, -1))
    assert float(ahead - behind) / 0.1 == pytest.approx(float(gradient.norm()), rel=0.05)


NAMES = [
    (MINI, FeatureOptions(layer=2)),
    (MINI, FeatureOptions(views=10)),
    (MINI, FeatureOptions(layer=3, views=2)),
    ("CLIP ViT-B/32", FeatureOptions(distance="over tokens", views=10)),
    ("CLIP ViT-B/32", FeatureOptions(distance="over tokens")),
]


@pytest.mark.parametrize("menu, options", NAMES)
def test_a_networks_name_tells_its_options(menu: str, options: FeatureOptions) -> None:
    """A job keeps a network as its name and its file alone."""
    bare = FeatureNetwork(
        menu, nn.Identity(), 8, (0.0,) * 3, (1.0,) * 3, lambda x: x, layers=dict.fromkeys(range(1, 6)), tokens=True
    )
    assert split_name(configured(bare, options).name) == (menu, options)


def test_a_name_with_options_loads_the_network_again() -> None:
    network = load_features(MINI, options=FeatureOptions(layer=4, views=2))
    again, images = load_features(network.name), noise(1, 3, 64, 64)
    assert again.name == network.name == "mini CLIP (layer 4), 2 views"
    assert torch.equal(again.extract(images), network.extract(images))


def test_cached_features_of_views_serve_the_losses(mini: FeatureNetwork, tmp_path: Path) -> None:
    """The cache pads ragged negatives; each distance is that of the images' own features."""
    from test_losses import context

    from comfy_scoft.losses import ContrastiveLoss

    network = configured(mini, FeatureOptions(views=2))
    cache = Cache(toy_base(), toy_dataset(tmp_path / "data", negatives=(2, 1)), 64)
    samples = [(0, False), (1, False)]
    positive, (negatives, mask) = cache.positive(network, samples), cache.negatives(network, samples)
    image = noise(2, 3, 64, 64).requires_grad_()
    known = {"image": image, "positive": positive, "negatives": negatives, "mask": mask}
    loss = ContrastiveLoss(network, form="difference")(context(**known))
    for i, count in enumerate((2, 1)):
        own, others = cache.pixels(samples[i])
        seen = [network.extract(x.unsqueeze(0)) for x in (own, *others)]
        with torch.no_grad():
            near, *far = (float(network.distance(network.extract(image[i : i + 1]), s)) for s in seen)
        assert len(far) == count
        assert float(loss[i].detach()) == pytest.approx(near - sum(far) / count, abs=1e-5)
    (gradient,) = torch.autograd.grad(loss.sum(), image)
    assert gradient.isfinite().all() and (gradient.flatten(1).norm(dim=1) > 0).all()


class Doubled(nn.Module):
    """A network that says in what precision it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.asked: list[torch.dtype] = []

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(x.dtype)
        return torch.matmul(x * self.weight, torch.eye(x.shape[-1], dtype=x.dtype))


def test_features_are_computed_in_the_weights_precision_under_autocast_too() -> None:
    module = Doubled()
    network = FeatureNetwork("doubled", module, 8, (0.5,) * 3, (0.5,) * 3, module)
    images = noise(1, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(network.extract(images), images * 2, atol=1e-6)
        assert network.distance(images, images * 1.001).abs().max() < 1e-6
    module.half()
    assert network.extract(images).dtype == torch.float32
    assert module.asked == [torch.float32, torch.float16]


@pytest.mark.parametrize("height, width, box", [(40, 60, (0, 10)), (61, 40, (10, 0)), (40, 40, (0, 0))])
def test_a_cropped_picture_is_its_resized_middle(height: int, width: int, box: tuple[int, int]) -> None:
    """The short side becomes 20; 61 × 40 becomes 30 × 20, of which 5 rows are cut above and below."""
    network = FeatureNetwork("crop", nn.Identity(), 20, (0.0,) * 3, (1.0,) * 3, lambda x: x, fit="crop")
    ramp = torch.linspace(-1, 1, height).view(1, 1, -1, 1) + torch.linspace(0, 0.5, width).view(1, 1, 1, -1)
    image = ramp.expand(1, 3, -1, -1)
    top, left = box
    wanted = F.interpolate(image[..., top : top + 40, left : left + 40], (20, 20), mode="bilinear", antialias=True)
    found = network.extract(image) * 2 - 1
    assert found.shape == (1, 3, 20, 20) and (found - wanted)[..., 1:-1, 1:-1].abs().max() < 0.03


def test_pictures_and_features_of_a_wrong_shape_are_refused(mini: FeatureNetwork) -> None:
    for wrong in (noise(3, 64, 64), noise(1, 4, 64, 64), torch.zeros(1, 3, 64, 64, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"takes images of shape \(B, 3, H, W\) as floating point numbers"):
            mini.extract(wrong)
    whole = FeatureNetwork("whole", nn.Identity(), 512, (0.0,) * 3, (1.0,) * 3, lambda x: x, fit="none")
    assert whole.extract(noise(1, 3, 40, 50)).shape == (1, 3, 40, 50)
    with pytest.raises(ValueError, match="at least 32 × 32 pixels, but got 50 × 31: raise the resolution"):
        whole.extract(noise(1, 3, 31, 50))
    with pytest.raises(ValueError, match=r"but got \(1, 512, 2, 2\) and \(1, 8, 4, 4\): give it features of this"):
        mini.distance(mini.extract(noise(1, 3, 64, 64)), toy_features().extract(noise(1, 3, 64, 64)))


def test_options_that_a_network_has_not_are_refused(mini: FeatureNetwork) -> None:
    cases: list[tuple[FeatureNetwork, dict[str, Any], str]] = [
        (mini, {"layer": 6}, "^layer is 6, but it must be a whole number from 0 to 5.$"),
        (toy_features(), {"layer": 2}, "toy has no layer 2 to choose: set layer to 0"),
        (mini, {"distance": "over tokens"}, "has no tokens to take a cosine over: set its distance to 'own'"),
        (mini, {"distance": "other"}, "^distance is 'other', but it must be one of own, over tokens.$"),
        (mini, {"views": -1}, "^views is -1, but it must be a whole number from 0 to 64.$"),
    ]
    for network, options, words in cases:
        with pytest.raises(ValueError, match=words):
            configured(network, FeatureOptions(**options))
    with pytest.raises(ValueError, match="There is no feature network named 'CLIP RN51 .layer 5.'; choose one of mini"):
        load_features("CLIP RN51 (layer 5)")
    with pytest.raises(ValueError, match="There is no feature network named ''"):
        load_features("")
