"""What the filter of negatives left out, and where a threshold would lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from .canvas import COLORS, INK, MUTED, Page, wrap

if TYPE_CHECKING:
    from ...negatives.filter import Compared, Filtered

TILE = 120
EDGE = 24
ACROSS = 4
PAIR = 2 * TILE + 4
STEP = (PAIR + 24, TILE + 50)
CHART = 240
KEPT, DROPPED = COLORS[0], COLORS[1]


def filter_page(filtered: Filtered, most: int = 12) -> Tensor:
    """A histogram of all distances with the threshold, then image and negative of what was dropped and of what is
    next to it. (H, W, 3) in [0, 1].

    most: pairs shown in each of the two parts, the closest first; a heading says of how many. An image that cannot be
    read any more is named.
    """
    dropped, kept = filtered.dropped(), filtered.kept()
    parts = [("Left out, the closest first", dropped, DROPPED), ("Kept, the closest first", kept, KEPT)]
    heights = [34 + max(1, -(-min(len(pairs), most) // ACROSS)) * STEP[1] for _, pairs, _ in parts]
    width = 2 * EDGE + ACROSS * STEP[0] - 24
    top = 96 + CHART + 60
    page = Page(width, top + sum(heights) + EDGE - 10)
    title = f"{len(dropped)} of {len(filtered.compared)} negatives left out as too close to their own image"
    page.text(EDGE, 20, wrap(title, width - 2 * EDGE, 1, 20, bold=True)[0], 20, bold=True)
    page.text(EDGE, 52, wrap(filtered.advice(), width - 2 * EDGE, 1, 14)[0], 14, MUTED)
    _histogram(page, filtered, (EDGE + 44, 92, width - 2 * EDGE - 44, CHART))
    for (heading, pairs, color), height in zip(parts, heights, strict=True):
        note = f" ({most} of {len(pairs)})" if len(pairs) > most else ""
        page.text(EDGE, top, heading + note, 16, color, bold=True)
        if not pairs:
            page.text(EDGE, top + 34, "None.", 14, MUTED)
        for i, pair in enumerate(pairs[:most]):
            _pair(page, pair, EDGE + i % ACROSS * STEP[0], top + 30 + i // ACROSS * STEP[1])
        top += height
    return page.tensor()


def _histogram(page: Page, filtered: Filtered, box: tuple[int, int, int, int]) -> None:
    """Bars of the distances, split at the threshold, which is drawn and named; the suggestion is dashed."""
    distances = np.array([c.distance for c in filtered.compared])
    high = max(float(distances.max()), filtered.threshold if filtered.threshold <= 2 * distances.max() else 0.0, 1e-6)
    edges = np.linspace(0.0, high * 1.02, 41)
    out = distances < filtered.threshold
    axes = page.axes(*box)
    groups, colors, names = [distances[~out], distances[out]], [KEPT, DROPPED], ["kept", "left out"]
    axes.hist(groups, bins=list(edges), stacked=True, color=colors, label=names)
    marks = [(filtered.threshold, "threshold", INK, "-")]
    if filtered.suggestion is not None:
        marks.append((filtered.suggestion, "suggested", MUTED, "--"))
    for value, name, color, style in marks:
        if value <= edges[-1]:
            axes.axvline(value, color=color, lw=1.6, ls=style, label=f"{name} {value:.3g}")
    axes.set_xlim(0.0, edges[-1])
    axes.locator_params(axis="y", integer=True)
    axes.set_xlabel(f"distance of a negative to its image, by {filtered.network}", fontsize=9.5, color=MUTED)
    axes.set_ylabel("negatives", fontsize=9.5, color=MUTED)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)


def _pair(page: Page, pair: Compared, x: int, y: int) -> None:
    page.file(x, y, pair.record.image, TILE)
    page.file(x + TILE + 4, y, pair.path, TILE)
    name = wrap(pair.record.image.stem, PAIR - 150, 1, 12)[0]
    page.text(x, y + TILE + 5, f"{name}, negative {pair.number + 1}", 12)
    page.text(x + PAIR, y + TILE + 5, f"{pair.distance:.3f}", 12, INK, bold=True, align="right")
