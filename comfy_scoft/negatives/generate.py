"""Negatives x⁻: images with the structure of a community's image and the base model's own idea of the place.

x⁻ = SD + ControlNet-depth( depth(x), prompt = generic caption + " in <place>" ). The sampler is a function, so that
ComfyUI's own serves inside it and another one outside; here is all that decides what is sampled, from which noise, and
under which name it is saved.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..common.errors import UserError
from ..common.files import file_hash, write_atomically
from ..common.fingerprints import noise_seed
from ..common.progress import Observer
from ..common.settings import MAX_SEED, check, setting
from ..data.images import open_image, read_pixels, save_by_content, write_png
from ..data.images import pixel_hash as pixel_hash  # callers know it from here
from ..data.prompts import TEMPLATE, build_prompt, record_prompts
from ..data.records import CultureRecord, Dataset
from ..models.text_encoder import is_long

PROVENANCE = "provenance.json"


@dataclass(frozen=True)
class NegativeSettings:
    """How negatives are generated. Raises UserError for a bad value.

    resolution: side in pixels of a square with as many pixels as a negative; the negative has its image's shape.
    batch_size: another size rounds differently, so it counts as a setting that changes the result.
    """

    per_image: int = setting(5, "Negatives per image. Paper: 5.", min=1, max=32, step=1)
    steps: int = setting(20, "Sampling steps per negative.", min=1, max=200, step=1)
    cfg: float = setting(
        7.5,
        "Classifier-free guidance scale. 7.5 suits Stable Diffusion; 4 the mini model.",
        min=0.0,
        max=30.0,
        step=0.1,
    )
    strength: float = setting(
        1.0,
        "ControlNet strength: how closely a negative follows the depth map. 0: not at all.",
        min=0.0,
        max=2.0,
        step=0.05,
    )
    seed: int = setting(
        0,
        "Random seed. The negatives of an image do not depend on the other images.",
        min=0,
        max=MAX_SEED,
        step=1,
    )
    prompt_template: str = setting(
        TEMPLATE,
        "Prompt for the negatives. {generic} is the generic caption, {place} the place; also {caption}, {culture} and "
        "{category}. An empty field is left out with the word before it.",
    )
    sampler: str = setting("euler", "Sampler.")
    scheduler: str = setting("normal", "Scheduler (noise schedule).")
    resolution: int = setting(
        512,
        "Resolution in pixels; each negative keeps its image's shape.",
        min=16,
        max=4096,
        step=8,
    )
    batch_size: int = setting(
        0, "Negatives of an image generated at once. 0: all of them, which is fastest.", min=0, max=32
    )

    def __post_init__(self) -> None:
        check(self)
        build_prompt(self.prompt_template, generic="an image", place="a place")

    def batches(self) -> list[range]:
        """The numbers of an image's negatives, in groups that are sampled together."""
        size = self.batch_size or self.per_image
        return [range(k, min(k + size, self.per_image)) for k in range(0, self.per_image, size)]

    def steps_each(self) -> int:
        """Sampling steps that the negatives of one image take."""
        return len(self.batches()) * self.steps


@dataclass(frozen=True)
class Request:
    """N negatives of one record, to be sampled in one batch: N prompts, N seeds, one depth map.

    hint: the depth map (1, 3, height, width) in [0, 1], stretched to the size at which they are sampled.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    hint: Tensor

    def noise(self, channels: int, factor: int = 8) -> Tensor:
        """(N, channels, height / factor, width / factor) standard normal, each sample from its own seed."""
        height, width = (side // factor for side in self.hint.shape[-2:])
        samples = [
            torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(seed))
            for seed in self.seeds
        ]
        return torch.cat(samples)


Sampler = Callable[[Request], Tensor]
"""A request -> N images (N, height, width, 3) in [0, 1]."""


def sampled_size(width: int, height: int, resolution: int, multiple: int) -> tuple[int, int]:
    """(width, height) with about resolution² pixels in the image's shape, each side a multiple of `multiple`."""
    scale = resolution / (width * height) ** 0.5
    return tuple(max(multiple, round(side * scale / multiple) * multiple) for side in (width, height))


def saved_size(width: int, height: int, resolution: int) -> tuple[int, int]:
    """(width, height) of the file: the image's exact shape, never larger than it, at most resolution² pixels."""
    scale = min(1.0, resolution / (width * height) ** 0.5)
    return tuple(max(1, round(side * scale)) for side in (width, height))


