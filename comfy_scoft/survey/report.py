"""The report of a survey as one HTML page that needs no network: the answer first, in sentences and a chart, then the
statistics behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from ..common.files import write_atomically
from ..common.html import data_url, render
from ..data.images import png
from .aggregate import Analysis
from .build import file_name
from .findings import Minority, disagreement, interval_text, minorities, order_text, statistics, warnings
from .preferences import best_model, by_place_and_question, pairs, result, still_open, who_answered


@dataclass(frozen=True)
class Table:
    """rows: the first cell of each is its name."""

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """texts: paragraphs; the first says in words what the image shows, where there is one. image: (H, W, 3)."""

    heading: str
    texts: Sequence[str] = ()
    table: Table | None = None
    image: Tensor | None = None
    warning: bool = False


def save_report(found: Analysis, images: Sequence[tuple[str, str, Tensor]], folder: Path) -> Path:
    """Write `report_page` to a folder, named after the survey; returns its path."""
    path = folder / f"{file_name(found.survey.title)}-{found.survey.hash[:8]}.report.html"
    write_atomically(path, report_page(found, images).encode("utf-8"))
    return path


def report_page(found: Analysis, images: Sequence[tuple[str, str, Tensor]]) -> str:
    """The whole page. images: (heading, what it shows in words, image (H, W, 3) in [0, 1]). All text is escaped."""
    cautions, others = warnings(found), minorities(found)
    sections = [
        *([Section("Warnings", cautions, warning=True)] if cautions else []),
        Section("Consensus, averages and agreement", statistics(found, others), _consensus(found)),
        *([Section("Those who see it differently", table=_minorities(found, others))] if others else []),
        *(Section(heading, [text], image=image) for heading, text, image in images),
        Section("Average ranks", table=_averages(found)),
        Section("Participants", table=_participants(found)),
        Section("How this was computed", _method(found)),
    ]
    return render(
        Path(__file__).with_name("report.html"),
        title=found.survey.title,
        answered=who_answered(found),
        result=result(found),
        pairs=pairs(found.whole, found.survey.generators),
        best=best_model(found),
        detail=by_place_and_question(found),
        open=still_open(found),
        disagreement=disagreement(found, others),
        sections=sections,
        image_url=lambda image: data_url(png(image, optimize=True)),
    )


def _group(found: Analysis, country: str, item: str) -> str:
    parts = [country] if country else []
    parts += [found.titles[item]] if item else []
    return " · ".join(parts) or "All together"


def _consensus(found: Analysis) -> Table:
    labels = found.survey.generators
    rows = [
        (
            _group(found, *key),
            order_text(cell.ranks, labels),
            ", ".join(f"{label} {score:.2f}" for label, score in zip(labels, cell.check, strict=True)),
            str(cell.people),
        )
        for key, cell in found.cells.items()
    ]
    return Table(
        "MMSR + Vote, best first, and noisy Bradley–Terry scores (0.5 is the average generator).",
        ("Who and what", "Consensus", "Noisy Bradley–Terry", "People"),
        rows,
    )


def _minorities(found: Analysis, others: Sequence[Minority]) -> Table:
    """The average ranks of those who disagree, beside those of all together."""
    groups = [("All together", found.whole), *((minority.name, minority.cell) for minority in others)]
    rows = [
        (label, *(interval_text(cell.average[:, k]) for _, cell in groups))
        for k, label in enumerate(found.survey.generators)
    ]
    return Table("Average ranks with 95 % intervals.", ("", *(name for name, _ in groups)), rows)


def _averages(found: Analysis) -> Table:
    """Every average rank, countries and items combined too."""
    rows = []
    for key, figures in sorted(found.figures.items()):
        cells = [interval_text(figures.average[:, k]) for k in range(figures.average.shape[1])]
        rows.append((_group(found, *key), *cells, f"{figures.people}, {figures.rankings}"))
    return Table(
        "Average rank, 1 the best, with 95 % intervals; in the last column the number of people and rankings.",
        ("Who and what", *found.survey.generators, "People, rankings"),
        rows,
    )


def _participants(found: Analysis) -> Table:
    """One line a participant: numbers as in the figures; tokens and file names stay out of a page that is shared."""
    skills, table = found.whole.consensus.skills, found.table
    rows = []
    for who in table.present():
        share = f"{found.attention[who][0]:.0%}" if who in found.attention else "–"
        weight = "–" if np.isnan(skills.skill[who]) else f"{skills.weight[who]:.2f}"
        pages = len(np.unique(table.page[table.who == who]))
        rows.append((f"no. {who + 1}", table.countries[table.country[who]], str(pages), weight, share))
    return Table(
        "Weight: in the consensus; about 0 for answers like chance, below 0 against the others. Consistency: pairs "
        "ordered alike when a page came again; chance is 50 %.",
        ("Participant", "Country", "Pages", "Weight", "Consistency"),
        rows,
    )


def _method(found: Analysis) -> list[str]:
    skills = found.whole.consensus.skills
    return [
        "Each ranking is taken apart into comparisons of two images. M-MSR (Ma and Olshevsky, 2020) estimates how "
        "often each participant gives the answer of the consensus; a vote with these weights decides each comparison, "
        "and the majority of comparisons decides the ranks.",
        f"M-MSR took {skills.iterations} iterations" + ("." if skills.converged else " and did not settle."),
        "Intervals come from drawing the participants anew, 2000 times. They say what other people of the same "
        "community would have ranked on the same pages; they say nothing about other prompts.",
        "Pages shown a second time count for the check of attention only.",
        f"Survey {found.survey.id}.",
    ]
