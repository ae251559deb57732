"""results.json: every metric of every part with the value of each training, verdicts, and what earlier runs left."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...common.errors import UserError
from ...common.files import regular
from ..engine.estimate import Estimate
from ..engine.page import RESULTS
from . import tables, verdicts
from .job import settings
from .tables import ArmTable, PartTable
from .verdicts import COLUMNS, GROUPS, KINDS

FORMAT, VERSION = "scoft-mini-world-benchmark", 2
COMMAND = "python -m comfy_scoft benchmark --page benchmarks/mini_world"


def results(found: Mapping[str, PartTable], earlier: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Everything that the page shows, as plain JSON. earlier: the page's results.json of an earlier run.

    A part with missing jobs is taken from there, where it is whole and of today's settings.
    """
    jobs = [content for part in found.values() for arm in part.arms.values() for content in arm.jobs.values()]
    versions = {json.dumps(content["versions"]) for content in jobs}
    kept = {part["name"]: part for part in earlier["parts"]} if earlier else {}
    parts = []
    for name, table in found.items():
        if table.missing and name in kept and is_whole(kept[name], table):
            parts.append(kept[name])
            versions |= {json.dumps(one) for one in earlier["versions"]} if earlier else set()
        else:
            parts.append(_judged(_part(table)))
    return {
        "format": FORMAT,
        "version": VERSION,
        "command": COMMAND,
        "versions": [json.loads(text) for text in sorted(versions)],
        "parts": parts,
    }


def load(folder: Path) -> dict[str, Any] | None:
    """The results.json of a page; None where there is none of this version. Raises UserError for a damaged one."""
    try:
        content = json.loads(regular(folder / RESULTS).read_bytes())
        return content if (content["format"], content.get("version")) == (FORMAT, VERSION) else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / RESULTS} is damaged: restore it, or remove it, which drops what it keeps."
        ) from error


def is_whole(part: Mapping[str, Any], table: PartTable) -> bool:
    """Whether a part of an earlier results.json lacks nothing and was made with the settings of today."""
    arms, seeds = table.part.arms, list(table.part.seeds)
    if part["missing"] or part["seeds"] != seeds or list(part["arms"]) != [arm.name for arm in arms]:
        return False
    today = [json.loads(json.dumps(settings(arm, seeds[0]))) for arm in arms]
    return today == [part["arms"][arm.name]["settings"] for arm in arms]


def metrics_of(arm: Mapping[str, Any], kind: str = "figures") -> dict[str, Estimate]:
    """An arm's metrics (`figures`) or its changes from the base model (`changes`)."""
    return {key: Estimate.from_json(found) for key, found in arm.get(kind, {}).items()}


def _part(table: PartTable) -> dict[str, Any]:
    return {
        "name": table.part.name,
        "about": table.part.about,
        "seeds": list(table.part.seeds),
        "missing": list(table.missing),
        "arms": {name: _arm(arm) for name, arm in table.arms.items()},
        "comparisons": [
            {"before": before, "after": after, "changes": _as_json(changes)}
            for (before, after), changes in table.comparisons.items()
        ],
    }


def _arm(arm: ArmTable) -> dict[str, Any]:
    content = {
        "settings": next(iter(arm.jobs.values()))["settings"],
        "figures": {key: found.as_json() for key, found in arm.metrics.items()},
        "changes": _as_json(arm.changes),
    }
    shares = arm.metrics[tables.as_sample(tables.DARK_HELD_OUT)].values
    least, most = (pick(shares, key=lambda kind: shares[kind]) for pick in (min, max))
    return content | {"kinds": {"lowest": [least, shares[least]], "highest": [most, shares[most]]}}


def _as_json(changes: Mapping[str, Estimate]) -> dict[str, dict[str, Any]]:
    """Of the page's columns alone."""
    return {key: found.as_json() for key, found in changes.items() if key in COLUMNS}


def _judged(part: dict[str, Any]) -> dict[str, Any]:
    """The part with every verdict: of each metric, of each comparison, and of the aims."""
    for name, arm in part["arms"].items():
        metrics, changes = metrics_of(arm), metrics_of(arm, "changes")
        for key, found in arm["figures"].items() if name != "base" else ():
            if (said := verdicts.of_arm(key, metrics, changes)) is not None:
                found["verdict"] = said
        if part["name"] in verdicts.AIMS:
            own = verdicts.of_aim(verdicts.AIMS[part["name"]], metrics)
            arm["aims"] = {**own, "all": verdicts.worst(own)}
    for pair in part["comparisons"]:
        for key, found in pair["changes"].items():
            if (said := verdicts.of_pair(key, Estimate.from_json(found))) is not None:
                found["verdict"] = said
    return part


def worse(part: Mapping[str, Any], name: str) -> dict[str, list[str]]:
    """What got worse in an arm: arm that it is compared with -> keys of the metrics whose verdict is "worse"."""
    changes = {"base": part["arms"][name]["figures"]}
    changes |= {pair["before"]: pair["changes"] for pair in part["comparisons"] if pair["after"] == name}
    kinds = {column.key for column in GROUPS[KINDS]}
    return {
        before: [
            key
            for key, one in own.items()
            if one.get("verdict") == verdicts.WORSE
            and key not in kinds
            and not (key == tables.CLIP and tables.clip_change() in own)  # the same in other units
        ]
        for before, own in changes.items()
    }
