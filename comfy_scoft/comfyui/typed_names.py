"""Names of files and folders as people type them into a node, which takes what ComfyUI's own save nodes take."""

from __future__ import annotations

import posixpath
import re
import time
from pathlib import Path

from ..common.errors import UserError
from ..common.folders import on_disk
from ..common.names import checked_name
from ..common.settings import shown
from .runtime import inside

PLACES = "Sub-folders and %date% are possible."
"""What tooltips of such names say."""

_FORMATS = {"yyyy": "%Y", "yy": "%y", "MM": "%m", "dd": "%d", "hh": "%H", "mm": "%M", "ss": "%S"}
_NAMED = {"year": "yyyy", "month": "MM", "day": "dd", "hour": "hh", "minute": "mm", "second": "ss"}
_NAMED["date"] = "yyyy-MM-dd"


def typed(root: Path, text: str, what: str) -> tuple[Path, str]:
    """The folder, `root` or one below it, and the name in it that a text with sub-folders and dates asks for.

    Raises UserError, one sentence, for a name that leads out of `root` or that no file system has; what: is named.
    """
    return placed(root, dated(text), what)


def placed(root: Path, name: str, what: str) -> tuple[Path, str]:
    """As `typed`, of a name that is there already: what looks like a date is none."""
    path = posixpath.normpath(name.strip().replace("\\", "/"))
    if path.startswith(("../", "/")) or path == "..":
        raise UserError(f"The {what} {shown(name)} leads out of {root.name!r}: give a name without a path above it.")
    parts = [checked_name(part, what) for part in path.split("/")]
    inside(root, "/".join(parts))
    return on_disk(root, *parts[:-1]), parts[-1]


def dated(text: str) -> str:
    """The text with today's date or the time in place of %date%, %date:yyyy-MM-dd%, %year%, …, %second%.

    The page replaces these itself, and %node.widget%; here they are for texts that reach the server in another way.
    """

    def now(match: re.Match[str]) -> str:
        form = _NAMED.get(match[1]) or match[1].removeprefix("date:")
        return re.sub(r"yyyy|yy|MM?|dd?|hh?|mm?|ss?", _part, form).replace(":", "-")

    return re.sub(rf"%(date:[^%]*|{'|'.join(_NAMED)})%", now, text)


def _part(match: re.Match[str]) -> str:
    letters = match[0]
    if letters in _FORMATS:
        return time.strftime(_FORMATS[letters])
    return time.strftime(_FORMATS[letters * 2]).lstrip("0") or "0"  # d: without a zero before it
