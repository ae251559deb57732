"""The questions of a survey as text that an organiser edits: one a line, `title | question | instructions`."""

from __future__ import annotations

import unicodedata

from ..common.errors import UserError
from .languages import FIRST, Language, language
from .spec import Item

BAR = "|"


def plain(text: str) -> str:
    """The text on one line: white space is one space; control characters and halves of characters are gone."""
    kept = (" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cs"))
    return " ".join("".join(kept).split())


def as_lines(items: tuple[Item, ...]) -> str:
    """Items as the text that `read_items` reads."""
    return "\n".join(f" {BAR} ".join([item.title, *item.question.split("\n")]) for item in items)


def default_items() -> str:
    """The paper's four items (Table 5) in English, {culture} and {n} still open."""
    return as_lines(language(FIRST).items)


def read_items(text: str, spoken: Language, culture: str, count: int) -> tuple[Item, ...]:
    """Items from text, one a line, with {culture} (or {place}) and {n}, the number of images, filled in.

    The English default, left as it is, stands for the paper's items in the survey's own language. An item keeps the
    paper's id where its title is the paper's, in English or in the survey's language; others are `item1`, `item2`, …
    by their line. Raises UserError for no items, an item without a question, and two of one title.
    """
    lines = [line for line in map(plain, text.splitlines()) if line]
    if not lines:
        raise UserError("The survey has no items to rank the images on: write at least one, as 'title | question'.")
    if lines == default_items().splitlines():
        lines = as_lines(spoken.items).splitlines()
    known = {item.title.casefold(): item.id for item in (*language(FIRST).items, *spoken.items)}
    found = []
    for number, line in enumerate(lines, 1):
        title, *question = (part.strip() for part in line.split(BAR))
        if not title or not "".join(question):
            raise UserError(f"The item {line[:60]!r} has no question: write it as 'title | question'.")
        filled = "\n".join(part for part in question if part)
        for name, value in (("{culture}", culture), ("{place}", culture), ("{n}", str(count))):
            filled = filled.replace(name, value)
        found.append(Item(known.get(title.casefold(), f"item{number}"), title, filled))
    titles = [item.title.casefold() for item in found]
    for item in found:
        if titles.count(item.title.casefold()) > 1 or sum(item.id == other.id for other in found) > 1:
            raise UserError(f"The item {item.title!r} is there twice: give every item its own title, or leave one out.")
    return tuple(found)
