"""A folder of answer files -> the survey with its answers, and a report of every file that was not used.

Rules, in order. A file that cannot be read, belongs to another survey, or holds what the survey's page cannot write is
left out whole. Of a page only whole answers count: every item ranked, every image in each ranking. One participant
counts once: the file with the most whole pages, of those the one finished last. A file whose answers and whose random
orders are all another's is a copy under another name, and is left out.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from .answer_file import MAX_BYTES, Answers, Refused, checked, parse, plain, read, survey_of
from .spec import KEY_ENDING, Page, Survey, from_json

MAX_FILES = 10_000
LISTED = 40
"""Sentences of one kind in the report; the rest is counted."""
CHANCE = 1e-6
"""Two people see the same random orders on every page as rarely as this: then it is one person's file, copied."""

Notes = list[tuple[str, str]]
"""(kind, sentence) in the order found."""


def load_responses(survey: Survey | None, folder: Path, keys: Path | None = None) -> tuple[Survey, str]:
    """The survey with the answers of every good `*.json` file directly in `folder`, and a report, one sentence a file.

    Without `survey` the key files (`*.survey.json`) in the folder say what was asked; if there are none, those under
    `keys`. Where answers of several surveys lie together (one a country, say) they are joined: the surveys must compare
    the same generators on the same items, and page ids get the survey's id before them. Links and sub-folders are not
    read. Raises UserError if there is no answer file, no key file that fits, or more than MAX_FILES files.
    """
    files = answer_files(folder)
    if not files:
        raise UserError(
            f"The folder {plain(folder.name)!r} holds no answer file: put the participants' .json files there."
        )
    notes: Notes = []
    parsed: dict[str, dict[str, Any]] = {}
    for path in files:
        try:
            parsed[path.name] = parse(read(path))
        except Refused as refusal:
            notes.append(_left_out(path.name, refusal))
    surveys = [survey] if survey is not None else _surveys(folder, keys, {survey_of(data) for data in parsed.values()})
    joined = replace(surveys[0], responses=()) if len(surveys) == 1 else join(surveys)
    good = _good_files(parsed, surveys, notes)
    kept = _without_copies(_one_each(good, notes), notes)
    responses = tuple(answers.response for answers in kept)
    for answers in kept:
        name = plain(answers.response.file)
        if answers.dropped:
            whole = len(answers.response.rankings) // len(joined.items)
            notes.append(
                ("partial", f"{name} is partial: {whole} of {whole + answers.dropped} pages are whole and used.")
            )
        notes += [("caution", f"{name} {caution}.") for caution in answers.cautions]
    return replace(joined, responses=responses), report(len(files), responses, notes)


def answer_files(folder: Path) -> list[Path]:
    """Files `*.json` directly in a folder, without key files and links, by name. Raises UserError over MAX_FILES."""
    found = _json_files(folder, lambda name: not name.endswith(KEY_ENDING))
    if len(found) > MAX_FILES:
        raise UserError(
            f"The folder {plain(folder.name)!r} holds {len(found)} .json files and at most {MAX_FILES} are read: "
            "split it into several folders."
        )
    return found


def _json_files(folder: Path, wanted: Callable[[str], bool]) -> list[Path]:
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if e.is_file(follow_symlinks=False) and e.name.lower().endswith(".json")]
    return sorted(folder / name for name in names if wanted(name.lower()))


def _left_out(name: str, refusal: Refused) -> tuple[str, str]:
    return refusal.kind, f"{plain(name)} {refusal}."


def _good_files(parsed: dict[str, dict[str, Any]], surveys: Sequence[Survey], notes: Notes) -> list[Answers]:
    """The answers of every file that belongs to one of the surveys and is sound; the others are noted."""
    by_id = {survey.id: survey for survey in surveys}
    good = []
    for name, data in parsed.items():
        survey = by_id.get(survey_of(data), surveys[0])
        try:
            answers = checked(data, survey, name, f"{survey.id}/" if len(surveys) > 1 else "")
            if not answers.response.rankings:
                raise Refused("empty", "holds no whole page")
            good.append(answers)
        except Refused as refusal:
            notes.append(_left_out(name, refusal))
    return good


def _one_each(good: Sequence[Answers], notes: Notes) -> list[Answers]:
    """One file a participant: the most whole pages, then the latest end, then the name."""
    by_participant: dict[tuple[str, str], list[Answers]] = defaultdict(list)
    for answers in good:
        survey = answers.response.rankings[0].page.rpartition("/")[0]  # one person may answer several joined surveys
        by_participant[survey, answers.response.participant].append(answers)
    kept = []
    for several in by_participant.values():
        several.sort(key=lambda a: (-len(a.response.rankings), _reversed(a.finished), a.response.file))
        best, *others = several
        kept.append(best)
        for other in others:
            same = replace(other.response, file="") == replace(best.response, file="")
            how = "the same answers" if same else "other answers; the fuller one, then the later one, counts"
            what = f"is a duplicate: {plain(best.response.file)} is from the same participant with {how}"
            notes.append(("duplicate", f"{plain(other.response.file)} {what}."))
    return kept


