"""A community's list of links and captions, read from CSV or JSON lines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...common.errors import UserError
from ...common.text import printable
from ..dataset.metadata import LinkRow, normal_era, normal_split, parse_row
from ..dataset.rows import ROW_ENDINGS, read_rows


@dataclass(frozen=True)
class InvalidRow:
    """A row that was not accepted. where: "links.csv line 3"; sentence: the error, beginning with `where`."""

    where: str
    sentence: str


@dataclass(frozen=True)
class Link:
    """One row of the list. number: its position among the rows, from 1. where: "links.csv line 3"."""

    number: int
    where: str
    row: LinkRow

    @property
    def url(self) -> str:
        return self.row.url


def read_links(path: Path, max_links: int = 10_000) -> tuple[list[Link], list[InvalidRow]]:
    """The valid and the invalid rows of a `.csv`, `.tsv` or `.jsonl` file, in order.

    Columns: url, caption; optional category, era, tags, culture, place, split, generic_captions, source, collector,
    license, consent, verified_by. A list in one cell has "|" between its entries. Raises UserError if the file has
    another ending, cannot be read, has no valid row, or more rows than `max_links`.
    """
    name = printable(path.name)
    if path.suffix.lower() not in ROW_ENDINGS:
        raise UserError(f"The list {name} is not a CSV or JSON lines file: save it as .csv or .jsonl.")
    links: list[Link] = []
    invalid: list[InvalidRow] = []
    try:
        for number, (where, values) in enumerate(read_rows(path, name), 1):
            if number > max_links:
                raise UserError(f"The list {name} has more than {max_links:,} rows: split it into several lists.")
            try:
                if isinstance(values, UserError):
                    raise values
                row = parse_row(values, where, LinkRow)
                normal_era(row.era, where)
                normal_split(row.split or "train", where)
                links.append(Link(number, where, row))
            except UserError as error:
                invalid.append(InvalidRow(where, str(error)))
    except OSError as error:
        raise UserError(f"The list {name} cannot be read: put it into ComfyUI's input folder.") from error
    if not links:
        if len(invalid) == 1:
            raise UserError(invalid[0].sentence)
        first = f" (first error: {invalid[0].sentence.rstrip('.')})" if invalid else ""
        raise UserError(
            f"The list {name} has no row with a link and a caption: name the columns url and caption in its first "
            f"line, and give each image a row{first}."
        )
    return links, invalid
