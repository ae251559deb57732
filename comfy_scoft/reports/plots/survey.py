"""The figures of a survey: ranks as violins, agreement as a heat map, counts of ranks, and win rates.

Every generator, country and item is named beside what is drawn of it, so that nothing hangs on telling colors apart.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ...survey.aggregate import ALL, Analysis, GroupMetrics
from ...survey.preferences import people_text
from .canvas import COLORS, INK, LINE, MUTED, SHADE, Page, wrap

EDGE = 20
MOST_COUNTRIES = 12
"""The countries with the most people that the violins show."""
BLUE, RED = "#2166ac", "#b35806"
"""The two ends of the scales: blue and brown, told apart by color-blind eyes too; white is between."""
NAME = 190
"""Pixels for the name of a generator."""


def survey_plots(found: Analysis) -> list[tuple[str, str, Tensor]]:
    """(heading, caption, image) of every figure, for the report page."""
    return [
        (
            "Ranks by item and country",
            "Distribution of the ranks of each model. The dot is the average rank with its 95% interval.",
            rank_violins(found),
        ),
        (
            "Agreement between participants",
            "Agreement of each two participants above chance, and each one's weight in the consensus.",
            agreement_heatmap(found),
        ),
        ("Counts of ranks", "How often each model was given each rank, by item.", rank_counts(found)),
        ("Win rates", "How often each model is ranked above each other one.", win_matrix(found)),
    ]


def rank_violins(found: Analysis) -> Tensor:
    """How the ranks spread: one line of panels for all people and one a country, one column an item (the paper's Figure
    5). The dot is the average rank, the line through it its 95 % interval. Returns (H, W, 3) in [0, 1]."""
    survey = found.survey
    countries = [country for country, item in found.cells if country and item == ALL]
    countries = sorted(countries, key=lambda c: -found.cells[c, ALL].people)[:MOST_COUNTRIES]
    groups = [ALL, *countries] if len(countries) > 1 else [ALL]
    g, column, line = len(survey.generators), 196, 30
    height = line * g + 66
    heads = [wrap(found.titles[item.id], column - 24, 3, 14, bold=True) for item in survey.items]
    top = 86 + 19 * max(len(head) for head in heads)
    page = Page(EDGE + NAME + column * len(survey.items) + EDGE, top + height * len(groups) + 16)
    _title(page, "Ranks given, 1 is the best", survey.title)
    for k, head in enumerate(heads):
        page.block(EDGE + NAME + column * k, top - 10 - 19 * len(head), head, 14, bold=True)
    for row, country in enumerate(groups):
        y = top + row * height
        page.line(EDGE, y, page.width - 2 * EDGE, INK if row == 0 else LINE, 1.2)
        name = f"{country or 'All together'} · {people_text(found.cells[country, ALL].people)}"
        page.text(EDGE, y + 10, wrap(name, page.width - 2 * EDGE, 1, 14, bold=True)[0], 14, bold=True)
        for k, label in enumerate(survey.generators):
            _name(page, EDGE, y + 36 + line * (k + 0.5), label)
        for k, item in enumerate(survey.items):
            cell = found.figures.get((country, item.id))
            if cell is not None:
                place = (EDGE + NAME + column * k, y + 36, column - 24, line * g)
                _violins(page, place, _counts(found, country, item.id), cell)
    return page.tensor()


def _title(page: Page, what: str, survey: str) -> None:
    page.text(EDGE, 16, wrap(what, page.width - 2 * EDGE, 1, 18, bold=True)[0], 18, bold=True)
    page.text(EDGE, 42, wrap(survey, page.width - 2 * EDGE, 1, 13)[0], 13, MUTED)


def _name(page: Page, x: float, middle: float, label: str) -> None:
    """A generator's name on a line 30 pixels high: in one line, or smaller in two."""
    lines = wrap(label, NAME - 16, 1, 13)
    if lines == [label]:
        page.text(x, middle - 7, label, 13)
    else:
        lines = wrap(label, NAME - 16, 2, 11)
        page.block(x, middle - 7 * len(lines), lines, 11)


def _counts(found: Analysis, country: str, item: str) -> np.ndarray:
    """Counts (G, G): how often each generator (row) had each rank (column)."""
    table = found.table
    chosen = np.ones(len(table.who), dtype=bool)
    if country:
        chosen &= table.country[table.who] == table.countries.index(country)
    chosen &= table.item == [i.id for i in found.survey.items].index(item)
    ranks = table.ranks[chosen]
    return np.stack([(ranks == rank).sum(0) for rank in range(1, ranks.shape[1] + 1)], 1)


