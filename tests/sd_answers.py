"""What ComfyUI and the pack get from the same stand-in of Stable Diffusion, so that tests can compare the two."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import comfy_inprocess
import small_models
import torch
from torch import Tensor

comfy = comfy_inprocess.start()
small_models.register()
helpers = importlib.import_module("comfy.sampler_helpers")

from comfy_scoft.models.stable_diffusion import BaseModel  # noqa: E402  (needs a started ComfyUI, which comes first on the path)

FAMILIES = ("sd1", "sdxl")
CAPTION = "an old (wooden) house by the river in nuvia"
UNET = "model.diffusion_model."


def load(path: Path) -> tuple[Any, Any, Any]:
    return comfy.sd.load_checkpoint_guess_config(str(path), output_vae=True, output_clip=True)[:3]


def far(a: Tensor, b: Tensor) -> float:
    """Largest difference relative to the largest value."""
    assert a.shape == b.shape
    return float((a - b).detach().abs().max() / b.detach().abs().max())


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def comfys_answer(model: Any, clip: Any, z: Tensor, t: int, caption: str) -> Tensor:
    """What ComfyUI's sampling code gets from the UNet for one caption at scaled latents `z` of timestep t.

    It goes the sampler's whole way (conditioning, sizes, σ, patches in the graph) to the denoised image x0, from
    which the UNet's answer follows: (x − x0) / σ for ε, and from x0 = x / (σ² + 1) − v σ / √(σ² + 1) for v.
    """
    tokens = clip.tokenize(caption, disable_weights=True)
    hidden, pooled = clip.encode_from_tokens(tokens, return_pooled=True)
    positive = helpers.convert_cond([[hidden, {"pooled_output": pooled}]])
    model.patch_model()
    try:
        inner, cpu = model.model, torch.device("cpu")
        conds = comfy.samplers.encode_model_conds(inner.extra_conds, positive, z, cpu, "positive")
        given = {
            key: cond.process_cond(batch_size=len(z), area=None).cond for key, cond in conds[0]["model_conds"].items()
        }
        sampling = inner.model_sampling
        sigma = sampling.sigmas[t].reshape(1).expand(len(z))
        x = z * (sigma[0].double() ** 2 + 1).sqrt().float()
        with torch.no_grad():
            x0 = inner.apply_model(x, sigma, **given)
    finally:
        model.unpatch_model()
    s = sigma[0]
    if isinstance(sampling, comfy.model_sampling.V_PREDICTION):
        return (x / (s**2 + 1) - x0) * (s**2 + 1).sqrt() / s
    return (x - x0) / s


def answer(base: BaseModel, z: Tensor, t: int, caption: str) -> Tensor:
    with torch.no_grad():
        return base.predict(z, torch.full((len(z),), t), [caption] * len(z))


def graph_node(name: str, module: str = "nodes") -> Any:
    """A stock node, run as ComfyUI runs it."""
    kind = getattr(importlib.import_module(module), name)
    return lambda **given: getattr(kind(), kind.FUNCTION)(**given)
