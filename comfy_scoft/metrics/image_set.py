"""Sets of generated images; models are compared on the same prompts and seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.errors import UserError
from ..common.settings import MAX_SEED


@dataclass(frozen=True)
class ImageSet:
    """Images of one model. images: (N, H, W, 3) in [0, 1]; prompts and seeds: N of each; label: the model's name."""

    images: Tensor
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    label: str

    def __post_init__(self) -> None:
        if not len(self.images) == len(self.prompts) == len(self.seeds):
            raise UserError(
                f"An image set has {len(self.images)} images, {len(self.prompts)} prompts and {len(self.seeds)} seeds, "
                "but it needs one prompt and one seed for each image."
            )
        require_numbers(self.images, self.label)


def require_numbers(images: Tensor, name: str) -> None:
    """Raise UserError if a value of the images (N, …) is not finite, as after an overflow of half precision."""
    bad = [i for i, image in enumerate(images) if not torch.isfinite(image).all()]
    if bad:
        raise UserError(
            f"{len(bad)} of the {len(images)} images of {name!r} (the first is number {bad[0] + 1}) hold values that "
            "are not numbers, so nothing can be measured of them: half precision has overflowed; start ComfyUI with "
            "--fp32-vae, or take another VAE or checkpoint."
        )


def prompts_and_seeds(prompts: str, seed: int, images_per_prompt: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The prompt and the seed of each image, from a text with one prompt per line.

    Every prompt gets the seeds seed, …, seed + images_per_prompt - 1; a repeated line continues with the next seeds,
    so that no image is generated and counted twice. After MAX_SEED comes 0. Raises UserError if there is no prompt.
    """
    lines = [line.strip() for line in prompts.splitlines() if line.strip()]
    if not lines:
        raise UserError("There is no prompt to generate; write at least one, each on its own line.")
    image_prompts: list[str] = []
    seeds: list[int] = []
    before: Counter[str] = Counter()
    for line in lines:
        first = seed + before[line] * images_per_prompt
        image_prompts += [line] * images_per_prompt
        seeds += [number % (MAX_SEED + 1) for number in range(first, first + images_per_prompt)]
        before[line] += 1
    return tuple(image_prompts), tuple(seeds)


def require_match(sets: Sequence[ImageSet]) -> None:
    """Raise UserError unless all sets have the same prompts and seeds in the same order."""
    for other in sets[1:]:
        if (other.prompts, other.seeds) != (sets[0].prompts, sets[0].seeds):
            raise UserError(
                f"The sets {sets[0].label!r} and {other.label!r} were not made with the same prompts and seeds, so a "
                "comparison would mix up model and luck; give both Generate Set nodes the same prompts and seeds."
            )


def require_different_labels(labels: Sequence[str], what: str = "sets") -> None:
    """Raise UserError if two labels are the same. what: the things that are labeled, for the error."""
    if len(set(labels)) < len(labels):
        raise UserError(f"Both {what} are labeled {labels[0]!r}, so their metrics cannot be told apart; rename one.")


def examples(images: ImageSet, limit: int) -> list[int]:
    """Indices of at most `limit` images to show: one for each prompt, evenly spread over the prompts.

    Each prompt uses the next seed, since images of one seed share their noise and look alike.
    """
    by_prompt: dict[str, list[int]] = {}
    for i, prompt in enumerate(images.prompts):
        by_prompt.setdefault(prompt, []).append(i)
    groups = list(by_prompt.values())
    shown = groups if len(groups) <= limit else [groups[i * len(groups) // limit] for i in range(limit)]
    return [group[k % len(group)] for k, group in enumerate(shown)]