def _violins(page: Page, place: tuple[int, int, int, int], counts: np.ndarray, cell: GroupMetrics) -> None:
    """One panel: a violin a generator, from the top down; ranks from left to right."""
    g = len(counts)
    axes = page.axes(*place)
    axes.set(xlim=(0.4, g + 0.6), ylim=(g - 0.5, -0.5), xticks=range(1, g + 1), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0)
    x = np.linspace(0.4, g + 0.6, 200)
    kernel = np.exp(-0.5 * ((x[:, None] - np.arange(1, g + 1)) / 0.28) ** 2)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    density = kernel @ shares.T
    density *= 0.42 / max(1e-9, float(density.max()))
    for k in range(g):
        axes.fill_between(x, k - density[:, k], k + density[:, k], color=COLORS[k % 6], alpha=0.55, lw=0)
        value, low, high = cell.average[:, k]
        axes.plot([low, high], [k, k], color=INK, lw=1.6)
        axes.plot([value], [k], "o", color=INK, ms=4)


def agreement_heatmap(found: Analysis) -> Tensor:
    """How much each two participants agree above chance: the covariance matrix that MMSR reads (the paper's Figure 12),
    people of one country together, and beside it the weight that each has in the consensus. (H, W, 3) in [0, 1]."""
    skills = found.whole.consensus.skills
    people = found.table.present()
    matrix, weight = skills.agreement[np.ix_(people, people)], skills.weight[people]
    size = int(np.clip(680 // max(1, len(people)), 4, 40))
    side, names, bars = max(160, size * len(people)), 200, 200
    page = Page(EDGE + names + side + 40 + bars + EDGE, 130 + side + 120)
    _title(page, "Agreement between participants", found.survey.title)
    page.text(EDGE + names + side + 40, 96, "weight in the consensus", 13, bold=True)
    axes = page.axes(EDGE + names, 130, side, side)
    reach = _reach(matrix)
    _matrix(axes, matrix, people, reach)
    _countries(page, axes, found, people, side / max(1, len(people)))
    beside = page.axes(EDGE + names + side + 40, 130, bars, side)
    places = np.arange(len(people))
    beside.barh(places, weight, 0.8, color=[BLUE if w >= 0 else RED for w in weight])
    beside.set(ylim=(len(people) - 0.5, -0.5), yticks=[])
    beside.axvline(0, color=INK, lw=0.8)
    beside.set_xlim(min(0.0, float(weight.min()) * 1.1), max(1.0, float(weight.max()) * 1.1))
    _scale(page, EDGE + names, 130 + side + 44, reach)
    return page.tensor()


def _reach(matrix: np.ndarray) -> float:
    """The agreement that has the full color: nearly the largest there is, in tenths, at least 0.3."""
    known = np.abs(matrix[np.isfinite(matrix)])
    return 1.0 if not len(known) else float(np.clip(np.ceil(np.quantile(known, 0.99) * 10) / 10, 0.3, 1.0))


def _matrix(axes, matrix: np.ndarray, people: np.ndarray, reach: float) -> None:
    """The cells, with a number for every participant where there is room."""
    axes.grid(False)
    axes.set_facecolor("#c8c8c8")
    look = {"cmap": _colors(), "vmin": -reach, "vmax": reach, "interpolation": "nearest", "aspect": "auto"}
    axes.imshow(np.ma.masked_invalid(matrix), **look)
    step = 1 if len(people) <= 30 else 5 if len(people) <= 150 else 25
    ticks = np.flatnonzero((people + 1) % step == 0)
    axes.set(xticks=ticks, xticklabels=people[ticks] + 1, yticks=ticks, yticklabels=people[ticks] + 1)
    axes.tick_params(length=0, labelsize=8)


def _colors():
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("agreement", [RED, "#fdb863", "white", "#92c5de", BLUE])


def _shade(share: float) -> str:
    """The color "#rrggbb" at a share in [0, 1] of the scale."""
    from matplotlib.colors import to_hex

    return to_hex(_colors()(share))


def _countries(page: Page, axes, found: Analysis, people: np.ndarray, size: float) -> None:
    """Names of the countries beside their people, and lines between them."""
    which = found.table.country[people]
    for k, country in enumerate(found.table.countries):
        members = np.flatnonzero(which == k)
        if not len(members):
            continue
        room = max(1, min(3, int(size * len(members) / 17)))
        name = wrap(country, 150, room, 13)
        middle = 130 + size * (members[0] + len(members) / 2)
        page.block(EDGE + 166, middle - 9 * len(name), name, 13, align="right")
        if members[0]:
            axes.axhline(members[0] - 0.5, color=INK, lw=0.8)
            axes.axvline(members[0] - 0.5, color=INK, lw=0.8)


def _scale(page: Page, x: float, y: float, reach: float) -> None:
    """The scale of the heat map in words, and what gray is."""
    more = "" if reach == 1.0 else " and beyond"
    steps = [f"−{reach:g}{more}: opposite", "0: as chance has it", f"{reach:g}{more}: the same"]
    for k, text in enumerate(steps):
        page.box(x, y + 22 * k, 26, 15, fill=_shade(k / 2), edge=MUTED)
        page.text(x + 36, y + 22 * k, text, 13)
    page.box(x + 220, y, 26, 15, fill="#c8c8c8", edge=MUTED)
    page.text(x + 256, y, "no page in common, or oneself", 13)


def rank_counts(found: Analysis) -> Tensor:
    """How often each generator was given each rank, by item (the paper's Figure 13). Returns (H, W, 3) in [0, 1]."""
    survey = found.survey
    g, column, line = len(survey.generators), max(170, 40 * len(survey.generators) + 40), 108
    heads = [wrap(found.titles[item.id], column - 24, 3, 14, bold=True) for item in survey.items]
    top = 86 + 19 * max(len(head) for head in heads)
    page = Page(EDGE + NAME + column * len(survey.items) + EDGE, top + line * g + 44)
    _title(page, "How often each rank was given", survey.title)
    counts = [_counts(found, ALL, item.id) for item in survey.items]
    most = max(1, max(int(c.max()) for c in counts))
    for k, head in enumerate(heads):
        page.block(EDGE + NAME + column * k, top - 10 - 19 * len(head), head, 14, bold=True)
    for row, label in enumerate(survey.generators):
        y = top + line * row
        page.line(EDGE, y, page.width - 2 * EDGE, INK if row == 0 else LINE, 1.2)
        name = wrap(label, NAME - 16, 3, 14, bold=True)
        page.block(EDGE, y + line / 2 - 10 * len(name), name, 14, bold=True)
        for k in range(len(survey.items)):
            place = (EDGE + NAME + column * k, y + 26, column - 24, line - 46)
            _histogram(page, place, counts[k][row], most, COLORS[row % 6])
    page.line(EDGE, top + line * g, page.width - 2 * EDGE, LINE)
    page.text(
        EDGE, top + line * g + 14, "Under the bars: the rank, 1 the best. Above: how often it was given.", 12, MUTED
    )
    return page.tensor()


def _histogram(page: Page, place: tuple[float, float, float, float], counts: np.ndarray, most: int, color: str) -> None:
    axes = page.axes(*place)
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    ranks = np.arange(1, len(counts) + 1)
    axes.bar(ranks, counts, 0.72, color=color)
    axes.set(xlim=(0.4, len(counts) + 0.6), ylim=(0, most), xticks=ranks, yticks=[])
    axes.tick_params(length=0, pad=1)
    for rank, count in zip(ranks, counts, strict=True):
        axes.annotate(str(count), (rank, count), (0, 2), textcoords="offset points", ha="center", fontsize=8, color=INK)


def win_matrix(found: Analysis, item: str = ALL) -> Tensor:
    """In which share of the rankings the generator of the line stands above that of the column, with its 95 % interval;
    over all items, or on one. Returns (H, W, 3) in [0, 1]."""
    survey, wins = found.survey, found.cells[ALL, item].wins
    g, cell, line = len(survey.generators), 132, 66
    heads = [wrap(label, cell - 12, 4, 14, bold=True) for label in survey.generators]
    top = 96 + 19 * max(len(head) for head in heads)
    page = Page(EDGE + NAME + cell * g + EDGE, top + line * g + 50)
    what = "Ranked above the other" + (f": {found.titles[item]}" if item else ", over all items")
    _title(page, what, survey.title)
    page.text(EDGE, top - 30, "… is above:", 13, MUTED)
    for k, head in enumerate(heads):
        page.block(EDGE + NAME + cell * k + cell / 2, top - 10 - 19 * len(head), head, 14, bold=True, align="center")
    for row, label in enumerate(survey.generators):
        y = top + line * row
        name = wrap(label, NAME - 16, 2, 14, bold=True)
        page.block(EDGE, y + line / 2 - 10 * len(name), name, 14, bold=True)
        for k in range(g):
            x, (value, low, high) = EDGE + NAME + cell * k, wins[:, row, k]
            known = np.isfinite(value)
            page.box(x, y, cell - 2, line - 2, fill=_shade(value) if known else SHADE)
            if known:
                ink = "white" if abs(value - 0.5) > 0.33 else INK
                page.text(x + cell / 2, y + 12, f"{value:.0%}", 17, ink, bold=True, align="center")
                interval = f"[{low:.0%}, {high:.0%}]" if np.isfinite(low) else "interval unknown"
                page.text(x + cell / 2, y + 38, interval, 12, ink, align="center")
    page.text(EDGE, top + line * g + 16, "In brackets: 95 % intervals, other people on the same pages.", 12, MUTED)
    return page.tensor()
