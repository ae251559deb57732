"""The chart of a training run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from .canvas import COLORS, INK, MUTED, Page, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOT_TERMS = {
    *("step", "loss", "kappa", "grad_norm", "lr", "learning_rate", "micro_step", "epoch", "time", "seconds"),
    *("seconds_per_step", "memory", "memory_mb", "peak_memory", "unet_calls", "samples", "t", "timestep", "timesteps"),
    *("validation", "training_pictures", "skipped"),
}
"""Keys of a row that are no loss term."""

PANEL = (430, 250)
MARGIN = (70, 52, 22, 46)
"""Room for axes inside a panel (pixels): left, top, right, bottom."""

SMOOTH = 0.05
RATE = "learning rate"
HELD_OUT, TRAINED = "validation", "training_pictures"
"""The two curves of validation.py, which share a panel: their gap is what overfitting opens."""


def series(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and finite values of a key, where it was logged. A list of values counts by its mean."""
    steps, values = [], []
    for i, row in enumerate(rows):
        value = row.get(key)
        if isinstance(value, list | tuple):
            value = float(np.mean(value)) if value else None
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            steps.append(float(row.get("step", i + 1)))
            values.append(float(value))
    return np.asarray(steps), np.asarray(values)


def term_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The loss terms of a run: its numeric keys that are none of NOT_TERMS, in order of appearance."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if key not in NOT_TERMS and len(series(rows, key)[1])]


def smoothed(values: np.ndarray) -> np.ndarray:
    """Running mean over about a twentieth of the run, centerd; shorter at the ends."""
    half = max(1, round(len(values) * SMOOTH / 2))
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def _panels(rows: Sequence[Mapping[str, Any]], terms: Sequence[str]) -> list[tuple[str, str, bool]]:
    """(key, title, logarithmic axis) of each panel that has something to show."""
    wanted = [("loss", "loss, all terms weighted, running mean", False)]
    wanted += [(term, f"{term} term", False) for term in terms]
    wanted += [
        (HELD_OUT, "diffusion loss, same noise every time", False),
        ("kappa", "|κ|, the rollout's gain on the gradient", True),
        ("grad_norm", "gradient norm, before clipping", True),
        ("lr", RATE, False),
        ("learning_rate", RATE, False),
    ]
    return [panel for panel in wanted if len(series(rows, panel[0])[1])]


def loss_chart(
    rows: Sequence[Mapping[str, Any]], title: str = "Training", terms: Sequence[str] | None = None
) -> Tensor:
    """Panels over the optimizer steps: loss, each of its terms, held-out loss, |κ|, gradient norm, learning rate.

    rows are the lines of metrics.jsonl: "step", "loss", one key a term, "kappa", "grad_norm", "lr"; a key may be
    missing from any row, and values that are not finite are left out. `terms` None takes `term_names`. Thin is what
    was logged, thick its running mean. Returns (H, W, 3) in [0, 1]; without rows, a page that says so.
    """
    panels = _panels(rows, term_names(rows) if terms is None else terms)
    columns = min(3, max(1, len(panels)))
    lines = max(1, math.ceil(len(panels) / columns))
    page = Page(columns * PANEL[0] + 20, 54 + lines * PANEL[1])
    page.text(20, 18, wrap(title, page.width - 40, 1, 18, bold=True)[0], 18, bold=True)
    if not panels:
        page.text(20, 90, "No step was logged.", 15, MUTED)
    for i, (key, name, logarithmic) in enumerate(panels):
        x, y = i % columns * PANEL[0], 50 + i // columns * PANEL[1]
        color = COLORS[i % len(COLORS)] if key != "loss" else INK
        axes = _panel(
            page, (x, y), wrap(name, PANEL[0] - MARGIN[0], 1, 14)[0], *series(rows, key), color, logarithmic=logarithmic
        )
        if key == HELD_OUT:
            _beside(axes, rows, color)
    return page.tensor()


def _panel(
    page: Page, at: tuple[int, int], name: str, steps: np.ndarray, values: np.ndarray, color: str, *, logarithmic: bool
) -> Axes:
    left, top, right, bottom = MARGIN
    axes = page.axes(at[0] + left, at[1] + top, PANEL[0] - left - right, PANEL[1] - top - bottom)
    page.text(at[0] + 20, at[1] + 16, name, 14)
    values = np.abs(values) if logarithmic else values
    if logarithmic and (values > 0).all() and values.max() > 20 * values.min():
        axes.set_yscale("log")
    elif name == RATE:
        axes.set_ylim(0.0, 1.1 * max(float(values.max()), 1e-12))
    elif values.max() - values.min() < 1e-9 * max(1e-12, np.abs(values).max()):
        room = max(abs(float(values[0])) * 0.5, 1e-6)
        axes.set_ylim(values[0] - room, values[0] + room)
    sparse = len(values) < 40
    axes.plot(steps, values, color=color, lw=1.0, alpha=1.0 if sparse else 0.35, marker="o" if sparse else "", ms=3.5)
    if not sparse:
        trend = np.exp(smoothed(np.log(values))) if axes.get_yscale() == "log" else smoothed(values)
        axes.plot(steps, trend, color=color, lw=2.2)
    if axes.get_yscale() == "linear":
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4), useMathText=True, useOffset=False)
        axes.yaxis.get_offset_text().set_fontsize(8)
    if steps[0] == steps[-1]:
        axes.set_xlim(steps[0] - 1, steps[0] + 1)
    axes.locator_params(axis="x", nbins=6, integer=True)
    axes.set_xlabel("step", fontsize=9, color=MUTED, labelpad=2)
    return axes


def _beside(axes: Axes, rows: Sequence[Mapping[str, Any]], color: str) -> None:
    """The curve of trained-on images beside that of held-out ones, both named at their ends."""
    steps, values = series(rows, TRAINED)
    axes.plot(steps, values, color=MUTED, lw=1.4, ls="--", marker="o", ms=2.5)
    axes.relim()
    axes.autoscale_view()
    held_out = series(rows, HELD_OUT)[1]
    above = held_out[-1] >= values[-1]
    for y, name, shade, up in ((held_out[-1], "held out", color, above), (values[-1], "trained on", MUTED, not above)):
        axes.annotate(
            name,
            (steps[-1], y),
            xytext=(0, 5 if up else -5),
            textcoords="offset points",
            ha="right",
            va="bottom" if up else "top",
            fontsize=9,
            color=shade,
        )
    axes.margins(y=0.25)
