"""Names that may become files and folders, in any script, on any system."""

from __future__ import annotations

import regex

from .errors import UserError
from .text import JOINERS, composed, printable

MAX_BYTES = 220
"""Maximum length of a name in UTF-8: 73 Chinese letters. Systems allow 255 bytes with what is appended to it."""

LETTERS = rf"\p{{L}}\p{{M}}\p{{N}}{JOINERS}་·・־׳״_"
"""Of a pattern's character class: letters with their marks (vowel signs, accents) and the joiners and dots that
spelling needs within words, digits, and "_". Python's `\\w` knows no marks."""

_RESERVED = regex.compile(r"(con|prn|aux|nul|com[\d¹²³]|lpt[\d¹²³]) *(\..*)?", regex.IGNORECASE)


def checked_name(name: str, what: str = "name", signs: str = "-.") -> str:
    """`name` in composed form (NFC), if it can name a file or folder on every system and holds no path; else UserError.

    Letters and digits of any script, "_" and `signs`; a letter or digit first, no blank or dot last; at most MAX_BYTES.
    """
    given = composed(name)
    pattern = (
        rf"(?!\p{{Default_Ignorable_Code_Point}})[\p{{L}}\p{{N}}_][{LETTERS}{regex.escape(signs)}]*(?<![ .{JOINERS}])"
    )
    if not regex.fullmatch(pattern, given) or _RESERVED.fullmatch(given):
        allowed = ", ".join(["spaces"] * (" " in signs) + [f"'{sign}'" for sign in f"_{signs}".replace(" ", "")])
        raise UserError(
            f"The {what} {printable(name)!r} cannot name a file: use letters and digits of any script, {allowed}, "
            f"without a path{'' if ' ' in signs else ' or spaces'}."
        )
    if (length := len(given.encode())) > MAX_BYTES:
        raise UserError(
            f"The {what} {printable(name)!r} cannot name a file: it takes {length} bytes, and at most {MAX_BYTES} fit, "
            "so shorten it."
        )
    return given


def file_name(text: str, otherwise: str, gap: str, signs: str = "", most: int = 80) -> str:
    """Any text as a file's name of at most `most` bytes: letters of any script, digits, "_" and `signs` stay, and
    everything between becomes `gap`. otherwise: for a text of which nothing stays, or that Windows reserves."""
    kept = regex.sub(rf"[^{LETTERS}{regex.escape(signs)}]+", gap, composed(text))
    cut = ""
    for letter in regex.findall(r"\X", kept.strip(gap + signs)):  # whole letters with their marks
        if len((cut + letter).encode()) > most:
            break
        cut += letter
    cut = cut.strip(gap + signs + JOINERS)
    return otherwise if not cut or _RESERVED.fullmatch(cut) else cut
