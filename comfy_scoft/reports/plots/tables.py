"""Tables as images: how a dataset is spread, and figures with their intervals."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ...common.errors import UserError
from ...data.records import CATEGORIES, counted
from .canvas import COLORS, INK, LINE, MUTED, SHADE, Page, text_width, wrap

if TYPE_CHECKING:
    from ...data.records import Dataset
    from ...metrics.scores import Score

EDGE = 20
UNSAID = "not said"
BAR = 100
SHORTEST = 0.1
"""A line whose figures are all below this has no bars: nothing would be seen."""
CELL, FIRST, LINE_HEIGHT = 176, 250, 66
PLACE = " · "
"""Between a model's label and the place that a figure is about."""
INTERVALS = "In brackets: 95 % intervals. n: how many were measured."


def count_rows(dataset: Dataset) -> tuple[list[str], list[tuple[str, str, list[int]]]]:
    """The numbers of `count_table`: column headings, and rows of (culture, era, counts); the last column is the total.

    Columns are CCUB's nine categories, then others that occur. Each culture has a row for traditional, one for modern,
    one for records that do not say (if any) and their total; several cultures have a last row for all.
    """

    def named(text: str) -> str:
        return text or UNSAID

    counts = Counter((named(r.culture), named(r.era), named(r.category)) for r in dataset.records)
    others = dict.fromkeys(named(r.category) for r in dataset.records)
    categories = [*CATEGORIES, *(c for c in others if c not in CATEGORIES)]
    cultures = list(dict.fromkeys(named(r.culture) for r in dataset.records))

    def row(culture: str | None, era: str | None) -> list[int]:
        cells = [
            sum(n for (c, e, k), n in counts.items() if k == category and c in (culture or c,) and e in (era or e,))
            for category in categories
        ]
        return [*cells, sum(cells)]

    rows = []
    for culture in cultures:
        said = {e for c, e, _ in counts if c == culture}
        eras = ["traditional", "modern", *sorted(said - {"traditional", "modern"})]
        rows += [(culture, era, row(culture, era)) for era in eras] + [(culture, "total", row(culture, None))]
    if len(cultures) > 1:
        rows.append(("all", "total", row(None, None)))
    return [*categories, "total"], rows


def count_table(dataset: Dataset) -> Tensor:
    """Counts by category and traditional / modern, categories across and cultures down, as the paper's Table 3.

    Returns (H, W, 3) in [0, 1]. An empty dataset gives a page that says so.
    """
    columns, rows = count_rows(dataset)
    cell, row_height, era_x = 92, 30, EDGE + 130
    left = era_x + 110
    heads = [wrap(name, cell - 8, 3, 13) for name in columns]
    top = 56 + max(len(h) for h in heads) * 18 + 8
    page = Page(left + cell * len(columns) + EDGE, top + max(1, len(rows)) * row_height + EDGE)
    title = wrap(f"{dataset.name} · {counted(dataset.records)}", page.width - 2 * EDGE, 1, 18, bold=True)
    page.text(EDGE, 18, title[0], 18, bold=True)
    for k, lines in enumerate(heads):
        page.block(left + cell * k + cell / 2, top - 8 - 18 * len(lines), lines, 13, align="center", color=MUTED)
    page.line(EDGE, top, page.width - 2 * EDGE, INK, 1.2)
    if not rows:
        page.text(EDGE, top + 8, "This dataset has no records.", 15, MUTED)
    previous = None
    for i, (culture, era, cells) in enumerate(rows):
        y = top + i * row_height
        total = era == "total"
        if culture == "all":
            page.line(EDGE, y, page.width - 2 * EDGE, INK, 1.2)
        if total:
            page.box(EDGE, y, page.width - 2 * EDGE, row_height, fill=SHADE)
        if culture != previous:
            page.text(EDGE + 6, y + 8, wrap(culture, 118, 1, 14, bold=True)[0], 14, bold=True)
        previous = culture
        page.text(era_x, y + 8, wrap(era, 100, 1, 14)[0], 14, MUTED if era == UNSAID else INK)
        for k, n in enumerate(cells):
            x = left + cell * k + cell / 2
            page.text(x, y + 8, str(n) if n else "–", 14, INK if n else MUTED, bold=total and n > 0, align="center")
        if total:
            page.line(EDGE, y + row_height, page.width - 2 * EDGE, LINE)
    return page.tensor()


