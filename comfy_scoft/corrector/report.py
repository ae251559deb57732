"""What a preference is, in words: for the report that nodes show, from the facts that travel in its file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .evaluation import Evidence
from .preference import Preference


def evidence_of(facts: Mapping[str, Any]) -> Evidence | None:
    """The figures among a preference's facts; None where there are none, or they are not what they should be."""
    try:
        found = dict(facts["evidence"])
        for name, kind in (("timesteps", int), ("accuracy", float), ("low", float), ("high", float), ("colour", float)):
            found[name] = tuple(kind(value) for value in found[name])
        for name in ("learned_from", "held_out"):
            found[name] = (int(found[name][0]), int(found[name][1]))
        found["temperature"], found["ece"] = float(found["temperature"]), tuple(float(v) for v in found["ece"])
        found["reliability"] = tuple((float(a), float(b), int(c)) for a, b, c in found["reliability"])
        made = Evidence(**found)
        return made if made.accuracy and len(made.accuracy) == len(made.color) == len(made.timesteps) else None
    except (KeyError, TypeError, ValueError, IndexError):
        return None


def report(preference: Preference) -> str:
    """A few lines: what it is for, what it was learned from, how often it is right, and its warnings."""
    facts = preference.facts
    lines = [str(facts[name]) for name in ("title", "licence") if facts.get(name)]
    lines.append(f"A preference for {preference.family} models, {preference.head.channels} latent channels.")
    found = evidence_of(facts)
    if found is None:
        lines.append("Nothing is known of how well it tells the sets apart.")
    else:
        lines.append(
            f"Learned from {found.learned_from[0]} preferred and {found.learned_from[1]} stereotyped images, "
            f"measured on {found.held_out[0]} and {found.held_out[1]} held out."
        )
        lines += [
            f"  timestep {t:4d}: right {right:.2f} [{low:.2f}, {high:.2f}], color alone {color:.2f}"
            for t, right, low, high, color in zip(
                found.timesteps, found.accuracy, found.low, found.high, found.color, strict=True
            )
        ]
        lines.append(
            f"Calibration error {found.ece[0]:.3f}, with temperature {found.temperature:.2f} {found.ece[1]:.3f}."
        )
    lines.append(_place(preference))
    return "\n".join([*lines, *(f"Warning: {text}" for text in (found.warnings() if found else []))])


def _place(preference: Preference) -> str:
    if preference.place is None:
        return "It asks no prompt: images of every place are corrected."
    told = preference.facts.get("place", {})
    told = told if isinstance(told, Mapping) else {}
    seen = told.get("gate on held-out captions", {})
    known = isinstance(seen, Mapping) and all(isinstance(v, int | float) for v in seen.values()) and seen
    figures = "; ".join(f"{which} {value:.2f}" for which, value in seen.items()) if known else "unknown"
    name = told.get("name", "the place")
    return f"It corrects prompts that ask for {name}; its mean gate on captions kept back: {figures}."
