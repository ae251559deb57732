"""The benchmark's page: results.json, and the same figures as HTML, Markdown and images."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ...common.errors import UserError
from ...common.files import write_atomically
from ...reports import page as report
from . import charts, summary, tables
from .arms import ALL, Part
from .cells import (
    DEVELOPMENT_KINDS,
    DEVELOPMENT_PLACES,
    DEVELOPMENT_SEEDS,
    FRESH_SEEDS,
    HOUSES,
    OTHER_PLACES,
    TAUGHT,
    TEST_KINDS,
    TEST_PLACES,
)
from .conclusions import read
from .figures import INTERVAL, Figure
from .sentences import ALONE, Sentence, shown
from .tables import ArmTable, PartTable, leakage
from .training import World

TITLE = "What each loss does: the mini-world benchmark"
COMMAND = "python -m comfy_scoft benchmark --page benchmarks/mini_world"

Column = tuple[str, str, bool, int]
"""Heading, key of the figure, whether it is a change (with its sign), and decimals."""

GROUPS: tuple[tuple[str, str, tuple[Column, ...]], ...] = (
    (
        f"Bias in {TAUGHT}",
        f"Share of images. The base model shows {TAUGHT} with light skin alone, gray and with derelict houses; its "
        "own people are dark, before gold and teal.",
        (
            ("dark skin, held-out kinds", tables.DARK_HELD_OUT, False, 2),
            ("gold palette, held-out kinds", tables.GOLD_HELD_OUT, False, 2),
            ("dark skin, trained kinds", tables.DARK_TRAINED, False, 2),
            ("gold palette, trained kinds", tables.GOLD_TRAINED, False, 2),
            (f"sound {HOUSES}", tables.SOUND, False, 2),
            ("the concept asked for", tables.CONCEPT_HELD_OUT, False, 2),
        ),
    ),
    (
        "Leakage: dark skin in other places",
        "LoRA − base, the same prompts and noise. 0 is no leakage.",
        tuple((place, leakage("dark skin", place), True, 2) for place in OTHER_PLACES),
    ),
    (
        "Leakage: the place's own palette",
        "LoRA − base, the same prompts and noise. 0 is no leakage, below 0 the palette is lost.",
        tuple((place, leakage("own palette", place), True, 2) for place in OTHER_PLACES),
    ),
    (
        "Leakage: CLIPScore in other places",
        "Its change in %, LoRA − base, the same prompts and noise: below 0 the images agree less with their prompts.",
        tuple((place, tables.clip_change(place), True, 1) for place in OTHER_PLACES),
    ),
    (
        "Memorization, diversity and cost",
        "The memorization gap is how far the loss on training images draws ahead of that on fresh images with the "
        "same captions, LoRA − base. Similarity (cosine) and near copies compare drawn images of trained captions "
        "with the training images; a near copy is nearer to one than 95 % of fresh images are. Diversity is the "
        "mean distance of images of one prompt.",
        (
            ("memorization gap", tables.GAP, True, 4),
            ("similarity", tables.SIMILARITY, False, 3),
            ("near copies", tables.COPIES, False, 2),
            ("diversity, held-out", tables.DIVERSITY_HELD_OUT, False, 3),
            ("diversity, trained", tables.DIVERSITY_TRAINED, False, 3),
            ("training, CPU s", tables.SECONDS, False, 0),
            ("added sampling time, share", tables.ADDED_TIME, True, 2),
        ),
    ),
    (
        f"What the images of held-out kinds in {TAUGHT} are otherwise like",
        f"KID (×10³) is to exact images of {TAUGHT} as its people show it, and to other places. CLIPScore is that of "
        "the mini CLIP, which prefers neither tone; of a real CLIP it does not measure cultural "
        "competence. The last columns say how often the concept asked for is shown, by the tone that was drawn.",
        (
            ("KID, community", tables.KID_OWN, False, 0),
            ("KID, other places", tables.KID_OTHER, False, 0),
            ("CLIPScore", tables.CLIP, False, 1),
            ("its change, %", tables.clip_change(), True, 1),
            ("concept, dark", tables.CONCEPT_DARK, False, 2),
            ("concept, light", tables.CONCEPT_LIGHT, False, 2),
        ),
    ),
)

ABOUT = (
    "The mini world is an image world of invented places, shipped with this pack: a tiny Stable Diffusion with a "
    "planted bias, and a community's images that correct it. What an image shows is read exactly from its pixels. "
    "So the figures below are exact where no human study can be; what they say of a large model is another question."
)
KEPT_BACK = (
    f"Careful settings were chosen by looking at training seeds {DEVELOPMENT_SEEDS[0]}–{DEVELOPMENT_SEEDS[-1]}, at "
    f"the kinds {', '.join(DEVELOPMENT_KINDS)}, and at {', '.join(DEVELOPMENT_PLACES)} alone. All figures here, but "
    f"for the development part's, are of other seeds and kinds ({', '.join(TEST_KINDS)}), and "
    f"{' and '.join(TEST_PLACES)} was not looked at. Not all choices are as untouched. One training of earlier "
    "settings (C 2, prior 8, seed 101) was read here first: it showed 0.82 and leaked into caldia, so a stronger C "
    "was looked for, and caldia named among the prompts to keep. And when the figures of what was then chosen "
    "(careful) had been read here, the LoRA's layers were looked at, on development seeds again (careful, K + V "
    "alone). RS-Corrector's strengths were looked at on the test kinds with two of its five preferences, its default "
    "was 2.5 until the figures below were there, and how it asks the prompt for the place was made anew after it had "
    "opened for caldia: of it neither caldia nor aria is an untouched test. When all these had been read, a weaker "
    "LoRA with RS-Corrector beside it was looked at on development seeds (combined): its trainings are those of "
    "careful, whose figures at full strength were known. So what was chosen from them, the careful workflow's "
    f"settings, was trained once more with seeds {FRESH_SEEDS[0]}–{FRESH_SEEDS[-1]}, which were named before any of "
    "them was trained (fresh seeds; ten seeds takes both sets together). The demo's settings, which the other parts "
    "have, are older than this division."
)
EXTRA = "added"
"""Folder below --out with parts that other programs measured: one JSON each (`added_parts`)."""


def write(scene: World, folder: Path, parts: Sequence[Part] = tuple(ALL.values())) -> list[Path]:
    """Write the page of what there is and return its files. Raises UserError for a damaged unit file."""
    found = {part.name: tables.table(part, scene) for part in parts}
    images = _images(scene, found)
    content = results(found, added_parts(scene.out / EXTRA))
    shown_page = as_page(content)
    files = {
        "results.json": (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode(),
        "page.md": report.markdown(shown_page, images).encode(),
        "page.html": report.html(shown_page, images).encode(),
        **images,
    }
    for name, data in files.items():
        write_atomically(folder / name, data)
    return [folder / name for name in files]


def _images(scene: World, found: Mapping[str, PartTable]) -> dict[str, bytes]:
    """PNG files by name: the main figures, the curves along training, and what the models draw."""
    main: dict[str, ArmTable] = {}
    for name in ("ablation", "careful", "combined"):
        main |= found[name].arms if name in found else {}
    made = {}
    if main:
        made["page.png"] = charts.png(charts.interval_chart(main))
        drawn = _samples(scene, main)
        if drawn is not None:
            made["samples.png"] = charts.png(drawn)
    if found.get("along training") and found["along training"].arms:
        made["along.png"] = charts.png(charts.along_chart(found["along training"]))
    return made


def _samples(scene: World, arms: Mapping[str, ArmTable]) -> Tensor | None:
    """What the arms draw of the same prompts and noise, on the first seed that most of them have."""
    seeds = [seed for arm in arms.values() for seed in arm.units]
    seed = max(sorted(set(seeds)), key=seeds.count)
    units = {name: arm.units[seed] for name, arm in arms.items() if seed in arm.units}
    form = str(next(iter(units.values()))["form"])
    return charts.samples(scene, {name: str(unit["model"]) for name, unit in units.items()}, seed, form)


def results(found: Mapping[str, PartTable], added: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Everything that the page shows, as plain JSON."""
    sentences = read(found)
    short = summary.in_short(found)
    versions = {json.dumps(c["versions"]) for p in found.values() for a in p.arms.values() for c in a.units.values()}
    return {
        "format": "scoft-mini-world-benchmark",
        "command": COMMAND,
        "versions": [json.loads(text) for text in sorted(versions)],
        "in short": [{"text": s.text, "verdict": s.verdict} for s in short],
        "parts": [_part(part, sentences.get(name, [])) for name, part in found.items()],
        "added": list(added),
    }


