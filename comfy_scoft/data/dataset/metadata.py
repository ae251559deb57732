"""Metadata rows -> validated fields: file names, captions, categories, splits and provenance."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Annotated, Any, ClassVar, TypeVar

import regex
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from ...common.errors import UserError
from ...common.names import LETTERS
from ...common.text import composed, printable
from ..records import CATEGORIES, ERAS
from .names import Names

MAX_TEXT, MAX_SHORT_TEXT, MAX_LIST = 10_000, 2_000, 1_000
"""Maximum length of a caption and of any other text, in characters, and of a list, in entries."""

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
_CATEGORY_OF_PREFIX = {prefix: category for category, prefixes in _PREFIXES.items() for prefix in prefixes.split()}
PREFIX_OF_CATEGORY = {category: prefixes.split()[0] for category, prefixes in _PREFIXES.items()}
"""CCUB's file-name prefix of each category: `FOOD_27.jpg`."""
_OTHER_SPELLINGS = {  # the column headings of the paper's Table 3, and the same with "and"
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
"""Other names of the three splits, as in Hugging Face's ImageFolder."""
_LISTS = ("blip_text", "negative_imgpath", "verified_by", "tags")
_TEXTS = (*_LISTS, "text")
"""The fields that may be a list. One text of those in _LISTS may have several entries too."""

ShortText = Annotated[str, Field(max_length=MAX_SHORT_TEXT)]
TextList = Annotated[list[Annotated[str, Field(max_length=MAX_TEXT)]], Field(max_length=MAX_LIST)]
RowT = TypeVar("RowT", bound="CaptionRow")


class CaptionRow(BaseModel):
    """Fields of a row that describe an image: CCUB's released keys (text, blip_text) and optional keys of this pack.

    text: the image's caption, or a list of them. Unknown keys are ignored; null means absent. Any other list may also
    be one text with "|" between its entries.
    """

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)
    required: ClassVar[tuple[str, str]]
    """The field that names the image, and the end of the error sentence for a row without it."""
    caption_column: ClassVar[str] = "text"
    """The usual name of the caption column, for error sentences."""
    text: TextList = Field(min_length=1, validation_alias=AliasChoices("text", "caption"))
    blip_text: TextList = Field(
        default=[], validation_alias=AliasChoices("blip_text", "generic_captions", "generic_caption")
    )
    culture: ShortText = ""
    place: ShortText = ""
    category: ShortText = ""
    era: ShortText = ""
    tags: TextList = []
    split: ShortText = ""
    source: ShortText = ""
    collector: ShortText = ""
    licence: ShortText = Field(default="", validation_alias=AliasChoices("licence", "license"))
    consent: ShortText = ""
    verified_by: TextList = []

    @field_validator("*", mode="before")
    @classmethod
    def _tidy(cls, value: Any) -> Any:
        return value.strip() if isinstance(value, str) else value

    @field_validator("culture", "place")
    @classmethod
    def _composed(cls, value: str) -> str:
        return composed(value)

    @field_validator(*_TEXTS, mode="before", check_fields=False)
    @classmethod
    def _one_or_many(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str):
            value = [value] if info.field_name == "text" else value.split("|")
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return [item.strip() for item in value if item.strip()]
        return value


class MetadataRow(CaptionRow):
    """One row of a dataset's metadata; file names are relative to the folder."""

    required: ClassVar[tuple[str, str]] = ("file_name", 'names no image: write the file\'s name in "file_name"')
    file_name: str = Field(min_length=1)
    negative_imgpath: TextList = []
    depth: str = ""


class LinkRow(CaptionRow):
    """One row of a list of links."""

    required: ClassVar[tuple[str, str]] = ("url", 'has no link: write the image\'s address in "url"')
    caption_column: ClassVar[str] = "caption"
    url: str = Field(
        min_length=1, max_length=MAX_SHORT_TEXT, validation_alias=AliasChoices("url", "link", "image_url", "image_link")
    )


