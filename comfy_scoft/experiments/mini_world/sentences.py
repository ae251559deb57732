"""Sentences with a verdict, and figures as they stand in them."""

from __future__ import annotations

from dataclasses import dataclass

from .figures import Figure

VERDICTS = ("better", "", "not shown", "worse")
"""From the best to the worst; "" is a plain statement."""


ALONE = " (one training)"


@dataclass(frozen=True)
class Sentence:
    """verdict: one of VERDICTS; the page puts it before the text."""

    text: str
    verdict: str = ""


def verdict(change: Figure, more_is_better: bool) -> str:
    """ "not shown" where the interval holds 0 or rests on one training; else whether the change is for the better."""
    if change.seeds < 2 or change.holds(0.0):
        return "not shown"
    return "better" if (change.value > 0) == more_is_better else "worse"


def shown(figure: Figure, signed: bool = False, digits: int = 2) -> str:
    """ "0.61 [0.52, 0.70]"; with a word where it rests on one training, and without interval where there is none."""
    form = f"{{:{'+' if signed else ''}.{digits}f}}"
    if not figure.known:
        return f"{form.format(figure.value)} (one training, no interval)"
    alone = ALONE if figure.seeds < 2 else ""
    return f"{form.format(figure.value)} [{form.format(figure.low)}, {form.format(figure.high)}]{alone}"


def change_sentence(what: str, thing: str, change: Figure, more_is_better: bool, digits: int = 2) -> Sentence:
    """ "C changes dark skin in nuvia by +0.08 [+0.02, +0.14]." and whether that is better, worse or not shown."""
    said = ": the interval holds 0, so no difference is shown" if change.known and change.holds(0.0) else ""
    return Sentence(f"{what} changes {thing} by {shown(change, True, digits)}{said}.", verdict(change, more_is_better))
