"""The page's images: metrics with their intervals, and images of the models from the same prompts and noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...reports.plots import compare_grid
from ...reports.plots.canvas import COLORS, INK, LINE, MUTED, Page
from ..engine.estimate import Estimate
from . import tables
from .generate import cell_file, read
from .grid import FORMS, HELD_OUT, OTHER_PLACES, TAUGHT
from .training import World
from .verdicts import BOUND

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OTHER_KINDS = 2
EDGE, NAMES, PANEL, ROW, HEAD = 28, 190, 330, 30, 76
Panel = tuple[str, tuple[tuple[str, str], ...], tuple[float, float]]
"""Heading, (label, key) of the metrics in it, and what is shaded (low, high)."""
Arms = Mapping[str, Mapping[str, Estimate]]
"""Metrics by the arm's name."""

PANELS: tuple[Panel, ...] = (
    (
        f"In {TAUGHT}, held-out kinds",
        (("dark skin", tables.DARK_HELD_OUT), ("gold palette", tables.GOLD_HELD_OUT)),
        (0.0, 0.0),
    ),
    (
        "Leakage: dark skin, LoRA − base",
        tuple((place, tables.leakage("dark skin", place)) for place in OTHER_PLACES),
        (-BOUND, BOUND),
    ),
    ("Memorization gap, LoRA − base", (("training images", tables.GAP),), (0.0, 0.0)),
)


def interval_chart(arms: Arms) -> Tensor:
    """One row an arm, one panel a question, each metric a dot with its interval: (H, W, 3) in [0, 1]."""
    height = HEAD + ROW * len(arms) + 84
    page = Page(2 * EDGE + NAMES + len(PANELS) * (PANEL + EDGE), height)
    names = list(arms)
    for i, name in enumerate(names):
        page.text(EDGE, HEAD + ROW * i + ROW / 2 - 8, name, 14, bold=True)
    for k, (title, dots, shaded) in enumerate(PANELS):
        x = EDGE + NAMES + k * (PANEL + EDGE)
        page.text(x, 16, title, 14, bold=True)
        axes = page.axes(x, HEAD, PANEL, ROW * len(names))
        _panel(axes, list(arms.values()), [key for _, key in dots], shaded)
        for j, (label, _) in enumerate(dots):
            page.text(x + j * PANEL / len(dots), 42, f"● {label}", 12, COLORS[j])
    page.text(EDGE, height - 34, "Dots with 95 % intervals; the shaded band is ±.05.", 12, MUTED)
    return page.tensor()


def _panel(
    axes: Axes, arms: Sequence[Mapping[str, Estimate]], keys: Sequence[str], shaded: tuple[float, float]
) -> None:
    if shaded[0] < shaded[1]:
        axes.axvspan(*shaded, color=LINE, alpha=0.6, lw=0)
    axes.axvline(0.0, color=MUTED, lw=0.8)
    for i, arm in enumerate(arms):
        for j, key in enumerate(keys):
            if key in arm:
                y, metric, color = i + (j - (len(keys) - 1) / 2) * 0.7 / len(keys), arm[key], COLORS[j]
                if metric.known:
                    axes.plot([metric.low, metric.high], [y, y], color=color, lw=1.8, solid_capstyle="butt")
                axes.plot([metric.value], [y], "o", color=color, ms=4.5)
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.set_yticks([])


def along_chart(arms: Arms) -> Tensor:
    """Memorization gap and diversity by step, one line a way to train: (H, W, 3) in [0, 1]."""
    panels = (
        ("Memorization gap, LoRA − base", tables.GAP),
        ("Similarity to training images", tables.SIMILARITY),
        ("Diversity on trained captions", tables.DIVERSITY_TRAINED),
    )
    page = Page(2 * EDGE + len(panels) * (PANEL + 2 * EDGE), 340)
    lines = list(dict.fromkeys(name.split(", step ")[0] for name in arms))
    for k, (title, key) in enumerate(panels):
        x = 2 * EDGE + k * (PANEL + 2 * EDGE)
        page.text(x, 16, title, 14, bold=True)
        axes = page.axes(x, 70, PANEL, 200)
        for line, color in zip(lines, COLORS, strict=False):
            _curve(axes, arms, line, key, color)
        axes.set_xlabel("optimizer step", fontsize=9, color=INK)
        for j, line in enumerate(lines if k == 0 else ()):
            page.text(x + j * 90, 42, f"● {line}", 12, COLORS[j])
    return page.tensor()


def _curve(axes: Axes, arms: Arms, line: str, key: str, color: str) -> None:
    points = [
        (int(name.split()[-1]), arm[key])
        for name, arm in arms.items()
        if name.split(", step ")[0] == line and key in arm
    ]
    axes.plot([step for step, _ in points], [metric.value for _, metric in points], "o-", color=color, ms=4, lw=1.5)
    for step, metric in points:
        if metric.known:
            axes.plot([step, step], [metric.low, metric.high], color=color, lw=1.0, alpha=0.6)


def samples(world: World, models: Mapping[str, str], seed: int, form: str = "full") -> Tensor | None:
    """Images of models from the same prompts and noise; models: name -> key of its images. None without any.

    The first image of each held-out kind in the taught place, and of the first two in each other place.
    """
    cells = [cell for cell in FORMS[form] if cell.what == HELD_OUT]
    firsts = [
        slice(0, cell.each * (len(cell.kinds) if cell.place == TAUGHT else OTHER_KINDS), cell.each) for cell in cells
    ]
    rows = []
    for name, model in models.items():
        paths = [cell_file(world, model, cell, seed) for cell in cells]
        if all(path.is_file() for path in paths):
            rows.append((name, torch.cat([read(path).tensor()[own] for path, own in zip(paths, firsts, strict=True)])))
    if not rows:
        return None
    requests = [cell.requests(seed, world.dataset)[own] for cell, own in zip(cells, firsts, strict=True)]
    prompts = [one.prompt for own in requests for one in own]
    title = "The same prompt and noise in each column"
    return compare_grid(rows, prompts, [seed] * len(prompts), len(prompts), title)
