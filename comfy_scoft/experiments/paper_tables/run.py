"""The stages of a run, culture by culture and arm by arm: prepare, train, generate, measure, write the page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from . import human, page, prepare
from .arms import BASE, Arm
from .data import GENERIC, HELD_OUT, OWN, Culture, image_specs
from .measure import Measurer
from .results import Progress, results
from .study import Study
from .train import ImageFiles, Model, generate, trained


def work(study: Study, command: str, answers: Path | None, *, short: bool) -> None:
    """Do all that is left; the page is written after each culture. answers: folder of the survey's answers."""
    prepared = {culture.name: prepare.prepared(study, culture) for culture in study.cultures}
    done = Progress({name: facts for name, (_, facts) in prepared.items()})
    measurer = Measurer(study)

    def write() -> list[Path]:
        first = done.sets[study.cultures[0].name]
        content = results(study, done, command, short=short)
        return page.write(study.out / "page", content, _of(first, OWN) or _of(first, HELD_OUT))

    for culture in study.cultures:
        sets = done.sets[culture.name] = {}
        figures = done.figures[culture.name] = {}
        for arm in study.arms:
            model = trained(study, culture, arm, prepared[culture.name][0])
            sets[arm.name] = _sets(study, culture, arm, model, done)
            figures[arm.name] = measurer.figures(culture, arm, sets[arm.name])
        own = _of(sets, OWN)
        if own:
            done.surveys[culture.name] = human.write_page(study, culture.name, own)
        write()
    if answers is not None:
        done.ranks = human.ranks(study, answers)
        study.say(done.ranks["report"])
    elif done.surveys:
        study.say(human.HOW)
    study.clock.tell()
    study.say("\n".join(map(str, write())))


def _sets(study: Study, culture: Culture, arm: Arm, model: Model, done: Progress) -> dict[str, ImageFiles]:
    """Every set of an arm's images. The base model's of the generic set are the same in every culture."""
    sets = {}
    for spec in image_specs(arm, culture, study.generic, study.scale, study.seed, study.tables):
        shared = arm is BASE and spec.name == GENERIC and culture is not study.cultures[0]
        first = done.sets[study.cultures[0].name].get(arm.name, {}) if shared else {}
        sets[spec.name] = first[GENERIC] if shared else generate(study, model, spec)
    return sets


def _of(sets: Mapping[str, Mapping[str, ImageFiles]], name: str) -> dict[str, ImageFiles]:
    """The set of that name of each arm that has it."""
    return {arm: own[name] for arm, own in sets.items() if name in own}
