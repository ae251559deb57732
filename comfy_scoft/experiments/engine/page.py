"""An experiment's page: results.json, and the same as Markdown and HTML beside its images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from configparser import ConfigParser
from pathlib import Path
from typing import Any

from ...common.files import write_atomically
from ...reports.page import Content, html, markdown

RESULTS = "results.json"
ON_ONE_LINE = 5
"""Nesting below which results.json has one line an entry, such as a metric."""


def write_page(folder: Path, results: Mapping[str, Any], page: Content, images: Mapping[str, bytes]) -> list[Path]:
    """Write the four kinds of files and return them."""
    files = {
        RESULTS: (compact(results) + "\n").encode(),
        "page.md": markdown(page, images).encode(),
        "page.html": html(page, images).encode(),
        **images,
    }
    for name, data in files.items():
        write_atomically(folder / name, data)
    return [folder / name for name in files]


def words(path: Path) -> ConfigParser:
    """What a page says, from a file with one text a line: section -> name -> text."""
    found = ConfigParser(interpolation=None, delimiters="=")
    found.optionxform = str  # type: ignore[assignment, method-assign]  # names as they are written
    found.read(path, encoding="utf-8")
    return found


def compact(content: Any, depth: int = 0) -> str:
    """JSON with one line an entry down to ON_ONE_LINE levels, and the rest of each entry on its line."""
    if depth >= ON_ONE_LINE or not isinstance(content, (dict, list)) or not content:
        return json.dumps(content, ensure_ascii=False, allow_nan=False)
    pad = "\n" + " " * (depth + 1)
    if isinstance(content, dict):
        lines = [f"{json.dumps(key, ensure_ascii=False)}: {compact(one, depth + 1)}" for key, one in content.items()]
        return "{" + pad + f",{pad}".join(lines) + pad[:-1] + "}"
    return "[" + pad + f",{pad}".join(compact(one, depth + 1) for one in content) + pad[:-1] + "]"
