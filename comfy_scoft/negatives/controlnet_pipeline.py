"""Negatives outside ComfyUI, by diffusers' ControlNet pipelines, from the same noise and prompts as inside."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..common.errors import UserError
from ..common.files import file_hash, regular
from ..models import state_dict_keys
from ..models.noise_schedule import NoiseSchedule
from ..models.stable_diffusion import BaseModel, repeated
from .generate import NegativeSettings, Request

ADVICE = "give a depth ControlNet of the checkpoint's own family (.safetensors)."
SAMPLERS = {"euler": "EulerDiscreteScheduler", "dpmpp_2m": "DPMSolverMultistepScheduler"}
"""Names of samplers in ComfyUI -> the class of diffusers that does the same."""


def size_multiple(base: BaseModel) -> int:
    """What the sides of an image must be divisible by: 8 for the VAE, 2 for each level of the UNet below the first."""
    return 8 * 2 ** (len(base.unet.config.block_out_channels) - 1)


def load_controlnet(path: Path, base: BaseModel) -> Any:
    """diffusers' ControlNetModel for `base`, in its number type, from a .safetensors file in the original or in
    diffusers' form.

    Raises UserError, one sentence, for a missing or foreign file and for one of another family.
    """
    from diffusers import ControlNetModel
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"There is no file {path.name!r} in {str(path.parent)!r}: {ADVICE}")
    try:
        found = load_file(regular(path))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path.name} is not a safetensors file that can be read: {ADVICE}") from error
    prefix = "control_model."
    weights = {k.removeprefix(prefix): v.to(base.dtype) for k, v in found.items() if v.is_floating_point()}
    with torch.device("meta"):
        net = ControlNetModel.from_unet(
            base.unet, conditioning_embedding_out_channels=(16, 32, 96, 256), load_weights_from_unet=False
        )
    own = list(net.state_dict())
    original = "input_hint_block.0.weight" in weights
    names = state_dict_keys.unet_names(own, net.config.layers_per_block) if original else {name: name for name in own}
    return state_dict_keys.fill(net, names, weights, f"the ControlNet {path.name}", ADVICE)


@dataclass
class PipelineSampler:
    """Samples the negatives of one record in one batch with a diffusers pipeline. The same on any number of processes.

    It computes in the base model's number type, but for the autoencoder, which is kept in float32: that of SD XL
    overflows in half precision.
    """

    base: BaseModel
    controlnet: Any
    settings: NegativeSettings
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        if self.settings.sampler not in SAMPLERS:
            raise UserError(f"There is no sampler {self.settings.sampler!r}: choose one of {', '.join(SAMPLERS)}.")
        self.base.unet.to(self.device)
        self.controlnet.to(self.device)
        self.base.vae.float().to(self.device)
        self._pipe = self._pipeline()

    def __call__(self, request: Request) -> Tensor:
        """(N, H, W, 3) in [0, 1]."""
        rows = [self.base.embed(prompt) for prompt in request.prompts]
        empty = self.base.embed("")
        *prompts, negative = repeated([row.hidden for row in (*rows, empty)]).split(1)
        embeddings = {"prompt_embeds": torch.cat(prompts)}
        embeddings["negative_prompt_embeds"] = negative.expand(len(rows), -1, -1)
        if empty.pooled is not None:
            embeddings["pooled_prompt_embeds"] = torch.cat([row.pooled for row in rows if row.pooled is not None])
            embeddings["negative_pooled_prompt_embeds"] = empty.pooled.expand(len(rows), -1)
        height, width = request.hint.shape[-2:]
        latents = self._pipe(
            **{name: value.to(self.device, self.base.dtype) for name, value in embeddings.items()},
            image=request.hint.to(self.device, self.base.dtype),
            height=height,
            width=width,
            latents=self._start(request),
            num_inference_steps=self.settings.steps,
            guidance_scale=self.settings.cfg,
            controlnet_conditioning_scale=float(self.settings.strength),
            output_type="latent",
        ).images
        with torch.no_grad():
            images = [self.base.decode(one.unsqueeze(0).float()) for one in latents]
        return torch.cat(images).add(1.0).div(2.0).clamp(0, 1).permute(0, 2, 3, 1).cpu()

    def _start(self, request: Request) -> Tensor:
        """The request's noise, scaled so that the network's first input has variance 1, as ComfyUI does.

        diffusers multiplies by the largest σ alone, which leaves that input a little darker.
        """
        self._pipe.scheduler.set_timesteps(self.settings.steps)
        sigma = float(self._pipe.scheduler.sigmas[0])
        start = (1.0 + sigma**2) ** 0.5 / float(self._pipe.scheduler.init_noise_sigma)
        if isinstance(self._pipe.scheduler.config.get("algorithm_type"), str):  # it works in latents of variance 1
            start = 1.0
        return (request.noise(4) * start).to(self.device, self.base.dtype)

    def _pipeline(self) -> Any:
        import diffusers

        parts = {"vae": self.base.vae, "unet": self.base.unet, "controlnet": self.controlnet}
        parts["scheduler"] = scheduler_of(self.base.schedule, self.settings.sampler)
        parts |= {name: None for name in ("text_encoder", "tokenizer", "feature_extractor", "image_encoder")}
        if self.base.family == "sdxl":
            parts |= {"text_encoder_2": None, "tokenizer_2": None}
            pipe = diffusers.StableDiffusionXLControlNetPipeline(**parts, add_watermarker=False)
        else:
            pipe = diffusers.StableDiffusionControlNetPipeline(
                **parts, safety_checker=None, requires_safety_checker=False
            )
        pipe.set_progress_bar_config(disable=True)
        return pipe


def scheduler_of(schedule: NoiseSchedule, sampler: str) -> Any:
    """diffusers' scheduler of that name over the base model's own noise table."""
    import diffusers

    # a zero-SNR table ends in 0, where σ is infinite; ComfyUI's floor
    table = schedule.alphas_cumprod.clamp_min(4.8e-8)
    betas = 1.0 - table / torch.cat([table.new_ones(1), table[:-1]])
    kind = getattr(diffusers, SAMPLERS[sampler])
    settings = {"num_train_timesteps": len(table), "trained_betas": betas.tolist(), "timestep_spacing": "linspace"}
    return kind(prediction_type=schedule.prediction, **settings)


def models_identity(checkpoint: Path, controlnet: Path, sampler: PipelineSampler) -> str:
    """A hash of what decides an image beside the settings: both files, the number type and the prediction."""
    facts = [file_hash(checkpoint), file_hash(controlnet), str(sampler.base.dtype), sampler.base.schedule.prediction]
    return hashlib.sha256(":".join(["diffusers", *facts]).encode()).hexdigest()
