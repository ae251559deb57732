"""One answer file: read with limits, checked against its survey, and refused in one sentence or turned into a Response.

Nothing in a file is run, opened or followed: it is text that is parsed as JSON, and only ids that the survey itself
holds are taken from it, besides a participant's token, a country and a number of years.
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
from .spec import ANSWER_FORMAT, ANSWER_VERSION, Page, Ranking, Response, Survey

MAX_BYTES = 4 * 1024 * 1024
MAX_PAGES = 5000
LONGEST_NAME = 80
LONGEST_NUMBER = 20
"""Digits and letters of a number in a file; a longer one stands for nothing that an answer can hold."""
MAX_YEARS = 120
_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class Refused(UserError):
    """A file that is not used. kind: what to count it under; the message ends the sentence "<file> …"."""

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
    """A file's valid answers. dropped: pages that were not whole; shown: the image ids as each page showed them;
    finished: when, "" where the file does not say; cautions: ends of sentences about what is odd but can be."""

    response: Response
    dropped: int
    shown: tuple[tuple[str, ...], ...]
    finished: str
    cautions: tuple[str, ...]


def plain(text: str, longest: int = LONGEST_NAME) -> str:
    """Text from outside in a form that is safe to show: one line, composed (NFC), no control, direction or lone
    surrogate characters, at most `longest` characters."""
    kept = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in unicodedata.normalize("NFC", text))
    kept = " ".join(kept.split())
    return kept if len(kept) <= longest else kept[: longest - 1] + "…"


def parse(data: bytes) -> dict[str, Any]:
    """The JSON object in a file's bytes. Raises Refused for anything else, and for JSON that says a thing twice."""
    if len(data) > MAX_BYTES:
        raise Refused("unreadable", f"is larger than {MAX_BYTES // 2**20} MB, which no answer file is")
    try:
        found = json.loads(
            data.decode("utf-8-sig"),
            parse_int=_whole,
            parse_float=_real,
            parse_constant=_constant,
            object_pairs_hook=_once,
        )
    except UnicodeDecodeError:
        raise Refused("unreadable", "is not text in UTF-8") from None
    except RecursionError:
        raise Refused("unreadable", "is nested too deeply to be an answer file") from None
    except Refused:
        raise
    except ValueError:
        raise Refused("unreadable", "is not JSON, or was cut off on its way; ask for it again") from None
    if not isinstance(found, dict) or found.get("format") != ANSWER_FORMAT:
        raise Refused("unreadable", "is JSON, but not an answer file of a survey")
    return found


