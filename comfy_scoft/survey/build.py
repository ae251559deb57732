"""Image sets -> a survey: its pages, random ids, and two files, the HTML page and its key.

As in the paper (Section 5), a page is one prompt with one image of each generator under the same seed.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..common import names
from ..common.errors import UserError
from ..common.files import write_atomically
from ..common.settings import MAX_SEED, check, setting
from ..metrics.image_set import ImageSet, require_match
from . import images
from .items import default_items, one_line, read_items
from .languages import language
from .render import render
from .spec import KEY_ENDING, Survey, SurveyPage, content_hash, to_json

LEAST, MOST = 2, 6
"""Minimum and maximum number of generators."""


@dataclass(frozen=True)
class SurveySettings:
    """How a survey is built. Raises UserError for a bad value.

    items: the questions, see `items.read_items`. pages: taken from the sets, prompts before second seeds of a prompt.
    language: its own name or code. consent: paragraphs, one per line.
    """

    title: str = setting("How do these pictures show your culture?", "Heading of the page, and the file's name.")
    items: str = setting(
        default_items(),
        "One question per line: 'title | question | instructions'. Rank 1 is the best for the culture; {culture} and "
        "{n} (number of images) are filled in. Unchanged, these are the paper's four items in the survey's language.",
    )
    pages: int = setting(10, "Number of pages. Each shows one prompt with one image per model.", min=1, max=500, step=1)
    attention_checks: int = setting(
        1, "Pages shown a second time, later and in another order, to see who answers with care.", min=0, max=20
    )
    seed: int = setting(0, "Random seed: which prompts and seeds are shown.", min=0, max=MAX_SEED, step=1)
    language: str = setting("English", "Language of the page. Prompts are shown unchanged.")
    culture: str = setting("", "The culture as questions name it, for example 'Korean culture'. Empty: 'your culture'.")
    consent: str = setting(
        "",
        "Consent text shown before the first page, one paragraph per line. Empty: a short standard text.",
    )
    image_size: int = setting(768, "Maximum image size in pixels (longer side).", min=64, max=2048)
    quality: int = setting(88, "JPEG quality. Lower makes a smaller file.", min=1, max=95)

    def __post_init__(self) -> None:
        check(self)
        if not one_line(self.title):
            raise UserError("The survey has no title: write one; it is the page's heading.")


def build(sets: Sequence[ImageSet], settings: SurveySettings) -> tuple[Survey, bytes]:
    """The survey and its page as HTML. The same sets and settings give the same bytes.

    Raises UserError for sets that cannot be compared blindly and for invalid settings.
    """
    labels = _checked(sets, settings)
    spoken, title = language(settings.language), one_line(settings.title)
    items = read_items(settings.items, spoken, one_line(settings.culture) or spoken.culture, len(sets))
    chosen = _choose(sets[0], settings.pages, settings.seed)
    least, size = images.common_size(sets, settings.image_size)
    encoded = [[images.encoded(of_set.images[i], least, size, settings.quality) for of_set in sets] for i in chosen]
    _require_difference(labels, encoded)

    originals = images.fingerprint([of_set.images[i] for i in chosen for of_set in sets])
    secret = _digest(originals, repr((settings.seed, labels)))
    pages, by_id = _pages(sets[0], chosen, encoded, settings, secret)
    survey = Survey(title, spoken.code, items, labels, pages, settings.seed, id="", hash="")
    digest = content_hash(survey, originals)
    survey = replace(survey, hash=digest, id=digest[:12])
    consent = [text for text in map(one_line, settings.consent.splitlines()) if text] or spoken.consent
    return survey, render(survey, spoken, consent, by_id, size)


def save(survey: Survey, page: bytes, folder: Path) -> Path:
    """Write `<name>.html` and `<name>.survey.json`, named after the title, into a folder; returns the page's path.

    Existing files are never overwritten: the next free name, `<name>-2` and so on, is used, or a pair of files with the
    same content is returned. The key is written first, so that every page has one.
    """
    key = (json.dumps(to_json(survey), ensure_ascii=False, indent=1) + "\n").encode("utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    stem = file_name(survey.title)
    for number in itertools.count(1):
        name = stem if number == 1 else f"{stem}-{number}"
        page_path, key_path = folder / f"{name}.html", folder / f"{name}{KEY_ENDING}"
        existing = [path for path in (page_path, key_path) if path.exists()]
        if len(existing) == 2 and page_path.read_bytes() == page and key_path.read_bytes() == key:
            return page_path
        if not existing:
            write_atomically(key_path, key)
            write_atomically(page_path, page)
            return page_path
    raise AssertionError("a free name is always found")


def file_name(title: str) -> str:
    """A file name from a title: letters and digits of any script, joined by "-", or "survey"."""
    return names.file_name(title.casefold().replace("_", " "), "survey", "-")


def _checked(sets: Sequence[ImageSet], settings: SurveySettings) -> tuple[str, ...]:
    """The labels of the sets. Raises UserError for sets that cannot be compared and invalid settings."""
    if not LEAST <= len(sets) <= MOST:
        raise UserError(
            f"A survey compares {LEAST} to {MOST} image sets, not {len(sets)}: connect one Generate Set for each model."
        )
    labels = tuple(images.label for images in sets)
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f"Two sets are labeled {label!r}: give every Generate Set its own label.")
    require_match(sets)
    count = len(sets[0].prompts)
    if settings.pages > count:
        raise UserError(
            f"The survey asks for {settings.pages} pages, but the sets hold {count} prompts and seeds: "
            "ask for fewer pages, or generate more prompts."
        )
    if settings.attention_checks > settings.pages:
        raise UserError(
            f"{settings.attention_checks} attention checks cannot repeat {settings.pages} pages: "
            f"ask for 0 to {settings.pages}."
        )
    return labels


def _choose(images: ImageSet, pages: int, seed: int) -> list[int]:
    """Indices of the images of each page in random order: each prompt once, then with its next seed, and so on."""
    by_prompt: dict[str, list[int]] = {}
    for i in sorted(range(len(images.prompts)), key=lambda i: _digest(b"page", f"{seed} {i}")):
        by_prompt.setdefault(images.prompts[i], []).append(i)
    rounds = itertools.zip_longest(*by_prompt.values())
    return [i for same in rounds for i in same if i is not None][:pages]


def _pages(
    images: ImageSet, chosen: list[int], encoded: list[list[bytes]], settings: SurveySettings, secret: bytes
) -> tuple[tuple[SurveyPage, ...], dict[str, bytes]]:
    """The pages, repeated ones last, and each image by its image id."""
    order = sorted(range(len(chosen)), key=lambda n: _digest(secret, f"check {n}"))
    again = order[: settings.attention_checks]
    pages: list[SurveyPage] = []
    by_id: dict[str, bytes] = {}
    for number, n in enumerate([*range(len(chosen)), *again], 1):
        ids = tuple(_digest(secret, f"image {number} {k}").hex()[:16] for k in range(len(encoded[n])))
        by_id.update(zip(ids, encoded[n], strict=True))
        repeats = f"p{n + 1:03d}" if number > len(chosen) else ""
        prompt = one_line(images.prompts[chosen[n]])
        pages.append(SurveyPage(f"p{number:03d}", prompt, int(images.seeds[chosen[n]]), ids, repeats))
    assert len(by_id) == sum(len(page.images) for page in pages), "two image ids are the same"
    return tuple(pages), by_id


def _require_difference(labels: Sequence[str], encoded: list[list[bytes]]) -> None:
    for one, other in itertools.combinations(range(len(labels)), 2):
        if all(page[one] == page[other] for page in encoded):
            raise UserError(
                f"The sets {labels[one]!r} and {labels[other]!r} hold the same images, so nobody could rank them: "
                "check that each Generate Set has its own model."
            )


def _digest(key: bytes, text: str) -> bytes:
    return hashlib.sha256(key + b"\0" + text.encode("utf-8", "surrogatepass")).digest()
