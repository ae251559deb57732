"""The denoising-loss gap: how much better a model denoises the images it was trained on than held-out ones.

It needs no generation. A gap is there before any training where held-out images happen to be harder, so what tells of
memorization is its change from the base model to the fine-tuned one, on the same noise and timesteps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..common.errors import UserError
from ..models.stable_diffusion import BaseModel
from ..training import memory, validation
from ..training.latent_cache import Cache
from .intervals import RESAMPLES, Interval, bootstrap_mean, difference_interval, paired_difference_interval
from .scores import CHANGE, Score, Scores

TRAINED, HELD_OUT, GAP = "denoising loss, training images", "denoising loss, held-out images", "denoising gap"
TIMES = 8
"""Timesteps an image; twice those of validation, which is measured again and again while training."""
CAUTION = (
    "The denoising gap is the loss on held-out images less that on training images. Where the held-out ones are "
    "harder it is there before training too: what tells of memorization is its change."
)


class Losses(NamedTuple):
    """One denoising loss a record: of the images that were trained on, and of the held-out ones."""

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
    """Mean denoising loss of each record, by a base model with the LoRA that is attached to it, on the cache's latents.

    most: records at most, evenly spaced. The noise comes from the seed and the record's number, the timesteps are the
    same for all. batch: predictions in one UNet call, fewer by itself where memory runs out. Raises UserError, one
    sentence, where it runs out for a single one.
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


def gap(found: Losses, seed: int = 0) -> Interval:
    """Mean loss on held-out images - mean loss on training images, bootstrapped over both; >= 2 of each."""
    return difference_interval(found.held_out, found.trained, seed)


def gap_change(after: Losses, before: Losses, seed: int = 0) -> Interval:
    """Gap after - gap before on the same records, noise and timesteps: resampled as pairs, so that what the images
    share is out of the interval."""
    trained = [a - b for a, b in zip(after.trained, before.trained, strict=True)]
    held_out = [a - b for a, b in zip(after.held_out, before.held_out, strict=True)]
    return difference_interval(held_out, trained, seed)


def figures(measured: Sequence[tuple[str, Losses]], settings: str = "") -> Scores:
    """Both losses and the gap of one model, or of two by label, the one before first, and then the paired change.

    Raises UserError for two models of one label and fewer than two images of a kind.
    """
    if len({label for label, _ in measured}) < len(measured):
        raise UserError(
            f"Both models are labelled {measured[0][0]!r}, so their figures could not be told apart; rename one."
        )
    for found in measured[0][1]:
        if len(found) < 2:
            raise UserError(
                f"The denoising gap needs at least two training images and two held-out ones, but there are only "
                f"{len(found)} of one kind: connect a larger dataset."
            )
    rows = []
    for k, name in enumerate((TRAINED, HELD_OUT)):
        rows += [Score(name, label, *bootstrap_mean(found[k]), len(found[k])) for label, found in measured]
        if len(measured) == 2:
            (_, before), (_, after) = measured
            rows.append(Score(name, CHANGE, *paired_difference_interval(after[k], before[k]), len(after[k])))
    count = sum(map(len, measured[0][1]))
    rows += [Score(GAP, label, *gap(found), count, CAUTION) for label, found in measured]
    if len(measured) == 2:
        rows.append(Score(GAP, CHANGE, *gap_change(measured[1][1], measured[0][1]), count, CAUTION))
    said = f"mean ‖target − prediction‖²{settings}; interval by {RESAMPLES} bootstrap samples of the records"
    return Scores(tuple(rows), ((GAP, said),))
