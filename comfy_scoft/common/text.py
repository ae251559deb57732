"""Text from outside (file names, captions, other packages' messages) made fit for messages and tables."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

JOINERS = "\u200c\u200d"
"""Zero-width non-joiner and joiner: invisible, and part of the spelling of Persian, Hindi, Sinhala and others."""

MESSAGE = 1000
"""Maximum length of an error's message, in characters."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?%?", re.ASCII)
_FOLDERS = re.compile(
    r"(?<![\w./\\~-])(?:~[\\/]+|(?:\\\\+[?.]\\+)?[A-Za-z]:[\\/]+|\\\\+|file:/+|/(?=[^\s/]+/))"
    r"(?:[^\s/\\:'\"<>|*?,;()\[\]{}]+[\\/]+)*"
)
"""The folders of an absolute path, of POSIX or Windows, but not of a web address."""


def composed(text: str) -> str:
    """The text in composed form (NFC): é as one character and not as e with an accent, as names are compared."""
    return unicodedata.normalize("NFC", text)


def isolated(text: str) -> str:
    """A name within a sentence; of a script from right to left, between marks that keep the numbers beside it in
    place."""
    return f"\u2068{text}\u2069" if any(unicodedata.bidirectional(c) in ("R", "AL") for c in text) else text


def is_unicode(text: str) -> bool:
    """Whether a UTF-8 file can hold the text: JSON and names of files may bring half of a character (a surrogate)."""
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def printable(text: object, length: int = 80) -> str:
    """Any text as one line of printable characters, at most `length`; "?" for control, direction and lone surrogate
    characters."""
    line = " ".join(str(text)[: 4 * length].split())
    clean = "".join(c if c.isprintable() or c in JOINERS else " " if c.isspace() else "?" for c in line)
    return clean if len(clean) <= length else clean[: length - 1] + "…"


def sentence(text: str) -> str:
    """A message as one printable line of at most MESSAGE characters: its beginning, and its end, which says what to
    do."""
    if len(text) > MESSAGE:
        text = f"{text[: MESSAGE - 310]} … {text[-300:]}"
    return printable(text, MESSAGE)


def without_folders(text: str, folders: Mapping[str, str]) -> str:
    """A message as `sentence`, and without the folders of absolute paths. folders: path -> the name for it."""
    for folder in sorted(folders, key=len, reverse=True):
        pattern = re.escape(folder).replace(r"\\", r"[\\/]+")  # Python shows each backslash of a path as two
        text = re.sub(rf"(?<![\w/\\]){pattern}(?![\w-])", folders[folder], text)
    return sentence(_FOLDERS.sub("", text))


def cell(text: str) -> str:
    """Text for a cell of a CSV file, so that no spreadsheet runs it as a formula; numbers stay numbers."""
    return f"'{text}" if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text
