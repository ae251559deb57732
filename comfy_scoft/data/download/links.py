"""A community's list of links and captions, read from CSV or JSON lines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...common.errors import UserError
from ..dataset.metadata import LinkLine, normal_era, normal_split, parse_row
from ..dataset.rows import ROW_ENDINGS, read_rows, shown


@dataclass(frozen=True)
class Fault:
    """A row that cannot be read. where: "links.csv line 3"; sentence: what is wrong, naming the place."""

    where: str
    sentence: str


@dataclass(frozen=True)
class Link:
    """One row of the list. number: its place among the rows, from 1. where: "links.csv line 3"."""

    number: int
    where: str
    line: LinkLine

    @property
    def url(self) -> str:
        return self.line.url


def read_links(path: Path, max_links: int = 10_000) -> tuple[list[Link], list[Fault]]:
    """The good rows of a `.csv`, `.tsv` or `.jsonl` file in order, and those that are not.

    Columns: url, caption; optional category, era, tags, culture, place, split, generic_captions, source, collector,
    license, consent, verified_by. A list in one cell has "|" between its entries. Raises UserError when the file is
    of another kind, cannot be read, has no good row, or more rows than `max_links`.
    """
    name = shown(path.name)
    if path.suffix.lower() not in ROW_ENDINGS:
        raise UserError(f"The list {name} is of no kind that can be read: save it as CSV or as JSON lines (.jsonl).")
    links: list[Link] = []
    faults: list[Fault] = []
    try:
        for number, (where, values) in enumerate(read_rows(path, name), 1):
            if number > max_links:
                raise UserError(f"The list {name} has more than {max_links:,} rows: split it into several lists.")
            try:
                if isinstance(values, UserError):
                    raise values
                line = parse_row(values, where, LinkLine)
                normal_era(line.era, where)
                normal_split(line.split or "train", where)
                links.append(Link(number, where, line))
            except UserError as fault:
                faults.append(Fault(where, str(fault)))
    except OSError as error:
        raise UserError(f"The list {name} cannot be read: put it into ComfyUI's input folder.") from error
    if not links:
        raise UserError(
            faults[0].sentence
            if len(faults) == 1
            else f"The list {name} has no row with a link and a caption: name the columns url and caption in its first "
            f"line, and give each image a row{_first(faults)}."
        )
    return links, faults


def _first(faults: list[Fault]) -> str:
    return f" (first fault: {faults[0].sentence.rstrip('.')})" if faults else ""