def make_negatives(
    dataset: Dataset,
    settings: NegativeSettings,
    sampler: Sampler,
    folder: Path,
    identity: str,
    multiple: int = 64,
    observe: Observer | None = None,
) -> Dataset:
    """The dataset with `per_image` new negatives at each record, in place of any that were there.

    Files lie in `<folder>/<key>/<k>.png`; the key hashes the models' `identity`, the settings, and the record's
    image, depth and prompts, and `provenance.json` beside them lists these. What is there is not made again,
    so an interrupted run goes on where it was. `multiple`: what the sides of a sampled image must be divisible by.
    Raises UserError when the dataset is empty or a record has no depth map.
    """
    if not dataset.records:
        raise UserError("The dataset has no records: load or make some before making negatives.")
    if bare := [record for record in dataset.records if record.depth is None]:
        raise UserError(
            f"{len(bare)} of {len(dataset)} records have no depth map ({bare[0].image.name} is the first): "
            "connect Estimate Depth before Make Negatives."
        )
    records = []
    for record in dataset.records:
        paths = _negatives(record, settings, sampler, folder, identity, multiple)
        records.append(dataclasses.replace(record, negatives=paths))
        if observe is not None:
            observe(len(records), len(dataset), paths[-1])
    return dataset.replace(records)


def _negatives(
    record: CultureRecord, settings: NegativeSettings, sampler: Sampler, folder: Path, identity: str, multiple: int
) -> tuple[Path, ...]:
    """The files of one record's negatives. Those that are missing are sampled, each written whole, after provenance."""
    assert record.depth is not None, "checked before the first record"
    content = hashlib.sha256(f"{file_hash(record.image)}:{file_hash(record.depth)}".encode()).hexdigest()
    prompts = record_prompts(record, settings.prompt_template, settings.per_image)
    sampling = {k: v for k, v in dataclasses.asdict(settings).items() if k != "prompt_template"}  # the prompts say it
    if not settings.batch_size:
        del sampling["batch_size"]
    facts = [identity, sampling, multiple, content, prompts, *(["all windows"] if any(map(is_long, prompts)) else [])]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    paths = tuple(folder / key / f"{k}.png" for k in range(settings.per_image))
    if all(path.is_file() for path in paths):
        return paths
    seeds = tuple(noise_seed(settings.seed, content, k) for k in range(settings.per_image))
    provenance: dict[str, Any] = {"models": identity, "settings": sampling, "picture and depth": content}
    provenance |= {"prompts": prompts, "seeds": seeds}
    write_atomically(folder / key / PROVENANCE, json.dumps(provenance, indent=1, ensure_ascii=False).encode())
    size = open_image(record.image).size
    width, height = sampled_size(*size, settings.resolution, multiple)
    saved_width, saved_height = saved_size(*size, settings.resolution)
    hint = _resized(read_pixels(record.depth).add(1.0).div(2.0).unsqueeze(0), width, height)
    for batch in settings.batches():
        if all(paths[k].is_file() for k in batch):
            continue
        images = sampler(Request(tuple(prompts[k] for k in batch), tuple(seeds[k] for k in batch), hint))
        images = images.float().cpu()
        assert images.shape == (len(batch), height, width, 3)
        saved = _resized(images.movedim(-1, 1), saved_width, saved_height).movedim(1, -1)
        for k, image in zip(batch, saved, strict=True):
            write_png(image, paths[k])
    return paths


def _resized(images: Tensor, width: int, height: int) -> Tensor:
    """(B, C, H, W) in [0, 1] at another size: stretched, not cropped, so that every point stays at its place."""
    if images.shape[-2:] == (height, width):
        return images
    return F.interpolate(images, (height, width), mode="bicubic", antialias=True).clamp(0, 1)


def attach_negatives(dataset: Dataset, images: Sequence[Tensor], folder: Path) -> Dataset:
    """The dataset with `images`, each (H, W, 3) in [0, 1], as its negatives, in place of any that were there.

    There are n for each record: the first n are the first record's, and so on. They are written as PNGs named by
    their content. Raises UserError when the counts do not fit or an image is not one.
    """
    count, total = len(dataset), len(images)
    if not count or not total or total % count:
        raise UserError(
            f"There are {total} images for {count} records, but each record needs equally many negatives: "
            "give the same number for each, in the records' order."
        )
    for n, image in enumerate(images):
        if image.ndim != 3 or image.shape[-1] not in (3, 4) or not torch.isfinite(image).all():
            raise UserError(
                f"Image {n + 1} is not an image of (height, width, 3) numbers: check the node that made it."
            )
    paths = [save_by_content(image[..., :3], folder) for image in images]
    each = total // count
    return dataset.replace(
        dataclasses.replace(record, negatives=tuple(paths[i * each : (i + 1) * each]))
        for i, record in enumerate(dataset.records)
    )
