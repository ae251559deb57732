"""The base model that is fine-tuned: UNet, autoencoder, noise schedule and text embeddings of SD 1.x, 2.x or XL."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..common import fingerprints
from ..common.errors import UserError
from .mini import layout
from .noise_schedule import NoiseSchedule

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel

FAMILIES = ("sd1", "sd2", "sdxl", "mini")
RESOLUTIONS = {"mini": 64, "sd1": 512, "sd2": 512, "sdxl": 1024}
"""The side in pixels of the squares that a family was trained on; 768 for SD 2.x models that predict v."""
LATENT_FACTOR = 8
"""Pixels along one side of a latent."""
LATENT_CHANNELS = 4


def family_of(*, text_width: int, pooled: bool, linear: bool) -> str:
    """The family of a UNet, one of FAMILIES. text_width: numbers a token that it reads; pooled: whether it also reads a
    pooled embedding, as SD XL does; linear: whether its transformers project by linear layers, as those of SD 2.x do.
    """
    if pooled:
        return "sdxl"
    if text_width == layout.CONTEXT:
        return "mini"
    return "sd2" if linear else "sd1"


@dataclass(frozen=True)
class TextEmbedding:
    """A caption as the UNet reads it: `hidden` (1, T, C), 77 tokens for each window of the text encoder, and, for SD XL
    only, `pooled` (1, P) of the first window."""

    hidden: Tensor
    pooled: Tensor | None = None


def repeated(hidden: Sequence[Tensor]) -> Tensor:
    """Texts (1, T_i, C) as one batch (B, T, C), each repeated to the least common multiple of their lengths.

    Attention over tokens that are all repeated equally often is that over the tokens: ComfyUI joins prompts of
    different lengths so, and it serves where a sampler takes no mask.
    """
    length = math.lcm(*(text.shape[1] for text in hidden))
    return torch.cat([text.repeat(1, length // text.shape[1], 1) for text in hidden])


@dataclass
class BaseModel:
    """A frozen Stable Diffusion model as diffusers modules; the LoRA is attached to `unet` by lora.py.

    unet: UNet2DConditionModel. vae: AutoencoderKL, or AutoencoderTiny (TAESD).
    embed: caption -> TextEmbedding. Each caption is embedded once and remembered.
    family: "sd1", "sd2", "sdxl" or "mini". name: what cards and messages call the model.
    vae_scaling: z = raw latent · vae_scaling; 1.0 for TAESD, whose latents are scaled already.
    small_vae: TAESD of the same latents, for decoding with little memory; None where there is none.
    calls: UNet forward passes so far.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL | AutoencoderTiny
    schedule: NoiseSchedule
    embed: Callable[[str], TextEmbedding]
    family: str = "sd1"
    name: str = "base"
    vae_scaling: float = 0.18215
    small_vae: AutoencoderTiny | None = None
    calls: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        assert self.family in FAMILIES, self.family
        self.embed = cache(self.embed)

    @property
    def device(self) -> torch.device:
        return self.unet.conv_in.weight.device

    @property
    def resolution(self) -> int:
        """The side in pixels of the squares that the model was trained on."""
        v_prediction = self.schedule.prediction == "v_prediction"
        return 768 if self.family == "sd2" and v_prediction else RESOLUTIONS[self.family]

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the UNet's own weights (a LoRA on it may be float32)."""
        return self.unet.conv_in.weight.dtype

    def predict(self, z_t: Tensor, t: Tensor, captions: Sequence[str]) -> Tensor:
        """ε_θ(z_t, t, c), or v for a v-prediction model: one UNet call for the whole batch.

        z_t: (B, 4, h, w) scaled latents; t: (B,) integer timesteps; captions: B texts ("" is the null caption).
        Returns (B, 4, h, w) in the number type of z_t. Raises UserError when the counts differ.
        """
        if not len(z_t) == len(t) == len(captions):
            raise UserError(
                f"{len(z_t)} latents, {len(t)} timesteps and {len(captions)} captions were given: "
                "each latent needs one timestep and one caption."
            )
        text = [self.embed(caption) for caption in captions]
        hidden = pad_sequence([e.hidden[0] for e in text], batch_first=True).to(self.device, self.dtype)
        answer = self.unet(
            z_t.to(self.dtype),
            t,
            encoder_hidden_states=hidden,
            encoder_attention_mask=self._mask([e.hidden.shape[1] for e in text]),
            added_cond_kwargs=self._added_conditions(text, z_t),
            return_dict=False,
        )[0]
        self.calls += 1
        return answer.to(z_t.dtype)

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (B, 3, H, W) in [-1, 1] -> mean and standard deviation (B, 4, H/8, W/8) of the scaled latent.

        For AutoencoderKL the two moments of its posterior; TAESD has no posterior, so its deviation is zero.
        """
        first = next(self.vae.parameters())
        with _without_half(first.device):
            found = self.vae.encode(pixels.to(first.device, first.dtype))
        if hasattr(found, "latent_dist"):
            mean, std = found.latent_dist.mean, found.latent_dist.std
        else:
            mean, std = found.latents, torch.zeros_like(found.latents)
        return mean.to(pixels.dtype) * self.vae_scaling, std.to(pixels.dtype) * self.vae_scaling

    def decode(self, z: Tensor, *, small: bool = False) -> Tensor:
        """Scaled latents (B, 4, h, w) -> pixels (B, 3, 8h, 8w), about [-1, 1] and not clamped; differentiable.

        small: by `small_vae`, which reads scaled latents as they are.
        """
        vae, scaling = (self.small_vae, 1.0) if small else (self.vae, self.vae_scaling)
        if vae is None:
            raise UserError("There is no TAESD decoder of this model: put its file into models/vae_approx.")
        first = next(vae.parameters())
        raw = (z / scaling).to(first.device, first.dtype)
        with _without_half(first.device):
            return vae.decode(raw, return_dict=False)[0].to(z.dtype)

    def identity(self) -> dict[str, str]:
        """What the model is, by its content: a renamed file is the same, another LoRA or merge on it is not."""
        text = self.embed("")
        found = {"text.hidden": text.hidden} | ({} if text.pooled is None else {"text.pooled": text.pooled})
        return {
            "family": self.family,
            "prediction": self.schedule.prediction,
            "schedule": fingerprints.of_tensors({"alphas_cumprod": self.schedule.alphas_cumprod}),
            "unet": fingerprints.of_weights(self.unet),
            "vae": fingerprints.of_weights(self.vae),
            "text": fingerprints.of_tensors(found),
        }

    def _mask(self, lengths: Sequence[int]) -> Tensor | None:
        """(B, T) True for each text's own tokens; None where all texts are equally long."""
        if len(set(lengths)) == 1:
            return None
        return torch.arange(max(lengths), device=self.device) < torch.tensor(lengths, device=self.device)[:, None]

    def _added_conditions(self, text: Sequence[TextEmbedding], z: Tensor) -> dict[str, Tensor] | None:
        """SD XL's second input: pooled text, and (height, width, top, left, height, width) of an uncropped image."""
        if any(e.pooled is None for e in text):
            return None
        height, width = z.shape[-2] * LATENT_FACTOR, z.shape[-1] * LATENT_FACTOR
        sizes = torch.tensor([[height, width, 0, 0, height, width]], device=self.device, dtype=torch.float32)
        pooled = torch.cat([e.pooled for e in text]).to(self.device, self.dtype)
        return {"text_embeds": pooled, "time_ids": sizes.expand(len(text), -1)}


def _without_half(device: torch.device) -> AbstractContextManager[Any]:
    """Switches autocast to float16 off, where SD XL's autoencoder overflows. bfloat16 has float32's range and stays."""
    half = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type) == torch.float16
    return torch.autocast(device.type, enabled=False) if half else nullcontext()
