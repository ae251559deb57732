"""Each feature network at its real size: random weights through the real loading code, against its own library."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import feature_files as files
import numpy as np
import pytest
import skimage
import torch
from PIL import Image
from torch import Tensor

from comfy_scoft.features import FeatureNetwork, load_features

Reference = tuple[Path, files.Forward]
ROUNDING = 1.5 / 255
"""Pillow rounds to 8 bits after each direction of a resize; ours does not. For pixels in [0, 1]; 1.1 was measured."""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder that is emptied at once: these files are large, and pytest keeps its own for three runs."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def photo(name: str) -> Image.Image:
    return Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")


def pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(127.5).sub(1.0).unsqueeze(0)


def open_clip_transform(model: str, tag: str, size: int) -> Callable[[Image.Image], Tensor]:
    import open_clip

    facts = open_clip.get_pretrained_cfg(model, tag)
    settings = {key: facts[key] for key in ("mean", "std", "interpolation", "resize_mode")}
    return open_clip.image_transform(size, is_train=False, **settings)


def timm_transform(architecture: str, size: int) -> Callable[[Image.Image], Tensor]:
    import timm

    facts = timm.get_pretrained_cfg(architecture).to_dict()
    config = timm.data.resolve_data_config({"input_size": (3, size, size)}, pretrained_cfg=facts)
    return timm.data.create_transform(**config, is_training=False)


def blip2_transform() -> Callable[[Image.Image], Tensor]:
    import transformers

    processor = transformers.BlipImageProcessor(size={"height": 224, "width": 224})
    return lambda image: processor(image, return_tensors="pt")["pixel_values"][0]


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def prepared(network: FeatureNetwork, transform: Callable[[Image.Image], Tensor]) -> Tensor:
    """The library's input for two photos, of which one is no square, after it was compared with ours."""
    found = []
    for name in ("astronaut.png", "coffee.png"):
        wanted = transform(photo(name)).unsqueeze(0)
        ours = network.preprocess(pixels(photo(name)))
        assert ours.shape == wanted.shape
        std = torch.tensor(network.std).view(3, 1, 1)
        assert ((ours - wanted) * std).abs().max() <= ROUNDING
        found.append(wanted)
    return torch.cat(found)


def examine(
    network: FeatureNetwork,
    forward: files.Forward,
    transform: Callable[[Image.Image], Tensor],
    *,
    larger: bool = False,
) -> None:
    """Preprocessing, features, gradient and half precision of a network, against its library.

    larger: of a network that was examined at a smaller size, whose gradient and half precision take minutes.
    """
    theirs = prepared(network, transform)
    photos = [pixels(photo(name)) for name in ("astronaut.png", "coffee.png")]
    with torch.no_grad():
        ours = torch.cat([network.extract(image) for image in photos])
        seen = torch.cat([network.preprocess(image) for image in photos])
        assert relative(ours, forward(seen)) < 1e-5
        assert relative(ours, forward(theirs)) < 0.05
        assert network.distance(ours[:1], ours[1:]) > 10 * network.distance(ours, ours).max().clamp(min=1e-6)
    if not larger:
        learns_through(network)
        frozen_and_half(network, photos[0], ours[:1])


def learns_through(network: FeatureNetwork) -> None:
    """The gradient to the image is the slope of D, measured by a step along it; no weight gets one."""
    start = torch.Generator().manual_seed(5)
    image = torch.rand(1, 3, 8, 8, generator=start).mul(1.6).sub(0.8)
    image = torch.nn.functional.interpolate(image, (96, 96), mode="bicubic").clamp(-0.9, 0.9).requires_grad_()
    with torch.no_grad():
        target = network.extract(pixels(photo("astronaut.png").resize((96, 96))))
    loss = network.distance(network.extract(image), target)
    assert loss.shape == (1,) and loss.dtype == torch.float32
    (gradient,) = torch.autograd.grad(loss.sum(), image)
    assert gradient.isfinite().all() and gradient.norm() > 0
    step = gradient / gradient.norm() * 0.2
    with torch.no_grad():
        ahead, behind = (network.distance(network.extract(image + sign * step), target) for sign in (1, -1))
    assert float(ahead - behind) / 0.4 == pytest.approx(float(gradient.norm()), rel=0.1)
    assert all(p.grad is None and not p.requires_grad for p in network.module.parameters())
    assert not network.module.training


def frozen_and_half(network: FeatureNetwork, image: Tensor, wanted: Tensor) -> None:
    for dtype, close in ((torch.bfloat16, 0.1), (torch.float16, 0.02)):
        network.module.to(dtype)
        with torch.no_grad():
            found = network.extract(image)
        assert found.dtype == torch.float32 and found.isfinite().all()
        assert relative(found, wanted) < close, dtype


