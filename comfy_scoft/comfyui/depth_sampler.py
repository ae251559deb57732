"""Negatives by ComfyUI's own sampler, with a depth ControlNet that keeps the scene."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..data.images import open_image, to_bytes
from ..models.stable_diffusion import repeated
from ..negatives.generate import NegativeSettings, Request
from .compat import comfy
from .runtime import Progress, check_interrupt


def size_multiple(model: Any) -> int:
    """The divisor of an image's sides: 8 for the VAE, times 2 for each level of the UNet below the first."""
    levels = len(model.model.model_config.unet_config.get("channel_mult", (1, 1, 1, 1)))
    return 8 * 2 ** (levels - 1)


@dataclass
class DepthSampler:
    """Generates the negatives of a record in one batch, with ComfyUI's sampler and the ControlNet on the depth map."""

    model: Any
    clip: Any
    vae: Any
    control_net: Any
    settings: NegativeSettings
    progress: Progress
    _done: int = 0
    _batches: int = 0
    _newest: Image.Image | None = None
    _embeddings: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def __call__(self, request: Request) -> Tensor:
        """(N, H, W, 3) in [0, 1]."""
        check_interrupt()
        positive, negative = self._condition(request.prompts), self._condition(("",))
        if self.settings.strength > 0:
            control = self.control_net.copy().set_cond_hint(
                request.hint, self.settings.strength, (0.0, 1.0), vae=self.vae
            )
            for _, options in (*positive, *negative):
                options |= {"control": control, "control_apply_to_uncond": False}
        noise = request.noise(self.model.get_model_object("latent_format").latent_channels)
        latents = comfy.sample.sample(
            self.model,
            noise,
            self.settings.steps,
            self.settings.cfg,
            self.settings.sampler,
            self.settings.scheduler,
            positive,
            negative,
            torch.zeros_like(noise),
            callback=self._step_done,
            disable_pbar=True,
            seed=request.seeds[0],
        )
        images = self.vae.decode(latents)[..., :3]
        self._batches += 1
        self._newest = _side_by_side(images)
        return images

    def _condition(self, prompts: tuple[str, ...]) -> list[list[Any]]:
        """Conditioning of N prompts as one entry, its tensors batched."""
        rows = [self._encode(prompt) for prompt in prompts]
        joined = {name: torch.cat([row[name] for row in rows]) for name in rows[0] if name != "cond"}
        return [[repeated([row["cond"] for row in rows]), joined]]

    def _encode(self, prompt: str) -> dict[str, Tensor]:
        if prompt not in self._embeddings:
            tokens = self.clip.tokenize(prompt, disable_weights=True)
            encoded = self.clip.encode_from_tokens(tokens, return_pooled=True, return_dict=True)
            self._embeddings[prompt] = {name: value for name, value in encoded.items() if isinstance(value, Tensor)}
        return self._embeddings[prompt]

    def _step_done(self, step: int, *_: Any) -> None:
        check_interrupt()
        steps = (self._done * len(self.settings.batches()) + self._batches) * self.settings.steps + step + 1
        self.progress.update(min(steps, self.progress.total - 1))

    def record_done(self, done: int, total: int, newest: Path) -> None:
        check_interrupt()
        steps, shown = done * self.settings.steps_each(), self._newest or open_image(newest)
        self._done, self._batches, self._newest = done, 0, None
        self.progress.update(steps, f"negatives: {done} of {total} images", shown)

    def identity(self) -> str:
        """A hash of the models: samples of every weight, the patches, the noise schedule.

        Of patches that are functions (such as FreeU's), only the kind counts.
        """
        digest = hashlib.sha256()
        control = getattr(self.control_net, "control_model_wrapped", None)
        for patcher in (self.model, self.clip.patcher, self.vae.patcher, control):
            _feed(digest, patcher.get_key_patches() if patcher is not None else _loose_weights(self.control_net))
        options = self.model.model_options.get("transformer_options", {})
        sampling = self.model.get_model_object("model_sampling")
        kinds = [kind.__name__ for kind in type(sampling).__mro__]
        _feed(digest, [kinds, getattr(sampling, "sigmas", None), sorted(map(str, options)), self.clip.layer_idx])
        return digest.hexdigest()


def _side_by_side(images: Tensor) -> Image.Image:
    """(N, H, W, 3) in [0, 1] -> one row of at most five, for the node's preview."""
    row = torch.cat(list(images[:5]), dim=1)
    return Image.fromarray(to_bytes(row).numpy())


def _loose_weights(control_net: Any) -> Any:
    """Weights of a ControlNet without a model of its own: a Control-LoRA's, or a T2I-adapter's."""
    adapter = getattr(control_net, "t2i_model", None)
    return getattr(control_net, "control_weights", None) or (adapter.state_dict() if adapter is not None else None)


def _feed(digest: Any, value: Any) -> None:
    """Add nested names, numbers and tensors to a hash; of each tensor up to 16 evenly spaced values."""
    if isinstance(value, Tensor):
        flat = value.detach().reshape(-1)
        few = flat[:: max(1, flat.numel() // 16)][:16].float().cpu()
        digest.update(f"{tuple(value.shape)}".encode() + few.numpy().tobytes())
    elif isinstance(value, dict):
        for key in value:
            digest.update(f"{key}".encode())
            _feed(digest, value[key])
    elif isinstance(value, list | tuple):
        for entry in value:
            _feed(digest, entry)
    elif hasattr(value, "weights"):  # a LoRA's or another adapter's
        _feed(digest, [type(value).__name__, value.weights])
    elif value is None or isinstance(value, str | int | float):
        digest.update(repr(value).encode())
    else:
        digest.update(type(value).__name__.encode())
