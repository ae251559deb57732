"""What the figures say, in plain sentences made by rules: what is better, what is worse, and what is not shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from . import aims, figures, tables
from .aims import BOUND
from .arms import ROLLOUT
from .cells import HELD_OUT, TAUGHT
from .figures import Figure
from .sentences import Sentence, change_sentence, shown, verdict
from .tables import Content, PartTable, key

STEPS = (("LDM", "+M", "M"), ("+M", "+MP", "P"), ("+M", "+MPC", "C"), ("+MP", "+MPC", "C in place of P"))
"""(arm before, arm after, what was added)."""

Tables = Mapping[str, PartTable]


def read(found: Tables) -> dict[str, list[Sentence]]:
    """Sentences by part, for the parts that have results."""
    rules = {
        "ablation": _ablation,
        "careful": lambda found: _careful(found["careful"]),
        "combined": lambda found: _combined(found["combined"]),
        "fresh seeds": lambda found: _combined(found["fresh seeds"]),
        "ten seeds": lambda found: _combined(found["ten seeds"]),
        "unnamed place": lambda found: _careful(found["unnamed place"]),
        "corrector": _corrector,
        "released weights": _each_arm,
        "weights": _weights,
        "features": _features,
        "along training": _along,
        "control": _control,
    }
    return {name: rules[name](found) for name in found if name in rules and found[name].arms}


def _ablation(found: Tables) -> list[Sentence]:
    part = found["ablation"]
    return [*_bias(part), *_steps(part), *aims.kinds(part), *aims.leakages(part), *_memorized(part), *_cost(part)]


def _each_arm(found: Tables) -> list[Sentence]:
    part = found["released weights"]
    return [*_bias(part), *aims.leakages(part)]


def _careful(part: PartTable) -> list[Sentence]:
    """Whether the aims are reached; each is said, reached or not."""
    own = [sentence for name, arm in part.arms.items() for sentence in aims.dark_skin(name, arm, aims.AIM)]
    return [*own, *aims.kinds(part), *aims.leakages(part, marked=True), *_memorized(part), *_cost(part)]


def _corrector(found: Tables) -> list[Sentence]:
    """Each aim of RS-Corrector, reached or not, and what it does beside."""
    part = found["corrector"]
    sentences: list[Sentence] = []
    for name, arm in part.arms.items():
        sentences += aims.dark_skin(name, arm, aims.CORRECTOR_AIM)
        sentences += [*aims.clip_score(name, arm), *aims.added_time(name, arm), *aims.gold(name, arm)]
    return [*sentences, *aims.kinds(part), *aims.leakages(part)]


def _combined(part: PartTable) -> list[Sentence]:
    """As of a careful part, and what became of the palette and of the agreement with the prompt."""
    rest = [s for name, arm in part.arms.items() for s in (*aims.clip_score(name, arm), *aims.gold(name, arm))]
    return [*_careful(part), *rest]


def _bias(part: PartTable) -> list[Sentence]:
    """For each arm, how far the bias is corrected; and whether an arm draws other things than were asked for."""
    sentences = []
    for name, arm in part.arms.items():
        dark, gold = (arm.figures.get(k) for k in (tables.DARK_HELD_OUT, tables.GOLD_HELD_OUT))
        if dark is None or gold is None:
            continue
        sentences.append(
            Sentence(f"{name}: on held-out kinds in {TAUGHT}, dark skin {shown(dark)}, gold palette {shown(gold)}.")
        )
        concept = arm.figures.get(tables.CONCEPT_HELD_OUT)
        if concept is not None and concept.known and concept.high < 1 - BOUND:
            sentences.append(
                Sentence(f"{name} shows the concept that was asked for in only {shown(concept)} of these.", "worse")
            )
    return sentences


def _steps(part: PartTable) -> list[Sentence]:
    """What each loss adds to bias, memorization and diversity."""
    sentences = []
    for before, after, loss in STEPS:
        pairs = tables.compared(part, before, after)
        if pairs is None:
            continue
        what = f"{loss} ({before} → {after})"
        for fact in ("dark skin", "gold palette"):
            change = tables.changed(pairs, fact, key(HELD_OUT, "", TAUGHT))
            if change is not None:
                thing = f"{fact} in {TAUGHT} on held-out kinds"
                sentences.append(change_sentence(what, thing, change, True))
        sentences.append(change_sentence(what, "the memorization gap", gap_change(pairs), False, 4))
        diversity = measure_change(pairs, "diversity", key(HELD_OUT, "", TAUGHT))
        if diversity is not None:
            sentences.append(change_sentence(what, f"diversity in {TAUGHT} on held-out kinds", diversity, True, 3))
    return sentences


def gap_change(pairs: Sequence[tuple[Content, Content]]) -> Figure:
    """The change of the memorization gap from one arm to another, over training images and seeds."""
    return figures.mean_of_records([tables.gap_rise(*pair) for pair in pairs])


def measure_change(pairs: Sequence[tuple[Content, Content]], group: str, name: str) -> Figure | None:
    """The change of a figure of whole models (`diversity` or `KID`), over the seeds; None where it was not measured."""
    values = [[content["measures"][group].get(name) for content in pair] for pair in pairs]
    if any(None in pair for pair in values):
        return None
    return figures.mean([after - before for before, after in values])


def _memorized(part: PartTable) -> list[Sentence]:
    """Whether each arm has memorized its training images at all, and which copies more than the base does."""
    sentences = []
    for name, arm in part.arms.items():
        gap = arm.figures.get(tables.GAP)
        if gap is None or not arm.arm.losses:
            continue
        found = verdict(gap, more_is_better=False)
        words = {"worse": "it has memorized", "better": "it predicts fresh ones better", "not shown": "not shown"}
        sentences.append(
            Sentence(
                f"{name}: its loss on the training images draws ahead of that on fresh ones by "
                f"{shown(gap, True, 4)}: {words[found]}.",
                found,
            )
        )
    return sentences


def _cost(part: PartTable) -> list[Sentence]:
    times = {n: a.figures[tables.SECONDS].value for n, a in part.arms.items() if tables.SECONDS in a.figures}
    if len(times) < 2:
        return []
    (fast, least), (slow, most) = (pick(times.items(), key=lambda item: item[1]) for pick in (min, max))
    if fast == slow:  # arms that only draw otherwise share their trainings
        return []
    return [Sentence(f"Training took from {least:.0f} ({fast}) to {most:.0f} CPU seconds ({slow}).")]


def _weights(found: Tables) -> list[Sentence]:
    """For each setting that is varied: where the bias is corrected most and least, and whether that is a difference."""
    part, sentences = found["weights"], []
    usual = {"M": "+M", "P": "+MP", "C": "+MPC", "margin": "+MPC", "K": "+MPC"}
    for setting, reference in usual.items():
        names = [n for n in part.arms if n.split(" ")[0] == setting]
        for name in names:
            sentences += _against(part, reference, name)
    return sentences


def _against(part: PartTable, before: str, after: str) -> list[Sentence]:
    """Bias and memorization gap of an arm against another."""
    pairs = tables.compared(part, before, after)
    if pairs is None:
        return []
    what = f"{after} in place of {before}'s own setting"
    change = tables.changed(pairs, "dark skin", key(HELD_OUT, "", TAUGHT))
    own = [change_sentence(what, f"dark skin in {TAUGHT} on held-out kinds", change, True)] if change else []
    return [*own, change_sentence(what, "the memorization gap", gap_change(pairs), False, 4)]


def _features(found: Tables) -> list[Sentence]:
    """KID to the community by layer and by gradient step, each against the fifth layer and the first step."""
    part, sentences = found["features"], []
    known = {n: a.figures[tables.KID_OWN] for n, a in part.arms.items() if tables.KID_OWN in a.figures}
    if known:
        best = min(known, key=lambda name: known[name].value)
        sentences.append(
            Sentence(f"Nearest to the community's own images by KID: {best}, {shown(known[best], digits=0)}.")
        )
    name = tables.KID_OWN.removeprefix("KID · ")
    for other in part.arms:
        pairs = tables.compared(part, "layer 5", other) if other != "layer 5" else None
        change = measure_change(pairs, "KID", name) if pairs else None
        if change is not None:
            what = f"{other.capitalize()} in place of layer 5 with the {ROLLOUT.gradient_step} step"
            sentences.append(change_sentence(what, "KID to the community", change, False, 0))
    return sentences


def _along(found: Tables) -> list[Sentence]:
    """How memorization and diversity change from the first snapshot to the last."""
    part, sentences = found["along training"], []
    for line in dict.fromkeys(name.split(", step ")[0] for name in part.arms):
        names = [name for name in part.arms if name.split(", step ")[0] == line]
        pairs = tables.compared(part, names[0], names[-1]) if len(names) > 1 else None
        if pairs is None:
            continue
        what = f"{line}, from step {names[0].split()[-1]} to {names[-1].split()[-1]}: further training"
        sentences.append(change_sentence(what, "the memorization gap", gap_change(pairs), False, 4))
        diversity = measure_change(pairs, "diversity", tables.DIVERSITY_TRAINED.removeprefix("diversity · "))
        if diversity is not None:
            sentences.append(change_sentence(what, "diversity on trained captions", diversity, True, 3))
    return sentences


def _control(found: Tables) -> list[Sentence]:
    """Whether C does more than a P that pushes equally hard."""
    part, sentences = found["control"], []
    names = list(part.arms)
    for before, after, what in (
        ("+MP at C's norm", "+MPC", "C's direction, against P pushed equally hard,"),
        ("+MP", "+MP at C's norm", "C's size alone, in P's direction,"),
    ):
        pairs = tables.compared(part, before, after) if before in names and after in names else None
        change = tables.changed(pairs, "dark skin", key(HELD_OUT, "", TAUGHT)) if pairs else None
        if change is not None:
            sentences.append(change_sentence(what, f"dark skin in {TAUGHT} on held-out kinds", change, True))
    return sentences
