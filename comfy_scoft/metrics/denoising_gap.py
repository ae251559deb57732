"""The denoising gap: the denoising loss on held-out images minus that on training images.

It needs no generation. If the held-out images happen to be harder, the gap is there before any training; its change
from the base model to the fine-tuned one, on the same noise and timesteps, measures memorization.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..common.errors import UserError
from ..models.stable_diffusion import BaseModel
from ..training import memory, validation
from ..training.latent_cache import Cache
from .image_set import require_different_labels
from .intervals import RESAMPLES, Interval, difference_interval
from .scores import Scores, mean_scores, scored

TRAINED, HELD_OUT, GAP = "denoising loss, training images", "denoising loss, held-out images", "denoising gap"
TIMES = 8
"""Timesteps per image; twice those of validation, which runs many times during training."""
CAUTION = (
    "The denoising gap is the loss on held-out images less that on training images. Where the held-out ones are "
    "harder it is there before training too: what tells of memorization is its change."
)


class DenoisingLosses(NamedTuple):
    """The denoising loss of each training image and of each held-out image."""

    trained: list[float]
    held_out: list[float]


def losses(
    base: BaseModel,
    cache: Cache,
    seed: int = 0,
    check: Callable[[], None] = lambda: None,
    batch: int = TIMES,
    times: int = TIMES,
    most: int = validation.MOST,
) -> list[float]:
    """Mean denoising loss of each record under a base model with its attached LoRA, on the cache's latents.

    most: maximum number of records, evenly spaced. times: timesteps per record, the same for all. The noise depends on
    the seed and the record's number. batch: predictions in one UNet call; 1 after an out-of-memory error. Raises
    UserError if memory runs out for a single one.
    """
    samples = validation.spread(cache.samples(flip=False), most)
    try:
        return validation.losses(base, cache, samples, seed, check, batch, times).double().mean(1).tolist()
    except (RuntimeError, MemoryError) as error:
        if not memory.is_out(error):
            raise
        if batch == 1:
            raise UserError(
                "Memory ran out while images were denoised; close other programs, or choose a smaller resolution."
            ) from error
    memory.free()
    return losses(base, cache, seed, check, 1, times, most)


def gap(measured: DenoisingLosses) -> Interval:
    """Mean loss on held-out images - mean loss on training images, bootstrapped over both; at least 2 of each."""
    return difference_interval(measured.held_out, measured.trained)


def gap_change(after: DenoisingLosses, before: DenoisingLosses) -> Interval:
    """Gap after - gap before on the same records, noise and timesteps, bootstrapped over pairs."""
    trained = [a - b for a, b in zip(after.trained, before.trained, strict=True)]
    held_out = [a - b for a, b in zip(after.held_out, before.held_out, strict=True)]
    return difference_interval(held_out, trained)


def gap_scores(measured: Sequence[tuple[str, DenoisingLosses]], settings: str = "") -> Scores:
    """Both losses and the gap of one model, or of (label, losses) of two, the baseline first, with the paired change.

    Raises UserError for two models of the same label, and for fewer than two training or held-out images.
    """
    labels, by_model = [label for label, _ in measured], [of_model for _, of_model in measured]
    require_different_labels(labels, "models")
    for of_kind in by_model[0]:
        if len(of_kind) < 2:
            raise UserError(
                f"The denoising gap needs at least two training images and two held-out ones, but there are only "
                f"{len(of_kind)} of one kind: connect a larger dataset."
            )
    rows = mean_scores(TRAINED, labels, [of_model.trained for of_model in by_model])
    rows += mean_scores(HELD_OUT, labels, [of_model.held_out for of_model in by_model])
    gaps = [gap(of_model) for of_model in by_model]
    if len(measured) == 2:
        gaps.append(gap_change(by_model[1], by_model[0]))
    rows += scored(GAP, labels, gaps, sum(map(len, by_model[0])), CAUTION)
    method = f"mean ‖target − prediction‖²{settings}; interval by {RESAMPLES} bootstrap samples of the records"
    return Scores(tuple(rows), ((GAP, method),))
