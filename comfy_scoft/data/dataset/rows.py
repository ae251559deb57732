"""Untrusted text files -> rows of named values: JSON lines, CSV and TSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...common.errors import UserError
from ...common.files import regular

MAX_LINE = 1_000_000
"""Maximum length of a line of a metadata or caption file, in bytes."""

ROW_ENDINGS = (".jsonl", ".csv", ".tsv")
_SEPARATORS = ",;\t"

ParsedRow = tuple[str, "dict[str, Any] | UserError"]
"""A row's position ("metadata.jsonl line 3"), and its values or its error."""


def read_lines(path: Path, label: str, *, strip: bool = True) -> Iterator[tuple[str, str | UserError]]:
    """(position, text or error) of each non-blank line of a UTF-8 file, with or without a byte order mark.

    At most `MAX_LINE` bytes are held in memory. strip: False removes only the line ending.
    """
    with regular(path).open("rb") as file:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            yield label, UserError(f"{label} is not UTF-8 but UTF-16: save it again as UTF-8.")
            return
        file.seek(0)
        number = 0
        while line := file.readline(MAX_LINE + 1):
            if len(line) > MAX_LINE and not line.endswith(b"\n"):
                number += 1
                where = f"{label} line {number}"
                yield where, UserError(f"{where} is longer than {MAX_LINE:,} characters: shorten it.")
                while (rest := file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                    pass
                continue
            for part in line.splitlines():  # a carriage return ends a line too, on old Macs
                number += 1
                where = f"{label} line {number}"
                try:
                    text = part.decode("utf-8-sig")  # where files were joined, a mark is in the middle
                except UnicodeDecodeError:
                    text = "\0"
                if "\0" in text:  # every second character of UTF-16 without its mark
                    yield where, UserError(f"{where} is not UTF-8 text: save the file again as UTF-8.")
                elif text.strip():
                    yield where, text.strip() if strip else text


def read_rows(path: Path, label: str) -> Iterator[ParsedRow]:
    """Every row of a `.jsonl`, `.csv` or `.tsv` file (by its name), in order, without null and empty values.

    The first line of a CSV file names its columns. The separator is a comma, semicolon or tab; text in double quotes
    may contain separators and line breaks. Column names are case-insensitive, and a space in them is read as "_".
    """
    return _json_rows(path, label) if path.suffix.lower() == ".jsonl" else _csv_rows(path, label)


def _json_rows(path: Path, label: str) -> Iterator[ParsedRow]:
    for where, text in read_lines(path, label):
        if isinstance(text, UserError):
            yield where, text
            continue
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            yield where, UserError(f"{where} is not JSON: write one {{...}} object a line, or remove the line.")
            continue
        if not isinstance(values, dict):
            yield where, UserError(f'{where} is JSON but not an object: write {{"text": ..., ...}}, or remove it.')
            continue
        yield where, {key: value for key, value in values.items() if value is not None}


class _Lines:
    """The lines of a CSV file for `csv.reader`; `where` is the last line's position, `broken` collects line errors."""

    def __init__(self, path: Path, label: str) -> None:
        self.where = label
        self.broken: list[tuple[str, UserError]] = []
        self._lines = read_lines(path, label, strip=False)

    def __iter__(self) -> Iterator[str]:
        for where, text in self._lines:
            self.where = where
            if isinstance(text, UserError):
                self.broken.append((where, text))
            else:
                yield text + "\n"


def _csv_rows(path: Path, label: str) -> Iterator[ParsedRow]:
    lines = _Lines(path, label)
    feed = iter(lines)
    head = next(feed, None)
    if head is None:
        yield from lines.broken
        return
    separator = max(_SEPARATORS, key=head.count)
    try:
        (names,) = csv.reader([head], delimiter=separator, strict=True)
    except (csv.Error, ValueError):
        yield lines.where, UserError(f"{lines.where} names no columns: write their names with commas between them.")
        return
    columns = [name.strip().lower().replace(" ", "_") for name in names]
    reader = csv.reader(feed, delimiter=separator, strict=True)
    while True:
        try:
            cells = next(reader, None)
            error = None
        except csv.Error:
            cells = []
            error = UserError(f'{lines.where} is not valid CSV: close each double quote, and write "" inside a text.')
        yield from lines.broken
        lines.broken.clear()
        if cells is None:
            return
        if error is None and len(cells) > len(columns) and any(cell.strip() for cell in cells[len(columns) :]):
            error = UserError(
                f"{lines.where} has {len(cells)} columns where the first line names {len(columns)}: put a text that "
                "contains a comma into double quotes."
            )
        yield lines.where, error or {name: cell for name, cell in zip(columns, cells, strict=False) if cell.strip()}
