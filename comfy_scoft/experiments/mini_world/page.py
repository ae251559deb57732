"""The benchmark's page from results.json alone, and its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ...common.errors import UserError
from ...common.files import regular
from ...data.images import png
from ...reports import page as report
from ..engine.estimate import Estimate
from ..engine.estimate import shown as as_text
from ..engine.page import words, write_page
from . import charts, grid, verdicts
from .arms import ALL, MPC, RELEASED, Part
from .results import load, metrics_of, results, worse
from .tables import PartTable, table
from .training import NEGATIVES, World
from .verdicts import (
    ADDED_TIME,
    CLIP_CHANGE,
    COLUMNS,
    DARK,
    DARK_AS_SAMPLE,
    DIVERSITY,
    GAP,
    GOLD,
    GROUPS,
    KID,
    KINDS,
    LEAKAGE,
    Column,
)

WORDS = words(Path(__file__).with_name("words.ini"))
MARKS = {None: "", verdicts.BETTER: report.BETTER, verdicts.WORSE: report.WORSE, verdicts.NOT_SHOWN: report.NOT_SHOWN}
VERDICT = "verdict"
MAIN = ("ablation", "careful", "combined")
"""The parts whose arms are in the first chart and among the samples."""
SAMPLES = "samples.png"
IMAGES = {"ablation": "page.png", "along training": "along.png"}
SHORT = (DARK, GOLD, *LEAKAGE, GAP, DIVERSITY, KID, CLIP_CHANGE)
JUDGED = ("careful", "combined", "fresh seeds", "ten seeds", "guidance", "corrector")
"""The parts whose arms are in the table of aims."""
ENDS = ("lowest", "highest")


def write(scene: World, folder: Path, parts: Sequence[Part] = tuple(ALL.values())) -> list[Path]:
    """Write the page of what there is and return its files; parts whose jobs are missing stay as the page has them.

    Raises UserError for a damaged file.
    """
    found = {part.name: table(part, scene) for part in parts}
    content = results(found, load(folder))
    images = chart_files(content, folder)
    whole = not any(found[name].missing for name in MAIN if name in found)
    if whole or SAMPLES not in images:  # else the page's own shows more arms
        samples = _samples(scene, found)
        images |= {SAMPLES: png(samples, optimize=True)} if samples is not None else {}
    return write_page(folder, content, as_page(content), images)


def render(folder: Path) -> list[Path]:
    """Write the page anew from its results.json. Raises UserError where there is none."""
    content = load(folder)
    if content is None:
        raise UserError(f"{folder} holds no results.json of this version: run the benchmark with --page {folder}.")
    return write_page(folder, content, as_page(content), chart_files(content, folder))


def chart_files(content: Mapping[str, Any], folder: Path) -> dict[str, bytes]:
    """PNG files by name: the charts of the metrics; and the samples, where the folder has them."""
    parts = {part["name"]: {name: metrics_of(arm) for name, arm in part["arms"].items()} for part in content["parts"]}
    main = {name: arm for part in MAIN for name, arm in parts.get(part, {}).items()}
    images = {"page.png": png(charts.interval_chart(main), optimize=True)} if main else {}
    if parts.get("along training"):
        images["along.png"] = png(charts.along_chart(parts["along training"]), optimize=True)
    samples = folder / SAMPLES
    return images | ({SAMPLES: regular(samples).read_bytes()} if samples.is_file() else {})


def _samples(scene: World, found: Mapping[str, PartTable]) -> Tensor | None:
    """Images of the main arms from the same prompts and noise, on the first seed that most of them have."""
    arms = {name: arm for part in MAIN if part in found for name, arm in found[part].arms.items()}
    seeds = [seed for arm in arms.values() for seed in arm.jobs]
    if not seeds:
        return None
    seed = max(sorted(set(seeds)), key=seeds.count)
    jobs = {name: arm.jobs[seed] for name, arm in arms.items() if seed in arm.jobs}
    form = str(next(iter(jobs.values()))["form"])
    return charts.samples(scene, {name: str(content["model"]) for name, content in jobs.items()}, seed, form)


def as_page(content: Mapping[str, Any]) -> report.Content:
    """results.json as it is shown: in short, then the parts."""
    contrastive = dict(MPC.losses)["contrastive"]
    released = dict(RELEASED[1].losses)["contrastive"]
    said = {
        name: text.format(
            grid=grid,
            verdicts=verdicts,
            arm=MPC,
            negatives=NEGATIVES,
            contrastive=contrastive,
            times=contrastive["weight"] / released["weight"],
            development_kinds=", ".join(grid.DEVELOPMENT_KINDS),
            test_kinds=", ".join(grid.TEST_KINDS),
        )
        for name, text in WORDS["page"].items()
    }
    short = _in_short(content["parts"], said)
    sections = [report.Section("In short", said["verdicts"], tables=short)] if short else []
    for part in content["parts"]:
        stored = all("values" in found for arm in part["arms"].values() for found in arm["figures"].values())
        about = f"{part['about']} Training seeds {', '.join(map(str, part['seeds']))}."
        sections.append(
            report.Section(
                part["name"].capitalize(),
                about if stored else f"{about} {said['not stored']}",
                missing=_missing(part["missing"]),
                image=IMAGES.get(part["name"], ""),
                tables=part_tables(part),
            )
        )
    versions = "; ".join(", ".join(f"{k} {v}" for k, v in one.items()) for one in content["versions"])
    introduction = (said["about"], said["kept back"], said["intervals"])
    return report.Content(said["title"], introduction, content["command"], versions or "none", tuple(sections))


def _missing(missing: Sequence[str]) -> str:
    if not missing:
        return ""
    some = ", ".join(missing[:6]) + (f" and {len(missing) - 6} more" if len(missing) > 6 else "")
    return f"Not there yet: {some}."


def _in_short(parts: Sequence[Mapping[str, Any]], said: Mapping[str, str]) -> tuple[report.Table, ...]:
    """The ablation in a few columns, and whether each arm of the other parts reaches its aims."""
    found = [_losses(part, said) for part in parts if part["name"] == "ablation" and part["arms"]]
    judged = [(part, name) for part in parts if part["name"] in JUDGED for name in part["arms"]]
    rows = [_aims(part, name) for part, name in judged if part["name"] != "guidance" or name.startswith("preset")]
    if rows:
        headings, *_ = (tuple(heading for heading, _ in row) for row in rows)
        cells = tuple(tuple(cell for _, cell in row) for row in rows)
        found.append(report.Table("The aims", said["aims"], headings, cells))
    return tuple(found)


def _losses(part: Mapping[str, Any], said: Mapping[str, str]) -> report.Table:
    """The ablation in a few columns, and in the last every metric that got worse, in whichever table it is."""
    table = _table("The losses", said["losses"], SHORT, part)
    pairs = {f"{pair['before']} → {pair['after']}": pair for pair in part["comparisons"]}
    rows = []
    for row in table.rows:
        pair = pairs.get(row[0], {"before": "base", "after": row[0]})
        rows.append((*row, _worse_than(worse(part, pair["after"]), pair["before"]) if row[0] != "base" else ""))
    return report.Table(table.title, table.about, (*table.headings, "got worse"), tuple(rows))


def _worse_than(got_worse: Mapping[str, Sequence[str]], before: str) -> str:
    """Every metric that got worse than another arm's, by name."""
    names = [COLUMNS[key].of + COLUMNS[key].heading for key in got_worse.get(before, ())]
    return "; ".join(names) or ("nothing" if before in got_worse else "not compared")


