"""Names that may become files and folders."""

from __future__ import annotations

import re

from .errors import UserError

_NAME = re.compile(r"\w(?:[\w.-]{0,98}\w)?")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def checked_name(name: str, what: str = "name") -> str:
    """`name` itself if it can name a file or folder on every system and holds no path; else UserError.

    Letters and digits of any script, "-", "_" and "."; at most 100, a letter or digit (or "_") at both ends.
    """
    if not _NAME.fullmatch(name) or _RESERVED.fullmatch(name):
        raise UserError(
            f"The {what} {name!r} cannot name a file: use at most 100 letters, digits, '-', '_' and '.', "
            "without a path or spaces."
        )
    return name
