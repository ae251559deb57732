"""Sets of images for a comparison: the same prompts and seeds for every model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...metrics.image_set import ImageSet, examples, prompts_and_seeds, require_match
from ...reports.plots import compare_grid
from ..compat import comfy, io
from ..runtime import Progress, check_interrupt
from ..sockets import ImagesSocket

CATEGORY = "SCoFT/5 generate and compare"
PROMPTS = "a teacher in nuvia\na cook in nuvia\na house in nuvia"
SETS = 6

ALONE = 1
TOGETHER = ("euler", "heun", "dpm_2", "lms", "dpmpp_2m", "ddim", "uni_pc", "uni_pc_bh2", "ipndm", "ipndm_v", "deis")
"""Samplers that draw no noise on the way and choose no step size by the batch: only these may share a batch, for with
the others an image would depend on its neighbours. The rest make one image at a time."""


class GenerateSet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_GenerateSet",
            display_name="Generate Set (SCoFT)",
            category=CATEGORY,
            description="Draws every prompt with the same seeds, with ComfyUI's own sampler. Give two models the same "
            "prompts and seeds, and what differs between the sets is what the models differ in.",
            inputs=[
                io.Model.Input("model", tooltip="The model to draw with, for example before or after training."),
                io.Clip.Input("clip", tooltip="The text encoder of the checkpoint."),
                io.Vae.Input("vae", tooltip="The VAE of the checkpoint."),
                io.String.Input("prompts", multiline=True, default=PROMPTS, tooltip="The prompts, one on each line."),
                io.Int.Input(
                    "seed",
                    default=1,
                    min=0,
                    max=0xFFFF_FFFF_FFFF,
                    control_after_generate=False,
                    tooltip="The first seed. An image of a seed is the one that KSampler makes of it alone.",
                ),
                io.Int.Input(
                    "images_per_prompt",
                    default=1,
                    min=1,
                    max=10_000,
                    tooltip="Images of each prompt: they take seed, seed + 1, … the same for each prompt and model.",
                ),
                io.String.Input("label", default="base", tooltip="What grids and tables call this set."),
                *_sampling_inputs(),
            ],
            outputs=[
                ImagesSocket.Output(display_name="images", tooltip="The set, with its prompts, seeds and label."),
                io.Image.Output(display_name="batch", tooltip="The same images as an ordinary batch of images."),
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
        asked, seeds = prompts_and_seeds(prompts, seed, images_per_prompt)
        progress = Progress(len(asked) * sampling["steps"], cls.hidden.unique_id if cls.hidden else None)
        images = draw(model, clip, vae, asked, seeds, sampling, progress)
        return io.NodeOutput(ImageSet(images, asked, seeds, label.strip() or "no label"), images)


def _sampling_inputs() -> list[Any]:
    """The widgets that Generate Set hands on to the sampler by name."""
    sampler = comfy.samplers.KSampler
    return [
        io.Int.Input("width", default=512, min=8, max=4096, step=8, tooltip="In pixels; the mini model's is 64."),
        io.Int.Input("height", default=512, min=8, max=4096, step=8, tooltip="In pixels; the mini model's is 64."),
        io.Int.Input("steps", default=20, min=1, max=1000, tooltip="Sampling steps."),
        io.Float.Input("cfg", default=4.5, min=0.0, max=100.0, step=0.1, tooltip="How closely prompts are followed."),
        io.Combo.Input(
            "sampler_name",
            options=list(sampler.SAMPLERS),
            default="ddim",
            tooltip="ComfyUI's samplers. Those that draw noise on the way make one image at a time, slowly.",
        ),
        io.Combo.Input("scheduler", options=list(sampler.SCHEDULERS), default="normal", tooltip="How the noise falls."),
        io.Int.Input(
            "batch_size",
            default=16,
            min=1,
            max=512,
            tooltip="Images drawn at once; it changes speed, not images.",
        ),
    ]


class CompareGrid(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        sets = [
            ImagesSocket.Input(
                f"set_{i}", optional=i > 1, tooltip="A set from Generate Set; it becomes one row of the grid."
            )
            for i in range(1, SETS + 1)
        ]
        return io.Schema(
            node_id="SCoFT_CompareGrid",
            display_name="Compare Grid (SCoFT)",
            category=CATEGORY,
            description="Up to six sets below one another, one column a prompt, so that each column shows one prompt "
            "and seed as the models draw it. All sets need the same prompts and seeds.",
            inputs=[
                *sets,
                io.Int.Input(
                    "max_columns",
                    default=12,
                    min=1,
                    max=60,
                    tooltip="Columns at most, spread evenly over the prompts. Each column takes the next seed, so that "
                    "no one noise stands for all.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The labelled grid.")],
        )

    @classmethod
    def execute(cls, set_1: ImageSet, max_columns: int, **others: ImageSet | None) -> io.NodeOutput:
        sets = [set_1, *(found for i in range(2, SETS + 1) if (found := others.get(f"set_{i}")) is not None)]
        require_match(sets)
        shown = examples(set_1, max_columns)
        prompts, seeds = [set_1.prompts[i] for i in shown], [set_1.seeds[i] for i in shown]
        rows = [(found.label, found.images[shown]) for found in sets]
        return io.NodeOutput(compare_grid(rows, prompts, seeds, len(shown))[None])


def draw(
    model: Any,
    clip: Any,
    vae: Any,
    prompts: tuple[str, ...],
    seeds: tuple[int, ...],
    sampling: dict[str, Any],
    progress: Progress,
) -> Tensor:
    """One image a prompt and seed: (N, height, width, 3) in [0, 1] on the CPU, by ComfyUI's own sampler.

    The noise of an image comes from its seed alone, as in a KSampler with a batch of one, so that no image depends
    on its batch. sampling: the settings of Generate Set by name.
    """
    texts = {text: encoded(clip, text) for text in ("", *dict.fromkeys(prompts))}
    together = sampling["batch_size"] if sampling["sampler_name"] in TOGETHER else ALONE
    empty = torch.zeros(1, 4, sampling["height"] // 8, sampling["width"] // 8)
    latent = comfy.sample.fix_empty_latent_channels(model, empty)
    images: list[Tensor] = []
    for part in batches([texts[p][0].shape for p in prompts], together):
        noise = torch.cat([_noise(latent, seeds[i]) for i in part])
        start = part[0] * sampling["steps"]

        def observe(step: int, *_: Any, start: int = start, count: int = len(part)) -> None:
            check_interrupt()
            progress.update(start + (step + 1) * count, f"{start // sampling['steps']} of {len(prompts)} images")

        positive = conditioning([texts[prompts[i]] for i in part])
        samples = _sampled(
            model, noise, positive, conditioning([texts[""]] * len(part)), seeds[part[0]], sampling, observe
        )
        images.append(vae.decode(samples)[..., :3].float().cpu().clamp(0.0, 1.0))
    progress.update(progress.total, f"{len(prompts)} images")
    return torch.cat(images)


def batches(shapes: list[Any], size: int) -> list[range]:
    """Runs of at most `size` neighbours whose texts have the same shape (longer prompts take more tokens)."""
    found, start = [], 0
    while start < len(shapes):
        end = start + 1
        while end < len(shapes) and end - start < size and shapes[end] == shapes[start]:
            end += 1
        found.append(range(start, end))
        start = end
    return found


def encoded(clip: Any, text: str) -> tuple[Tensor, Tensor | None]:
    """A prompt's conditioning (1, tokens, width) and pooled vector, as CLIPTextEncode makes them."""
    return clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)


def conditioning(texts: list[tuple[Tensor, Tensor | None]]) -> list[list[Any]]:
    """CONDITIONING whose i-th row belongs to the i-th image of the batch."""
    pooled = [p for _, p in texts if p is not None]
    return [[torch.cat([text for text, _ in texts]), {"pooled_output": torch.cat(pooled) if pooled else None}]]


def _noise(latent: Tensor, seed: int) -> Tensor:
    return torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed))


def _sampled(
    model: Any,
    noise: Tensor,
    positive: list[Any],
    negative: list[Any],
    seed: int,
    sampling: dict[str, Any],
    observe: Callable[..., None],
) -> Tensor:
    return comfy.sample.sample(
        model,
        noise,
        sampling["steps"],
        sampling["cfg"],
        sampling["sampler_name"],
        sampling["scheduler"],
        positive,
        negative,
        torch.zeros_like(noise),
        callback=observe,
        disable_pbar=True,
        seed=seed,
    )


NODES = [GenerateSet, CompareGrid]
