"""Prompts built from a record's captions by a template."""

from __future__ import annotations

import re
from string import Formatter

from ..common.errors import UserError
from ..common.mentions import mentions
from ..common.text import composed, printable
from .records import CultureRecord

TEMPLATE = "{generic} in {place}"
FIELDS = ("generic", "place", "caption", "culture", "category")


def build_prompt(
    template: str, generic: str, place: str = "", caption: str = "", culture: str = "", category: str = ""
) -> str:
    """Fill in a template: `{generic} in {place}` -> "a house in nuvia".

    An empty field is dropped together with the one word before it ("a house"), and so is a place that the text before
    it already names. Raises UserError for an unknown field, a single brace, and a template without {generic} and
    {caption}.
    """
    values = {"generic": generic, "place": place, "caption": caption, "culture": culture, "category": category}
    known = ", ".join(f"{{{name}}}" for name in FIELDS)
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise UserError(
            f"The prompt template {printable(template)!r} has a single brace: write fields as {known}."
        ) from error
    names = [field for _, field, _, _ in parts if field is not None]
    if unknown := [name for name in names if name not in FIELDS]:
        raise UserError(
            f"The prompt template names {{{printable(unknown[0])}}}, but the fields are {known}: use these."
        )
    if not {"generic", "caption"} & set(names):
        raise UserError("The prompt template must name {generic} or {caption}: write for example {generic} in {place}.")
    text = ""
    for literal, field, _, _ in parts:
        value = " ".join(values[field].split()) if field else ""
        if field == "place" and mentions(value, composed(text)):
            value = ""
        if field and not value:
            literal = re.sub(r"\s*\S*\s*\Z", "", literal)
        text += literal + value
    return " ".join(text.split()).strip(" ,;:")


def record_prompts(record: CultureRecord, template: str, count: int) -> tuple[str, ...]:
    """`count` prompts from the captions and generic captions in turn; without the latter, captions take their place."""
    fields = {name: getattr(record, name) for name in ("place", "culture", "category")}
    captions, generic = record.captions, record.generic_captions or record.captions
    return tuple(
        build_prompt(template, generic=generic[k % len(generic)], caption=captions[k % len(captions)], **fields)
        for k in range(count)
    )
