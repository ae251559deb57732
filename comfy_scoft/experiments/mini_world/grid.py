"""The images that are generated and their noise, and what was kept back: kinds, places and seeds for the report alone.

Settings may be chosen by looking at the development half. What the report states about them rests on the test half:
other kinds of people, other places, other training seeds, and so other noise.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from ...data.records import Dataset
from ...metrics.bias import NO_PLACE, concept_of
from ...mini_world import world
from ...mini_world.splits import HELD_OUT_KINDS, TRAINED_KINDS
from ...training.batches import seed_of

TEST_KINDS = HELD_OUT_KINDS[1::2]
DEVELOPMENT_KINDS = HELD_OUT_KINDS[::2]
DEVELOPMENT_SEEDS = (1, 2, 3, 4, 5)
TEST_SEEDS = (101, 102, 103, 104, 105)
FRESH_SEEDS = (106, 107, 108, 109, 110)
"""Named before any of them was trained: nothing was chosen by them or after them."""
TAUGHT = world.BIASED_PLACE
DEVELOPMENT_PLACES = ("borea", "aria", NO_PLACE)
TEST_PLACES = ("caldia",)
OTHER_PLACES = ("borea", "aria", "caldia", NO_PLACE)
GUIDANCE = 3.0
"""Guidance scale that images are generated with, unless an arm has another."""

HELD_OUT, TRAINED, HOUSES = "held-out kinds", "trained kinds", "houses"


@dataclass(frozen=True)
class ImageRequest:
    """One image to generate: its prompt, the seed of its noise, and the concept of the prompt."""

    prompt: str
    seed: int
    concept: str


@dataclass(frozen=True)
class Cell:
    """One cell of the grid, whose images share a metric: `each` of every kind, in one place.

    what: `held-out kinds` of people (of `kinds`), `trained kinds` by the captions they were trained with, or `houses`.
    """

    place: str
    what: str
    each: int
    kinds: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.what} · {self.place}"

    def requests(self, seed: int, dataset: Dataset) -> list[ImageRequest]:
        """The cell's images for a training seed; the noise of a kind's k-th image is the same in every place."""
        place = None if self.place == NO_PLACE else self.place
        prompts = {kind: world.caption(kind, place) for kind in self.kinds if self.what != TRAINED}
        for record in dataset.records if self.what == TRAINED else ():
            prompts.setdefault(concept_of(record.caption), record.caption)
        return [
            ImageRequest(prompts[kind], seed_of(seed, zlib.crc32(kind.encode()), k), kind)
            for kind in self.kinds
            for k in range(self.each)
        ]


def held_out(each: int, places: Sequence[str], kinds: Sequence[str] = TEST_KINDS) -> tuple[Cell, ...]:
    """A cell of held-out kinds in each place."""
    return tuple(Cell(place, HELD_OUT, each, tuple(kinds)) for place in places)


def trained(each: int, kinds: Sequence[str] = TRAINED_KINDS) -> Cell:
    """The taught place by the captions of the training, where memorization shows."""
    return Cell(TAUGHT, TRAINED, each, tuple(kinds))


FORMS: dict[str, tuple[Cell, ...]] = {
    "full": (*held_out(18, (TAUGHT, *OTHER_PLACES)), trained(9), Cell(TAUGHT, HOUSES, 36, ("house",))),
    "lean": (*held_out(18, (TAUGHT, "caldia", NO_PLACE)), trained(9)),
    "taught": (*held_out(18, (TAUGHT,)), trained(9)),
    "development": (*held_out(9, (TAUGHT, *DEVELOPMENT_PLACES), DEVELOPMENT_KINDS), trained(3)),
    "short": (*held_out(1, (TAUGHT, "caldia"), TEST_KINDS[:4]), trained(2, TRAINED_KINDS[:2])),
}
"""Cells of a model, by the name of the form. `lean` and `taught` are cells of `full`, so their images are shared."""
