"""The items of a survey as editable text, one per line: `title | question | instructions`."""

from __future__ import annotations

import unicodedata

from ..common.errors import UserError
from .languages import FIRST, Language, language
from .spec import Item

BAR = "|"


def one_line(text: str) -> str:
    """The text on one line, white space collapsed, without control characters and lone surrogates."""
    kept = (" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cs"))
    return " ".join("".join(kept).split())


def as_lines(items: tuple[Item, ...]) -> str:
    """Items as text for `read_items`."""
    return "\n".join(f" {BAR} ".join([item.title, *item.question.split("\n")]) for item in items)


def default_items() -> str:
    """The paper's four items (Table 5) in English, with the placeholders {culture} and {n}."""
    return as_lines(language(FIRST).items)


def read_items(text: str, spoken: Language, culture: str, count: int) -> tuple[Item, ...]:
    """Items from text, one per line, with {culture} (or {place}) and {n}, the number of images, filled in.

    The unchanged English default gives the paper's items in the survey's language. Items with a title of the paper, in
    English or in the survey's language, keep the paper's id; others are `item1`, `item2`, … by line. Raises UserError
    for no items, an item without a question, and a repeated title.
    """
    lines = [line for line in map(one_line, text.splitlines()) if line]
    if not lines:
        raise UserError("The survey has no items to rank the images on: write at least one, as 'title | question'.")
    if lines == default_items().splitlines():
        lines = as_lines(spoken.items).splitlines()
    known = {item.title.casefold(): item.id for item in (*language(FIRST).items, *spoken.items)}
    items = []
    for number, line in enumerate(lines, 1):
        title, *question = (part.strip() for part in line.split(BAR))
        if not title or not "".join(question):
            raise UserError(f"The item {line[:60]!r} has no question: write it as 'title | question'.")
        filled = "\n".join(part for part in question if part)
        for name, value in (("{culture}", culture), ("{place}", culture), ("{n}", str(count))):
            filled = filled.replace(name, value)
        items.append(Item(known.get(title.casefold(), f"item{number}"), title, filled))
    titles = [item.title.casefold() for item in items]
    for item in items:
        if titles.count(item.title.casefold()) > 1 or sum(item.id == other.id for other in items) > 1:
            raise UserError(f"The item {item.title!r} is there twice: give every item its own title, or leave one out.")
    return tuple(items)
