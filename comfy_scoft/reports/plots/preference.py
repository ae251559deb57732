"""The chart of a learned preference: how well it tells the sets apart at each noise, and whether it knows how well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from .canvas import COLORS, INK, MUTED, Page, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ...corrector.evaluation import Evaluation

WIDTH, EDGE = 920, 20
PANEL = 250
"""Height of the axes."""


def preference_chart(found: Evaluation, title: str = "Preference") -> Tensor:
    """Accuracy by timestep, of the preference and of color alone, beside the reliability diagram; warnings below.

    Returns (H, W, 3) in [0, 1].
    """
    told = [line for text in found.warnings() for line in wrap(text, WIDTH - 2 * EDGE, 3, 14)]
    page = Page(WIDTH, 130 + PANEL + 22 * (len(told) + 1) + EDGE)
    page.text(EDGE, 18, wrap(title, WIDTH - 2 * EDGE, 1, 18, bold=True)[0], 18, bold=True)
    counts = "{} preferred and {} stereotyped images"
    learned = f"Learned from {counts.format(*found.learned_from)}; measured on {sum(found.held_out)} held out."
    page.text(EDGE, 44, learned, 13, MUTED)
    page.text(EDGE, 72, "Right answers, held-out images", 14)
    _accuracy(page.axes(EDGE + 50, 96, 470, PANEL), found)
    page.text(590, 72, "Said and true share of preferred", 14)
    _reliability(page.axes(640, 96, 250, PANEL), found)
    page.block(EDGE, 110 + PANEL + 36, told or ["No warning."], 14, color=COLORS[1] if told else MUTED)
    return page.tensor()


def _accuracy(axes: Axes, found: Evaluation) -> None:
    t = found.timesteps
    axes.fill_between(t, found.low, found.high, color=COLORS[0], alpha=0.15, lw=0)
    axes.plot(t, found.accuracy, color=COLORS[0], lw=2.0, marker="o", ms=4, label="the preference, 95 % interval")
    axes.plot(t, found.color, color=COLORS[1], lw=1.6, ls="--", marker="s", ms=3.5, label="mean color alone")
    axes.axhline(0.5, color=MUTED, lw=1.0, ls=":", label="guessing")
    axes.set_ylim(0.0, 1.04)
    axes.legend(loc="lower left", fontsize=9, frameon=False)
    axes.set_xlabel("timestep (noise grows to the right)", fontsize=9, color=MUTED, labelpad=2)


def _reliability(axes: Axes, found: Evaluation) -> None:
    said, true, _ = zip(*found.reliability, strict=True)
    axes.plot([0, 1], [0, 1], color=MUTED, lw=1.0, ls=":")
    axes.plot(said, true, color=INK, lw=1.8, marker="o", ms=4)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.04)
    error = f"calibration error {found.ece[0]:.2f} → {found.ece[1]:.2f}"
    axes.set_xlabel(f"probability said; {error}", fontsize=9, color=MUTED, labelpad=2)
