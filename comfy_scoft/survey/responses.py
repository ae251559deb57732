"""A folder of answer files -> the survey with its answers, and a report of every file that was not used.

Rules, in order. Read are `.json` files, and `.txt` files that hold an answer, as editors and people who paste make
them. A file that cannot be read, belongs to another survey, or contains what the survey's page cannot write is left
out. Only complete pages count: every item ranked, with every image. Each participant counts once, by the file with the
most complete pages, of these the one finished last. A file with the same answers and random orders as another
participant's is a copy and is left out.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..common.files import regular
from ..common.folders import read_names
from ..data.dataset.walk import hidden
from .answer_file import MAX_BYTES, AnswerError, Answers, parse, read_limited, safe_text, survey_of, validated
from .spec import ANSWER_FORMAT, KEY_ENDING, Survey, SurveyPage, from_json

MAX_FILES = 10_000
HEAD = 2048
"""A file whose first bytes do not name the format is no answer file."""
OWN = (KEY_ENDING, ".report.html", ".report.csv", "readme.md")
"""What lies beside answers, and is none."""
LISTED = 40
"""Sentences of one kind in the report; more are only counted."""
NAMED = 8
"""Names of what is not read; more are only counted."""
CHANCE = 1e-6
"""If the same random orders on all pages are less probable than this, a file with them is a copy."""

Notes = list[tuple[str, str]]
"""(kind, sentence) in order; kind: a key of KINDS, "partial" or "caution"."""


def load_responses(survey: Survey | None, folder: Path, keys: Path | None = None) -> tuple[Survey, str]:
    """The survey with the answers of every valid file directly in `folder` (`answer_files`), and a report.

    survey: None to use the key files (`*.survey.json`) in the folder, or else those under `keys`. Answers of several
    surveys (one per country, for example) are joined: the surveys must compare the same generators on the same items,
    and page ids get the survey's id as a prefix. Links and subfolders are named, not read. Raises UserError for no
    answer file, no matching key file, or more than MAX_FILES files.
    """
    files = answer_files(folder)
    if not files:
        raise UserError(
            f"The folder {safe_text(folder.name)!r} holds no answer file: put the participants' .json files there."
        )
    notes: Notes = []
    parsed: dict[str, dict[str, Any]] = {}
    for path in files:
        try:
            parsed[path.name] = parse(read_limited(path))
        except AnswerError as error:
            notes.append(_left_out(path.name, error))
    surveys = [survey] if survey is not None else _surveys(folder, keys, {survey_of(data) for data in parsed.values()})
    joined = replace(surveys[0], responses=()) if len(surveys) == 1 else join(surveys)
    kept = _without_copies(_one_each(_valid_files(parsed, surveys, notes), notes), notes)
    responses = tuple(answers.response for answers in kept)
    for answers in kept:
        name = safe_text(answers.response.file)
        if answers.dropped:
            pages = len(answers.response.rankings) // len(joined.items)
            notes.append(
                ("partial", f"{name} is partial: {pages} of {pages + answers.dropped} pages are complete and used.")
            )
        notes += [("caution", f"{name} {caution}.") for caution in answers.cautions]
    text = "\n".join(filter(None, [report(len(files), responses, notes), _not_read(folder, files)]))
    return replace(joined, responses=responses), text


def answer_files(folder: Path) -> list[Path]:
    """The answer files directly in a folder, by name: `*.json`, without key files, and `*.txt` that hold answers, as
    editors, mail programs and people who paste them make them. No links. Raises UserError over MAX_FILES."""
    names = [n for n in read_names(folder).files if may_be_answers(n)]
    if len(names) > MAX_FILES:
        raise UserError(
            f"The folder {safe_text(folder.name)!r} holds {len(names)} .json and .txt files and at most {MAX_FILES} "
            "are read: split it into several folders."
        )
    return [folder / n for n in names if n.lower().endswith(".json") or holds_answers(folder / n)]


def may_be_answers(name: str) -> bool:
    """Whether a file's name is that of an answer file."""
    return name.lower().endswith((".json", ".txt")) and not name.lower().endswith(KEY_ENDING)


def holds_answers(path: Path) -> bool:
    """Whether a file begins like an answer file, as UTF-8 or UTF-16 or below a line of a message."""
    try:
        with regular(path).open("rb") as file:
            return ANSWER_FORMAT.encode() in file.read(HEAD).replace(b"\0", b"")
    except OSError:
        return False


def _key_files(folder: Path) -> list[Path]:
    return [folder / name for name in read_names(folder).files if name.lower().endswith(KEY_ENDING)]


def _not_read(folder: Path, files: Sequence[Path]) -> str:
    """A sentence that names what else lies in the folder, "" if nothing does that people may have put there."""
    names, read = read_names(folder), {path.name for path in files}
    others = [n for n in (*names.folders, *names.files, *names.links, *names.others) if n not in read]
    others = [n for n in others if not hidden(n) and not n.lower().endswith(OWN)]
    if not others:
        return ""
    more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
    listed = ", ".join(safe_text(name) for name in others[:NAMED])
    return f"Not read: {listed}{more}. Answers are read from .json and .txt files directly in the folder."


