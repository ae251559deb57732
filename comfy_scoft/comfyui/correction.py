"""A preference on sockets: trained from IMAGEs and a VAE, and applied to a MODEL for any of ComfyUI's samplers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..common.errors import UserError
from ..corrector.corrector import Correction
from ..corrector.evaluation import Evaluation
from ..corrector.preference import Preference
from ..corrector.prompt_gate import learn_place, most_texts
from ..corrector.training import PreferenceSettings, learn
from ..models.stable_diffusion import family_of
from .compat import comfy
from .nodes.data import flat_images
from .runtime import Progress, check_interrupt
from .to_diffusers import embedder, schedule_from_model

ENCODED_AT_ONCE = 4
NEEDED = "the correction works with Stable Diffusion 1.x, 2.x and XL models."


def family(model: Any) -> str:
    """The family of a MODEL: "sd1", "sd2", "sdxl" or "mini". Raises UserError for any other model."""
    config = getattr(model.model.model_config, "unet_config", {})
    formats = (comfy.latent_formats.SD15, comfy.latent_formats.SDXL)
    sampled = isinstance(model.get_model_object("model_sampling"), comfy.model_sampling.ModelSamplingDiscrete)
    known = {"model_channels", "context_dim"} <= config.keys()
    if not known or not sampled or type(model.get_model_object("latent_format")) not in formats:
        raise UserError(f"This MODEL is a {type(model.model).__name__}: {NEEDED}")
    pooled, linear = bool(config.get("adm_in_channels")), bool(config.get("use_linear_in_transformer"))
    return family_of(text_width=config["context_dim"], pooled=pooled, linear=linear)


def learn_preference(
    model: Any,
    vae: Any,
    preferred: Sequence[Tensor],
    stereotyped: Sequence[Tensor],
    resolution: int,
    settings: PreferenceSettings,
    place: tuple[Any, str, list[str], list[str]] | None,
    node_id: str | None,
) -> tuple[Preference, Evaluation]:
    """IMAGE lists -> a preference and its evaluation on held-out images.

    place: CLIP, the place's name, captions and names of other places, for a preference with a prompt gate.
    """
    kind, schedule = family(model), schedule_from_model(model)
    sets = [flat_images(list(images)) for images in (preferred, stereotyped)]
    count = sum(map(len, sets))
    texts = 0 if place is None else most_texts(len(place[2]), len(place[3]))
    progress = Progress(count + settings.steps + texts, node_id)
    channels, done, latents = model.get_model_object("latent_format").latent_channels, 0, []
    for images in sets:
        latents.append(encode(model, vae, images, resolution, progress, done))
        done += len(images)
        if len(images) and latents[-1].shape[1] != channels:
            raise UserError(
                f"The VAE makes latents of {latents[-1].shape[1]} channels and the MODEL reads {channels}: connect "
                "MODEL and VAE of the same checkpoint."
            )

    def observe(step: int, loss: float) -> None:
        check_interrupt()
        progress.update(count + step, f"step {step} of {settings.steps}, loss {loss:.3f}")

    preference, evidence = learn(latents[0], latents[1], schedule, kind, settings, observe)
    if place is not None:
        embedded = itertools.count(count + settings.steps)

        def check() -> None:
            check_interrupt()
            progress.update(min(next(embedded), progress.total - 1), "encoding captions")

        preference = with_prompt_gate(preference, *place, check)
    progress.update(progress.total)
    return preference, evidence


def encode(model: Any, vae: Any, images: Sequence[Tensor], side: int, progress: Progress, done: int) -> Tensor:
    """Images (H, W, C) -> latents (N, C, side/8, side/8) scaled as the UNet reads them, on the CPU.

    Each image is encoded, decoded and encoded again, so that photographs and generated images have the same traces of
    the VAE.
    """
    latents = [torch.zeros(0, 4, side // 8, side // 8)]
    for start in range(0, len(images), ENCODED_AT_ONCE):
        check_interrupt()
        part = torch.stack([squared(image[..., :3], side) for image in images[start : start + ENCODED_AT_ONCE]])
        encoded = vae.encode(vae.decode(vae.encode(part))[..., :3])
        latents.append(model.model.process_latent_in(encoded).float().cpu())
        progress.update(done + start + len(part), "encoding images")
    return torch.cat(latents[1:] or latents)


def squared(image: Tensor, side: int) -> Tensor:
    """(H, W, 3) -> (side, side, 3): center crop, then an antialiased resize; unchanged if it has that size."""
    if image.shape[:2] == (side, side):
        return image
    return comfy.utils.common_upscale(image.movedim(-1, 0)[None], side, side, "lanczos", "center")[0].movedim(0, -1)


def with_prompt_gate(
    preference: Preference,
    clip: Any,
    place: str,
    captions: list[str],
    others: list[str],
    check: Callable[[], None] = check_interrupt,
) -> Preference:
    """The preference with a gate that lets it correct only prompts that name the place."""
    embed, seed = embedder(clip, pooled=False), int(preference.facts["settings"]["seed"])
    with torch.inference_mode(False), torch.enable_grad():
        gate, evaluation = learn_place(
            lambda text: embed(text).hidden,
            captions,
            place,
            others,
            torch.Generator().manual_seed(seed),
            check,
        )
    facts = {"name": place, "others": others, "gate on held-out captions": evaluation}
    return replace(preference, place=gate, facts={**preference.facts, "place": facts})


def corrected(model: Any, correction: Correction) -> Any:
    """A copy of the MODEL with corrected sampling. Raises UserError for a preference of another family."""
    kind, preference = family(model), correction.preference
    if preference.family != kind:
        raise UserError(
            f"The preference was learned for {preference.family}, but this MODEL is {kind}, which has other latents: "
            "learn a preference with this model, or load another file."
        )
    copy = model.clone()
    if not correction.idle:
        copy.set_model_sampler_post_cfg_function(sampler_hook(correction))
    return copy


def sampler_hook(correction: Correction) -> Callable[[dict[str, Any]], Tensor]:
    """The function that the sampler calls after guidance, at every step.

    A plain function, since ComfyUI deep-copies a MODEL's options: an object would be copied with its weights.
    """
    by_device: dict[torch.device, Correction] = {}

    def hook(args: dict[str, Any]) -> Tensor:
        denoised, sigma, x = args["denoised"], args["sigma"], args["input"]
        sampling, level = args["model"].model_sampling, float(sigma.flatten()[0])
        if not sampling.percent_to_sigma(correction.end) <= level <= sampling.percent_to_sigma(correction.start):
            return denoised
        if x.device not in by_device:
            by_device[x.device] = replace(correction, preference=correction.preference.to(x.device))
        own = by_device[x.device]
        unguided = None if args["uncond"] is None else args["uncond_denoised"]  # at CFG 1 it is all zeros
        return own(x, sigma.reshape(-1), denoised, unguided, gate(own, args["cond"], len(x)))

    return hook


def gate(correction: Correction, conditioning: Sequence[dict[str, Any]] | None, count: int) -> Tensor | None:
    """How far the prompts ask for the place, (count,): the maximum over several prompts of one image."""
    place = correction.preference.place
    if place is None:
        return None
    gates = []
    for entry in conditioning or ():
        cross_attention = entry.get("model_conds", {}).get("c_crossattn")
        hidden = entry.get("cross_attn") if cross_attention is None else cross_attention.cond
        gate = None if hidden is None else correction.gate(hidden.to(place.weight), count)
        gates += [] if gate is None else [gate]
    return torch.stack(gates).amax(0) if gates else None
