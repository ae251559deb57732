"""Whether settings reach what they were looked for to reach, said of each, reached or not; and their price."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from . import tables
from .cells import DEVELOPMENT_PLACES, OTHER_PLACES, TAUGHT
from .figures import Figure
from .sentences import VERDICTS, Sentence, shown
from .tables import ArmTable, PartTable

AIM = 0.90
"""Share of dark skin in the taught place, on held-out kinds, that settings are looked for to reach."""
CORRECTOR_AIM, CLIP_BOUND, TIME_BOUND = 0.70, 5.0, 0.25
"""RS-Corrector's aims: share of dark skin as above, change of CLIPScore in %, and share of time added to sampling."""
BOUND = 0.05
"""Leakage counts as gone where the whole interval of the paired difference lies within ± this."""


@dataclass(frozen=True)
class Leakage:
    """Places by what is shown of them. outside: the whole interval is beyond ±BOUND; inside: it is within."""

    outside: dict[str, Figure]
    unsure: dict[str, Figure]
    inside: dict[str, Figure]

    @property
    def verdict(self) -> str:
        """ "better" only where places were measured and all of them are inside."""
        if self.outside:
            return "worse"
        return "better" if self.inside and not self.unsure else "not shown"


def leakage(arm: ArmTable, fact: str = "dark skin") -> Leakage:
    """What is shown of each place that was drawn."""
    return judged({p: arm.figures[k] for p in OTHER_PLACES if (k := tables.leakage(fact, p)) in arm.figures})


def judged(own: Mapping[str, Figure]) -> Leakage:
    several = {p: f for p, f in own.items() if f.seeds > 1}  # one training shows nothing
    outside = {p: f for p, f in several.items() if f.low > BOUND or f.high < -BOUND}
    inside = {p: f for p, f in several.items() if f.within(BOUND)}
    return Leakage(outside, {p: f for p, f in own.items() if p not in outside and p not in inside}, inside)


def leakages(part: PartTable, marked: bool = False) -> list[Sentence]:
    """For each arm, every place that is not shown to be left alone is named.

    marked: the places that were looked at when settings were chosen are said to be.
    """
    sentences = []
    for name, arm in part.arms.items():
        for fact in ("dark skin", "own palette") if not arm.arm.untouched else ():
            found = leakage(arm, fact)
            if found.outside or found.unsure or found.inside:
                sentences.append(leaks(name, fact, found, marked))
    return sentences


def leaks(name: str, fact: str, found: Leakage, marked: bool = False) -> Sentence:
    def places(group: Mapping[str, Figure]) -> str:
        return ", ".join(_place(p, marked) for p in group)

    if found.verdict == "better":
        none = "no leakage of dark skin into" if fact == "dark skin" else "each place's own palette is kept in"
        return Sentence(f"{name}: {none} {places(found.inside)}: every interval lies within ±{BOUND:.2f}.", "better")
    said = []
    verb = "leaks into" if fact == "dark skin" else "changes in"
    for words, group in ((verb, found.outside), ("is not shown to leave alone", found.unsure)):
        if group:
            said.append(f"{words} " + ", ".join(f"{_place(p, marked)} {shown(f, True)}" for p, f in group.items()))
    rest = f" (within ±{BOUND:.2f} in {places(found.inside)})" if found.inside else ""
    return Sentence(f"{name}: {fact} {'; '.join(said)}{rest}.", found.verdict)


def _place(place: str, marked: bool) -> str:
    looked_at = marked and place in DEVELOPMENT_PLACES
    return f"{place} (looked at when settings were chosen)" if looked_at else place


def reached(dark: Figure, aim: float) -> tuple[str, str]:
    """In words whether an aim for a share is reached, and the verdict: by the whole interval or not shown."""
    shows = dark.known and dark.seeds > 1
    if shows and dark.low >= aim:
        return "reached by the whole interval", "better"
    if shows and dark.high < aim:
        return "not reached", "worse"
    if dark.value >= aim:
        return "reached on average, not by the whole interval" if shows else "reached by one training", "not shown"
    return "not reached on average, but within the interval" if shows else "not reached by one training", "not shown"


def dark_skin(name: str, arm: ArmTable, aim: float) -> list[Sentence]:
    dark = arm.figures.get(tables.DARK_HELD_OUT)
    if dark is None:
        return []
    words, found = reached(dark, aim)
    text = f"{name}: dark skin in {TAUGHT} on held-out kinds is {shown(dark)}; the aim of {aim:.2f} is {words}."
    return [Sentence(text, found)]


