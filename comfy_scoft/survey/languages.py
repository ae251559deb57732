"""The languages of the survey's page: one small JSON file each, in page/languages/.

Another language is one more file there, with the same names as en.json: `name` (the language's own name), `direction`
("ltr" or "rtl"), `culture` (how questions name the culture where the organiser does not), the four `items`, the
`consent` paragraphs and every sentence of the page in `text`. Words in {braces} are filled in and must be kept.
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
    """Every sentence of the page in one language. code: BCP 47; items: the paper's four, {culture} and {n} open."""

    code: str
    name: str
    direction: str
    culture: str
    items: tuple[Item, ...]
    consent: tuple[str, ...]
    text: Mapping[str, str]


@lru_cache(maxsize=1)
def languages() -> dict[str, Language]:
    """All languages by their own name, English first, the others by code."""
    paths = sorted(FOLDER.glob("*.json"), key=lambda path: (path.stem != FIRST, path.stem))
    found = [_read(path) for path in paths]
    return {language.name: language for language in found}


def language(name: str) -> Language:
    """A language by its own name or its code. Raises UserError for one that has no file."""
    for found in languages().values():
        if name in (found.name, found.code):
            return found
    raise UserError(
        f"The survey has no language {name!r}: choose one of {', '.join(languages())}, or add a file to page/languages."
    )


def _read(path: Path) -> Language:
    data = json.loads(path.read_text(encoding="utf-8"))
    items = tuple(Item(**item) for item in data["items"])
    text = MappingProxyType(data["text"])
    return Language(path.stem, data["name"], data["direction"], data["culture"], items, tuple(data["consent"]), text)
