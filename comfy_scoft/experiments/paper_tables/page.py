"""results.json as Markdown and HTML: one's own tables, the paper's published values beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...data.images import png, read_pixels
from ...metrics.clip_score import CAUTION
from ...reports.page import NOT_SHOWN, Content, Section, Table
from ...reports.plots.sheets import compare_grid
from ..engine.estimate import shown as as_text
from ..engine.page import write_page
from . import paper
from .arms import MAIN, MEMORY, Arm
from .measure import Figure, interval_of
from .results import WORDS
from .train import ImageFiles

SAID = WORDS["page"]
PUBLISHED = " (the paper)"
HEADINGS = {
    **{item: f"rank: {item}" for item in paper.ITEMS},
    paper.KID_OWN: "KID to the test split ×10³",
    paper.KID_GENERIC: "KID to the generic set ×10³",
}
COLUMNS = 6
"""Prompts in the image of samples."""
Values = Mapping[str, Mapping[str, Any]]
"""Arm's name -> column -> figure."""


def write(folder: Path, results: Mapping[str, Any], samples: Mapping[str, ImageFiles]) -> list[Path]:
    """Write results.json, page.md and page.html, and an image of samples; returns the files."""
    return write_page(folder, results, content(results), {"samples.png": _samples(samples)} if samples else {})


def content(found: Mapping[str, Any]) -> Content:
    """The page of a run's results."""
    sections = [Section("What was compared", _compared(found))]
    for number, section in ((1, _table_1), (2, _table_2), (4, _table_4)):
        if number in found["settings"]["tables"]:
            sections.append(section(found))
    sections.append(Section("What is ours", "", tuple(found["choices"])))
    introduction = ((SAID["short"],) if found["short"] else ()) + (SAID["about"],)
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return Content(SAID["title"], introduction, found["command"], versions, tuple(sections))


def _compared(found: Mapping[str, Any]) -> str:
    settings, train = found["settings"], found["settings"]["train"]
    return SAID["compared"].format(
        cultures="; ".join(
            f"{c['name']}: {c['training pictures']} training and {len(c['test pictures'])} test images"
            for c in found["cultures"]
        ),
        settings=settings,
        train=train,
        images=train["batch_size"] * train["accumulation"],
        device=found["device"],
        files="; ".join(f"{role} {' '.join(facts)}" for role, facts in found["files"].items()),
    )


def _table_1(found: Mapping[str, Any]) -> Section:
    human = found["human"] or {"people": 0, "ranks": {}}
    people = f"Ranks of {human['people']} people." if human["people"] else "Nobody has ranked the images yet."
    own = {name: {**means, **human["ranks"].get(name, {})} for name, means in found["means"].items()}
    columns = {name: name for name in (*paper.AUTOMATIC, *paper.ITEMS)}
    pages = [f"Survey page, {culture}: {page}" for culture, page in found["surveys"].items()]
    about = SAID["Table 1"].format(people=people, caution=CAUTION)
    return Section("Table 1", about, tuple(pages), tables=(_table(MAIN, columns, own, paper.TABLE_1),))


def _table_2(found: Mapping[str, Any]) -> Section:
    own = {
        name: {**means, paper.CLIP_SCORE: means.get(f"{paper.CLIP_SCORE}, test prompts")}
        for name, means in found["means"].items()
    }
    columns = {name: name for name in paper.MEMORY}
    return Section("Table 2", SAID["Table 2"], tables=(_table(MEMORY, columns, own, paper.TABLE_2),))


def _table_4(found: Mapping[str, Any]) -> Section:
    tables = []
    for metric in paper.AUTOMATIC:
        own: dict[str, dict[str, Any]] = {arm.name: {} for arm in MAIN}
        theirs: dict[str, dict[str, Any]] = {arm.name: {} for arm in MAIN}
        cultures = dict.fromkeys((culture["name"] for culture in found["cultures"]), metric)
        for arm in own:
            for culture in cultures:
                own[arm][culture] = found["figures"].get(culture, {}).get(arm, {}).get(metric)
                theirs[arm][culture] = paper.TABLE_4[metric][arm].get(paper.code(culture))
        tables.append(_table(MAIN, cultures, own, theirs, HEADINGS.get(metric, metric)))
    return Section("Table 4", SAID["Table 4"].format(caution=CAUTION), tables=tuple(tables))


def _table(arms: Sequence[Arm], columns: Mapping[str, str], own: Values, theirs: Values, title: str = "") -> Table:
    """Two rows an arm: what was measured, and what the paper has. columns: column -> its metric."""
    rows = []
    for name in (arm.name for arm in arms):
        rows.append((name, *(shown(own.get(name, {}).get(one), metric) for one, metric in columns.items())))
        rows.append((name + PUBLISHED, *(published(theirs[name][one], metric) for one, metric in columns.items())))
    return Table(title, "", ("model", *(HEADINGS.get(one, one) for one in columns)), tuple(rows))


def shown(figure: Figure | None, name: str) -> str:
    """ "22.64 [20.10, 25.31]"; "–" for what was not measured."""
    digits = 2 if name.startswith("KID") or name in paper.ITEMS else 3
    return NOT_SHOWN if figure is None else as_text(interval_of(figure), digits)


def published(value: float | None, name: str) -> str:
    """A figure as the paper prints it; "–" for a culture that its table lacks."""
    return NOT_SHOWN if value is None else f"{value:.{2 if name in paper.ITEMS else 3}f}"


def _samples(sets: Mapping[str, ImageFiles]) -> bytes:
    """Images of the models from the same prompts and noise, as PNG."""
    first = next(iter(sets.values())).spec
    rows = [
        (name, [read_pixels(path).add(1.0).div(2.0).permute(1, 2, 0) for path in files.paths[:COLUMNS]])
        for name, files in sets.items()
    ]
    return png(compare_grid(rows, first.prompts[:COLUMNS], first.seeds[:COLUMNS], COLUMNS))