def parse_row(values: dict[str, Any], where: str, kind: type[RowT]) -> RowT:
    """Validate a row. Raises UserError, a sentence that begins with `where`."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(_sentence(error, values, where, kind)) from error


def _sentence(error: ValidationError, values: dict[str, Any], where: str, kind: type[CaptionRow]) -> str:
    key, missing = kind.required
    aliases = [(name, field.validation_alias) for name, field in kind.model_fields.items()]
    names = {str(alias): name for name, group in aliases if isinstance(group, AliasChoices) for alias in group.choices}
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    first = min(errors, key=lambda e: names.get(str(e["loc"][0]), e["loc"][0]) != key)
    written = str(first["loc"][0])
    field = names.get(written, written)
    if first["type"] in ("missing", "string_too_short", "too_short"):
        if field == key:
            return f"{where} {missing}."
        return f'{where} has no caption for {printable(values.get(key))}: write one in "{kind.caption_column}".'
    if first["type"] == "string_unicode":
        return f'{where} has characters in "{written}" that are not valid Unicode: write them again.'
    if first["type"] in ("string_too_long", "too_long"):
        length = f"{MAX_TEXT if field in _TEXTS else MAX_SHORT_TEXT:,} characters"
        limit = length if first["type"] == "string_too_long" else f"{MAX_LIST:,} entries"
        return f'{where} has more than {limit} in "{written}": shorten it.'
    expected = "a text or a list of texts" if field in _TEXTS else "a text"
    return f'{where} has something else in "{written}" than {expected}: put it in quotes or remove it.'


def locate(name: str, bases: tuple[Path, ...], root: Path, where: str, names: Names) -> Path:
    """The resolved path of a file named in a row, tried relative to each base in turn. `root` must be a resolved path.

    Symbolic links are followed before the check that the file lies inside `root`. Where no file has exactly this name,
    one whose name `names` takes for the same. Raises UserError.
    """
    windows = PureWindowsPath(name)
    if name.startswith(("/", "\\")) or windows.drive:
        raise UserError(f"{where} points outside the folder with {printable(name)}: use a path relative to the folder.")
    parts = windows.as_posix()  # rows written on Windows have backslashes; elsewhere they may be part of a name
    outside = True
    for find, relative in ((Path.joinpath, name), (Path.joinpath, parts), (names.path, parts)):
        for base in bases:
            try:
                path = find(base, relative).resolve()
                if path.is_relative_to(root):
                    outside = outside and relative != parts
                    if path.is_file():
                        return path
            except (OSError, RuntimeError, ValueError):  # a name too long, a zero byte, a loop of symbolic links
                outside = False
    if outside:
        raise UserError(
            f"{where} points outside the folder with {printable(name)}: put the file itself into the folder, or start "
            "ComfyUI with --input-directory on a folder that holds both."
        )
    raise UserError(f"{where} names {printable(name)}, which is not in the folder: add the file or remove the line.")


def normal_category(category: str) -> str:
    """CCUB's name of a category given as a name, prefix or known spelling of one of the nine, else the text itself."""
    category = " ".join(composed(category).split())
    plain = category.lower().replace(" and ", " & ").replace(",", "")
    plain = _OTHER_SPELLINGS.get(plain, plain)
    return plain if plain in CATEGORIES else _CATEGORY_OF_PREFIX.get(category.upper(), category)


def category_and_era_of_name(stem: str) -> tuple[str, str]:
    """(category, era) by the prefixes of a file name, "" for each that has none.
    `FOOD_27` -> ("food & drink", ""); `TRAD_FOOD_27` and `FOOD_TRAD_27` -> ("food & drink", "traditional").
    """
    prefixes = [part.upper() for part in re.split(r"[_\-\s]+|(?=\d)", stem[:200])[:-1][:2]]
    category = era = ""
    for prefix in prefixes:
        if not category and prefix in _CATEGORY_OF_PREFIX:
            category = _CATEGORY_OF_PREFIX[prefix]
        elif not era and prefix in _ERA_OF_PREFIX:
            era = _ERA_OF_PREFIX[prefix]
        else:
            break
    return category, era


def category_and_era_of_tags(tags: Sequence[str]) -> tuple[str, str]:
    """(category, era): the first tag that is one, "" for each that no tag is."""
    names = [normal_category(tag.lstrip("#").replace("_", " ")) for tag in tags]
    eras = [tag.strip("# ").lower() for tag in tags]
    return next((n for n in names if n in CATEGORIES), ""), next((e for e in eras if e and e in ERAS), "")


def normal_split(split: str, where: str) -> str:
    """A split's name in lower case, "val" as "validation". Raises UserError for "all" or an invalid name."""
    split = composed(split).strip().lower()
    split = SPLIT_NAMES.get(split, split)
    if split == "all" or not regex.fullmatch(rf"[\p{{L}}\p{{N}}][{LETTERS} -]{{0,39}}", split):
        raise UserError(
            f'{where} has the split "{printable(split)}": use train, test, validation or another short word.'
        )
    return split


def normal_era(era: str, where: str) -> str:
    """ "traditional", "modern" or "". Raises UserError for anything else."""
    if era.lower() not in ERAS:
        raise UserError(f'{where} has the era "{printable(era)}": write traditional, modern, or leave it out.')
    return era.lower()
