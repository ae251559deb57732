"""The report of a survey as one HTML page: sentences, images and tables in one file that needs no network."""

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
from .findings import CAUTION, interval_text, minorities, order_text, report_text, warnings


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
    cautions = warnings(found)
    sections = [
        Section("What was found", _sentences(found)),
        *([Section("Warnings", cautions, warning=True)] if cautions else []),
        Section("Consensus", table=_consensus(found)),
        _minorities(found),
        *(Section(heading, [text], image=image) for heading, text, image in images),
        Section("Average ranks", table=_averages(found)),
        Section("Participants", table=_participants(found)),
        Section("How this was computed", _method(found)),
    ]
    return render(
        Path(__file__).with_name("report.html"),
        title=found.survey.title,
        sections=sections,
        image_url=lambda image: data_url(png(image, optimize=True)),
    )


def _sentences(found: Analysis) -> list[str]:
    """The sentences of the report that are not said elsewhere on the page."""
    elsewhere = {CAUTION, *warnings(found), *(minority.sentence for minority in minorities(found))}
    return [line for line in report_text(found).splitlines() if line not in elsewhere]


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


def _minorities(found: Analysis) -> Section:
    """The rankings of those who disagree, beside the consensus."""
    heading, others = "Who sees it differently", minorities(found)
    if not others:
        text = "Every country has the consensus of all together, and nobody's own ranking runs against it."
        return Section(heading, [text])
    groups = [("All together", found.whole), *((minority.name, minority.cell) for minority in others)]
    rows = [
        (label, *(interval_text(cell.average[:, k]) for _, cell in groups))
        for k, label in enumerate(found.survey.generators)
    ]
    table = Table("Average ranks with 95 % intervals.", ("", *(name for name, _ in groups)), rows)
    return Section(heading, [CAUTION, *(minority.sentence for minority in others)], table)


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
