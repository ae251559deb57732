"""The benchmark's page from results.json alone, and its images."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ...common.errors import UserError
from ...data.images import png
from ...reports import page as report
from ..engine.estimate import Estimate
from ..engine.estimate import shown as as_text
from ..engine.page import write_page
from . import charts, text, verdicts
from .arms import ALL, Part
from .columns import (
    ADDED_TIME,
    CLIP_CHANGE,
    COLUMNS,
    DARK,
    DARK_AS_SAMPLE,
    DIVERSITY,
    GAP,
    GROUPS,
    KID,
    LEAKAGE,
    Column,
)
from .results import has_values, load, metrics_of, results, worse
from .tables import PartTable, table
from .training import World

EXTRA = "added"
"""Folder below --out with parts that other programs measured: one JSON each (`added_parts`)."""
MARKS = {verdicts.BETTER: report.BETTER, verdicts.WORSE: report.WORSE, verdicts.NOT_SHOWN: report.NOT_SHOWN}
VERDICT = "verdict"
MAIN = ("ablation", "careful", "combined")
"""The parts whose arms are in the first chart and among the samples."""
IMAGES = {"ablation": "page.png", "along training": "along.png"}
SHORT = (DARK, *LEAKAGE, GAP, DIVERSITY, KID)
Rows = list[tuple[str, ...]]


def write(scene: World, folder: Path, parts: Sequence[Part] = tuple(ALL.values())) -> list[Path]:
    """Write the page of what there is and return its files; parts whose jobs are missing stay as the page has them.

    Raises UserError for a damaged file.
    """
    found = {part.name: table(part, scene) for part in parts}
    content = results(found, added_parts(scene.out / EXTRA), load(folder))
    images = drawn_images(content, folder)
    samples = _samples(scene, found)
    return write_page(
        folder, content, as_page(content), images | ({"samples.png": png(samples)} if samples is not None else {})
    )


def render(folder: Path) -> list[Path]:
    """Write the page anew from its results.json. Raises UserError where there is none."""
    content = load(folder)
    if content is None:
        raise UserError(f"{folder} holds no results.json of this version: run the benchmark with --page {folder}.")
    return write_page(folder, content, as_page(content), drawn_images(content, folder))


def drawn_images(content: Mapping[str, Any], folder: Path) -> dict[str, bytes]:
    """PNG files by name: the charts of the metrics; and the samples, where the folder has them."""
    parts = {part["name"]: {name: metrics_of(arm) for name, arm in part["arms"].items()} for part in content["parts"]}
    main = {name: arm for part in MAIN for name, arm in parts.get(part, {}).items()}
    images = {"page.png": png(charts.interval_chart(main), optimize=True)} if main else {}
    if parts.get("along training"):
        images["along.png"] = png(charts.along_chart(parts["along training"]), optimize=True)
    samples = folder / "samples.png"
    return images | ({"samples.png": samples.read_bytes()} if samples.is_file() else {})


def _samples(scene: World, found: Mapping[str, PartTable]) -> Tensor | None:
    """Images of the main arms from the same prompts and noise, on the first seed that most of them have."""
    arms = {name: arm for part in MAIN if part in found for name, arm in found[part].arms.items()}
    seeds = [seed for arm in arms.values() for seed in arm.jobs]
    if not seeds:
        return None
    seed = max(sorted(set(seeds)), key=seeds.count)
    jobs = {name: arm.jobs[seed] for name, arm in arms.items() if seed in arm.jobs}
    if any(part in found and found[part].missing for part in MAIN):
        return None  # the page's own image has more of them
    form = str(next(iter(jobs.values()))["form"])
    return charts.samples(scene, {name: str(content["model"]) for name, content in jobs.items()}, seed, form)


def added_parts(folder: Path) -> list[dict[str, Any]]:
    """Parts that other programs measured: {"title", "about", "columns": [...], "rows": [[name, cell, …]], "reading":
    [sentence, …]} in one JSON file each, cells as text. Raises UserError, one sentence, for another form."""
    parts = []
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if any(len(row) != len(content["columns"]) for row in content["rows"]):
                raise ValueError("a row is not as long as the columns")
            parts.append({key: content[key] for key in ("title", "about", "columns", "rows", "reading")})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"The added part {path.name} cannot be read: give it title, about, columns, rows as long as these, and "
                "reading."
            ) from error
    return parts


def as_page(content: Mapping[str, Any]) -> report.Content:
    """results.json as it is shown: in short, the parts, then those that other programs measured."""
    short = _in_short(content["parts"])
    sections = [report.Section("In short", text.VERDICTS, tables=short)] if short else []
    sections += [
        report.Section(
            part["name"].capitalize(),
            " ".join((part["about"], f"Training seeds {', '.join(map(str, part['seeds']))}.", *_unstored(part))),
            missing=_missing(part["missing"]),
            image=IMAGES.get(part["name"], ""),
            tables=part_tables(part),
        )
        for part in content["parts"]
    ]
    for part in content["added"]:
        own = report.Table("", "", tuple(part["columns"]), tuple(map(tuple, part["rows"])))
        sections.append(report.Section(part["title"], part["about"], tuple(part["reading"]), tables=(own,)))
    versions = "; ".join(", ".join(f"{k} {v}" for k, v in one.items()) for one in content["versions"])
    introduction = (text.ABOUT, text.KEPT_BACK, text.INTERVAL)
    return report.Content(text.TITLE, introduction, content["command"], versions or "none", tuple(sections))


def _unstored(part: Mapping[str, Any]) -> tuple[str, ...]:
    return () if has_values(part) else (text.UNSTORED,)


def _missing(missing: Sequence[str]) -> str:
    if not missing:
        return ""
    some = ", ".join(missing[:6]) + (f" and {len(missing) - 6} more" if len(missing) > 6 else "")
    return f"Not there yet: {some}."


def _in_short(parts: Sequence[Mapping[str, Any]]) -> tuple[report.Table, ...]:
    """The ablation in a few columns, and whether each arm of the other parts reaches its aims."""
    found = [
        _table("The losses", text.SHORT, SHORT, part) for part in parts if part["name"] == "ablation" and part["arms"]
    ]
    rows = [_aims(part, name) for part in parts for name in part["arms"] if part["name"] in text.IN_SHORT]
    headings = ("", *(name for heading in text.AIM_HEADINGS for name in (heading, VERDICT)), "all aims", *text.WORSE)
    return (*found, *([report.Table("The aims", text.AIMS, headings, tuple(rows))] if rows else []))


def _aims(part: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A row of the table of aims: each metric with its verdict, all together, and everything that got worse."""
    arm, aim = part["arms"][name], verdicts.AIMS[part["name"]]
    metrics, own = metrics_of(arm), arm["aims"]
    called = f"{name}, {part['name']}" if part["name"].endswith("seeds") else name
    sample = metrics.get(DARK_AS_SAMPLE.key)
    dark = f"{_cell(metrics.get(DARK.key), DARK)}, aim {aim.dark:.2f}"
    if sample is not None and sample.known:
        dark += f" (as a sample of kinds [{sample.low:.2f}, {sample.high:.2f}])"
    places = [column for column in LEAKAGE if column.key in own]
    left = ", ".join(f"{column.heading} {MARKS[own[column.key]]}" for column in places) or report.NOT_SHOWN
    cells = [dark, _mark(own.get(DARK.key)), left, _mark(verdicts.worst({c.key: own[c.key] for c in places}))]
    for column in (CLIP_CHANGE, ADDED_TIME):
        found = arm["figures"].get(column.key, {})
        cells += [_cell(metrics.get(column.key), column), _mark(own.get(column.key, found.get("verdict")))]
    got_worse = worse(part, name)
    lists = [_headings(got_worse.get(before)) for before in ("base", "+MPC")]
    return (called, *cells, _mark(own["all"]), *lists)