CLIPS = {"CLIP RN50 (layer 5)": ("RN50", "openai"), "CLIP RN101 (layer 5)": ("RN101", "openai")}


@pytest.mark.long
@pytest.mark.parametrize("name", CLIPS)
def test_a_convolutional_clip_is_open_clips_layer_4(name: str, place: Path) -> None:
    path, forward = files.clip_conv(place, f"{CLIPS[name][0]}-quickgelu")
    network = load_features(name, path)
    examine(network, forward, open_clip_transform(*CLIPS[name], 224), larger="RN101" in name)
    assert network.extract(torch.zeros(1, 3, 40, 40)).shape == (1, 2048, 7, 7)


@pytest.mark.long
def test_clip_vit_is_open_clips_last_block(place: Path) -> None:
    path, forward = files.clip_vit(place)
    network = load_features("CLIP ViT-B/32", path)
    examine(network, forward, open_clip_transform("ViT-B-32-quickgelu", "openai", 224))
    assert network.extract(torch.zeros(1, 3, 40, 40)).shape == (1, 768, 50)


@pytest.mark.long
def test_siglip2_is_open_clips_last_norm(place: Path) -> None:
    path, forward = files.siglip2(place)
    examine(load_features("SigLIP2 B/16", path), forward, open_clip_transform("ViT-B-16-SigLIP2", "webli", 224))


DINOS = [
    ("DINOv2 S/14", "vit_small_patch14_dinov2.lvd142m", 224),
    pytest.param("DINOv3 S/16", "vit_small_patch16_dinov3.lvd1689m", 256, marks=pytest.mark.long),
    pytest.param("DINOv2 L/14", "vit_large_patch14_dinov2.lvd142m", 224, marks=pytest.mark.long),
    pytest.param("DINOv3 L/16", "vit_large_patch16_dinov3.lvd1689m", 256, marks=pytest.mark.long),
]


@pytest.mark.parametrize("name, architecture, size", DINOS)
@pytest.mark.long
def test_dino_is_timms_tokens(name: str, architecture: str, size: int, place: Path) -> None:
    path, forward = files.timm_vit(place, architecture, normed="dinov3" in architecture)
    examine(load_features(name, path), forward, timm_transform(architecture, size), larger=" L/" in name)


@pytest.mark.long
def test_dreamsim_is_its_package_and_leaves_torch_hub_alone(place: Path) -> None:
    import dreamsim

    adapter = files.dreamsim_folder(place / "models")
    before = torch.hub.get_dir(), torch.hub.load
    network = load_features("DreamSim", adapter)
    assert (torch.hub.get_dir(), torch.hub.load) == before and network.source == adapter
    with contextlib.redirect_stdout(io.StringIO()):
        model, transform = dreamsim.dreamsim(device="cpu", cache_dir=str(adapter.parent.parent))
    torch.hub.set_dir(before[0])
    a, b = (transform(photo(name)) for name in ("astronaut.png", "coffee.png"))
    with torch.no_grad():
        ours = network.distance(network.extract(a * 2 - 1), network.extract(b * 2 - 1))
        assert torch.allclose(ours, model(a, b), atol=1e-6)
    examine(network, model.embed, lambda image: transform(image)[0])


@pytest.mark.long
def test_blip2_is_transformers_image_embedding(place: Path) -> None:
    """One model at a time: 1.1 billion numbers are 4.5 GB."""
    import transformers

    path = files.blip2_folder(place)
    network = load_features("BLIP-2 Q-Former", path)
    theirs = prepared(network, blip2_transform())
    photos = [pixels(photo(name)) for name in ("astronaut.png", "coffee.png")]
    with torch.no_grad():
        ours = torch.cat([network.extract(image) for image in photos])
    learns_through(network)
    network.module.to(torch.bfloat16)
    with torch.no_grad():
        half = network.extract(photos[0])
    assert half.isfinite().all() and relative(half, ours[:1]) < 0.2
    assert torch.allclose(ours.norm(dim=1), torch.ones(2, 32), atol=1e-5)
    del network
    model: Any = transformers.Blip2ForImageTextRetrieval.from_pretrained(path.parent, torch_dtype=torch.float32).eval()
    words = torch.ones(2, 4, dtype=torch.long)
    with torch.no_grad():
        wanted = model(pixel_values=theirs, input_ids=words, attention_mask=words).image_embeds.transpose(1, 2)
    assert relative(ours, wanted) < 0.05


