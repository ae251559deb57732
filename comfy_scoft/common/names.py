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
_IMPOSSIBLE = regex.compile(rf"(?V1)[<>:\"|?*\\/\p{{Zl}}\p{{Zp}}\p{{Cc}}\p{{Cs}}[\p{{Cf}}--[{JOINERS}]]]")
"""What Windows refuses in a name, and what cannot be seen."""
_SEEN = regex.compile(r"(?!\p{Default_Ignorable_Code_Point})[\p{L}\p{N}\p{P}\p{S}]")


def checked_name(name: str, what: str = "name") -> str:
    """`name` in composed form (NFC), without blanks around it, if it can name a file or folder on every system and
    holds no path; else UserError. As ComfyUI's own save nodes, it takes any script, blanks, brackets and other signs.
    """
    given = composed(name).strip()
    if found := _IMPOSSIBLE.search(given):
        advice = f"leave out {found[0]!r}"
    elif not _SEEN.search(given) or {given[0], given[-1]} & {".", *JOINERS}:
        advice = "begin and end it with a letter, a digit or another sign, and not with a dot"
    elif _RESERVED.fullmatch(given):
        advice = "Windows keeps it for a device, so choose another one"
    elif (length := len(given.encode())) > MAX_BYTES:
        advice = f"it takes {length} bytes, and at most {MAX_BYTES} fit, so shorten it"
    else:
        return given
    raise UserError(f"The {what} {printable(name)!r} cannot name a file: {advice}.")


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
