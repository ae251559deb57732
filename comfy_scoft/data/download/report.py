"""The report of a download run: a text for the screen and a table for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ...common.text import cell, printable
from .links import InvalidRow, Link
from .store import REPORT, SavedImage


@dataclass
class Outcome:
    """The result of one link. what: "there" from an earlier run, "same" file or link as an earlier row.

    why: a sentence for "failed" and "same". kept: whether it is in the dataset. captioned: whether its captions are
    added to the earlier image. alike: a sentence if it looks like an earlier image.
    """

    link: Link
    what: Literal["fetched", "there", "same", "failed"]
    saved: SavedImage | None
    why: str = ""
    kept: bool = False
    captioned: bool = False
    alike: str = ""


_RESULTS = {"failed": "not fetched", "same": "the same", "alike": "looks alike", "row": "not read"}

_FATES = {"yes": " Kept.", "no": " Left out.", "its caption": " Its caption is added to that image."}
"""What became of a row, in the column "in the dataset" and in the text."""

_Row = tuple[str, str, str, str, str]
"""(key of _RESULTS, line, URL, in the dataset: a key of _FATES, sentence)."""


def line_of(where: str) -> str:
    """ "our links.csv line 3" -> "line 3": all rows of a report are of one list."""
    return f"line {where.rsplit(' line ', 1)[1]}" if " line " in where else where


def _rows(outcomes: Sequence[Outcome], invalid: Sequence[InvalidRow]) -> list[_Row]:
    """The rows that a person should check, dead links first."""
    yes_no = ("no", "yes")
    rows = [("failed", o.link.where, o.link.url, "no", o.why) for o in outcomes if o.what == "failed"]
    rows += [("row", row.where, "", "no", f"The row{row.sentence.removeprefix(row.where)}") for row in invalid]
    fates = [("yes" if o.kept else "its caption" if o.captioned else "no", o) for o in outcomes if o.what == "same"]
    rows += [("same", o.link.where, o.link.url, fate, o.why) for fate, o in fates]
    rows += [("alike", o.link.where, o.link.url, yes_no[o.kept], o.alike) for o in outcomes if o.alike]
    return [(result, line_of(where), url, kept, why) for result, where, url, kept, why in rows]


def report_text(
    list_name: str, folder_name: str, outcomes: Sequence[Outcome], invalid: Sequence[InvalidRow], loaded: str
) -> str:
    """A summary, a table of errors, a table of duplicates, and the report of loading the folder."""
    count = Counter(o.what for o in outcomes)
    rows = _rows(outcomes, invalid)
    lines = [
        f"{sum(o.kept for o in outcomes)} of the {len(outcomes) + len(invalid)} rows of {printable(list_name)} are "
        f"images in the folder {printable(folder_name)}",
        f"Fetched now: {count['fetched']}; there before: {count['there']}; dead or refused: {count['failed']}; "
        f"invalid rows: {len(invalid)}; the same as another: {count['same']}; "
        f"look like another: {sum(bool(o.alike) for o in outcomes)}",
    ]
    if rows:
        lines.append(f"The tables below are also in {REPORT} in that folder")
    lines += _table("Dead links and invalid rows", [row for row in rows if row[0] in ("failed", "row")])
    lines += _table("The same image twice", [row for row in rows if row[0] in ("same", "alike")])
    return "\n".join([*lines, "", "In the folder now", loaded])


def _table(title: str, rows: Sequence[_Row]) -> list[str]:
    if not rows:
        return []
    cells = [("row", "address", "what happened")]
    for result, line, url, kept, why in rows:
        more = "" if result in ("failed", "row") else _FATES[kept]
        cells.append((line, printable(url, 70) or "–", why + more))
    return ["", title, *(" | ".join(row) for row in cells)]


def report_csv(outcomes: Sequence[Outcome], invalid: Sequence[InvalidRow]) -> str:
    """The same rows as CSV with their captions; "" if there are none."""
    rows = _rows(outcomes, invalid)
    if not rows:
        return ""
    captions = {line_of(outcome.link.where): " | ".join(outcome.link.row.text) for outcome in outcomes}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "address", "caption", "result", "in the dataset", "what happened"])
    for result, line, url, kept, why in rows:
        writer.writerow([cell(text) for text in (line, url, captions.get(line, ""), _RESULTS[result], kept, why)])
    return text.getvalue()