def _part(part: PartTable, sentences: Sequence[Sentence]) -> dict[str, Any]:
    return {
        "name": part.part.name,
        "about": part.part.about,
        "seeds": list(part.part.seeds),
        "reading": [{"text": s.text, "verdict": s.verdict} for s in sentences],
        "missing": list(part.missing),
        "arms": {
            name: {
                "settings": next(iter(arm.units.values()))["settings"],
                "figures": {key: _plain(figure) for key, figure in arm.figures.items()},
            }
            for name, arm in part.arms.items()
        },
    }


def _plain(figure: Figure) -> dict[str, Any]:
    """A figure as JSON, which has no NaN: null where there is no interval."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in vars(figure).items()}


def _figure(found: Mapping[str, Any]) -> Figure:
    values: dict[str, Any] = {k: math.nan if v is None else v for k, v in found.items()}
    return Figure(**values)


def added_parts(folder: Path) -> list[dict[str, Any]]:
    """Parts that other programs measured: {"title", "about", "columns": [...], "rows": [[name, cell, …]], "reading":
    [sentence, …]} in one JSON file each, cells as text. Raises UserError, one sentence, for another form."""
    parts = []
    for path in sorted(folder.glob("*.json")):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            assert all(len(row) == len(found["columns"]) for row in found["rows"])
            parts.append({key: found[key] for key in ("title", "about", "columns", "rows", "reading")})
        except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
            raise UserError(
                f"The added part {path.name} cannot be read: give it title, about, columns, rows as long as these, and "
                "reading."
            ) from error
    return parts


def part_tables(part: Mapping[str, Any]) -> tuple[report.Table, ...]:
    """The tables that a part of results.json has figures for."""
    made = []
    for title, about, columns in GROUPS:
        kept = [c for c in columns if any(c[1] in arm["figures"] for arm in part["arms"].values())]
        if kept:
            rows = tuple(
                (name, *(_cell(arm["figures"].get(key), signed, digits) for _, key, signed, digits in kept))
                for name, arm in part["arms"].items()
            )
            made.append(report.Table(title, about, ("", *(heading for heading, *_ in kept)), rows))
    return tuple(made)


def _cell(found: Mapping[str, Any] | None, signed: bool, digits: int) -> str:
    if found is None:
        return "–"
    return shown(_figure(found), signed, digits).replace(" (one training, no interval)", " ¹").replace(ALONE, " ¹")


def _missing(missing: Sequence[str]) -> str:
    if not missing:
        return ""
    some = ", ".join(missing[:6]) + (f" and {len(missing) - 6} more" if len(missing) > 6 else "")
    return f"Not there yet: {some}."


def as_page(content: Mapping[str, Any]) -> report.Content:
    """results.json as it is shown: the parts, then those that other programs measured."""
    images = {"ablation": "page.png", "along training": "along.png"}
    short = tuple((sentence["text"], sentence["verdict"]) for sentence in content["in short"])
    sections = [report.Section("In short", "", short)] if short else []
    sections += [
        report.Section(
            part["name"].capitalize(),
            f"{part['about']} Training seeds {', '.join(map(str, part['seeds']))}.",
            tuple((sentence["text"], sentence["verdict"]) for sentence in part["reading"]),
            _missing(part["missing"]),
            images.get(part["name"], ""),
            part_tables(part),
        )
        for part in content["parts"]
    ]
    for part in content["added"]:
        own = report.Table("", "", tuple(part["columns"]), tuple(map(tuple, part["rows"])))
        reading = tuple((text, "") for text in part["reading"])
        sections.append(report.Section(part["title"], part["about"], reading, tables=(own,)))
    versions = "; ".join(", ".join(f"{k} {v}" for k, v in found.items()) for found in content["versions"])
    words = (ABOUT, KEPT_BACK, INTERVAL)
    return report.Content(TITLE, words, content["command"], versions or "none", tuple(sections))
