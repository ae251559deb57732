"""The denoising gap on ComfyUI's sockets: a memorization metric that generates no image."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import torch

from ...common.errors import UserError
from ...common.settings import MAX_SEED
from ...data.records import Dataset
from ...metrics import denoising_gap
from ...metrics.denoising_gap import DenoisingLosses
from ...metrics.inputs import ImageCounter
from ...metrics.scores import Scores, add
from ...models.placement import to_device
from ...models.stable_diffusion import BaseModel
from ...training.latent_cache import Cache
from ...training.validation import MOST
from ..compat import io
from ..resolution import size_input, size_of
from ..runtime import device, free_memory, training_mode
from ..sockets import DatasetSocket
from ..to_diffusers import base_model
from ..training import validation_images
from ..widgets import Node
from .metrics import CATEGORY, MEASURED, figures, so_far


class DenoisingGap(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_DenoisingGap",
            display_name="Denoising Gap (SCoFT)",
            category=CATEGORY,
            description="Measures memorization without generating images: how much better a model denoises its "
            "training images than similar held-out images, with the same noise. Connect the base model as "
            "compared_with, since only the change from it shows memorization.",
            inputs=[
                io.Model.Input("model", tooltip="The model to measure, with its LoRA applied."),
                io.Clip.Input("clip", tooltip="The checkpoint's text encoder."),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE."),
                DatasetSocket.Input("dataset", tooltip="The training images (split 'train')."),
                DatasetSocket.Input("held_out", tooltip="Similar images not trained on, such as the test split."),
                io.String.Input("label", default="LoRA", tooltip="Name of this model in the table."),
                size_input("resolution", "Resolution in pixels, as in training."),
                io.Model.Input("compared_with", optional=True, tooltip="The base model, without the LoRA."),
                io.String.Input(
                    "compared_label", default="base", optional=True, tooltip="Name of the base model in the table."
                ),
                so_far(),
                io.Int.Input(
                    "pictures",
                    default=MOST,
                    min=2,
                    max=100_000,
                    optional=True,
                    tooltip="Maximum number of images per set.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=False,
                    optional=True,
                    tooltip="Random seed of the noise, the same for both models.",
                ),
            ],
            outputs=[figures()],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        dataset: Dataset,
        held_out: Dataset,
        label: str,
        resolution: int,
        compared_with: Any = None,
        compared_label: str = "base",
        scores: Scores | None = None,
        pictures: int = MOST,
        seed: int = 0,
    ) -> io.NodeOutput:
        resolution = size_of(model, "resolution", resolution)
        caches = _Images(clip, vae, _parts(dataset, held_out), resolution, pictures, seed)
        models = ([(compared_label, compared_with)] if compared_with is not None else []) + [(label, model)]
        images = sum(min(len(part), pictures) for part in caches.parts)
        work = ImageCounter(len(models) * (len(caches.captions()) + images), cls.watch(MEASURED))
        losses = [(name.strip() or "no label", caches.losses(one, name, work)) for name, one in models]
        method = f" at {resolution} pixels, {denoising_gap.TIMES} timesteps per image, seed {seed}"
        return io.NodeOutput(add(scores, denoising_gap.gap_scores(losses, method)))


def _parts(dataset: Dataset, held_out: Dataset) -> tuple[Dataset, Dataset]:
    trained = dataset.split("train")
    if not len(trained):
        raise UserError(
            f"The dataset {dataset.name!r} has no image of the split 'train', the only one that is trained on: load "
            "that split."
        )
    return trained, validation_images(held_out, trained)


class _Images:
    """The two sets of images. Their latents are computed once for all models."""

    def __init__(self, clip: Any, vae: Any, parts: Sequence[Dataset], resolution: int, most: int, seed: int) -> None:
        self.clip, self.vae, self.parts = clip, vae, parts
        self.resolution, self.most, self.seed = resolution, most, seed
        self.latents: list[dict] = [{} for _ in parts]

    def captions(self) -> list[str]:
        return list(dict.fromkeys(record.caption for part in self.parts for record in part.records))

    def losses(self, model: Any, name: str, work: ImageCounter) -> DenoisingLosses:
        """Of one MODEL; what it held is freed however this ends."""
        free_memory()
        base = base_model(model, self.clip, self.vae, name)
        try:
            for text in self.captions():
                work.add(1)  # checks for an interrupt too
                base.embed(text)
            free_memory()
            with training_mode(), torch.no_grad():
                to_device(base.unet, device(), torch.float32 if device().type == "cpu" else base.dtype)
                to_device(base.vae, device(), torch.float32)
                caches = [
                    Cache(base, part, self.resolution, latents=latents)
                    for part, latents in zip(self.parts, self.latents, strict=True)
                ]
                losses = [self._of(base, cache, work) for cache in caches]
            return DenoisingLosses(*losses)
        finally:
            base.unet = base.vae = None  # type: ignore[assignment]  # it is not used any more
            gc.collect()
            free_memory()

    def _of(self, base: BaseModel, cache: Cache, work: ImageCounter) -> list[float]:
        """The losses of one set. Each call counts as an image, but not those that memory makes necessary."""
        left = min(len(cache.dataset), self.most)

        def check() -> None:
            nonlocal left
            work.add(int(left > 0))
            left -= 1

        return denoising_gap.losses(base, cache, self.seed, check, most=self.most)
