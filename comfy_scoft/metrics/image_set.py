"""Sets of generated images: the same prompts and seeds for every model, so that differences are the model's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.errors import UserError


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
    """Raises UserError where a value of the images (N, ...) is not finite, as where half precision overflows."""
    bad = [i for i, image in enumerate(images) if not torch.isfinite(image).all()]
    if bad:
        raise UserError(
            f"{len(bad)} of the {len(images)} images of {name!r} (the first is number {bad[0] + 1}) hold values that "
            "are not numbers, so nothing can be measured of them: half precision has overflowed; start ComfyUI with "
            "--fp32-vae, or take another VAE or checkpoint."
        )


def plan(prompts: str, seed: int, images_per_prompt: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Prompts (one a line, empty lines left out) and seeds, one of each an image: every prompt with the same seeds.

    Seeds are seed, seed + 1, …, seed + images_per_prompt - 1; a line that comes again goes on with the seeds after
    these, for else its images would be drawn twice and counted as two. Raises UserError where there is no prompt.
    """
    lines = [line.strip() for line in prompts.splitlines() if line.strip()]
    if not lines:
        raise UserError("There is no prompt to draw; write at least one, each on a line of its own.")
    asked: list[str] = []
    seeds: list[int] = []
    before: Counter[str] = Counter()
    for line in lines:
        first = seed + before[line] * images_per_prompt
        asked += [line] * images_per_prompt
        seeds += range(first, first + images_per_prompt)
        before[line] += 1
    return tuple(asked), tuple(seeds)


def require_match(sets: Sequence[ImageSet]) -> None:
    """Raises UserError unless all sets have the same prompts and seeds, in the same order."""
    for other in sets[1:]:
        if (other.prompts, other.seeds) != (sets[0].prompts, sets[0].seeds):
            raise UserError(
                f"The sets {sets[0].label!r} and {other.label!r} were not made with the same prompts and seeds, so a "
                "comparison would mix up model and luck; give both Generate Set nodes the same prompts and seeds."
            )


def examples(images: ImageSet, limit: int) -> list[int]:
    """Which images stand for a set where not all can be shown: one of each prompt, `limit` of them at most.

    The picks are spread evenly over the prompts, so that a long list is not shown by its beginning alone, and each
    takes the next of its prompt's seeds: images of one seed share their noise, which would stand for all of them.
    """
    of: dict[str, list[int]] = {}
    for i, prompt in enumerate(images.prompts):
        of.setdefault(prompt, []).append(i)
    own = list(of.values())
    shown = own if len(own) <= limit else [own[i * len(own) // limit] for i in range(limit)]
    return [pictures[k % len(pictures)] for k, pictures in enumerate(shown)]
