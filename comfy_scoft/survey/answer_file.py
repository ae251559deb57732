"""One answer file: read with limits, validated against its survey, and turned into a Response or refused.

A file is parsed as JSON, and nothing in it is run, opened or followed. Only ids that the survey contains are taken from
it, and the participant's token, country and years.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..common.errors import UserError
from ..common.files import regular
from ..common.text import JOINERS, composed
from .spec import ANSWER_FORMAT, ANSWER_VERSION, Ranking, Response, Survey, SurveyPage

MAX_BYTES = 4 * 1024 * 1024
MAX_PAGES = 5000
MAX_NAME = 80
MAX_DIGITS = 20
"""Maximum length of a number in a file."""
MAX_YEARS = 120
_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class AnswerError(UserError):
    """Why a file is not used. kind: a key of `responses.KINDS`; the message completes the sentence "<file> …"."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", hide_input_in_errors=True)


class _Affiliation(_Part):
    country: str = Field("", max_length=1000)
    years: float | None = None


class _AnswerPage(_Part):
    page: str = Field(max_length=200)
    shown: list[str] = Field(max_length=100)
    ranks: dict[str, list[str]] = Field(max_length=200)


class _AnswerFile(_Part):
    version: int
    survey: str = Field(max_length=1000)
    survey_hash: str = Field(max_length=200)
    participant: str = Field(max_length=200)
    consented: bool
    affiliation: _Affiliation
    started: str | None = Field(None, max_length=64)
    finished: str | None = Field(None, max_length=64)
    pages: list[_AnswerPage] = Field(max_length=MAX_PAGES)


@dataclass(frozen=True)
class Answers:
    """A file's valid answers.

    dropped: number of incomplete pages; shown: the image ids of each page in the order shown; finished: time, "" if
    unknown; cautions: ends of sentences about unusual values.
    """

    response: Response
    dropped: int
    shown: tuple[tuple[str, ...], ...]
    finished: str
    cautions: tuple[str, ...]


def safe_text(text: str, length: int = MAX_NAME) -> str:
    """Untrusted text for messages: one line in NFC without control, direction and surrogate characters, shortened."""
    kept = "".join(c if c in JOINERS or unicodedata.category(c)[0] != "C" else " " for c in composed(text))
    kept = " ".join(kept.split())
    return kept if len(kept) <= length else kept[: length - 1] + "…"


def parse(data: bytes) -> dict[str, Any]:
    """The JSON object in a file's bytes. Raises AnswerError for anything else, and for JSON with duplicate keys."""
    if len(data) > MAX_BYTES:
        raise AnswerError("unreadable", f"is larger than {MAX_BYTES // 2**20} MB, which no answer file is")
    try:
        content = json.loads(
            data.decode(json.detect_encoding(data)),  # editors may save as UTF-16, or with a byte order mark
            parse_int=_int,
            parse_float=_float,
            parse_constant=_constant,
            object_pairs_hook=_object,
        )
    except UnicodeDecodeError:
        raise AnswerError("unreadable", "is not text in UTF-8 or UTF-16") from None
    except RecursionError:
        raise AnswerError("unreadable", "is nested too deeply to be an answer file") from None
    except AnswerError:
        raise
    except ValueError:
        raise AnswerError("unreadable", "is not JSON, or was cut off on its way; ask for it again") from None
    if not isinstance(content, dict) or content.get("format") != ANSWER_FORMAT:
        raise AnswerError("unreadable", "is JSON, but not an answer file of a survey")
    return content


def _int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise AnswerError("unreadable", "holds a number of too many digits")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise AnswerError("unreadable", "holds a number that is not finite")
    return value


