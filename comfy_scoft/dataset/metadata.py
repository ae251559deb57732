"""Lines of a `metadata.jsonl`, read as what they are: text that anybody may have written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..records import CATEGORIES, ERAS

MAX_LINE = 1_000_000
"""Longest line of metadata or caption file, in bytes."""

_PREFIXES = {
    "architecture": "ARCH ARCHITECTURE",
    "city": "CITY CITIES",
    "clothing": "CLOTH CLOTHES CLOTHING",
    "dance music & visual arts": "DANCE MUSIC ART ARTS DMVA",
    "food & drink": "FOOD DRINK",
    "nature": "NATURE NAT",
    "people & action": "PEOPLE ACTION",
    "religion & festival": "RELIGION RELIG REL FEST FESTIVAL",
    "utensils & tools": "UTENSIL UTENSILS TOOL TOOLS",
}
_CATEGORY_OF_PREFIX = {prefix: category for category, words in _PREFIXES.items() for prefix in words.split()}
PREFIX_OF_CATEGORY = {category: words.split()[0] for category, words in _PREFIXES.items()}
"""How CCUB names the files of a category: `FOOD_27.jpg`."""

_SPLIT_NAMES = {"val": "validation", "valid": "validation", "training": "train", "testing": "test"}
_LISTS = ("blip_text", "negative_imgpath", "verified_by")


class MetadataLine(BaseModel):
    """One line: the released CCUB form (file_name, text, blip_text, negative_imgpath) and our own optional keys.

    Keys we do not know are ignored; a null counts as absent; a list may be written as a single text.
    """

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    file_name: str = Field(min_length=1)
    text: str = Field(min_length=1, validation_alias=AliasChoices("text", "caption"))
    blip_text: list[str] = []
    negative_imgpath: list[str] = []
    culture: str = ""
    place: str = ""
    category: str = ""
    era: str = ""
    split: str = ""
    depth: str = ""
    source: str = ""
    collector: str = ""
    licence: str = Field(default="", validation_alias=AliasChoices("licence", "license"))
    consent: str = ""
    verified_by: list[str] = []

    @field_validator("*", mode="before")
    @classmethod
    def _tidy(cls, value: Any) -> Any:
        return value.strip() if isinstance(value, str) else value

    @field_validator(*_LISTS, mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        values = [value] if isinstance(value, str) else value
        if isinstance(values, list) and all(isinstance(item, str) for item in values):
            return [item.strip() for item in values if item.strip()]
        return values


def shown(text: object, length: int = 80) -> str:
    """Somebody else's text, made safe for a message: one short line of printable characters."""
    clean = "".join(c if c.isprintable() else "?" for c in str(text))
    return clean if len(clean) <= length else clean[: length - 1] + "…"


def read_lines(path: Path, label: str) -> Iterator[tuple[str, str | ValueError]]:
    """(where, text) of each line that is not blank; in place of the text, what is wrong with the line.

    UTF-8 with or without a byte order mark. Never holds more than `MAX_LINE` bytes.
    """
    with path.open("rb") as file:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            yield label, ValueError(f"{label} is not UTF-8 but UTF-16: save it again as UTF-8.")
            return
        file.seek(0)
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            where = f"{label} line {number}"
            if len(line) > MAX_LINE and not line.endswith(b"\n"):
                while (rest := file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                    pass
                yield where, ValueError(f"{where} is longer than {MAX_LINE:,} characters: shorten it.")
                continue
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                yield where, ValueError(f"{where} is not UTF-8 text: save the file again as UTF-8.")
                continue
            if text:
                yield where, text


def parse_line(text: str, where: str) -> MetadataLine:
    """The line's fields. Raises ValueError with one sentence that begins with `where`."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON: write one {{...}} object a line, or remove the line.") from error
    if not isinstance(values, dict):
        raise ValueError(f'{where} is JSON but not an object: write {{"file_name": ..., "text": ...}}.')
    values = {key: value for key, value in values.items() if value is not None}
    try:
        return MetadataLine.model_validate(values)
    except ValidationError as error:
        raise ValueError(_sentence(error, values, where)) from error


def _sentence(error: ValidationError, values: dict[str, Any], where: str) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = str(first["loc"][0]) if first["loc"] else "file_name"
    name = values.get("file_name")
    if first["type"] in ("missing", "string_too_short"):
        if field == "file_name":
            return f'{where} names no image: write the file\'s name in "file_name".'
        return f'{where} has no caption for {shown(name)}: write one in "text".'
    if first["type"] == "string_unicode":
        return f'{where} has characters in "{field}" that are not valid Unicode: write them anew.'
    expected = "a text or a list of texts" if field in _LISTS else "a text"
    return f'{where} has something else in "{field}" than {expected}: put it in quotes or remove it.'


def locate(name: str, bases: tuple[Path, ...], root: Path, where: str) -> Path:
    """The real path of a file that a line names, looked for in each base in turn. `root` must be a real path.

    Links are followed first, and what does not lie inside `root` then is refused. Raises ValueError.
    """
    windows = PureWindowsPath(name)
    if name.startswith(("/", "\\")) or windows.drive:
        raise ValueError(f"{where} points outside the folder with {shown(name)}: use a path relative to the folder.")
    relative = windows.as_posix()  # lines written on Windows have backslashes
    outside = True
    for base in bases:
        try:
            path = (base / relative).resolve()
            if path.is_relative_to(root):
                outside = False
                if path.is_file():
                    return path
        except (OSError, RuntimeError, ValueError):  # a name too long, a zero byte, a ring of links
            outside = False
    if outside:
        raise ValueError(f"{where} points outside the folder with {shown(name)}: move the file into the folder.")
    raise ValueError(f"{where} names {shown(name)}, which is not in the folder: add the file or remove the line.")


def normal_category(category: str) -> str:
    """CCUB's own name of a category where it is one of the nine or a known prefix of theirs, else the text itself."""
    category = " ".join(category.split())
    if category.lower() in CATEGORIES:
        return category.lower()
    return _CATEGORY_OF_PREFIX.get(category.upper(), category)


def category_of_name(stem: str) -> str:
    """The category that a file name's prefix tells, `FOOD_27` -> "food & drink"; "" when it tells none."""
    match = re.match(r"([A-Za-z]+)(?=[_\-\s\d])", stem)
    return _CATEGORY_OF_PREFIX.get(match[1].upper(), "") if match else ""


def normal_split(split: str, where: str) -> str:
    """A split's name in lower case, "val" as "validation". Raises ValueError for "all" or an unusable name."""
    split = split.strip().lower()
    split = _SPLIT_NAMES.get(split, split)
    if split == "all" or not re.fullmatch(r"[a-z0-9][a-z0-9 _-]{0,39}", split):
        raise ValueError(f'{where} has the split "{shown(split)}": use train, test, validation or another short word.')
    return split


def normal_era(era: str, where: str) -> str:
    """ "traditional", "modern" or "". Raises ValueError for anything else."""
    if era.lower() not in ERAS:
        raise ValueError(f'{where} has the era "{shown(era)}": write traditional, modern, or leave it out.')
    return era.lower()
