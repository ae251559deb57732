"""False negatives: those that came out like their image. Training would push the model away from what is right.

The paper drops negatives whose DreamSim distance to their image is small (section 4.4 and appendix); any feature
network serves. How small is for a person to choose, who sees the distances and the images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..common.errors import UserError
from ..common.progress import Observer
from ..common.text import printable
from ..data.crop import aligned
from ..data.records import CultureRecord, Dataset
from ..features import FeatureNetwork

FEWEST = 8
"""Distances that it takes to say which of them stand apart."""


@dataclass(frozen=True)
class Compared:
    """One negative: the record it belongs to, its number there from 0, its file, and D(f(x⁻), f(x))."""

    record: CultureRecord
    number: int
    path: Path
    distance: float


@dataclass(frozen=True)
class Filtered:
    """What became of a dataset's negatives.

    dataset: with those that stay. compared: all of them, record by record. threshold: those nearer are dropped.
    suggestion: a threshold read from the distances (`suggest_threshold`). network: its name. suggested: whether the
    threshold is the suggestion (0 where there is none).
    """

    dataset: Dataset
    compared: tuple[Compared, ...]
    threshold: float
    suggestion: float | None
    network: str
    suggested: bool = False

    def dropped(self) -> list[Compared]:
        """Those that were left out, the nearest first."""
        return sorted((c for c in self.compared if c.distance < self.threshold), key=lambda c: c.distance)

    def kept(self) -> list[Compared]:
        """Those that stay, the nearest first."""
        return sorted((c for c in self.compared if c.distance >= self.threshold), key=lambda c: c.distance)

    def report(self) -> str:
        """Counts, the spread of the distances, a threshold to choose, and each negative that was dropped."""
        total, dropped = len(self.compared), self.dropped()
        distances = torch.tensor([c.distance for c in self.compared])
        spread = distances.quantile(torch.tensor([0.0, 0.05, 0.5, 1.0])).tolist()
        lines = [
            f"{total - len(dropped)} of {total} negatives kept, {len(dropped)} dropped",
            f"Reason: closer than {self.threshold:.3g} to their own image, by {self.network}"
            + (", the suggested threshold" if self.suggested and self.suggestion is not None else ""),
            "Distances: least {:.3f}, 5 % below {:.3f}, half below {:.3f}, largest {:.3f}".format(*spread),
            self.advice(),
        ]
        had_some = {c.record.image for c in self.compared}
        if bare := sum(not r.negatives for r in self.dataset.records if r.image in had_some):
            lines.append(f"Images left without negatives: {bare} (they still train, with their positive term alone)")
        lines += [
            f"- {printable(c.record.image.name)}, negative {c.number + 1}: distance {c.distance:.3f}" for c in dropped
        ]
        return "\n".join(lines)

    def advice(self) -> str:
        """One line about which threshold the distances themselves would give."""
        if self.suggestion is None:
            return "Suggested threshold: none, for no distance stands apart from the others"
        below = sum(c.distance < self.suggestion for c in self.compared)
        return f"Suggested threshold: {self.suggestion:.3g}, which {below} distances far below the others come under"


def filter_negatives(
    dataset: Dataset, network: FeatureNetwork, threshold: float | None = None, observe: Observer | None = None
) -> Filtered:
    """Drop false negatives: those whose feature distance D(f(x⁻), f(x)) to their own image is below `threshold`.

    None is the threshold that the distances suggest, for those of each network have a scale of their own; where they
    suggest none, all negatives stay. Both images are seen under one crop at the network's own size.
    Raises UserError for a threshold that is no distance and a dataset without negatives.
    """
    if threshold is not None and not 0.0 <= threshold < float("inf"):
        raise UserError(f"The threshold is {threshold}, but no distance is below 0: choose 0 or more.")
    if not any(record.negatives for record in dataset.records):
        raise UserError("The dataset has no negatives to filter: connect Make Negatives or Attach Negatives first.")
    found: list[list[Compared]] = []
    for record in dataset.records:
        found.append(compare(record, network))
        if observe is not None:
            observe(len(found), len(dataset), record.image)
    compared = tuple(one for own in found for one in own)
    suggestion = suggest_threshold([c.distance for c in compared])
    least = (suggestion or 0.0) if threshold is None else threshold
    records = [
        dataclasses.replace(record, negatives=tuple(c.path for c in own if c.distance >= least))
        for record, own in zip(dataset.records, found, strict=True)
    ]
    return Filtered(dataset.replace(records), compared, least, suggestion, network.name, threshold is None)


def compare(record: CultureRecord, network: FeatureNetwork) -> list[Compared]:
    """The record's negatives with their distances to its image."""
    if not record.negatives:
        return []
    pixels, negatives = aligned(record, network.size, flip=False)
    with torch.no_grad():
        found = network.extract(torch.cat([pixels.unsqueeze(0), negatives]).to(network.device))
        distances = network.distance(found[1:], found[:1].expand_as(found[1:])).tolist()
    return [
        Compared(record, k, path, far) for k, (path, far) in enumerate(zip(record.negatives, distances, strict=True))
    ]


def suggest_threshold(distances: Sequence[float]) -> float | None:
    """Half way across the gap below Tukey's lower fence, Q1 − 1.5 (Q3 − Q1); None where nothing lies below it.

    It finds the few that are out of line with the others. Where a quarter or more came out right by luck they are not
    out of line, and only looking at the images helps.
    """
    if len(distances) < FEWEST:
        return None
    values = torch.tensor(sorted(distances), dtype=torch.float64)
    low, high = values.quantile(torch.tensor([0.25, 0.75], dtype=torch.float64)).tolist()
    below = values < low - 1.5 * (high - low)
    if not bool(below.any()):
        return None
    return float(values[below].max() + values[~below].min()) / 2.0
