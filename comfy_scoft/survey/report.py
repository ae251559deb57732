"""The report of a survey as one HTML page: sentences, images and tables in one file that needs no network."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO

import numpy as np
from PIL import Image
from torch import Tensor

from .aggregate import Analysis, GroupMetrics
from .findings import CAUTION, interval_text, minorities, order_text, report_text, warnings

STYLE = """
:root{color-scheme:light}
body{font:16px/1.5 system-ui,sans-serif;color:#1a1a1a;background:#fff;max-width:72rem;margin:2rem auto;padding:0 1rem}
h1{line-height:1.2}h2{margin-top:2.5rem}
.wide{overflow-x:auto}img{max-width:100%;height:auto;border:1px solid #d5d5d5}
table{border-collapse:collapse;margin:.5rem 0}caption{text-align:left;padding:.3rem 0;color:#555}
th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #d5d5d5;vertical-align:top}
td{font-variant-numeric:tabular-nums}
.warn{border-left:.35rem solid #b35806;padding:.1rem 1rem;background:#fdf3e7}
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a browser lets the page do: show its own images and style, and nothing else."""


def report_page(found: Analysis, images: Sequence[tuple[str, str, Tensor]]) -> str:
    """The whole page. images: (heading, what it shows in words, image (H, W, 3) in [0, 1]). All text is escaped."""
    survey = found.survey
    title = escape(survey.title)
    sections = [
        _section("What was found", "".join(f"<p>{escape(line)}</p>" for line in _found(found))),
        _warnings(warnings(found)),
        _section("Consensus", _consensus(found)),
        _section("Who sees it differently", _minorities(found)),
        *(_section(heading, _image(words, image)) for heading, words, image in images),
        _section("Average ranks", _averages(found)),
        _section("Participants", _participants(found)),
        _section("How this was computed", _method(found)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}: report</title><style>{STYLE}</style></head>\n"
        f"<body><main><h1>{title}</h1>\n" + "\n".join(s for s in sections if s) + "\n</main></body>\n</html>\n"
    )


def _section(heading: str, body: str) -> str:
    return f"<section><h2>{escape(heading)}</h2>{body}</section>" if body else ""


def _found(found: Analysis) -> list[str]:
    """The sentences of the report that are not said elsewhere on the page."""
    elsewhere = {CAUTION, *warnings(found), *(minority.sentence for minority in minorities(found))}
    return [line for line in report_text(found).splitlines() if line not in elsewhere]


def _warnings(sentences: Sequence[str]) -> str:
    if not sentences:
        return ""
    return f'<section class="warn"><h2>Warnings</h2>{"".join(f"<p>{escape(s)}</p>" for s in sentences)}</section>'


def _table(caption: str, heads: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    # a table wider than a phone scrolls by itself, with the keyboard too
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f"<table><caption>{escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _image(words: str, image: Tensor) -> str:
    pixels = (image.clamp(0, 1) * 255).round().byte().cpu().numpy()
    data = BytesIO()
    Image.fromarray(pixels).save(data, "PNG", optimize=True)
    code = base64.b64encode(data.getvalue()).decode("ascii")
    height, width = pixels.shape[:2]
    size = f'width="{width}" height="{height}"'
    return f'<p>{escape(words)}</p><img alt="{escape(words)}" {size} src="data:image/png;base64,{code}">'


def _group(found: Analysis, country: str, item: str) -> str:
    parts = [country] if country else []
    parts += [found.titles[item]] if item else []
    return " · ".join(parts) or "All together"


def _consensus(found: Analysis) -> str:
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
    return _table(
        "MMSR + Vote, best first, and noisy Bradley–Terry scores (0.5 is the average generator).",
        ("Who and what", "Consensus", "Noisy Bradley–Terry", "People"),
        rows,
    )


def _minorities(found: Analysis) -> str:
    """The rankings of those who disagree, beside the consensus."""
    rows = minorities(found)
    if not rows:
        return "<p>Every country has the consensus of all together, and nobody's own ranking runs against it.</p>"
    labels, whole = found.survey.generators, found.whole
    groups = [("All together", whole), *((minority.name, minority.cell) for minority in rows)]
    table = _table(
        "Average ranks with 95 % intervals.",
        ("", *(name for name, _ in groups)),
        [
            (label, *(interval_text(cell.average[:, k]) for _, cell in groups))
            for k, label in enumerate(labels)
        ],
    )  # fmt: skip
    return "".join(f"<p>{escape(text)}</p>" for text in (CAUTION, *(m.sentence for m in rows))) + table


def _averages(found: Analysis) -> str:
    """Every average rank, countries and items combined too."""
    return _table(
        "Average rank, 1 the best, with 95 % intervals; in the last column the number of people and rankings.",
        ("Who and what", *found.survey.generators, "People, rankings"),
        [_average_row(_group(found, *key), figures) for key, figures in sorted(found.figures.items())],
    )


def _average_row(name: str, figures: GroupMetrics) -> list[str]:
    cells = [interval_text(figures.average[:, k]) for k in range(figures.average.shape[1])]
    return [name, *cells, f"{figures.people}, {figures.rankings}"]


def _participants(found: Analysis) -> str:
    """One line a participant: numbers as in the figures; tokens and file names stay out of a page that is shared."""
    skills, table = found.whole.consensus.skills, found.table
    rows = []
    for who in table.present():
        share = f"{found.attention[who][0]:.0%}" if who in found.attention else "–"
        weight = "–" if np.isnan(skills.skill[who]) else f"{skills.weight[who]:.2f}"
        pages = len(np.unique(table.page[table.who == who]))
        rows.append((f"no. {who + 1}", table.countries[table.country[who]], str(pages), weight, share))
    return _table(
        "Weight: in the consensus; about 0 for answers like chance, below 0 against the others. Consistency: pairs "
        "ordered alike when a page came again; chance is 50 %.",
        ("Participant", "Country", "Pages", "Weight", "Consistency"),
        rows,
    )


def _method(found: Analysis) -> str:
    skills = found.whole.consensus.skills
    said = [
        "Each ranking is taken apart into comparisons of two images. M-MSR (Ma and Olshevsky, 2020) estimates how "
        "often each participant gives the answer of the consensus; a vote with these weights decides each comparison, "
        "and the majority of comparisons decides the ranks.",
        f"M-MSR took {skills.iterations} iterations" + ("." if skills.converged else " and did not settle."),
        "Intervals come from drawing the participants anew, 2000 times. They say what other people of the same "
        "community would have ranked on the same pages; they say nothing about other prompts.",
        "Pages shown a second time count for the check of attention only.",
    ]
    return "".join(f"<p>{escape(text)}</p>" for text in said) + f"<p>Survey {escape(found.survey.id)}.</p>"
