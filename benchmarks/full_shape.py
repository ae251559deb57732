"""Operations of one optimizer step at Stable Diffusion 1.5's full size, counted without computing anything.

On PyTorch's meta device each evaluation is counted once, and multiplied by how often the loops make it: the numbers
that the other cases and tests/test_benchmarks.py count on real runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from comfy_scoft.features.vgg import VGGMaps
from comfy_scoft.models.lora import TARGET_MODULES

from .measure import Operations
from .released import VIEWS
from .worlds import NEGATIVES, stable_diffusion

RANK, SIDE, LOOK = 64, 512, 224
MICRO, ROLLOUTS, STEPS = 4, 0.4, 20
"""Micro-steps of an optimizer step, rollouts among them (one in ten), and DDIM steps of a rollout."""


def operations() -> dict[str, dict[str, float]]:
    """Floating-point operations of an optimizer step by loop and part."""
    unet, unet_back, encode, decode, text = _model()
    pair, vgg = _look(1 + VIEWS, weights=True, other=True), _vgg()
    released = {
        "UNet, with gradient and way back": MICRO * unet_back,
        "UNet, without gradient": (2 * MICRO + ROLLOUTS * 2 * (STEPS - 1)) * unet,
        "VAE encode": MICRO * encode,
        "text encoder": 3 * MICRO * text,
        "VAE decode and way back": ROLLOUTS * decode,
        "VGG16 and way back": ROLLOUTS * vgg,
        "feature network and way back": ROLLOUTS * (1 + NEGATIVES) * pair,
    }
    paper = {
        "UNet, with gradient and way back": MICRO * unet_back,
        "UNet, without gradient": (MICRO + ROLLOUTS * 2 * STEPS) * unet,
        "VAE decode and way back": ROLLOUTS * decode,
        "feature network and way back": ROLLOUTS * _look(1, weights=False, other=False),
    }
    same = {
        **paper,
        "VGG16 and way back": ROLLOUTS * vgg,
        "feature network and way back": ROLLOUTS * _look(1 + VIEWS, weights=False, other=False),
    }
    return {"released": released, "ours, exact, the released terms": same, "ours, exact, the paper's terms": paper}


def _counted(work: Callable[[], Any]) -> float:
    with Operations() as counter:
        work()
    return float(counter.total)


def _model() -> tuple[float, float, float, float, float]:
    """One UNet sample without and with its way back, an encode, a decode with its way back, a text."""
    from peft import LoraConfig

    with torch.device("meta"):
        unet, vae, encoder = (module.requires_grad_(False) for module in stable_diffusion(small=False))
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


def _look(images: int, weights: bool, other: bool) -> float:
    """CLIP RN50 to its fifth layer on images with their way back; weights: their gradients too; other: on as many
    more images, whose pixels want no gradient."""
    from open_clip.modified_resnet import ModifiedResNet

    with torch.device("meta"):
        network = ModifiedResNet([3, 4, 6, 3], 1024, 32, LOOK, 64).eval().requires_grad_(weights)
        body = nn.Sequential(network.layer1, network.layer2, network.layer3, network.layer4)
        shown = torch.randn(images, 3, LOOK, LOOK)
        leaf = shown.clone().requires_grad_()

        def work() -> None:
            total = body(network.stem(leaf)).sum()
            (total + body(network.stem(shown)).sum() if other else total).backward()

        return _counted(work)


def _vgg() -> float:
    with torch.device("meta"):
        maps = VGGMaps(overwritten=True).requires_grad_(False)
        leaf, other = torch.randn(1, 3, SIDE, SIDE, requires_grad=True), torch.randn(1, 3, SIDE, SIDE)
        return _counted(
            lambda: torch.stack([(a - b).sum() for a, b in zip(maps(leaf), maps(other), strict=True)]).sum().backward()
        )
