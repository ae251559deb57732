"""A report of tables and images as Markdown and as one HTML file that needs nothing else, readable on a phone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..common.html import data_url, render

SAMPLES = "What the models generate from the same prompts and noise"
BETTER, WORSE, NOT_SHOWN = "✓", "✗", "–"
"""Verdicts, each in a cell of its own beside the interval that it is of."""


@dataclass(frozen=True)
class Table:
    """headings: the first is that of the rows' names; rows: as many cells each, as text."""

    title: str
    about: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """notes: sentences, shown as a list. image: the name of a file, or ""."""

    title: str
    about: str
    notes: tuple[str, ...] = ()
    missing: str = ""
    image: str = ""
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Content:
    """What the page says, in whatever form it is written. samples: the name of the image after the first section."""

    title: str
    introduction: tuple[str, ...]
    command: str
    versions: str
    sections: tuple[Section, ...]
    samples: str = "samples.png"


def markdown(page: Content, images: Mapping[str, bytes]) -> str:
    """The page as Markdown, beside the files of its images."""
    lines = [f"# {page.title}", ""]
    for text in page.introduction:
        lines += [text, ""]
    lines += [f"Repeat it with `{page.command}`.", ""]
    for number, section in enumerate(page.sections):
        if number == 1 and page.samples in images:
            lines += [f"![{SAMPLES}]({page.samples})", ""]
        lines += [f"## {section.title}", "", *([section.about, ""] if section.about else [])]
        lines += [section.missing, ""] if section.missing else []
        if section.image in images:
            lines += [f"![{section.title}: metrics with intervals]({section.image})", ""]
        lines += [f"- {note}" for note in section.notes]
        for table in section.tables:
            lines += ["", f"**{table.title}.** {table.about}", ""] if table.title else [""]
            lines += [_row(table.headings), "|" + "---|" * len(table.headings), *map(_row, table.rows)]
        lines.append("")
    return "\n".join([*lines, f"Versions: {page.versions}.", ""])


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def html(page: Content, images: Mapping[str, bytes]) -> str:
    """The page as HTML, its images inside."""
    return render(
        Path(__file__).with_name("page.html"),
        page=page,
        images={name: data_url(data) for name, data in images.items()},
        samples=SAMPLES,
        classes={BETTER: "better", WORSE: "worse"},
    )