def vgg_maps(layers: torch.nn.Sequential, image: Tensor, after_relu: int) -> list[Tensor]:
    """Five maps of VGG16, the first `after_relu` of them after their ReLU; each position's channels of length 1."""
    x = (image.add(1).div(2) - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    found = []
    for number, layer in enumerate(layers[:30]):
        x = layer(x.clone())  # a copy: these ReLUs work in place
        place = (2, 7, 14, 21, 28).index(number) if number in (2, 7, 14, 21, 28) else None
        if place is not None and place >= after_relu:
            found.append(x)
        place = (3, 8, 15, 22, 29).index(number) if number in (3, 8, 15, 22, 29) else None
        if place is not None and place < after_relu:
            found.append(x)
    return [map / (map.square().sum(1, keepdim=True).sqrt() + 1e-10) for map in found]


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, torch.nn.Sequential]]:
    folder = tmp_path_factory.mktemp("vgg")
    yield files.vgg_file(folder)
    shutil.rmtree(folder)


def two_photos(side: int = 64) -> tuple[Tensor, Tensor]:
    a, b = (pixels(photo(name).resize((side, side))) for name in ("astronaut.png", "coffee.png"))
    return torch.cat([a, b]), torch.cat([b, a * 0.5])


@pytest.mark.parametrize("name, after_relu", [("VGG16 (as released)", 4), ("VGG16 (pre-ReLU)", 0)])
@pytest.mark.long
def test_the_vgg_distance_is_its_formula_on_torchvisions_layers(name: str, after_relu: int, vgg: Any) -> None:
    path, layers = vgg
    network, (a, b) = load_features(name, path), two_photos()
    with torch.no_grad():
        pairs = zip(vgg_maps(layers, a, after_relu), vgg_maps(layers, b, after_relu), strict=True)
        wanted = sum((p - q).square().sum(1).mean((1, 2)) for p, q in pairs)
        ours = network.distance(network.extract(a), network.extract(b))
    assert torch.allclose(ours, wanted, rtol=1e-4) and wanted.min() > 0.1
    learns_through(network)


def test_the_released_vgg_distance_is_that_of_layers_that_overwrite_their_input(vgg: Any) -> None:
    """The authors' script keeps a map, then runs torchvision's in-place ReLU over it: so does this, in its order."""
    path, layers = vgg
    network, (a, b) = load_features("VGG16 (as released)", path), two_photos()

    def maps(x: Tensor) -> list[Tensor]:
        kept = []
        for first, end in ((0, 3), (3, 8), (8, 15), (15, 22), (22, 29)):
            for layer in layers[first:end]:
                x = layer(x)
            kept.append(x)
        return [m / (m.square().sum(1, keepdim=True).sqrt() + 1e-10) for m in kept]

    with torch.no_grad():
        pairs = zip(maps(network.extract(a)), maps(network.extract(b)), strict=True)
        wanted = sum((p - q).square().sum(1).mean((1, 2)) for p, q in pairs)
        assert torch.allclose(network.distance(network.extract(a), network.extract(b)), wanted, rtol=1e-4)


@pytest.mark.long
def test_lpips_is_the_learned_heads_on_torchvisions_layers(vgg: Any) -> None:
    import lpips

    path, layers = vgg
    network, (a, b) = load_features("LPIPS VGG16", path), two_photos()
    heads = torch.load(
        Path(lpips.__file__).parent / "weights" / "v0.1" / "vgg.pth", map_location="cpu", weights_only=True
    )
    weights = [heads[f"lin{n}.model.1.weight"] for n in range(5)]
    with torch.no_grad():
        maps = zip(vgg_maps(layers, a, 5), vgg_maps(layers, b, 5), weights, strict=True)
        wanted = sum((w * (p - q).square()).sum(1).mean((1, 2)) for p, q, w in maps)
        ours = network.distance(network.extract(a), network.extract(b))
    assert torch.allclose(ours, wanted, rtol=1e-3) and wanted.min() > 0.01
    learns_through(network)


@pytest.mark.parametrize("name", ["LPIPS VGG16", "VGG16 (as released)", "VGG16 (pre-ReLU)"])
@pytest.mark.long
def test_distances_of_whole_pictures_hold_in_half_precision(name: str, vgg: Any) -> None:
    network, (a, b) = load_features(name, vgg[0]), two_photos(32)
    with torch.no_grad():
        wanted = network.distance(network.extract(a), network.extract(b))
        for dtype in (torch.bfloat16, torch.float16):
            network.module.to(dtype)
            found = network.distance(network.extract(a), network.extract(b))
            assert found.dtype == torch.float32 and torch.allclose(found, wanted, rtol=0.03), dtype