def _aims(part: Mapping[str, Any], name: str) -> list[tuple[str, str]]:
    """A row of the table of aims, (heading, cell): each metric with its verdict, all together, and what got worse."""
    arm, aim = part["arms"][name], verdicts.AIMS[part["name"]]
    metrics, own, got_worse = metrics_of(arm), arm["aims"], worse(part, name)
    sample = metrics.get(DARK_AS_SAMPLE.key)
    dark = f"{_cell(metrics.get(DARK.key), DARK)}, aim {aim.dark:.2f}"
    if sample is not None and sample.known:
        dark += f" (as a sample of kinds [{sample.low:.2f}, {sample.high:.2f}])"
    leaks = {column.key: own[column.key] for column in LEAKAGE if column.key in own}
    left = ", ".join(f"{COLUMNS[key].heading} {MARKS[said]}" for key, said in leaks.items())
    row = [
        ("", f"{name}, {part['name']}" if part["name"].endswith("seeds") else name),
        ("dark skin", dark),
        (VERDICT, MARKS[own.get(DARK.key)]),
        ("left alone", left or report.NOT_SHOWN),
        (VERDICT, MARKS[verdicts.worst(leaks)]),
    ]
    for column in (CLIP_CHANGE, ADDED_TIME):
        said = arm["figures"].get(column.key, {}).get("verdict")
        heading = column.heading.removesuffix(", share")
        row += [(heading, _cell(metrics.get(column.key), column)), (VERDICT, MARKS[own.get(column.key, said)])]
    row.append(("all aims", MARKS[own["all"]]))
    pairs = {before.split(",")[0]: before for before in got_worse}  # at the arm's own guidance
    row += [(f"worse than {arm}", _worse_than(got_worse, pairs.get(arm, arm))) for arm in ("base", "LDM", "+MPC")]
    return row