def _reversed(moment: str) -> tuple[int, ...]:
    """A key that sorts later times (ISO text) first and none last."""
    return tuple(-ord(c) for c in moment) or (1,)


def _without_copies(kept: Sequence[Answers], notes: Notes) -> list[Answers]:
    """Leaves out files that repeat another's answers and random orders under a new participant token."""
    first: dict[tuple, str] = {}
    found = []
    for answers in sorted(kept, key=lambda a: a.response.file):
        fingerprint = (answers.shown, answers.response.rankings)
        unlikely = sum(math.lgamma(len(shown) + 1) for shown in answers.shown) > -math.log(CHANCE)
        original = first.setdefault(fingerprint, answers.response.file)
        if unlikely and original != answers.response.file:
            what = f"is a copy of {plain(original)} under another participant's token"
            notes.append(("forged", f"{plain(answers.response.file)} {what}."))
        else:
            found.append(answers)
    return found


def _surveys(folder: Path, keys: Path | None, asked: set[str]) -> list[Survey]:
    """The surveys whose key files lie in the folder (else under `keys`) and that some answer names."""
    paths = _json_files(folder, lambda name: name.endswith(KEY_ENDING))
    if not paths and keys is not None and keys.is_dir():
        paths = [path for place in (keys, *sorted(p for p in keys.iterdir() if p.is_dir() and not p.is_symlink()))
                 for path in _json_files(place, lambda name: name.endswith(KEY_ENDING))]  # fmt: skip
    found = {survey.id: survey for survey in map(read_key, paths)}
    fitting = [survey for name, survey in found.items() if name in asked]
    if fitting or len(found) == 1:
        return fitting or list(found.values())
    raise UserError(
        f"No key file fits the answers in {plain(folder.name)!r}: put the survey's {KEY_ENDING} file, which Build "
        "Survey wrote beside the page, into that folder, or connect the survey."
    )


def read_key(path: Path) -> Survey:
    """The survey of a key file. Raises UserError if it is not one."""
    try:
        if path.stat().st_size > 16 * MAX_BYTES:
            raise UserError("too large")
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        raise UserError(f"The key file {plain(path.name)!r} cannot be read: use it as Build Survey wrote it.") from None
    return from_json(data)


def join(surveys: Sequence[Survey]) -> Survey:
    """One survey of the pages of several. Raises UserError unless they compare the same generators on the same items.

    Titles and questions of the items are the first survey's; page ids are "<survey id>/<page id>".
    """
    first = surveys[0]
    pages: list[Page] = []
    for survey in surveys:
        same = survey.generators == first.generators and [i.id for i in survey.items] == [i.id for i in first.items]
        if not same:
            raise UserError(
                f"The surveys {plain(first.title)!r} and {plain(survey.title)!r} do not compare the same generators on "
                "the same items: put their answers into different folders."
            )
        for page in survey.pages:
            repeats = f"{survey.id}/{page.repeats}" if page.repeats else ""
            pages.append(replace(page, id=f"{survey.id}/{page.id}", repeats=repeats))
    digest = hashlib.sha256("".join(survey.hash for survey in surveys).encode()).hexdigest()
    title = " + ".join(dict.fromkeys(survey.title for survey in surveys))
    return replace(
        first, title=title, pages=tuple(pages), id="+".join(s.id for s in surveys), hash=digest, responses=()
    )


KINDS = {
    "unreadable": "could not be read",
    "foreign": "of another survey",
    "forged": "forged or damaged",
    "no consent": "without consent",
    "empty": "without a whole page",
    "duplicate": "a participant's second file",
}
"""Kinds of files that are left out, in the order of the report."""


def report(files: int, responses: Sequence, notes: Notes) -> str:
    """One line that sums up, then one sentence for each file that was left out or is odd, at most LISTED of a kind."""
    counts = Counter(kind for kind, _ in notes)
    left_out = sum(counts[kind] for kind in KINDS)
    parts = [f"{counts[kind]} {words}" for kind, words in KINDS.items() if counts[kind]]
    used = "1 participant" if len(responses) == 1 else f"{len(responses)} participants"
    head = f"{files} answer {'file' if files == 1 else 'files'} read: {used} used, {left_out} left out"
    lines = [head + (f" ({', '.join(parts)})." if parts else ".")]
    for kind in [*KINDS, "partial", "caution"]:
        sentences = [sentence for found, sentence in notes if found == kind]
        lines += sentences[:LISTED]
        if len(sentences) > LISTED:
            lines.append(f"… and {len(sentences) - LISTED} more of that kind ({KINDS.get(kind, kind)}).")
    return "\n".join(lines)
