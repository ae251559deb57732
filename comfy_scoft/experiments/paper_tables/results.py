"""Everything that a run measured and how, as plain JSON: results.json, from which the page is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...common import fingerprints
from ...data.captions import BLIP
from .arms import Arm
from .data import Culture
from .measure import Figure, mean
from .networks import CAPTIONER, INCEPTION
from .study import Study

FORMAT = "scoft-protocol"

Figures = Mapping[str, Mapping[str, Mapping[str, Figure]]]
"""Culture -> arm's name -> figure's name -> figure."""


def results(
    study: Study, figures: Figures, prepared: Mapping[str, Mapping[str, Any]], surveys: Mapping[str, str],
    human: Mapping[str, Any] | None, command: str, *, short: bool,
) -> dict[str, Any]:  # fmt: skip
    """What the page shows and what decided it. prepared: culture -> what was made for it; surveys: culture -> page."""
    return {
        "format": FORMAT,
        "short": short,
        "command": command,
        "versions": fingerprints.versions(),
        "device": torch.cuda.get_device_name(study.device) if study.device.type == "cuda" else "CPU",
        "settings": settings(study),
        "files": files(study),
        "cultures": [_culture(study, culture, prepared.get(culture.name, {})) for culture in study.cultures],
        "generic set": _generic(study),
        "figures": figures,
        "means": means(study.arms, figures),
        "human": human,
        "surveys": surveys,
        "choices": choices(study),
    }


def means(arms: tuple[Arm, ...], figures: Figures) -> dict[str, dict[str, Figure]]:
    """The mean of each figure over the cultures that have it, by the arm's name."""
    found: dict[str, dict[str, Figure]] = {}
    for arm in arms:
        own = [culture[arm.name] for culture in figures.values() if arm.name in culture]
        names = dict.fromkeys(name for one in own for name in one)
        found[arm.name] = {name: mean([one[name] for one in own if name in one]) for name in names}
    return found


def settings(study: Study) -> dict[str, Any]:
    scale = study.scale
    drawing = {"sampler": "DDIM, evenly spaced timesteps", "steps": scale.sampling_steps, "guidance": scale.guidance}
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


def files(study: Study) -> dict[str, list[str]]:
    """Role -> a file's name and the first 16 hex digits of its SHA-256."""

    def named(path: Path) -> list[str]:
        return [path.name, *fingerprints.of_files([path])]

    found = {"model": named(study.model)}
    if study.controlnet is not None:
        found["ControlNet"] = named(study.controlnet)
    for role in study.roles():
        name, path = study.networks.named(role)
        found[f"network: {role}"] = [name, *(named(path) if path is not None else [])]
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


def _generic(study: Study) -> dict[str, Any] | None:
    if study.generic is None:
        return None
    return {"pictures": len(study.generic.images), "prompts": list(study.generic.prompts)}


def choices(study: Study) -> list[str]:
    """What the paper leaves open or this run does otherwise, one sentence each."""
    scale, kid = study.scale, study.networks.named("kid")[0] if "kid" in study.roles() else ""
    held_out = [culture.name for culture in study.cultures if culture.held_out]
    found = [
        f"The paper names no sampler for its images: here DDIM, {scale.sampling_steps} steps, guidance "
        f"{scale.guidance:g}; image i of a set has the noise of seed i in every model.",
        f"Margin and negative weight of L_C are lost in the paper's text: here "
        f"{_option(study, 'margin')} and {_option(study, 'negative_weight')}. With L_C, L_P is left out, for L_C holds "
        "its positive term.",
    ]
    if {1, 4} & set(study.tables):
        threshold = "that the distances suggest" if study.threshold is None else f"{study.threshold:g}"
        found += [
            f"Prompts of Tables 1 and 4 are not in the paper: here all captions of the test split in turn, "
            f"{scale.images} images a culture and model (the paper generates 200 for its Figure 7).",
            f"The threshold of the filter of negatives is not in the paper: here the one {threshold}.",
            f"The network of KID is not in the paper: here {kid}"
            + (
                ", as torch-fidelity runs it." if kid == INCEPTION else ", whose values cannot be held against others'."
            ),
            "CLIPScore is 2.5 max(cos, 0), the scale of the paper's values; its CLIP is not named there: here "
            f"{study.networks.named('clip')[0]}.",
            "The mean over cultures is what Table 1 shows: the paper's own is the mean of the columns of its Table 4.",
        ]
        if study.generic is None:
            found.append("No generic set was given, so KID-COCO was not measured.")
        else:
            found.append(
                f"KID-COCO: every model generates from {scale.generic} captions of the generic set: in the paper the "
                "base model has one value for all cultures; how many images, it does not say."
            )
    if 2 in study.tables:
        found += [
            f"Table 2: {scale.pairs} training captions and as many test captions a culture, sampled by the seed, "
            f"{scale.repeats} images of each; CLIP-I by {study.networks.named('clip')[0]}, DINO by "
            f"{study.networks.named('dino')[0]}, which the paper does not name; the mean is over cultures.",
        ]
    if held_out:
        found.append(
            f"No test split came with {', '.join(held_out)}: {scale.test_share:.0%} of each category, sampled by the "
            "seed, was held out."
        )
    return found


def _option(study: Study, name: str) -> str:
    found = [options[name] for arm in study.arms for _, options in arm.losses if name in options]
    return f"{found[0]:g}" if found else "of no matter"