def _left_out(name: str, error: AnswerError) -> tuple[str, str]:
    return error.kind, f"{safe_text(name)} {error}."


def _valid_files(parsed: dict[str, dict[str, Any]], surveys: Sequence[Survey], notes: Notes) -> list[Answers]:
    """The answers of every file that is valid for one of the surveys; adds a note for each other one."""
    by_id = {survey.id: survey for survey in surveys}
    valid = []
    for name, data in parsed.items():
        survey = by_id.get(survey_of(data), surveys[0])
        try:
            answers = validated(data, survey, name, f"{survey.id}/" if len(surveys) > 1 else "")
            if not answers.response.rankings:
                raise AnswerError("empty", "has no complete page")
            valid.append(answers)
        except AnswerError as error:
            notes.append(_left_out(name, error))
    return valid


def _one_each(valid: Sequence[Answers], notes: Notes) -> list[Answers]:
    """One file for each participant: the most complete pages, then the latest end, then the name."""
    by_participant: dict[tuple[str, str], list[Answers]] = defaultdict(list)
    for answers in valid:
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
            what = f"is a duplicate: {safe_text(best.response.file)} is from the same participant with {how}"
            notes.append(("duplicate", f"{safe_text(other.response.file)} {what}."))
    return kept


def _reversed(moment: str) -> tuple[int, ...]:
    """A sort key with later times (ISO text) first and "" last."""
    return tuple(-ord(c) for c in moment) or (1,)


def _without_copies(kept: Sequence[Answers], notes: Notes) -> list[Answers]:
    """Drop files with the answers and random orders of another file under a new participant token."""
    first: dict[tuple, str] = {}
    originals = []
    for answers in sorted(kept, key=lambda a: a.response.file):
        fingerprint = (answers.shown, answers.response.rankings)
        unlikely = sum(math.lgamma(len(shown) + 1) for shown in answers.shown) > -math.log(CHANCE)
        original = first.setdefault(fingerprint, answers.response.file)
        if unlikely and original != answers.response.file:
            what = f"is a copy of {safe_text(original)} under another participant's token"
            notes.append(("forged", f"{safe_text(answers.response.file)} {what}."))
        else:
            originals.append(answers)
    return originals


def _surveys(folder: Path, keys: Path | None, answered: set[str]) -> list[Survey]:
    """The surveys that are answered and whose key files are in the folder, or else under `keys`."""
    paths = _key_files(folder)
    if not paths and keys is not None and keys.is_dir():
        folders = [keys, *sorted(path for path in keys.iterdir() if path.is_dir() and not path.is_symlink())]
        paths = [path for folder_ in folders for path in _key_files(folder_)]
    surveys = {survey.id: survey for survey in map(read_key, paths)}
    matching = [survey for id_, survey in surveys.items() if id_ in answered]
    if matching or len(surveys) == 1:
        return matching or list(surveys.values())
    raise UserError(
        f"No key file fits the answers in {safe_text(folder.name)!r}: put the survey's {KEY_ENDING} file, which Build "
        "Survey wrote beside the page, into that folder, or connect the survey."
    )


def read_key(path: Path) -> Survey:
    """Read a key file. Raises UserError if it is not one."""
    data = None
    try:
        if path.stat().st_size <= 16 * MAX_BYTES:
            data = json.loads(regular(path).read_bytes())
    except (OSError, ValueError, RecursionError):
        pass
    if data is None:
        raise UserError(f"The key file {safe_text(path.name)!r} cannot be read: use it as Build Survey wrote it.")
    return from_json(data)


def join(surveys: Sequence[Survey]) -> Survey:
    """One survey with the pages of several. Raises UserError unless they have the same generators and items.

    Item titles and questions are the first survey's; page ids are "<survey id>/<page id>".
    """
    first = surveys[0]
    pages: list[SurveyPage] = []
    for survey in surveys:
        if survey.generators != first.generators or [i.id for i in survey.items] != [i.id for i in first.items]:
            raise UserError(
                f"The surveys {safe_text(first.title)!r} and {safe_text(survey.title)!r} do not compare the same "
                "generators on the same items: put their answers into different folders."
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
    "empty": "without a complete page",
    "duplicate": "a participant's second file",
}
"""Why files are left out, in the order of the report."""


def report(files: int, responses: Sequence, notes: Notes) -> str:
    """A summary line, then one sentence for each file with a note, at most LISTED of a kind."""
    counts = Counter(kind for kind, _ in notes)
    left_out = sum(counts[kind] for kind in KINDS)
    parts = [f"{counts[kind]} {reason}" for kind, reason in KINDS.items() if counts[kind]]
    used = "1 participant" if len(responses) == 1 else f"{len(responses)} participants"
    head = f"{files} answer {'file' if files == 1 else 'files'} read: {used} used, {left_out} left out"
    lines = [head + (f" ({', '.join(parts)})." if parts else ".")]
    for kind in [*KINDS, "partial", "caution"]:
        sentences = [sentence for note_kind, sentence in notes if note_kind == kind]
        lines += sentences[:LISTED]
        if len(sentences) > LISTED:
            lines.append(f"… and {len(sentences) - LISTED} more of that kind ({KINDS.get(kind, kind)}).")
    return "\n".join(lines)
