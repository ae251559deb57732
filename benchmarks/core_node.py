"""ComfyUI's own Train LoRA node beside our trainer, on one MODEL, one set of latents and one conditioning."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from comfy_scoft.losses import DiffusionLoss
from comfy_scoft.models.lora import LoraSettings, Targets
from comfy_scoft.models.stable_diffusion import BaseModel, TextEmbedding
from comfy_scoft.training.latent_cache import Cache
from comfy_scoft.training.settings import TrainSettings

from .measure import Pause
from .variants import ENDLESS, Target, Variant, ours, unet_part
from .worlds import World

SEED, RATE, RANK = 1024, 1e-4, 64


@dataclass(frozen=True)
class Sockets:
    """Inputs of both trainers. model: a MODEL. latents: (N, 4, h, w), as a VAE returns them. positive: N
    conditionings."""

    model: Any
    latents: torch.Tensor
    positive: list[Any]


def start() -> None:
    """Puts ComfyUI on the path, before this checkout (both have a nodes.py), and imports it; on the CPU without a GPU.

    Raises SystemExit if COMFYUI_PATH names none.
    """
    root = os.environ.get("COMFYUI_PATH", "")
    if not (Path(root) / "comfy_extras" / "nodes_train.py").is_file():
        raise SystemExit(
            "This benchmark needs a ComfyUI with its own Train LoRA node (0.3.75 or newer): run it with "
            "`python run.py bench`, or set COMFYUI_PATH to one."
        )
    if root not in sys.path:
        sys.path.insert(0, root)
    import comfy.cli_args

    comfy.cli_args.args.cpu = not torch.cuda.is_available()
    import comfy.utils
    import utils.install_util  # noqa: F401 - early, as main.py does: ComfyUI's nodes.py hides this package later

    comfy.utils.PROGRESS_BAR_ENABLED = False


@cache
def sockets(world: World) -> Sockets:
    """The world's model as ComfyUI loads it, with the latents and conditionings of the world's images.

    One for all variants of a process.
    """
    start()
    with torch.no_grad():  # as ComfyUI runs its nodes
        return _mini(world) if world.name == "mini" else _random(world)


def _mini(world: World) -> Sockets:
    from comfy_scoft.comfyui import mini_model
    from comfy_scoft.data.crop import aligned
    from comfy_scoft.models.mini import layout

    nodes = importlib.import_module("nodes")  # ComfyUI's: its folder comes first
    mini_model.register()
    model, clip, vae = nodes.CheckpointLoaderSimple().load_checkpoint(layout.CHECKPOINT)
    records = world.dataset.records
    images = torch.stack([aligned(record, world.resolution, flip=False)[0] for record in records])
    latents = nodes.VAEEncode().encode(vae, images.movedim(1, -1) / 2 + 0.5)[0]["samples"]
    positive = [nodes.CLIPTextEncode().encode(clip, record.caption)[0][0] for record in records]
    return Sockets(model, latents, positive)


def _random(world: World) -> Sockets:
    """A MODEL of the world's UNet's shape, made as ComfyUI's loader makes it, with random weights and inputs."""
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models

    shape = world.base().unet.config
    config = {
        **{"image_size": 32, "in_channels": 4, "out_channels": 4, "use_spatial_transformer": True, "legacy": False},
        **{"use_checkpoint": False, "use_temporal_attention": False, "use_temporal_resblock": False},
        **{"adm_in_channels": None, "use_linear_in_transformer": False, "num_heads": 8, "num_head_channels": -1},
        **{"model_channels": shape.block_out_channels[0], "context_dim": shape.cross_attention_dim},
        "channel_mult": [c // shape.block_out_channels[0] for c in shape.block_out_channels],
        "num_res_blocks": [2, 2, 2, 2],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        "transformer_depth_middle": 1,
        "dtype": torch.bfloat16 if world.precision == "bf16" else torch.float32,
    }
    device = comfy.model_management.get_torch_device()
    base = comfy.supported_models.SD15(config).get_model({}, "", device=device)
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for value in base.diffusion_model.parameters():  # ComfyUI does not initialize them
            value.copy_(torch.randn(value.shape, generator=generator) * (0.02 if value.ndim > 1 else 0.1))
    count, side = len(world.dataset), world.resolution // 8
    latents = torch.randn(count, 4, side, side, generator=generator)
    states = torch.randn(count, 77, shape.cross_attention_dim, generator=generator)
    model = comfy.model_patcher.ModelPatcher(base, load_device=device, offload_device=torch.device("cpu"))
    return Sockets(model, latents, [[states[i : i + 1], {"pooled_output": None}] for i in range(count)])


@dataclass(frozen=True)
class Plain:
    """batch: images per pass. accumulation: passes per optimizer step. steps: optimizer steps per block."""

    batch: int
    accumulation: int
    checkpointing: bool
    steps: int = 10


def theirs(name: str, world: World, how: Plain) -> Variant:
    """The core node's own `execute`. It reports each optimizer step to ComfyUI's progress hook: there it pauses.

    With a batch of B it puts each image through the UNet with each caption of the batch, B² samples, and takes the
    mean of the answers; accumulation is therefore the fair way to more images a step.
    """
    given = sockets(world)  # before the imports: it puts ComfyUI on the path
    import comfy.utils
    import comfy_extras.nodes_train as node

    def body(pause: Pause) -> None:
        def hook(done: int, total: int, preview: Any = None, **_: Any) -> None:
            if done % how.steps == 0:
                pause()

        before = comfy.utils.PROGRESS_BAR_HOOK
        comfy.utils.set_progress_bar_global_hook(hook)
        try:
            node.TrainLoraNode.execute(
                model=[given.model],
                # One LATENT and one CONDITIONING an image: on a single LATENT of many this node fails in 0.3.75.
                latents=[{"samples": z.unsqueeze(0).clone()} for z in given.latents],
                positive=[[[c.clone(), dict(rest)]] for c, rest in given.positive],
                batch_size=[how.batch],
                steps=[ENDLESS],
                grad_accumulation_steps=[how.accumulation],
                learning_rate=[RATE],
                rank=[RANK],
                optimizer=["AdamW"],
                loss_function=["MSE"],
                seed=[SEED],
                training_dtype=[world.precision],
                lora_dtype=["fp32"],
                algorithm=["LoRA"],
                gradient_checkpointing=[how.checkpointing],
                existing_lora=["[None]"],
            )
        finally:
            comfy.utils.set_progress_bar_global_hook(before)  # everything in this process reports to it

    unet = given.model.model.diffusion_model
    targets: list[Target] = [
        (unet, "forward", unet_part),
        (torch.Tensor, "backward", "backward"),
        (torch.optim.AdamW, "step", "optimizer"),
    ]
    return Variant(name, unet, body, targets=targets)


def beside(name: str, world: World, folder: Path, how: Plain, targets: Targets) -> Variant:
    """Our trainer with the diffusion loss alone, on the core node's MODEL, latents and conditionings."""
    given = sockets(world)
    from comfy_scoft.comfyui import to_diffusers

    texts = [TextEmbedding(conditioning[0].clone()) for conditioning in given.positive]
    embeddings = dict(zip((r.caption for r in world.dataset.records), texts, strict=True))
    nothing = TextEmbedding(torch.zeros_like(given.positive[0][0]))
    unet, schedule = to_diffusers.unet_from_model(given.model), to_diffusers.schedule_from_model(given.model)
    base = BaseModel(unet, torch.nn.Identity(), schedule, lambda text: embeddings.get(text, nothing), "sd1", name)  # type: ignore[arg-type]
    scale = float(given.model.model.latent_format.scale_factor)
    known = {(i, False): (z * scale, torch.zeros_like(z)) for i, z in enumerate(given.latents.cpu().clone())}
    settings = TrainSettings(
        steps=ENDLESS,
        batch_size=how.batch,
        accumulation=how.accumulation,
        resolution=world.resolution,
        flip=False,
        precision=world.precision,
        seed=SEED,
        checkpoint_every=ENDLESS,
        checkpointing="UNet" if how.checkpointing else "off",
    )
    lora = LoraSettings(rank=RANK, alpha=1.0, targets=targets)  # the core node's alpha
    kept = Cache(base, world.dataset, world.resolution, latents=known)
    return ours(name, base, world, [DiffusionLoss(weight=1.0)], folder, how.steps, settings, lora=lora, cache=kept)