def part_tables(part: Mapping[str, Any]) -> tuple[report.Table, ...]:
    """The tables that a part of results.json has metrics for."""
    return tuple(
        _table(title, WORDS["tables"][title], columns, part, kinds=title == KINDS)
        for title, columns in GROUPS.items()
        if any(column.key in arm["figures"] for column in columns for arm in part["arms"].values())
    )


def _table(
    title: str, about: str, columns: Sequence[Column], part: Mapping[str, Any], *, kinds: bool = False
) -> report.Table:
    """One row an arm, then one a comparison of two arms; a verdict beside each metric that has one in some row."""
    arms = {name: arm["figures"] for name, arm in part["arms"].items()}
    shown = [c for c in columns if any(c.key in found for found in arms.values())]
    pairs = {f"{p['before']} → {p['after']}": p["changes"] for p in part["comparisons"]}
    pairs = {name: found for name, found in pairs.items() if any(c.key in found for c in shown)}
    rows = [*arms.values(), *pairs.values()]
    judged = [c.key for c in shown if any("verdict" in found.get(c.key, {}) for found in rows)]
    headings = [name for c in shown for name in ((c.heading, VERDICT) if c.key in judged else (c.heading,))]
    body: list[tuple[str, ...]] = []
    for found, changes in ((arms, False), (pairs, True)):
        for name, metrics in found.items():
            cells = [_kind(part["arms"].get(name, {}), end) for end in ENDS] if kinds else []
            for column in shown:
                own = metrics.get(column.key, {})
                cells.append(_cell(Estimate.from_json(own) if own else None, column, changes=changes))
                cells += [MARKS[own.get("verdict")]] if column.key in judged else []
            body.append((name, *cells))
    return report.Table(title, about, ("", *(ENDS if kinds else ()), *headings), tuple(body))


def _kind(arm: Mapping[str, Any], end: str) -> str:
    if "kinds" not in arm:
        return report.NOT_SHOWN
    kind, share = arm["kinds"][end]
    return f"{share:.2f} ({kind})"


def _cell(estimate: Estimate | None, column: Column, *, changes: bool = False) -> str:
    if estimate is None:
        return report.NOT_SHOWN
    return shown(estimate, column.digits, signed=column.change or changes)


def shown(estimate: Estimate, digits: int = 2, *, signed: bool = False) -> str:
    """ "0.61 [0.52, 0.70]"; with ¹ where it rests on one training."""
    return as_text(estimate.interval, digits, signed=signed) + (" ¹" if estimate.seeds < 2 else "")
