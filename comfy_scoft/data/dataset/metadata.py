"""Rows of metadata -> checked fields: names of files, words, categories, splits and where an image comes from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator

from ...common.errors import UserError
from ..records import CATEGORIES, ERAS
from .rows import shown

MAX_TEXT, MAX_WORDS, MAX_LIST = 10_000, 2_000, 1_000
"""Longest caption and longest other text, in characters, and the most entries of a list."""

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
_OTHER_SPELLINGS = {  # the headings of the paper's Table 3, and the same with "and"
    "dance music art": "dance music & visual arts",
    "people & actions": "people & action",
    "utensil & tool": "utensils & tools",
}
_ERA_OF_PREFIX = {"TRAD": "traditional", "TRADITIONAL": "traditional", "MOD": "modern", "MODERN": "modern"}

SPLIT_NAMES = {
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "training": "train",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
"""Other names of the three splits, as Hugging Face's image folders know them."""
_LISTS = ("blip_text", "negative_imgpath", "verified_by", "tags")

_OTHER_KEYS = {
    "caption": "text",
    "license": "licence",
    "generic_captions": "blip_text",
    "generic_caption": "blip_text",
    "link": "url",
    "image_url": "url",
    "image_link": "url",
}

Words = Annotated[str, Field(max_length=MAX_WORDS)]
Texts = Annotated[list[Annotated[str, Field(max_length=MAX_TEXT)]], Field(max_length=MAX_LIST)]
Line = TypeVar("Line", bound="WordsLine")


class WordsLine(BaseModel):
    """What a row says of an image: the released CCUB form's words (text, blip_text) and our own optional keys.

    Keys we do not know are ignored; a null counts as absent. A list may be written as a single text, in which "|"
    stands between its entries.
    """

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)
    key: ClassVar[tuple[str, str]]
    """The field that a row cannot do without, and what to say when it is not there."""
    words: ClassVar[str] = "text"
    """What the column of captions is usually called."""

    text: str = Field(min_length=1, max_length=MAX_TEXT, validation_alias=AliasChoices("text", "caption"))
    blip_text: Texts = Field(
        default=[], validation_alias=AliasChoices("blip_text", "generic_captions", "generic_caption")
    )
    culture: Words = ""
    place: Words = ""
    category: Words = ""
    era: Words = ""
    tags: Texts = []
    split: Words = ""
    source: Words = ""
    collector: Words = ""
    licence: Words = Field(default="", validation_alias=AliasChoices("licence", "license"))
    consent: Words = ""
    verified_by: Texts = []

    @field_validator("*", mode="before")
    @classmethod
    def _tidy(cls, value: Any) -> Any:
        return value.strip() if isinstance(value, str) else value

    @field_validator(*_LISTS, mode="before", check_fields=False)
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        values = value.split("|") if isinstance(value, str) else value
        if isinstance(values, list) and all(isinstance(item, str) for item in values):
            return [item.strip() for item in values if item.strip()]
        return values


class MetadataLine(WordsLine):
    """One row of a dataset's own metadata: the words, and the names of files inside the folder."""

    key: ClassVar[tuple[str, str]] = ("file_name", 'names no image: write the file\'s name in "file_name"')
    file_name: str = Field(min_length=1)
    negative_imgpath: Texts = []
    depth: str = ""


class LinkLine(WordsLine):
    """One row of a list of links: the words, and where on the net the image is."""

    key: ClassVar[tuple[str, str]] = ("url", 'has no link: write the image\'s address in "url"')
    words: ClassVar[str] = "caption"
    url: str = Field(
        min_length=1, max_length=MAX_WORDS, validation_alias=AliasChoices("url", "link", "image_url", "image_link")
    )


