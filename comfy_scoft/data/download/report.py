"""What became of the links, for people: a text for the screen and a table for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..dataset.rows import shown
from .links import Fault, Link
from .store import REPORT, Saved


@dataclass
class Outcome:
    """What became of one link. why: a sentence, for what failed or is the same as an earlier one.

    alike: a sentence when it looks like an earlier one. kept: whether it is in the dataset.
    """

    link: Link
    what: Literal["fetched", "there", "same", "failed"]
    saved: Saved | None
    why: str = ""
    kept: bool = False
    alike: str = ""


_WORDS = {"failed": "not fetched", "same": "the same", "alike": "looks alike", "row": "not read"}


def place(where: str) -> str:
    """ "our links.csv line 3" -> "line 3": all rows of a report are of one list."""
    return f"line {where.rsplit(' line ', 1)[1]}" if " line " in where else where


def _rows(outcomes: Sequence[Outcome], faults: Sequence[Fault]) -> list[tuple[str, str, str, str, str]]:
    """(kind, where, address, in the dataset?, sentence) of all that a person should look at, dead links first."""
    rows = [("failed", o.link.where, o.link.url, "no", o.why) for o in outcomes if o.what == "failed"]
    rows += [("row", f.where, "", "no", f"The row{f.sentence.removeprefix(f.where)}") for f in faults]
    rows += [("same", o.link.where, o.link.url, _yes(o.kept), o.why) for o in outcomes if o.what == "same"]
    rows += [("alike", o.link.where, o.link.url, _yes(o.kept), o.alike) for o in outcomes if o.alike]
    return rows


def _yes(kept: bool) -> str:
    return "yes" if kept else "no"


def report_text(
    list_name: str, folder_name: str, outcomes: Sequence[Outcome], faults: Sequence[Fault], loaded: str
) -> str:
    """A summary, a table of what went wrong, one of what is there twice, and what the folder holds now."""

    def count(what: str) -> int:
        return sum(o.what == what for o in outcomes)

    total = len(outcomes) + len(faults)
    kept = sum(o.kept for o in outcomes)
    rows = _rows(outcomes, faults)
    lines = [
        f"{kept} of the {total} rows of {shown(list_name)} are images in the folder {shown(folder_name)}",
        f"Fetched now: {count('fetched')}; there before: {count('there')}; dead or refused: {count('failed')}; "
        f"rows with a fault: {len(faults)}; the same as another: {count('same')}; "
        f"look like another: {sum(bool(o.alike) for o in outcomes)}",
    ]
    if rows:
        lines.append(f"The tables below are also in {REPORT} in that folder")
    lines += _table("Dead links and faults", [row for row in rows if row[0] in ("failed", "row")])
    lines += _table("The same image twice", [row for row in rows if row[0] in ("same", "alike")])
    return "\n".join([*lines, "", "In the folder now", loaded])


def _table(title: str, rows: Sequence[tuple[str, str, str, str, str]]) -> list[str]:
    if not rows:
        return []
    cells = [("row", "address", "what happened")]
    for kind, where, url, kept, why in rows:
        more = "" if kind in ("failed", "row") else " Kept." if kept == "yes" else " Left out."
        cells.append((place(where), shown(url, 70) or "–", why + more))
    return ["", title, *(" | ".join(row) for row in cells)]


def report_csv(outcomes: Sequence[Outcome], faults: Sequence[Fault]) -> str:
    """The same rows for a spreadsheet, with a caption to find them by; "" when there are none."""
    rows = _rows(outcomes, faults)
    if not rows:
        return ""
    captions = {outcome.link.where: outcome.link.line.text for outcome in outcomes}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "address", "caption", "result", "in the dataset", "what happened"])
    for kind, where, url, kept, why in rows:
        writer.writerow(
            [_inert(cell) for cell in (place(where), url, captions.get(where, ""), _WORDS[kind], kept, why)]
        )
    return text.getvalue()


def _inert(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: links and captions are other people's text."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
