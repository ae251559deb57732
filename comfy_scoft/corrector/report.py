"""The text report of a preference for nodes, from the facts in its file."""

from __future__ import annotations

from collections.abc import Mapping

from .evaluation import Evaluation
from .preference import Preference


def report(preference: Preference) -> str:
    """A few lines: its model family, training images, accuracy, gate and warnings."""
    facts = preference.facts
    lines = [str(facts[name]) for name in ("title", "licence") if facts.get(name)]
    lines.append(f"A preference for {preference.family} models, {preference.head.channels} latent channels.")
    evaluation = Evaluation.from_json(facts.get("evidence"))
    if evaluation is None:
        lines.append("It has no evaluation on held-out images.")
    else:
        lines.append(
            f"Learned from {evaluation.learned_from[0]} preferred and {evaluation.learned_from[1]} stereotyped images, "
            f"measured on {evaluation.held_out[0]} and {evaluation.held_out[1]} held out."
        )
        lines += [
            f"  timestep {t:4d}: accuracy {evaluation.accuracy[i]:.2f} "
            f"[{evaluation.low[i]:.2f}, {evaluation.high[i]:.2f}], color alone {evaluation.color[i]:.2f}"
            for i, t in enumerate(evaluation.timesteps)
        ]
        before, after = evaluation.ece
        lines.append(f"Calibration error {before:.3f}, with temperature {evaluation.temperature:.2f} {after:.3f}.")
    lines.append(_gate_line(preference))
    return "\n".join([*lines, *(f"Warning: {text}" for text in (evaluation.warnings() if evaluation else []))])


def _gate_line(preference: Preference) -> str:
    if preference.place is None:
        return "It has no prompt gate: images of every place are corrected."
    place = preference.facts.get("place", {})
    place = place if isinstance(place, Mapping) else {}
    gate = place.get("gate on held-out captions", {})
    known = isinstance(gate, Mapping) and all(isinstance(v, int | float) for v in gate.values()) and gate
    means = "; ".join(f"{which} {value:.2f}" for which, value in gate.items()) if known else "unknown"
    return f"It corrects prompts for {place.get('name', 'the place')}; mean gate on held-out captions: {means}."
