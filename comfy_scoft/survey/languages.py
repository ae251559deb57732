"""The languages of the survey page, one JSON file each in page/languages/.

To add a language, add a file with the keys of en.json: `name` (in the language itself), `direction` ("ltr" or "rtl"),
`culture` (its default name in questions), the four `items`, the `consent` paragraphs and all sentences of the page in
`text`. Placeholders in {braces} must be kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from ..common.errors import UserError
from .spec import Item

PAGE = Path(__file__).parent / "page"
FOLDER = PAGE / "languages"
FIRST = "en"


@dataclass(frozen=True)
class Language:
    """All text of the page in one language. code: BCP 47; items: the paper's four, with placeholders."""

    code: str
    name: str
    direction: str
    culture: str
    items: tuple[Item, ...]
    consent: tuple[str, ...]
    text: Mapping[str, str]


@lru_cache(maxsize=1)
def languages() -> dict[str, Language]:
    """All languages by name, English first, the others by code."""
    paths = sorted(FOLDER.glob("*.json"), key=lambda path: (path.stem != FIRST, path.stem))
    return {language.name: language for language in map(_read, paths)}


def language(name: str) -> Language:
    """A language by its name or its code. Raises UserError for an unknown one."""
    for candidate in languages().values():
        if name in (candidate.name, candidate.code):
            return candidate
    raise UserError(
        f"The survey has no language {name!r}: choose one of {', '.join(languages())}, or add a file to page/languages."
    )


def _read(path: Path) -> Language:
    data = json.loads(path.read_bytes())
    items = tuple(Item(**item) for item in data["items"])
    text = MappingProxyType(data["text"])
    return Language(path.stem, data["name"], data["direction"], data["culture"], items, tuple(data["consent"]), text)