def _whole(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise Refused("unreadable", "holds a number of too many digits")
    return int(text)


def _real(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Refused("unreadable", "holds a number that is not finite")
    return value


def _constant(text: str) -> NoReturn:
    raise Refused("unreadable", f"holds {text}, which is not JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Refused("forged", "says one thing twice, so it was not written by the survey's page")
    # half a character, as of an emoji that was cut in two, would stop the checks of text
    return {key: _mended(value) for key, value in found.items()}


def _mended(value: Any) -> Any:
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


def survey_of(data: dict[str, Any]) -> str:
    """The id of the survey that a file says it answers, or ""."""
    found = data.get("survey")
    return found if isinstance(found, str) else ""


def checked(data: dict[str, Any], survey: Survey, file: str, prefix: str = "") -> Answers:
    """The answers in a parsed file, once everything in it can be. Raises Refused.

    survey: the one the file must belong to. prefix: put before page ids where several surveys are joined.
    """
    try:
        given = _AnswerFile.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = plain(".".join(str(part) for part in first["loc"]), 60)
        raise Refused("forged", f"is malformed at {where!r} ({plain(first['msg'], 80)})") from None
    if given.version != ANSWER_VERSION:
        raise Refused("unreadable", f"has format version {given.version}, and this pack reads {ANSWER_VERSION}")
    if given.survey != survey.id:
        raise Refused("foreign", f"answers another survey ({plain(given.survey, 40)!r})")
    if given.survey_hash != survey.hash:
        raise Refused("forged", "names this survey but not its hash: it comes from another version of it, or is forged")
    if not given.consented:
        raise Refused("no consent", "comes from someone who did not consent")
    if not _TOKEN.fullmatch(given.participant):
        raise Refused("forged", "has no proper participant token")
    cautions = _times(given, survey)
    years = given.affiliation.years
    if years is not None and not 0 <= years <= MAX_YEARS:
        cautions.append(f"gives {years:g} years of experience, which cannot be and is left out")
        years = None
    rankings, dropped = _rankings(given.pages, survey, prefix)
    country = plain(given.affiliation.country)
    response = Response(given.participant, country, years, tuple(rankings), file)
    shown = tuple(tuple(page.shown) for page in given.pages)
    return Answers(response, dropped, shown, given.finished or "", tuple(cautions))


def _times(given: _AnswerFile, survey: Survey) -> list[str]:
    """Refuses times that cannot be. Returns cautions about those that are only odd (a clock may be wrong)."""
    moments = []
    for text in (given.started, given.finished):
        try:
            # Python 3.10 does not know the Z of JavaScript's toISOString
            moment = datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None
            moments.append(moment.replace(tzinfo=moment.tzinfo or timezone.utc) if moment else None)
        except (ValueError, OverflowError):
            raise Refused("forged", "holds a time that is no time") from None
    started, finished = moments
    if started is None or finished is None:
        return []
    try:
        seconds = (finished - started).total_seconds()
        ahead = (finished - datetime.now(timezone.utc)).total_seconds()
    except OverflowError:
        raise Refused("forged", "holds a time that is no time") from None
    if seconds < 0:
        raise Refused("forged", "was finished before it was started")
    cautions = []
    if ahead > 86400:
        cautions.append("was finished in the future, so its clock is wrong")
    if given.pages and seconds < 2 * len(given.pages):
        cautions.append(f"took {seconds:.0f} s for {len(given.pages)} pages, faster than people read")
    return cautions


def _rankings(pages: list[_AnswerPage], survey: Survey, prefix: str) -> tuple[list[Ranking], int]:
    """Rankings of the pages that are whole, and how many pages are not. Refuses ids that the survey does not hold."""
    known = {page.id: page for page in survey.pages}
    found: list[Ranking] = []
    dropped = 0
    seen: set[str] = set()
    for answer in pages:
        page = known.get(answer.page)
        if page is None:
            raise Refused("forged", f"answers a page that the survey does not have ({plain(answer.page, 40)!r})")
        if answer.page in seen:
            raise Refused("forged", f"answers page {page.id} twice")
        seen.add(answer.page)
        rankings = _page_rankings(answer, page, survey, prefix)
        found += rankings
        dropped += not rankings
    return found, dropped + len(known) - len(seen)


def _page_rankings(answer: _AnswerPage, page: Page, survey: Survey, prefix: str) -> list[Ranking]:
    """One ranking an item, or none if any of them is missing or cut short."""
    index = {image: k for k, image in enumerate(page.images)}
    if sorted(answer.shown) != sorted(page.images):
        raise Refused("forged", f"shows other images on page {page.id} than the survey does")
    items = [item.id for item in survey.items]
    for item, order in answer.ranks.items():
        if item not in items:
            raise Refused("forged", f"ranks page {page.id} on something that was not asked ({plain(item, 40)!r})")
        if not set(order) <= set(index):
            raise Refused("forged", f"ranks an image that page {page.id} does not have")
        if len(set(order)) != len(order):
            raise Refused("forged", f"ranks one image twice on page {page.id}")
    orders = {item: tuple(index[image] for image in order) for item, order in answer.ranks.items()}
    if any(len(orders.get(item, ())) != len(index) for item in items):
        return []
    return [Ranking(prefix + page.id, item, orders[item]) for item in items]


def read(path: Path) -> bytes:
    """A file's bytes, at most one more than MAX_BYTES. Raises Refused if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Refused("unreadable", f"cannot be read ({error.strerror or 'unknown reason'})") from None
