"""What a run needs of memory, before it starts: counted on copies of the model that hold no numbers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ..common.logs import errors_only
from ..features import FeatureNetwork
from ..losses import feature_networks
from ..models.lora import attach
from ..models.placement import unet_dtype
from ..models.stable_diffusion import LATENT_CHANNELS, LATENT_FACTOR
from .memory import MemoryOptions, ladder
from .run import Run
from .settings import Decode, Precision
from .step_plan import graphs, rollouts_of_step, uses_rollout

OPTIMIZER_BYTES = {"AdamW": 8.0, "AdamW8bit": 2.0, "Prodigy": 16.0, "Adafactor": 0.1}
"""Bytes of optimizer state for each number of the LoRA."""
SPARE = 1.3
"""Need over what is counted beside the weights. What the CPU really allocated for the mini model was 0.8 to 1.18 times
the count (tests/test_memory_need.py); the rest is for what a graphics card's allocator cannot use."""
IN_FULL = (F.group_norm, F.layer_norm)
"""What autocast computes in float32, of the functions that these networks call."""
IN_HALF = (F.linear, F.conv2d)


@dataclass(frozen=True)
class Need:
    """Bytes. weights: model and feature networks; lora: the LoRA with its gradient, optimizer state and average;
    unet: the graphs of the UNet for one image; recorded: what a rollout of an image adds to them; decoder: the graph of
    one rollout's image through the decoder and the feature networks, which is freed before the UNet's are built."""

    weights: float
    lora: float
    unet: float
    decoder: float
    recorded: float = 0.0

    def total(self, images: int, rollouts: int) -> float:
        """Of `images` in one pass, `rollouts` of which have a rollout."""
        unet = images * self.unet + rollouts * self.recorded
        return self.weights + SPARE * (self.lora + max(unet, rollouts * self.decoder))


def need(run: Run, memory_options: MemoryOptions) -> Need:
    """Count what a run needs with these memory options. Nothing is computed: the copies are on the `meta` device."""
    side, dtype = run.settings.resolution // LATENT_FACTOR, unet_dtype(run.settings.precision)
    unet = nn.Module.to(_empty(run.base.unet), dtype)
    numbers = sum(p.numel() for p in attach(unet, run.lora, torch.Generator()).values())
    each = 8.0 + OPTIMIZER_BYTES[run.optimizer.optimizer] + (4.0 if run.optimizer.ema else 0.0)
    networks = feature_networks(run.losses)
    full = [run.base.vae, *(network.module for network in networks)]
    base = replace(run.base, unet=unet)
    z, t = torch.zeros(1, LATENT_CHANNELS, side, side, device="meta", dtype=dtype), torch.zeros(1, device="meta")
    checkpointing = memory_options.checkpointing.unet
    longest = max(run.captions(), key=lambda caption: base.embed(caption).hidden.shape[1])
    graph = _remembered(unet, lambda: base.predict(z, t, [longest]), checkpointing=checkpointing, dtype=dtype)
    each_image, each_rollout = graphs(run.losses, run.rollout)
    return Need(
        weights=dtype.itemsize * float(_count(run.base.unet)) + 4.0 * sum(_count(module) for module in full),
        lora=numbers * each,
        unet=each_image * graph,
        recorded=each_rollout * graph,
        decoder=_decoder(run, memory_options, side, networks) if uses_rollout(run.losses) else 0.0,
    )


def fits(run: Run, memory_options: MemoryOptions, free: float) -> tuple[MemoryOptions, str]:
    """The memory options to start with, and one line that says what the settings need and what is free (bytes).

    Where the settings do not fit, they are the first of `memory.ladder` that do, or the last that do not change what is
    learned; what that does not help is left to the ladder during training.
    """
    rollouts, small = uses_rollout(run.losses), run.base.small_vae is not None
    counted: dict[MemoryOptions, Need] = {}  # for one image, so that the number of images does not matter

    def total(memory_options: MemoryOptions) -> float:
        at_once = min(memory_options.micro_batch or run.settings.images, run.settings.images)
        rolled = min(at_once, rollouts_of_step(run.settings, run.rollout)) if rollouts else 0
        one = MemoryOptions(1, memory_options.checkpointing, memory_options.decode)
        if one not in counted:
            counted[one] = need(run, one)
        return counted[one].total(at_once, rolled)

    needed = total(memory_options)
    if needed <= free:
        return memory_options, f"Memory: about {gigabytes(needed)} needed, {gigabytes(free)} free."
    savings: list[str] = []
    reached = needed
    for lower, text in ladder(memory_options, run.settings, rollouts=rollouts, small_decoder=small):
        if lower.decode != memory_options.decode:
            break
        memory_options, reached = lower, total(lower)
        savings.append(text)
        if reached <= free:
            break
    helped = "and there is nothing left to save"
    if savings:
        helped = f"so it starts with {', '.join(savings)}, which needs about {gigabytes(reached)}"
    return memory_options, f"Memory: about {gigabytes(needed)} needed, but only {gigabytes(free)} free, {helped}."


