"""results.json as Markdown and HTML: one's own tables, the paper's published values beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...data.images import png, read_pixels
from ...metrics.clip_score import CAUTION
from ...metrics.intervals import Interval
from ...reports.page import Content, Section, Table
from ...reports.plots.sheets import compare_grid
from ..engine.estimate import shown as as_text
from ..engine.page import write_page
from . import paper
from .arms import MAIN, MEMORY
from .train import ImageFiles

PUBLISHED = " (the paper)"
HEADINGS = {
    "alignment": "rank: alignment",
    "representation": "rank: representation",
    "stereotypes": "rank: stereotypes",
    "offensiveness": "rank: offensiveness",
    paper.KID_OWN: "KID to the test split ×10³",
    paper.KID_GENERIC: "KID to the generic set ×10³",
}
COLUMNS = 6
"""Prompts in the image of samples."""


def write(folder: Path, results: Mapping[str, Any], samples: Mapping[str, ImageFiles]) -> list[Path]:
    """Write results.json, page.md and page.html, and an image of samples; returns the files."""
    return write_page(folder, results, content(results), {"samples.png": _samples(samples)} if samples else {})


def content(found: Mapping[str, Any]) -> Content:
    """The page of a run's results."""
    tables = found["settings"]["tables"]
    sections = [Section("What was compared", _compared(found))]
    sections += [_table_1(found)] if 1 in tables else []
    sections += [_table_2(found)] if 2 in tables else []
    sections += [_table_4(found)] if 4 in tables else []
    sections.append(Section("What is ours", "", tuple(found["choices"])))
    words = [
        "Rows named “(the paper)” are the values that Liu et al. (CVPR 2024) publish, of their models, images and "
        "data; all others were measured here. In brackets: 95 % intervals, over the images (KID) or the prompts of "
        "one training. They do not say how another training or another test split would come out."
    ]
    if found["short"]:
        words.insert(0, "This is the short form: it shows that all of it runs, and its metrics mean nothing.")
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return Content("The paper's tables, measured here", tuple(words), found["command"], versions, tuple(sections))


def _compared(found: Mapping[str, Any]) -> str:
    settings = found["settings"]
    cultures = "; ".join(
        f"{c['name']}: {c['training pictures']} training and {len(c['test pictures'])} test images"
        for c in found["cultures"]
    )
    files = "; ".join(f"{role} {' '.join(facts)}" for role, facts in found["files"].items())
    train = settings["train"]
    return (
        f"{cultures}. {train['steps']} optimizer steps of {train['batch_size'] * train['accumulation']} images at "
        f"{settings['side']} pixels, LoRA rank {settings['lora']['rank']}, seed {settings['seed']}, on "
        f"{found['device']}. Files, with the beginning of their SHA-256: {files}."
    )


def _table_1(found: Mapping[str, Any]) -> Section:
    human = found["human"] or {"people": 0, "ranks": {}}
    columns = (*paper.AUTOMATIC, *paper.ITEMS)
    rows = []
    for arm in MAIN:
        own = {**found["means"].get(arm.name, {}), **human["ranks"].get(arm.name, {})}
        rows.append((arm.name, *(shown(own.get(name), name) for name in columns)))
        rows.append((arm.name + PUBLISHED, *(published(paper.TABLE_1[arm.name][name], name) for name in columns)))
    people = f"Ranks of {human['people']} people." if human["people"] else "Nobody has ranked the images yet."
    pages = [f"Survey page, {culture}: {page}" for culture, page in found["surveys"].items()]
    about = f"Means over cultures. {people} Average ranks: 1 is the best. {CAUTION}"
    return Section("Table 1", about, tuple(pages), tables=(_table(columns, rows),))


def _table_2(found: Mapping[str, Any]) -> Section:
    rows = []
    for arm in MEMORY:
        own = found["means"].get(arm.name, {})
        keys = [f"{name}, test prompts" if name == paper.CLIP_SCORE else name for name in paper.MEMORY]
        cells = (shown(own.get(key), name) for key, name in zip(keys, paper.MEMORY, strict=True))
        rows.append((arm.name, *cells))
        theirs = paper.TABLE_2[arm.name]
        rows.append((arm.name + PUBLISHED, *(published(theirs[name], name) for name in paper.MEMORY)))
    about = (
        "Means over cultures. CLIP-I, DINO and DreamSim: mean cosine of generated images to the training image of the "
        "same prompt, lower is less memorized. DIV: mean distance among images of one prompt, higher is more varied. "
        "SCoFT+M is the paper's “Finetune w/ L_M”."
    )
    return Section("Table 2", about, tables=(_table(paper.MEMORY, rows),))


def _table_4(found: Mapping[str, Any]) -> Section:
    cultures = [culture["name"] for culture in found["cultures"]]
    tables = []
    for metric in paper.AUTOMATIC:
        rows = []
        for arm in MAIN:
            own = [found["figures"].get(culture, {}).get(arm.name, {}).get(metric) for culture in cultures]
            theirs = [paper.TABLE_4[metric][arm.name].get(paper.code(culture)) for culture in cultures]
            rows.append((arm.name, *(shown(one, metric) for one in own)))
            rows.append((arm.name + PUBLISHED, *(published(one, metric) for one in theirs)))
        tables.append(_table(cultures, rows, HEADINGS.get(metric, metric)))
    return Section("Table 4", f"By culture. {CAUTION}", tables=tuple(tables))


def _table(columns: Sequence[str], rows: Sequence[tuple[str, ...]], title: str = "") -> Table:
    return Table(title, "", ("model", *(HEADINGS.get(name, name) for name in columns)), tuple(rows))


def shown(figure: Mapping[str, Any] | None, name: str) -> str:
    """ "22.64 [20.10, 25.31]"; "–" for what was not measured."""
    if figure is None:
        return "–"
    ends = Interval(*(math.nan if figure[end] is None else figure[end] for end in Interval._fields))
    return as_text(ends, 2 if name.startswith("KID") or name in paper.ITEMS else 3)


def published(value: float | None, name: str) -> str:
    """A figure as the paper prints it; "–" for a culture that its table lacks."""
    return "–" if value is None else f"{value:.{2 if name in paper.ITEMS else 3}f}"


def _samples(sets: Mapping[str, ImageFiles]) -> bytes:
    """Images of the models from the same prompts and noise, as PNG."""
    first = next(iter(sets.values())).spec
    some = range(min(COLUMNS, len(first.prompts)))
    rows = [
        (name, [read_pixels(files.paths[i]).add(1.0).div(2.0).permute(1, 2, 0) for i in some])
        for name, files in sets.items()
    ]
    return png(compare_grid(rows, [first.prompts[i] for i in some], [first.seeds[i] for i in some], COLUMNS))
