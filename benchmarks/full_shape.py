"""Floating-point operations of one optimizer step at Stable Diffusion 1.5's full size, counted without computing.

Each evaluation is counted once on PyTorch's meta device and multiplied by the number of times that the loops make it,
which the other cases and tests/test_benchmarks.py count on real runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from open_clip.modified_resnet import ModifiedResNet
from peft import LoraConfig
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from comfy_scoft.features.vgg import VGGMaps
from comfy_scoft.models.lora import TARGET_MODULES

from .released import VIEWS
from .worlds import NEGATIVES, stable_diffusion

RANK, SIDE, SIZE = 64, 512, 224
PASSES, ROLLOUTS, STEPS = 4, 0.4, 20
"""Forward/backward passes per optimizer step, rollouts among them (one in ten), and DDIM steps of a rollout."""


def operations() -> dict[str, dict[str, float]]:
    """Floating-point operations of an optimizer step by loop and part."""
    unet, unet_back, encode, decode, text = _model()
    pair, vgg = _features(1 + VIEWS, weights=True, other=True), _vgg()
    released = {
        "UNet, with gradient and backward": PASSES * unet_back,
        "UNet, without gradient": (2 * PASSES + ROLLOUTS * 2 * (STEPS - 1)) * unet,
        "VAE encode": PASSES * encode,
        "text encoder": 3 * PASSES * text,
        "VAE decode and backward": ROLLOUTS * decode,
        "VGG16 and backward": ROLLOUTS * vgg,
        "feature network and backward": ROLLOUTS * (1 + NEGATIVES) * pair,
    }
    paper = {
        "UNet, with gradient and backward": PASSES * unet_back,
        "UNet, without gradient": (PASSES + ROLLOUTS * 2 * STEPS) * unet,
        "VAE decode and backward": ROLLOUTS * decode,
        "feature network and backward": ROLLOUTS * _features(1, weights=False, other=False),
    }
    same = paper | {"VGG16 and backward": ROLLOUTS * vgg}
    same["feature network and backward"] = ROLLOUTS * _features(1 + VIEWS, weights=False, other=False)
    return {"released": released, "ours, exact, the released terms": same, "ours, exact, the paper's terms": paper}


def _counted(work: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def _model() -> tuple[float, float, float, float, float]:
    """One UNet sample without and with its backward pass, an encode, a decode with its backward pass, one text."""
    with torch.device("meta"):
        unet, vae, encoder = (module.requires_grad_(False) for module in stable_diffusion())
        unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGET_MODULES["attention"]))
        z, hidden = torch.randn(1, 4, SIDE // 8, SIDE // 8), torch.randn(1, 77, 768)
        t, ids, image = torch.zeros(1).long(), torch.zeros(1, 77).long(), torch.randn(1, 3, SIDE, SIDE)
        leaf = z.clone().requires_grad_()
        with torch.no_grad():
            forward = _counted(lambda: unet(z, t, encoder_hidden_states=hidden))
            encode, text = _counted(lambda: vae.encode(image)), _counted(lambda: encoder(ids))
        back = _counted(lambda: unet(z, t, encoder_hidden_states=hidden).sample.sum().backward())
        decode = _counted(lambda: vae.decode(leaf).sample.sum().backward())
    return forward, back, encode, decode, text


def _features(images: int, *, weights: bool, other: bool) -> float:
    """CLIP RN50 to its fifth layer on images, with the backward pass to their pixels.

    weights: gradients of the weights too. other: as many further images, without a gradient to their pixels.
    """
    with torch.device("meta"):
        network = ModifiedResNet([3, 4, 6, 3], 1024, 32, SIZE, 64).eval().requires_grad_(weights)
        body = nn.Sequential(network.layer1, network.layer2, network.layer3, network.layer4)
        pixels = torch.randn(images, 3, SIZE, SIZE)
        leaf = pixels.clone().requires_grad_()

        def work() -> None:
            total = body(network.stem(leaf)).sum()
            (total + body(network.stem(pixels)).sum() if other else total).backward()

        return _counted(work)


def _vgg() -> float:
    with torch.device("meta"):
        maps = VGGMaps(overwritten=True).requires_grad_(False)
        leaf, other = torch.randn(1, 3, SIDE, SIDE, requires_grad=True), torch.randn(1, 3, SIDE, SIDE)
        return _counted(
            lambda: torch.stack([(a - b).sum() for a, b in zip(maps(leaf), maps(other), strict=True)]).sum().backward()
        )