def number(value: float, decimals: int | None) -> str:
    """A figure as text; `decimals` None gives three digits; "–" for one that is not finite."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:.3g}" if decimals is None else f"{value:.{decimals}f}"
    return text if float(text) else text.removeprefix("-")


def decimals_of(scores: Sequence[Score]) -> int | None:
    """As many decimals as the narrowest interval of a line deserves; None where no score has an interval."""
    widths = [s.high - s.low for s in scores if math.isfinite(s.high - s.low) and s.high > s.low]
    return min(6, max(0, math.ceil(-math.log10(min(widths) / 2)))) if widths else None


def by_model(scores: Sequence[Score]) -> list[Score]:
    """Figures of models at large and figures by place in one table: "dark skin" of "LoRA · nuvia" becomes the line
    "dark skin · nuvia" of the column "LoRA".

    Only where a column "LoRA" is there too; figures that are all by place keep their columns.
    """
    models = {score.group for score in scores if PLACE not in score.group}
    found = []
    for score in scores:
        model, _, place = score.group.partition(PLACE)
        moved = place and model in models
        found.append(dataclasses.replace(score, name=f"{score.name}{PLACE}{place}", group=model) if moved else score)
    return found


def score_table(scores: Sequence[Score], title: str = "Scores", notes: Sequence[str] = ()) -> Tensor:
    """Figures with their 95 % intervals: one line a name, one column a group, in order of appearance.

    A name may lack a group. Lines within [0, 1] have bars that show the interval too. The scores' own notes and then
    `notes` stand below, each once, wrapped. Returns (H, W, 3) in [0, 1]; without scores, a page that says so. Raises
    UserError if two have one name and group.
    """
    table: dict[tuple[str, str], Score] = {}
    for score in scores:
        if (score.name, score.group) in table:
            raise UserError(f"There are two metrics for {score.name!r} in {score.group!r}; name them differently.")
        table[score.name, score.group] = score
    names, groups = list(dict.fromkeys(n for n, _ in table)), list(dict.fromkeys(g for _, g in table))
    width = EDGE + FIRST + CELL * max(2, len(groups)) + EDGE
    heads = [wrap(group, CELL - 16, 3, 14, bold=True) for group in groups]
    top = 54 + 19 * max([len(h) for h in heads], default=1) + 8
    said = dict.fromkeys([INTERVALS, *(s.note for s in scores if s.note), *notes])
    foot = [line for note in said for line in wrap(note, width - 2 * EDGE, 6, 12)]
    page = Page(width, top + LINE_HEIGHT * max(1, len(names)) + 16 + 17 * len(foot) + 12)
    page.text(EDGE, 18, wrap(title, width - 2 * EDGE, 1, 18, bold=True)[0], 18, bold=True)
    for k, lines in enumerate(heads):
        page.block(EDGE + FIRST + CELL * k, top - 8 - 19 * len(lines), lines, 14, bold=True)
    page.line(EDGE, top, width - 2 * EDGE, INK, 1.2)
    if not names:
        page.text(EDGE, top + 20, "There are no metrics.", 15, MUTED)
    for i, name in enumerate(names):
        _score_line(page, top + i * LINE_HEIGHT, name, [table.get((name, group)) for group in groups])
    page.block(EDGE, top + LINE_HEIGHT * max(1, len(names)) + 12, foot, 12, color=MUTED)
    return page.tensor()


def _score_line(page: Page, y: float, name: str, cells: Sequence[Score | None]) -> None:
    label = wrap(name, FIRST - 16, 3, 14)
    page.block(EDGE, y + LINE_HEIGHT / 2 - 10 * len(label), label, 14)
    known = [score for score in cells if score is not None]
    ends = [e for s in known for e in (s.value, s.low, s.high) if math.isfinite(e)]
    bars = bool(ends) and min(ends) >= 0.0 and SHORTEST <= max(ends) <= 1.0
    decimals = decimals_of(known)
    for k, score in enumerate(cells):
        _figure(page, EDGE + FIRST + CELL * k, y, score, decimals, COLORS[k % len(COLORS)] if bars else None)
    page.line(EDGE, y + LINE_HEIGHT, page.width - 2 * EDGE)


def _figure(page: Page, x: float, y: float, score: Score | None, decimals: int | None, color: str | None) -> None:
    """One cell: the figure, its interval and count, and its bar where there is a color for it."""
    if score is None or not math.isfinite(score.value):
        page.text(x, y + 10, "–", 17, MUTED)
        return
    value = number(score.value, decimals)
    page.text(x, y + 10, value, 17, bold=True)
    interval = f"[{number(score.low, decimals)}, {number(score.high, decimals)}]" if _has_interval(score) else ""
    if color is None:
        page.text(x, y + 38, f"{interval}  n {score.n}".strip(), 12, MUTED)
        return
    page.text(x + text_width(value, 17, bold=True) + 8, y + 13, interval, 12, MUTED)
    page.text(x + BAR + 8, y + 40, f"n {score.n}", 12, MUTED)
    _bar(page, x, y + 42, score, color)


def _has_interval(score: Score) -> bool:
    return math.isfinite(score.low) and math.isfinite(score.high)


def _bar(page: Page, x: float, y: float, score: Score, color: str) -> None:
    page.box(x, y, BAR, 8, fill=SHADE, edge=LINE)
    page.box(x, y, BAR * score.value, 8, fill=color)
    if _has_interval(score):
        page.line(x + BAR * score.low, y + 4, max(1.0, BAR * (score.high - score.low)), INK, 2)
        for end in (score.low, score.high):
            page.box(x + BAR * end - 0.75, y - 1.5, 1.5, 11, fill=INK)