def _constant(text: str) -> NoReturn:
    raise AnswerError("unreadable", f"holds {text}, which is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise AnswerError("forged", "has a key twice, so it was not written by the survey's page")
    # a lone surrogate, such as half of an emoji, would make later checks of text raise
    return {k: v.encode("utf-8", "replace").decode("utf-8") if isinstance(v, str) else v for k, v in values.items()}


def survey_of(data: dict[str, Any]) -> str:
    """The id of the survey in a file, or ""."""
    survey = data.get("survey")
    return survey if isinstance(survey, str) else ""


def validated(data: dict[str, Any], survey: Survey, file: str, prefix: str = "") -> Answers:
    """The answers in a parsed file. Raises AnswerError unless all of it is valid for `survey`.

    prefix: of page ids, for joined surveys.
    """
    try:
        given = _AnswerFile.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = safe_text(".".join(str(part) for part in first["loc"]), 60)
        raise AnswerError("forged", f"is malformed at {where!r} ({safe_text(first['msg'], 80)})") from None
    if given.version != ANSWER_VERSION:
        raise AnswerError("unreadable", f"has format version {given.version}, and this pack reads {ANSWER_VERSION}")
    if given.survey != survey.id:
        raise AnswerError("foreign", f"answers another survey ({safe_text(given.survey, 40)!r})")
    if given.survey_hash != survey.hash:
        raise AnswerError(
            "forged", "names this survey but not its hash: it comes from another version of it, or is forged"
        )
    if not given.consented:
        raise AnswerError("no consent", "comes from someone who did not consent")
    if not _TOKEN.fullmatch(given.participant):
        raise AnswerError("forged", "has no proper participant token")
    cautions = _times(given, survey)
    years = given.affiliation.years
    if years is not None and not 0 <= years <= MAX_YEARS:
        cautions.append(f"gives {years:g} years of experience, which is impossible and left out")
        years = None
    rankings, dropped = _rankings(given.pages, survey, prefix)
    country = safe_text(given.affiliation.country)
    response = Response(given.participant, country, years, tuple(rankings), file)
    shown = tuple(tuple(page.shown) for page in given.pages)
    return Answers(response, dropped, shown, given.finished or "", tuple(cautions))


def _times(given: _AnswerFile, survey: Survey) -> list[str]:
    """Cautions about unusual times (a clock may be wrong). Raises AnswerError for invalid times."""
    moments = []
    for text in (given.started, given.finished):
        try:
            # Python 3.10 does not accept the Z of JavaScript's toISOString
            moment = datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None
            moments.append(moment.replace(tzinfo=moment.tzinfo or timezone.utc) if moment else None)
        except (ValueError, OverflowError):
            raise AnswerError("forged", "holds an invalid time") from None
    started, finished = moments
    if started is None or finished is None:
        return []
    try:
        seconds = (finished - started).total_seconds()
        ahead = (finished - datetime.now(timezone.utc)).total_seconds()
    except OverflowError:
        raise AnswerError("forged", "holds an invalid time") from None
    if seconds < 0:
        raise AnswerError("forged", "was finished before it was started")
    cautions = []
    if ahead > 86400:
        cautions.append("was finished in the future, so its clock is wrong")
    if given.pages and seconds < 2 * len(given.pages):
        cautions.append(f"took {seconds:.0f} s for {len(given.pages)} pages, faster than people read")
    return cautions


def _rankings(pages: list[_AnswerPage], survey: Survey, prefix: str) -> tuple[list[Ranking], int]:
    """Rankings of complete pages, and the number of other pages. Raises AnswerError for ids of no such survey page."""
    known = {page.id: page for page in survey.pages}
    rankings: list[Ranking] = []
    dropped = 0
    seen: set[str] = set()
    for answer in pages:
        page = known.get(answer.page)
        if page is None:
            raise AnswerError(
                "forged", f"answers a page that the survey does not have ({safe_text(answer.page, 40)!r})"
            )
        if answer.page in seen:
            raise AnswerError("forged", f"answers page {page.id} twice")
        seen.add(answer.page)
        of_page = _page_rankings(answer, page, survey, prefix)
        rankings += of_page
        dropped += not of_page
    return rankings, dropped + len(known) - len(seen)


def _page_rankings(answer: _AnswerPage, page: SurveyPage, survey: Survey, prefix: str) -> list[Ranking]:
    """One ranking for each item, or none if any of them is missing or incomplete."""
    index = {image: k for k, image in enumerate(page.images)}
    if sorted(answer.shown) != sorted(page.images):
        raise AnswerError("forged", f"shows other images on page {page.id} than the survey does")
    items = [item.id for item in survey.items]
    for item, order in answer.ranks.items():
        if item not in items:
            raise AnswerError(
                "forged", f"ranks page {page.id} on something that was not asked ({safe_text(item, 40)!r})"
            )
        if not set(order) <= set(index):
            raise AnswerError("forged", f"ranks an image that page {page.id} does not have")
        if len(set(order)) != len(order):
            raise AnswerError("forged", f"ranks one image twice on page {page.id}")
    orders = {item: tuple(index[image] for image in order) for item, order in answer.ranks.items()}
    if any(len(orders.get(item, ())) != len(index) for item in items):
        return []
    return [Ranking(prefix + page.id, item, orders[item]) for item in items]


def read_limited(path: Path) -> bytes:
    """A file's first MAX_BYTES + 1 bytes. Raises AnswerError if it cannot be read."""
    try:
        with regular(path).open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise AnswerError("unreadable", f"cannot be read ({error.strerror or 'unknown reason'})") from None
