"""The few sentences at the head of the page, made by rules from the same figures as the rest."""

from __future__ import annotations

from collections.abc import Sequence

from . import tables
from .cells import HELD_OUT, OTHER_PLACES, TAUGHT
from .reading import AIM, BOUND, CORRECTOR_AIM, STEPS, Sentence, Tables, gap_change, shown, verdict
from .tables import ArmTable, PartTable, key


def in_short(found: Tables) -> list[Sentence]:
    """What a hurried reader should know: bias, what each loss adds, leakage, memorisation, and the aims."""
    sentences = []
    if "ablation" in found and found["ablation"].arms:
        part = found["ablation"]
        sentences += [*_bias(part), *_added(part), *_leakage(part), *_memorization(part)]
    for name, aim in (("careful", AIM), ("combined", AIM), ("fresh seeds", AIM), ("corrector", CORRECTOR_AIM)):
        if name in found:
            part, fresh = found[name], name == "fresh seeds"
            sentences += [_aims(f"{arm}, {name}" if fresh else arm, own, aim) for arm, own in part.arms.items()]
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


def leaking(arm: ArmTable) -> tuple[list[str], list[str]]:
    """Places that dark skin leaks into (the whole interval beyond ±BOUND), and those of which it is not shown that it
    does not."""
    own = {p: arm.figures[k] for p in OTHER_PLACES if (k := tables.leakage("dark skin", p)) in arm.figures}
    sure = [place for place, figure in own.items() if figure.low > BOUND or figure.high < -BOUND]
    return sure, [place for place, figure in own.items() if place not in sure and not figure.within(BOUND)]


def _leakage(part: PartTable) -> list[Sentence]:
    trained = {name: leaking(arm) for name, arm in part.arms.items() if arm.arm.losses}
    leaky = [f"{name} into {', '.join(sure)}" for name, (sure, _) in trained.items() if sure]
    clean = [name for name, (sure, unsure) in trained.items() if not sure and not unsure]
    sentences = []
    if leaky:
        sentences.append(Sentence(f"Dark skin leaks beyond ±{BOUND:.2f}: {'; '.join(leaky)}.", "worse"))
    if clean:
        sentences.append(Sentence(f"Within ±{BOUND:.2f} in every other place: {', '.join(clean)}.", "better"))
    return sentences


def _memorization(part: PartTable) -> list[Sentence]:
    pairs = tables.compared(part, "LDM", "+M")
    if pairs is None:
        return []
    change = gap_change(pairs)
    found = verdict(change, more_is_better=False)
    words = {"better": "lowers", "worse": "raises", "not shown": "is not shown to change"}
    return [Sentence(f"M {words[found]} the memorisation gap ({shown(change, True, 4)}).", found)]


def _aims(name: str, arm: ArmTable, aim: float) -> Sentence:
    """Whether settings that were looked for reach both aims."""
    dark = arm.figures.get(tables.DARK_HELD_OUT)
    sure, unsure = leaking(arm)
    enough = dark is not None and dark.value >= aim
    said: Sequence[str] = [
        f"dark skin {shown(dark)}, aim {aim:.2f} {'reached' if enough else 'not reached'}" if dark else "",
        f"leaks into {', '.join(sure)}" if sure else "",
        f"not shown to leave alone {', '.join(unsure)}" if unsure else "",
        "no leakage of dark skin" if not sure and not unsure else "",
    ]
    worst = "worse" if sure or not enough else "not shown" if unsure else "better"
    return Sentence(f"{name}, on what was kept back: {'; '.join(words for words in said if words)}.", worst)
