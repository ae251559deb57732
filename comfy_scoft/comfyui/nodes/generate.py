"""Image sets for a comparison: the same prompts and seeds for every model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...common.settings import MAX_SEED
from ...metrics.image_set import ImageSet, examples, prompts_and_seeds, require_match
from ...reports.plots import compare_grid
from ..compat import comfy, io
from ..resolution import size_input, size_of
from ..runtime import Progress, check_interrupt
from ..sockets import ImagesSocket
from ..stopped import NOTHING, when_stopped
from ..widgets import Node

CATEGORY = "SCoFT/5 generate and compare"
PROMPTS = "a teacher in nuvia\na cook in nuvia\na house in nuvia"
SETS = 6

ALONE = 1
TOGETHER = ("euler", "heun", "dpm_2", "lms", "dpmpp_2m", "ddim", "uni_pc", "uni_pc_bh2", "ipndm", "ipndm_v", "deis")
"""Samplers that add no noise while sampling and choose no step size by the batch. Only these may share a batch: with
the others an image would depend on its neighbors, so they generate one image at a time."""


class GenerateSet(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_GenerateSet",
            display_name="Generate Set (SCoFT)",
            category=CATEGORY,
            description="Generates every prompt with the same seeds, with ComfyUI's own sampler. With the same prompts "
            "and seeds, the sets of two models differ only because the models do.",
            inputs=[
                io.Model.Input("model", tooltip="The model, for example before or after training."),
                io.Clip.Input("clip", tooltip="The checkpoint's text encoder."),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE."),
                io.String.Input("prompts", multiline=True, default=PROMPTS, tooltip="Prompts, one per line."),
                io.Int.Input(
                    "seed",
                    default=1,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=False,
                    tooltip="First seed. Each image is the one that KSampler generates from its seed alone.",
                ),
                io.Int.Input(
                    "images_per_prompt",
                    default=1,
                    min=1,
                    max=10_000,
                    tooltip="Images per prompt, with the seeds seed, seed + 1, …",
                ),
                io.String.Input("label", default="base", tooltip="Name of this set in grids and tables."),
                *_sampling_inputs(),
            ],
            outputs=[
                ImagesSocket.Output(display_name="images", tooltip="The image set, with its prompts, seeds and label."),
                io.Image.Output(display_name="batch", tooltip="The same images as an image batch."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        prompts: str,
        seed: int,
        images_per_prompt: int,
        label: str,
        **sampling: Any,
    ) -> io.NodeOutput:
        each_prompt, seeds = prompts_and_seeds(prompts, seed, images_per_prompt)
        sampling |= {side: size_of(model, side, sampling[side], 8) for side in ("width", "height")}
        progress = cls.progress(len(each_prompt) * sampling["steps"])
        with when_stopped(cls, NOTHING, ""):
            images = generate(model, clip, vae, each_prompt, seeds, sampling, progress)
        return io.NodeOutput(ImageSet(images, each_prompt, seeds, label.strip() or "no label"), images)


def _sampling_inputs() -> list[Any]:
    """The widgets that Generate Set passes to the sampler by name."""
    sampler = comfy.samplers.KSampler
    return [
        size_input("width", "Width in pixels.", max=4096),
        size_input("height", "Height in pixels.", max=4096),
        io.Int.Input("steps", default=20, min=1, max=1000, tooltip="Sampling steps."),
        io.Float.Input("cfg", default=4.5, min=0.0, max=100.0, step=0.1, tooltip="Classifier-free guidance scale."),
        io.Combo.Input(
            "sampler_name",
            options=list(sampler.SAMPLERS),
            default="ddim",
            tooltip="ComfyUI's sampler. Samplers that add noise while sampling generate one image at a time, slowly.",
        ),
        io.Combo.Input(
            "scheduler", options=list(sampler.SCHEDULERS), default="normal", tooltip="Scheduler (noise schedule)."
        ),
        io.Int.Input("batch_size", default=16, min=1, max=512, tooltip="Images generated at once. Affects speed only."),
    ]


class CompareGrid(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        sets = [
            ImagesSocket.Input(f"set_{i}", optional=i > 1, tooltip="An image set from Generate Set, shown as one row.")
            for i in range(1, SETS + 1)
        ]
        return io.Schema(
            node_id="SCoFT_CompareGrid",
            display_name="Compare Grid (SCoFT)",
            category=CATEGORY,
            description="Shows up to six image sets as rows of a grid. Each column has one prompt and seed. All sets "
            "need the same prompts and seeds.",
            inputs=[
                *sets,
                io.Int.Input(
                    "max_columns",
                    default=12,
                    min=1,
                    max=60,
                    tooltip="Maximum number of columns, spread evenly over the prompts. Each column uses the next "
                    "seed.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The labeled grid.")],
        )

    @classmethod
    def execute(cls, set_1: ImageSet, max_columns: int, **others: ImageSet | None) -> io.NodeOutput:
        sets = [set_1, *(other for i in range(2, SETS + 1) if (other := others.get(f"set_{i}")) is not None)]
        require_match(sets)
        columns = examples(set_1, max_columns)
        prompts, seeds = [set_1.prompts[i] for i in columns], [set_1.seeds[i] for i in columns]
        rows = [(each.label, each.images[columns]) for each in sets]
        return io.NodeOutput(compare_grid(rows, prompts, seeds, len(columns))[None])


def generate(
    model: Any,
    clip: Any,
    vae: Any,
    prompts: tuple[str, ...],
    seeds: tuple[int, ...],
    sampling: dict[str, Any],
    progress: Progress,
) -> Tensor:
    """One image per prompt and seed, by ComfyUI's own sampler: (N, height, width, 3) in [0, 1] on the CPU.

    The noise of an image comes from its seed alone, as in a KSampler with a batch of one, so no image depends on its
    batch. sampling: the settings of Generate Set by name.
    """
    distinct = dict.fromkeys(("", *prompts))  # -> (1, tokens, width) and a pooled vector, as CLIPTextEncode
    texts = {text: clip.encode_from_tokens(clip.tokenize(text), return_pooled=True) for text in distinct}
    together = sampling["batch_size"] if sampling["sampler_name"] in TOGETHER else ALONE
    empty = torch.zeros(1, 4, sampling["height"] // 8, sampling["width"] // 8)
    latent = comfy.sample.fix_empty_latent_channels(model, empty)
    images: list[Tensor] = []
    for part in batches([texts[p][0].shape for p in prompts], together):
        noise = torch.cat([torch.randn(latent.shape, generator=torch.Generator().manual_seed(seeds[i])) for i in part])
        start = part[0] * sampling["steps"]

        def observe(step: int, *_: Any, start: int = start, count: int = len(part)) -> None:
            check_interrupt()
            done = min(step + 1, sampling["steps"])  # some samplers make more steps than they are asked for
            progress.update(start + done * count, f"{start // sampling['steps']} of {len(prompts)} images")

        samples = comfy.sample.sample(
            model,
            noise,
            *(sampling[name] for name in ("steps", "cfg", "sampler_name", "scheduler")),
            conditioning([texts[prompts[i]] for i in part]),
            conditioning([texts[""]] * len(part)),
            torch.zeros_like(noise),
            callback=observe,
            disable_pbar=True,
            seed=seeds[part[0]],
        )
        images.append(vae.decode(samples)[..., :3].float().cpu().clamp(0.0, 1.0))
    progress.update(progress.total, f"{len(prompts)} images")
    return torch.cat(images)


def batches(shapes: list[Any], size: int) -> list[range]:
    """Runs of at most `size` neighbors whose embeddings have the same shape (longer prompts take more tokens)."""
    parts, start = [], 0
    while start < len(shapes):
        end = start + 1
        while end < len(shapes) and end - start < size and shapes[end] == shapes[start]:
            end += 1
        parts.append(range(start, end))
        start = end
    return parts


def conditioning(texts: list[tuple[Tensor, Tensor | None]]) -> list[list[Any]]:
    """CONDITIONING whose i-th row belongs to the i-th image of the batch."""
    pooled = [p for _, p in texts if p is not None]
    return [[torch.cat([text for text, _ in texts]), {"pooled_output": torch.cat(pooled) if pooled else None}]]