def gigabytes(size: float) -> str:
    """Bytes as people read them: "11.4 GB", "240 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _decoder(run: Run, memory_options: MemoryOptions, side: int, networks: list[FeatureNetwork]) -> float:
    """Bytes that the backward pass through the decoder and the feature networks remembers of one rollout's image."""
    vae = _empty(run.base.small_vae if memory_options.decode is Decode.TAESD and run.base.small_vae else run.base.vae)
    decoded = side // 2 if memory_options.decode is Decode.CROP else side
    z = torch.zeros(1, LATENT_CHANNELS, decoded, decoded, device="meta", requires_grad=True)
    dtype = torch.bfloat16 if run.settings.precision is Precision.BF16 else torch.float32  # fp16 is not for decoders
    decode = _remembered(
        vae,
        lambda: vae.decode(z, return_dict=False)[0],
        checkpointing=memory_options.checkpointing.decoder,
        dtype=dtype,
    )
    pixels = torch.zeros(1, 3, decoded * LATENT_FACTOR, decoded * LATENT_FACTOR, device="meta", requires_grad=True)
    return decode + sum(_features(network, pixels) for network in networks)


def _features(network: FeatureNetwork, pixels: Tensor) -> float:
    """The same of one feature network; each augmented view counts as one more image."""

    class Extract(nn.Module):
        """Calls the network as a module, so that its weights can be replaced for the call."""

        def __init__(self) -> None:
            super().__init__()
            self.module = network.module

        def forward(self) -> Tensor:
            weights = next((p.dtype for p in self.parameters() if p.is_floating_point()), torch.float32)
            return network.forward(network.preprocess(pixels).to(weights))

    extract = Extract()
    empty = {name: value.detach().to("meta") for name, value in extract.state_dict().items()}
    kept = _Kept({id_of(value) for value in empty.values()})
    with suppress(NotImplementedError, RuntimeError), torch.enable_grad(), kept, _Arithmetic(torch.float32):
        torch.func.functional_call(extract, empty, ())  # up to where it asks for numbers, if it does
    return kept.size * (1 + (network.views.count if network.views else 0))


def _empty(module: Any) -> Any:
    """A module of the same architecture without numbers, frozen."""
    with torch.device("meta"), errors_only("diffusers"):  # it warns of fields that its own classes have put there
        return type(module).from_config(module.config).requires_grad_(False).train(module.training)


def _count(module: nn.Module) -> int:
    return sum(p.numel() for name, p in module.named_parameters() if ".lora_" not in name)


def _remembered(module: Any, forward: Callable[[], Tensor], *, checkpointing: bool, dtype: torch.dtype) -> float:
    """Bytes that autograd keeps for a backward pass, weights left out.

    checkpointing: of each block only what goes into it; the largest block's own graph comes on top, which the backward
    pass makes again. dtype: the arithmetic's.
    """
    own = {id_of(value) for value in (*module.parameters(), *module.buffers())}
    kept, blocks = _Kept(own), [0.0]

    def block(function: Callable[..., Any], *given: Any) -> Any:
        for value in given:
            if isinstance(value, Tensor):
                kept.pack(value)
        inside = _Kept(own | set(kept.storages))
        with inside:
            made = function(*given)
        blocks.append(inside.size)
        return made

    if checkpointing:
        module.enable_gradient_checkpointing(block)
    with torch.enable_grad(), kept, _Arithmetic(dtype):
        forward()
    return kept.size + max(blocks)


def id_of(tensor: Tensor) -> int:
    """What tells storages apart, also those that hold no numbers."""
    return tensor.untyped_storage()._cdata


class _Kept(torch.autograd.graph.saved_tensors_hooks):
    """Within it, what autograd saves is counted, each storage once; `own` are storages that are counted elsewhere."""

    def __init__(self, own: set[int]) -> None:
        super().__init__(self.pack, lambda tensor: tensor)
        self.own = own
        self.storages: dict[int, torch.UntypedStorage] = {}  # holds them, so that none takes another's place

    def pack(self, tensor: Tensor) -> Tensor:
        if id_of(tensor) not in self.own:
            self.storages[id_of(tensor)] = tensor.untyped_storage()
        return tensor

    @property
    def size(self) -> float:
        return float(sum(storage.nbytes() for storage in self.storages.values()))


class _Arithmetic(TorchFunctionMode):
    """What autocast and the attention kernels would do, which the `meta` device has not.

    In half precision, matrix products are made in it and norms in float32. Attention keeps its inputs and its output,
    as the kernels of graphics cards and of the CPU do, and no matrix of all pairs of positions.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            query, key, value = (self._cast(x, self.dtype) for x in args[:3])
            return _Attention.apply(query, key, value)
        if self.dtype != torch.float32 and func in (*IN_HALF, *IN_FULL):
            dtype = self.dtype if func in IN_HALF else torch.float32
            args = tuple(self._cast(x, dtype) for x in args)
            kwargs = {name: self._cast(x, dtype) for name, x in kwargs.items()}
        return func(*args, **kwargs)

    @staticmethod
    def _cast(value: Any, dtype: torch.dtype) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


class _Attention(torch.autograd.Function):
    """Keeps what fused attention keeps."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise AssertionError("nothing is computed here")