def _headings(keys: Sequence[str] | None) -> str:
    """The names of metrics that got worse."""
    if keys is None:
        return ""
    return "; ".join(COLUMNS[key].of + COLUMNS[key].heading for key in keys) or "nothing"


def part_tables(part: Mapping[str, Any]) -> tuple[report.Table, ...]:
    """The tables that a part of results.json has metrics for."""
    found = []
    for group in GROUPS:
        kinds = group is GROUPS[-1]
        if any(column.key in arm["figures"] for column in group.columns for arm in part["arms"].values()):
            found.append(_table(group.title, group.about, group.columns, part, kinds=kinds))
    return tuple(found)


def _table(
    title: str, about: str, columns: Iterable[Column], part: Mapping[str, Any], *, kinds: bool = False
) -> report.Table:
    """One row an arm, then one a comparison of two arms; a verdict beside each metric that has one in some row."""
    rows = {name: arm["figures"] for name, arm in part["arms"].items()}
    shown = [c for c in columns if any(c.key in found for found in rows.values())]
    pairs = {f"{p['before']} → {p['after']}": p["changes"] for p in part["comparisons"]}
    pairs = {name: found for name, found in pairs.items() if any(c.key in found for c in shown)}
    judged = {
        c.key for c in shown if any("verdict" in found.get(c.key, {}) for found in (*rows.values(), *pairs.values()))
    }
    headings = [name for c in shown for name in ((c.heading, VERDICT) if c.key in judged else (c.heading,))]
    body: Rows = []
    for found, changes in ((rows, False), (pairs, True)):
        for name, metrics in found.items():
            cells = []
            for column in shown:
                own = metrics.get(column.key)
                estimate = Estimate.from_json(own) if own else None
                cells.append(_cell(estimate, column, changes=changes))
                cells += [_mark((own or {}).get("verdict"))] if column.key in judged else []
            ends = [_kind(part["arms"][name], end) for end in ("lowest", "highest")] if kinds else []
            body.append((name, *ends, *cells))
    return report.Table(title, about, ("", *(("lowest", "highest") if kinds else ()), *headings), tuple(body))


def _kind(arm: Mapping[str, Any], end: str) -> str:
    if "kinds" not in arm:
        return report.NOT_SHOWN
    kind, share = arm["kinds"][end]
    return f"{share:.2f} ({kind})"


def _mark(verdict: str | None) -> str:
    return MARKS[verdict] if verdict else ""


def _cell(estimate: Estimate | None, column: Column, *, changes: bool = False) -> str:
    if estimate is None:
        return report.NOT_SHOWN
    return shown(estimate, column.digits, signed=column.change or changes)


def shown(estimate: Estimate, digits: int = 2, *, signed: bool = False) -> str:
    """ "0.61 [0.52, 0.70]"; with ¹ where it rests on one training."""
    return as_text(estimate.interval, digits, signed=signed) + (" ¹" if estimate.seeds < 2 else "")
