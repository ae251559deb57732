"""Everything that a run measured and how, as plain JSON: results.json, from which the page is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ...common import fingerprints
from ...data.captions import BLIP
from ..engine.page import words
from .data import Culture
from .measure import Figure, mean
from .networks import CAPTIONER, INCEPTION
from .study import Study
from .train import SAMPLER, ImageFiles

FORMAT = "scoft-protocol"
WORDS = words(Path(__file__).with_name("words.ini"))


@dataclass
class Progress:
    """What a run has so far, by culture: what was prepared, images (arm -> set), metrics, survey pages; and ranks."""

    prepared: dict[str, dict[str, Any]]
    sets: dict[str, dict[str, dict[str, ImageFiles]]] = field(default_factory=dict)
    figures: dict[str, dict[str, dict[str, Figure]]] = field(default_factory=dict)
    surveys: dict[str, str] = field(default_factory=dict)
    ranks: dict[str, Any] | None = None


def results(study: Study, done: Progress, command: str, *, short: bool) -> dict[str, Any]:
    """What the page shows and what decided it."""
    generic = study.generic
    return {
        "format": FORMAT,
        "short": short,
        "command": command,
        "versions": fingerprints.versions(),
        "device": torch.cuda.get_device_name(study.device) if study.device.type == "cuda" else "CPU",
        "settings": _settings(study),
        "files": _files(study),
        "cultures": [_culture(study, culture, done.prepared.get(culture.name, {})) for culture in study.cultures],
        "generic set": generic and {"pictures": len(generic.images), "prompts": list(generic.prompts)},
        "figures": done.figures,
        "means": {arm.name: _means(done, arm.name) for arm in study.arms},
        "human": done.ranks,
        "surveys": done.surveys,
        "choices": _choices(study),
    }


def _means(done: Progress, arm: str) -> dict[str, Figure]:
    """The mean of each figure of an arm over the cultures that have it."""
    own = [culture[arm] for culture in done.figures.values() if arm in culture]
    return {
        name: mean([one[name] for one in own if name in one]) for name in dict.fromkeys(n for one in own for n in one)
    }


def _settings(study: Study) -> dict[str, Any]:
    scale = study.scale
    drawing = {"sampler": SAMPLER, "steps": scale.sampling_steps, "guidance": scale.guidance}
    counts = {"pictures": scale.images, "generic": scale.generic, "pairs": scale.pairs, "images": scale.repeats}
    return {
        "tables": list(study.tables),
        "seed": study.seed,
        "side": study.side,
        "number type": str(study.dtype).removeprefix("torch."),
        "arms": {arm.name: [[name, options] for name, options in arm.losses] for arm in study.arms},
        **scale.training(),
        "negatives": vars(scale.negatives),
        "drawing": {**drawing, "batch": scale.batch},
        "counts": {**counts, "survey pages": scale.pages},
    }


def _files(study: Study) -> dict[str, list[str]]:
    """Role -> a file's name and the first 16 hex digits of its SHA-256."""

    def named(path: Path | None) -> list[str]:
        return [path.name, *fingerprints.of_files([path])] if path is not None else []

    found = {"model": named(study.model)}
    if study.controlnet is not None:
        found["ControlNet"] = named(study.controlnet)
    for role in study.roles():
        name, path = study.networks.named(role)
        found[f"network: {role}"] = [name, *named(path)]
    weights = study.networks.folder and study.networks.folder / CAPTIONER / BLIP.weights
    if weights and weights.is_file():
        found["captioner"] = named(weights)
    return found


def _culture(study: Study, culture: Culture, prepared: Mapping[str, Any]) -> dict[str, Any]:
    pairs = culture.pairs(study.scale, study.seed)
    return {
        "name": culture.name,
        "training pictures": len(culture.train),
        "test pictures": [record.image.name for record in culture.test.records],
        "test split drawn here": culture.held_out,
        "prepared": dict(prepared),
        "training pairs": [[record.image.name, record.caption] for record in pairs],
        "test prompts": list(culture.prompts(study.scale, study.seed)),
    }


def _choices(study: Study) -> list[str]:
    """What the paper leaves open or this run does otherwise, one sentence each."""
    losses = [own for arm in study.arms for name, own in arm.losses if name == "contrastive"]
    options = {key: f"{value:g}" for own in losses for key, value in own.items()}
    networks = {role: study.networks.named(role)[0] for role in study.roles()}
    held_out = ", ".join(culture.name for culture in study.cultures if culture.held_out)
    names = ["sampler", "L_C"]
    if {1, 4} & set(study.tables):
        names += ["prompts", "threshold", "Inception" if networks["kid"] == INCEPTION else "another network"]
        names += ["CLIPScore", "mean", "no KID-COCO" if study.generic is None else "KID-COCO"]
    names += ["Table 2"] if 2 in study.tables else []
    names += ["held out"] if held_out else []
    values = {
        "scale": study.scale,
        "margin": options.get("margin", "of no matter"),
        "negative_weight": options.get("negative_weight", "of no matter"),
        "threshold": "that the distances suggest" if study.threshold is None else f"{study.threshold:g}",
        "networks": networks,
        "held_out": held_out,
    }
    return [WORDS["choices"][name].format(**values) for name in names]
