"""What a run needs of memory, before it starts: counted on copies of the model that hold no numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .base_model import LATENT_FACTOR
from .lora import attach
from .memory import Economy, ladder

if TYPE_CHECKING:
    from .trainer import Run

OPTIMIZER_BYTES = {"AdamW": 8.0, "AdamW8bit": 2.0, "Prodigy": 16.0, "Adafactor": 0.1}
"""Bytes of optimizer state for each number of the LoRA."""
SPARE = 1.25
"""Need over what is counted: what lives within one layer only, and what the allocator cannot use."""
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class Need:
    """Bytes. weights: model and feature networks; lora: the LoRA with its gradient, optimizer state and average;
    unet, decoder: what the backward pass of one picture remembers of each. The two graphs are never there together."""

    weights: float
    lora: float
    unet: float
    decoder: float

    def total(self, pictures: int, rollouts: int) -> float:
        """Of `pictures` in one pass, `rollouts` of which have a rollout."""
        return SPARE * (self.weights + self.lora + max(pictures * self.unet, rollouts * self.decoder))


def need(run: Run, economy: Economy) -> Need:
    """Count what a run needs with an economy of memory. Nothing is computed: the copies live on the `meta` device."""
    side = run.settings.resolution // LATENT_FACTOR
    width = BYTES[run.settings.precision]
    unet = _empty(run.base.unet)
    numbers = sum(p.numel() for p in attach(unet, run.lora, torch.Generator()).values())
    each = 8.0 + OPTIMIZER_BYTES[run.optimizer.optimizer] + (4.0 if run.optimizer.ema else 0.0)
    networks = {loss.network for loss in run.losses if isinstance(getattr(loss.network, "module", None), nn.Module)}
    full = [run.base.vae, *(network.module for network in networks)]
    if economy.checkpointing != "off":
        unet.enable_gradient_checkpointing()
    decoder = 0.0
    if any(loss.uses_rollout for loss in run.losses):
        vae = _empty(run.base.small_vae if economy.decode == "TAESD" and run.base.small_vae else run.base.vae)
        if "decoder" in economy.checkpointing:
            vae.enable_gradient_checkpointing()
        decoded = side // 2 if economy.decode == "crop" else side
        z = torch.zeros(1, 4, decoded, decoded, device="meta", requires_grad=True)
        decoder = _remembered(vae, lambda: vae.decode(z, return_dict=False)[0])
    return Need(
        weights=width * float(_count(run.base.unet)) + 4.0 * sum(_count(module) for module in full),
        lora=numbers * each,
        unet=_remembered(unet, lambda: _predict(run, unet, side)) * width / 4.0,
        decoder=decoder,
    )


def fits(run: Run, economy: Economy, free: float) -> tuple[Economy, str]:
    """The economy to start with, and one line that says what the settings need and what is free (bytes).

    Where the settings do not fit, the economy is the first step of the ladder that does, or its last that changes
    nothing of what is learned; what cannot be helped by it is left to the ladder in training.
    """
    rollouts = any(loss.uses_rollout for loss in run.losses)
    small = run.base.small_vae is not None

    def total(economy: Economy) -> float:
        at_once = min(economy.micro_batch or run.settings.pictures, run.settings.pictures)
        rolled = min(at_once, run.settings.batch_size * -(-run.settings.accumulation // run.rollout.every))
        return need(run, economy).total(at_once, rolled)

    wanted = total(economy)
    if wanted <= free:
        return economy, f"Memory: about {gigabytes(wanted)} needed, {gigabytes(free)} free."
    words: list[str] = []
    reached = wanted
    for lower, text in ladder(economy, run.settings, rollouts, small):
        if lower.decode != economy.decode:
            break
        economy, reached = lower, total(lower)
        words.append(text)
        if reached <= free:
            break
    helped = f"so it starts with {', '.join(words)}, which needs about {gigabytes(reached)}" if words else "which is all"
    return economy, f"Memory: about {gigabytes(wanted)} needed, but only {gigabytes(free)} free, {helped}."


def gigabytes(size: float) -> str:
    """Bytes as people read them: "11.4 GB", "240 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _empty(module: Any) -> Any:
    """A module of the same architecture without numbers, frozen."""
    from diffusers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # it warns of fields that its own classes have put there
    try:
        with torch.device("meta"):
            return type(module).from_config(module.config).requires_grad_(False).train(module.training)
    finally:
        logging.set_verbosity(level)


def _count(module: nn.Module) -> int:
    return sum(p.numel() for name, p in module.named_parameters() if ".lora_" not in name)


def _predict(run: Run, unet: Any, side: int) -> Tensor:
    """A UNet call on tensors without numbers, for one picture."""
    text = run.base.embed("")
    z = torch.zeros(1, 4, side, side, device="meta")
    added = None
    if text.pooled is not None:
        added = {"text_embeds": text.pooled.to("meta"), "time_ids": torch.zeros(1, 6, device="meta")}
    t = torch.zeros(1, device="meta")
    hidden = text.hidden.to("meta", torch.float32)
    return unet(z, t, encoder_hidden_states=hidden, added_cond_kwargs=added, return_dict=False)[0]


def _remembered(module: nn.Module, forward: Callable[[], Tensor]) -> float:
    """Bytes that autograd keeps for a backward pass, weights left out, each storage counted once."""
    own = {p.untyped_storage()._cdata for p in (*module.parameters(), *module.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}  # holds them, so that no two share a place one after the other

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return float(sum(storage.nbytes() for storage in kept.values()))
