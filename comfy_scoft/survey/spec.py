"""The data of a survey and of its answers, and the key file.

A page shows one prompt with one image of each generator under the same seed; people rank the images on each item (the
paper's Section 5 and Table 5). Rank 1 is best for the culture on every item: the best match, the best representation,
the least stereotypical, the least offensive.

The HTML page contains opaque image ids only. Which generator made which image is only in the key file,
`<name>.survey.json`, which the organizer keeps.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..common.errors import UserError
from ..common.text import is_unicode

KEY_FORMAT, KEY_VERSION = "scoft-survey", 1
ANSWER_FORMAT, ANSWER_VERSION = "scoft-survey-answers", 1
KEY_ENDING = ".survey.json"


@dataclass(frozen=True)
class Item:
    """One question under which the images of a page are ranked, best first."""

    id: str
    title: str
    question: str
    """As shown, with the culture filled in; lines after the first are instructions."""


@dataclass(frozen=True)
class SurveyPage:
    """One prompt and its images.

    images: opaque random ids, one for each generator, in the order of `Survey.generators`.
    repeats: the id of the page that this one repeats as an attention check, with new image ids; "" for none.
    """

    id: str
    prompt: str
    seed: int
    images: tuple[str, ...]
    repeats: str = ""


@dataclass(frozen=True)
class Ranking:
    """One page ranked on one item. order: indices of generators, best first."""

    page: str
    item: str
    order: tuple[int, ...]


@dataclass(frozen=True)
class Response:
    """The answers of one participant. country: self-reported affiliation; years: of experience with the culture."""

    participant: str
    country: str
    years: float | None
    rankings: tuple[Ranking, ...]
    file: str


@dataclass(frozen=True)
class Survey:
    """A survey and, once loaded, its answers. generators: labels of the sets, not contained in the page."""

    title: str
    language: str
    items: tuple[Item, ...]
    generators: tuple[str, ...]
    pages: tuple[SurveyPage, ...]
    seed: int
    id: str
    hash: str
    responses: tuple[Response, ...] = ()


def content_hash(survey: Survey, images: bytes) -> str:
    """Hexadecimal SHA-256 of `images` and of the canonical JSON of a survey without id, hash and answers.

    images: a digest of the images before encoding. It cannot be computed from the page, so the hash in the page does
    not let people test guesses of which generator made which image.
    """
    content = asdict(survey)
    for name in ("id", "hash", "responses"):
        del content[name]
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii") + b"\0" + images).hexdigest()


def to_json(survey: Survey) -> dict[str, Any]:
    """The key file's content: everything but the answers, as plain JSON values."""
    content = asdict(survey)
    del content["responses"]
    return json.loads(json.dumps({"format": KEY_FORMAT, "version": KEY_VERSION, **content}))


def from_json(data: Any) -> Survey:
    """A survey from the key file's content. Raises UserError for invalid content."""
    if not isinstance(data, Mapping) or data.get("format") != KEY_FORMAT:
        raise UserError(f"This is not a survey's key file: choose the {KEY_ENDING} file that Build Survey wrote.")
    if data.get("version") != KEY_VERSION:
        raise UserError(
            f"The key file has version {data.get('version')!r}, but this pack reads version {KEY_VERSION}: "
            "use the version of the pack that wrote it."
        )
    items = tuple(_record(Item, "items", entry) for entry in _list(data, "items"))
    pages = tuple(_record(SurveyPage, "pages", entry) for entry in _list(data, "pages"))
    generators = tuple(_list(data, "generators"))
    scalars = {name: data.get(name) for name in ("title", "language", "seed", "id", "hash")}
    survey = Survey(items=items, generators=generators, pages=pages, **scalars)  # type: ignore[arg-type]
    _check(survey)
    return survey


def _list(data: Mapping[str, Any], name: str) -> list[Any]:
    entries = data.get(name)
    if not isinstance(entries, list) or not entries:
        raise _damaged(f"it has no {name}")
    return entries


def _record(kind: type, plural: str, entry: Any) -> Any:
    names = {field.name for field in fields(kind)}
    if not isinstance(entry, Mapping) or not set(entry) <= names:
        raise _damaged(f"one of its {plural} is {str(entry)[:60]!r}")
    try:
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()})
    except TypeError as error:
        raise _damaged(f"one of its {plural} lacks a part ({error})") from error


def _check(survey: Survey) -> None:
    """Check types, that ids are unique and that references exist."""
    texts = [survey.title, survey.language, survey.id, survey.hash, *survey.generators]
    texts += [text for item in survey.items for text in (item.id, item.title, item.question)]
    texts += [text for page in survey.pages for text in (page.id, page.prompt, page.repeats)]
    if not all(isinstance(page.images, tuple) for page in survey.pages):
        raise _damaged("a page has no list of images")
    images = [image for page in survey.pages for image in page.images]
    if not all(isinstance(text, str) and is_unicode(text) for text in [*texts, *images]):
        raise _damaged("a name in it is not a text")
    seeds = [survey.seed, *(page.seed for page in survey.pages)]
    if not all(isinstance(seed, int) and not isinstance(seed, bool) for seed in seeds):
        raise _damaged("a seed in it is not a whole number")
    for what, names in (
        ("generator", list(survey.generators)),
        ("item", [item.id for item in survey.items]),
        ("page", [page.id for page in survey.pages]),
        ("image", images),
    ):
        if len(set(names)) != len(names):
            raise _damaged(f"the same {what} is in it twice")
    if len(survey.generators) < 2 or any(len(page.images) != len(survey.generators) for page in survey.pages):
        raise _damaged("its pages do not have one image for each of two or more generators")
    by_id = {page.id: page for page in survey.pages}
    for page in survey.pages:
        if page.repeats and (page.repeats not in by_id or by_id[page.repeats].repeats):
            raise _damaged(f"the page {page.id} repeats {page.repeats!r}, which is not an original page")


def _damaged(what: str) -> UserError:
    return UserError(f"The survey's key file is damaged: {what}; use the {KEY_ENDING} file as Build Survey wrote it.")
