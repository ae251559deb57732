"""What a survey is and what its participants answer: plain frozen records, and the key file that keeps a survey.

A page shows one prompt and one image of each generator under one shared seed; people rank the images on each item
(the paper's Section 5 and Table 5). Rank 1 is the best for the culture on every item: the best match, the best
representation, the least stereotypical, the least offensive.

The page that participants open holds opaque image ids only. Which generator drew which image stands in the key file
alone, `<name>.survey.json`, which the organiser keeps.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..common.errors import UserError

KEY_FORMAT, KEY_VERSION = "scoft-survey", 1
ANSWER_FORMAT, ANSWER_VERSION = "scoft-survey-answers", 1
KEY_ENDING = ".survey.json"


@dataclass(frozen=True)
class Item:
    """One question under which the images of a page are ranked, best first."""

    id: str
    title: str
    question: str
    """As people read it, the culture filled in; lines after the first are further instructions."""


@dataclass(frozen=True)
class Page:
    """One prompt and its images.

    images: opaque random ids, one for each generator, in the order of `Survey.generators`.
    repeats: the id of the page that this one shows again as an attention check, under new image ids; "" for none.
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
    """The answers of one participant. country: the self-selected affiliation; years: of experience with the culture."""

    participant: str
    country: str
    years: float | None
    rankings: tuple[Ranking, ...]
    file: str


@dataclass(frozen=True)
class Survey:
    """A survey and, once loaded, its answers. generators: the labels of the sets, never written into the page."""

    title: str
    language: str
    items: tuple[Item, ...]
    generators: tuple[str, ...]
    pages: tuple[Page, ...]
    seed: int
    id: str
    hash: str
    responses: tuple[Response, ...] = ()


def content_hash(survey: Survey, images: bytes) -> str:
    """SHA-256, in hexadecimal, over the canonical JSON of a survey without id, hash and answers, and over `images`.

    images: a digest of the drawn images as they were before encoding. People who have only the page do not have
    it, so the hash, which stands in the page, does not let them test guesses at which generator drew what.
    """
    content = asdict(survey)
    for name in ("id", "hash", "responses"):
        del content[name]
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii") + b"\0" + images).hexdigest()


def to_json(survey: Survey) -> dict[str, Any]:
    """The key file's content: everything but the answers, as plain JSON."""
    content = asdict(survey)
    del content["responses"]
    return json.loads(json.dumps({"format": KEY_FORMAT, "version": KEY_VERSION, **content}))


def from_json(data: Any) -> Survey:
    """A survey from the key file's content. Raises UserError for anything that is not one, saying what is wrong."""
    if not isinstance(data, Mapping) or data.get("format") != KEY_FORMAT:
        raise UserError(f"This is no survey's key file: choose the {KEY_ENDING} file that Build Survey wrote.")
    if data.get("version") != KEY_VERSION:
        raise UserError(
            f"The key file has version {data.get('version')!r}, but this pack reads version {KEY_VERSION}: "
            "use the version of the pack that wrote it."
        )
    items = tuple(_record(Item, entry) for entry in _list(data, "items"))
    pages = tuple(_record(Page, entry) for entry in _list(data, "pages"))
    generators = tuple(_list(data, "generators"))
    plain = {name: data.get(name) for name in ("title", "language", "seed", "id", "hash")}
    survey = Survey(items=items, generators=generators, pages=pages, **plain)  # type: ignore[arg-type]
    _check(survey)
    return survey


def _list(data: Mapping[str, Any], name: str) -> list[Any]:
    found = data.get(name)
    if not isinstance(found, list) or not found:
        raise _damaged(f"it has no {name}")
    return found


def _record(kind: type, entry: Any) -> Any:
    names = {field.name for field in fields(kind)}
    if not isinstance(entry, Mapping) or not set(entry) <= names:
        raise _damaged(f"one of its {kind.__name__.lower()}s is {str(entry)[:60]!r}")
    try:
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()})
    except TypeError as error:
        raise _damaged(f"one of its {kind.__name__.lower()}s lacks a part ({error})") from error


def _check(survey: Survey) -> None:
    """Types, and that nothing is there twice or points nowhere."""
    texts = [survey.title, survey.language, survey.id, survey.hash, *survey.generators]
    texts += [text for item in survey.items for text in (item.id, item.title, item.question)]
    texts += [text for page in survey.pages for text in (page.id, page.prompt, page.repeats)]
    if not all(isinstance(page.images, tuple) for page in survey.pages):
        raise _damaged("a page has no list of images")
    images = [image for page in survey.pages for image in page.images]
    if not all(isinstance(text, str) for text in [*texts, *images]):
        raise _damaged("a name in it is no text")
    seeds = [survey.seed, *(page.seed for page in survey.pages)]
    if not all(isinstance(seed, int) and not isinstance(seed, bool) for seed in seeds):
        raise _damaged("a seed in it is no whole number")
    for what, names in (
        ("generator", list(survey.generators)),
        ("item", [item.id for item in survey.items]),
        ("page", [page.id for page in survey.pages]),
        ("picture", images),
    ):
        if len(set(names)) != len(names):
            raise _damaged(f"the same {what} is in it twice")
    if len(survey.generators) < 2 or any(len(page.images) != len(survey.generators) for page in survey.pages):
        raise _damaged("its pages do not have one image for each of two or more generators")
    by_id = {page.id: page for page in survey.pages}
    for page in survey.pages:
        if page.repeats and (page.repeats not in by_id or by_id[page.repeats].repeats):
            raise _damaged(f"the page {page.id} repeats {page.repeats!r}, which is no page of its own")


def _damaged(what: str) -> UserError:
    return UserError(f"The survey's key file is damaged: {what}; use the {KEY_ENDING} file as Build Survey wrote it.")