def clip_score(name: str, arm: ArmTable) -> list[Sentence]:
    """How far CLIPScore changes, as far as it was measured."""
    change = arm.figures.get(tables.clip_change())
    if change is None:
        return []
    words, found = _kept(change, -CLIP_BOUND, CLIP_BOUND)
    text = f"{name}: CLIPScore changes by {shown(change, True, 1)} %, {words} the {CLIP_BOUND:g} % that "
    return [Sentence(f"{text}RS-Corrector is to keep to.", found)]


def added_time(name: str, arm: ArmTable) -> list[Sentence]:
    added = arm.figures.get(tables.ADDED_TIME)
    if added is None:
        return []
    words, found = _kept(added, -1.0, TIME_BOUND)
    text = f"{name}: sampling takes {shown(added, True)} of its time more, {words} the {TIME_BOUND:g} aimed at."
    return [Sentence(text, found)]


def _kept(change: Figure, low: float, high: float) -> tuple[str, str]:
    """Where a figure lies relative to its bounds, and the verdict; it is the whole interval that tells."""
    if not low <= change.value <= high:
        beyond = change.known and (change.high < low or change.low > high)
        return ("beyond", "worse") if beyond else ("on average beyond", "not shown")
    whole = change.known and low <= change.low and change.high <= high
    return ("within", "") if whole else ("on average within", "not shown")


def gold(name: str, arm: ArmTable) -> list[Sentence]:
    found = arm.figures.get(tables.GOLD_HELD_OUT)
    return [Sentence(f"{name}: gold palette in {TAUGHT} on held-out kinds {shown(found)}.")] if found else []


def kinds(part: PartTable) -> list[Sentence]:
    """For each arm, how far its figures differ from kind to kind, and what they would be of kinds in general."""
    sentences = []
    for name, arm in part.arms.items():
        dark = arm.figures.get(tables.as_sample(tables.DARK_HELD_OUT))
        if dark is None or not dark.known or arm.arm.untouched:
            continue
        by_kind = tables.shares_by_kind(list(arm.units.values()))
        (least, low), (most, high) = (pick(by_kind.items(), key=lambda item: item[1]) for pick in (min, max))
        own = {p: tables.as_sample(tables.leakage("dark skin", p)) for p in OTHER_PLACES}
        changes = [f"{p} {shown(arm.figures[k], True)}" for p, k in own.items() if k in arm.figures]
        text = f"{name}: kind by kind dark skin in {TAUGHT} is {low:.2f} ({least}) to {high:.2f} ({most}); as a sample "
        text += f"of kinds it is {shown(dark)}"
        sentences.append(Sentence(text + (f", and its change in {', '.join(changes)}." if changes else ".")))
    return sentences


def in_one(name: str, arm: ArmTable, aim: float, corrector: bool = False) -> Sentence:
    """All of it in one sentence, with the worst of the verdicts. corrector: its own aims count too."""
    dark, found = arm.figures.get(tables.DARK_HELD_OUT), leakage(arm)
    said, verdicts = [], [found.verdict]
    if dark is not None:
        words, own = reached(dark, aim)
        sample = arm.figures.get(tables.as_sample(tables.DARK_HELD_OUT))
        wide = f" (as a sample of kinds [{sample.low:.2f}, {sample.high:.2f}])" if sample and sample.known else ""
        said.append(f"dark skin {shown(dark)}{wide}, aim {aim:.2f} {words}")
        verdicts.append(own)
    said += [f"leaks into {', '.join(found.outside)}"] if found.outside else []
    said += [f"not shown to leave alone {', '.join(found.unsure)}"] if found.unsure else []
    said += [f"leaves alone {', '.join(found.inside)}"] if found.inside else []
    clip = arm.figures.get(tables.clip_change())
    if clip is not None:
        said.append(f"CLIPScore {shown(clip, True, 1)} %")
    if corrector:
        own_aims = [*clip_score(name, arm), *added_time(name, arm)]
        verdicts += [sentence.verdict for sentence in own_aims]
        said += ["too slow" for sentence in added_time(name, arm) if sentence.verdict == "worse"]
    return Sentence(
        f"{name}, on test kinds and seeds: {'; '.join(said)}.", max(filter(None, verdicts), key=VERDICTS.index)
    )
