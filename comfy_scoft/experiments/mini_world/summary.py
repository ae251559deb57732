"""The few sentences at the head of the page, made by rules from the same figures as the rest."""

from __future__ import annotations

from . import tables
from .aims import AIM, BOUND, CORRECTOR_AIM, in_one, leakage
from .cells import HELD_OUT, TAUGHT
from .conclusions import STEPS, Tables, gap_change
from .sentences import Sentence, shown, verdict
from .tables import PartTable, key

AIMED = {"careful": AIM, "combined": AIM, "fresh seeds": AIM, "ten seeds": AIM, "corrector": CORRECTOR_AIM}
"""Parts whose settings were looked for, and the share of dark skin that they should reach."""


def in_short(found: Tables) -> list[Sentence]:
    """What a hurried reader should know: bias, what each loss adds, leakage, memorization, and the aims."""
    sentences = []
    if "ablation" in found and found["ablation"].arms:
        part = found["ablation"]
        sentences += [*_bias(part), *_added(part), *_leakage(part), *_memorization(part)]
    for name, aim in AIMED.items():
        for arm, own in found[name].arms.items() if name in found else ():
            called = f"{arm}, {name}" if name.endswith("seeds") else arm
            sentences.append(in_one(called, own, aim, corrector=name == "corrector"))
    return sentences


def _bias(part: PartTable) -> list[Sentence]:
    dark = {n: a.figures[tables.DARK_HELD_OUT] for n, a in part.arms.items() if tables.DARK_HELD_OUT in a.figures}
    trained = {name: figure for name, figure in dark.items() if part.arms[name].arm.losses}
    if "base" not in dark or not trained:
        return []
    least, most = (pick(trained, key=lambda name: trained[name].value) for pick in (min, max))
    text = f"Dark skin in {TAUGHT}, on kinds of people that were never trained: {shown(dark['base'])} before training, "
    if least == most:
        return [Sentence(f"{text}{shown(trained[most])} with {most}.")]
    return [Sentence(f"{text}from {shown(trained[least])} with {least} to {shown(trained[most])} with {most}.")]


def _added(part: PartTable) -> list[Sentence]:
    """What each loss adds to that, in one sentence a verdict."""
    found: dict[str, list[str]] = {}
    for before, after, loss in STEPS:
        pairs = tables.compared(part, before, after)
        change = tables.changed(pairs, "dark skin", key(HELD_OUT, "", TAUGHT)) if pairs else None
        if change is not None:
            found.setdefault(verdict(change, True), []).append(f"{loss} ({before} → {after}, {shown(change, True)})")
    words = {
        "better": "Corrects more of it when added",
        "worse": "Corrects less of it when added",
        "not shown": "Not shown to correct more or less of it when added",
    }
    return [Sentence(f"{text}: {'; '.join(found[v])}.", v) for v, text in words.items() if v in found]


def _leakage(part: PartTable) -> list[Sentence]:
    trained = {name: leakage(arm) for name, arm in part.arms.items() if arm.arm.losses}
    leaky = [f"{name} into {', '.join(found.outside)}" for name, found in trained.items() if found.outside]
    clean = [name for name, found in trained.items() if found.verdict == "better"]
    sentences = []
    if leaky:
        sentences.append(Sentence(f"Dark skin leaks beyond ±{BOUND:.2f}: {'; '.join(leaky)}.", "worse"))
    if clean:
        sentences.append(Sentence(f"Within ±{BOUND:.2f} in every place that was drawn: {', '.join(clean)}.", "better"))
    return sentences


def _memorization(part: PartTable) -> list[Sentence]:
    pairs = tables.compared(part, "LDM", "+M")
    if pairs is None:
        return []
    change = gap_change(pairs)
    found = verdict(change, more_is_better=False)
    words = {"better": "lowers", "worse": "raises", "not shown": "is not shown to change"}
    return [Sentence(f"M {words[found]} the memorization gap ({shown(change, True, 4)}).", found)]