def parse_row(values: dict[str, Any], where: str, kind: type[Line]) -> Line:
    """The row's fields. Raises UserError with one sentence that begins with `where`."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(_sentence(error, values, where, kind)) from error


def _sentence(error: ValidationError, values: dict[str, Any], where: str, kind: type[WordsLine]) -> str:
    key, missing = kind.key
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    first = min(faults, key=lambda fault: _OTHER_KEYS.get(str(fault["loc"][0]), fault["loc"][0]) != key)
    written = str(first["loc"][0])
    field = _OTHER_KEYS.get(written, written)
    if first["type"] in ("missing", "string_too_short"):
        if field == key:
            return f"{where} {missing}."
        return f'{where} has no caption for {shown(values.get(key))}: write one in "{kind.words}".'
    if first["type"] == "string_unicode":
        return f'{where} has characters in "{written}" that are not valid Unicode: write them anew.'
    if first["type"] in ("string_too_long", "too_long"):
        most = MAX_TEXT if field == "text" or field in _LISTS else MAX_WORDS
        many = f" or {MAX_LIST:,} entries" if field in _LISTS else ""
        return f'{where} has more than {most:,} characters{many} in "{written}": shorten it.'
    expected = "a text or a list of texts" if field in _LISTS else "a text"
    return f'{where} has something else in "{written}" than {expected}: put it in quotes or remove it.'


def locate(name: str, bases: tuple[Path, ...], root: Path, where: str) -> Path:
    """The real path of a file that a line names, looked for in each base in turn. `root` must be a real path.

    Links are followed first, and what does not lie inside `root` then is refused. Raises UserError.
    """
    windows = PureWindowsPath(name)
    if name.startswith(("/", "\\")) or windows.drive:
        raise UserError(f"{where} points outside the folder with {shown(name)}: use a path relative to the folder.")
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
        raise UserError(f"{where} points outside the folder with {shown(name)}: move the file into the folder.")
    raise UserError(f"{where} names {shown(name)}, which is not in the folder: add the file or remove the line.")


def normal_category(category: str) -> str:
    """CCUB's own name of a category where it is one of the nine, a known prefix or spelling, else the text itself."""
    category = " ".join(category.split())
    plain = category.lower().replace(" and ", " & ").replace(",", "")
    plain = _OTHER_SPELLINGS.get(plain, plain)
    return plain if plain in CATEGORIES else _CATEGORY_OF_PREFIX.get(category.upper(), category)


def facts_of_name(stem: str) -> tuple[str, str]:
    """(category, era) that the prefixes of a file's name tell, each "" where they do not.

    `FOOD_27` -> ("food & drink", ""); `TRAD_FOOD_27` and `FOOD_TRAD_27` -> ("food & drink", "traditional").
    """
    words = [word.upper() for word in re.split(r"[_\-\s]+|(?=\d)", stem[:200])[:-1][:2]]
    category = era = ""
    for word in words:
        if not category and word in _CATEGORY_OF_PREFIX:
            category = _CATEGORY_OF_PREFIX[word]
        elif not era and word in _ERA_OF_PREFIX:
            era = _ERA_OF_PREFIX[word]
        else:
            break
    return category, era


def category_of_name(stem: str) -> str:
    """The category that a file name's prefix tells, `FOOD_27` -> "food & drink"; "" when it tells none."""
    return facts_of_name(stem)[0]


def facts_of_tags(tags: Sequence[str]) -> tuple[str, str]:
    """(category, era) that a list of tags tells, each "" where it does not: the first tag that is one counts."""
    names = [normal_category(tag.lstrip("#").replace("_", " ")) for tag in tags]
    eras = [tag.strip("# ").lower() for tag in tags]
    return next((n for n in names if n in CATEGORIES), ""), next((e for e in eras if e and e in ERAS), "")


def normal_split(split: str, where: str) -> str:
    """A split's name in lower case, "val" as "validation". Raises UserError for "all" or an unusable name."""
    split = split.strip().lower()
    split = SPLIT_NAMES.get(split, split)
    if split == "all" or not re.fullmatch(r"[a-z0-9][a-z0-9 _-]{0,39}", split):
        raise UserError(f'{where} has the split "{shown(split)}": use train, test, validation or another short word.')
    return split


def normal_era(era: str, where: str) -> str:
    """ "traditional", "modern" or "". Raises UserError for anything else."""
    if era.lower() not in ERAS:
        raise UserError(f'{where} has the era "{shown(era)}": write traditional, modern, or leave it out.')
    return era.lower()
