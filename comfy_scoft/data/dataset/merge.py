"""Several rows of one image -> one record with all its captions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...common.text import printable
from ..records import CultureRecord
from .find import Entries
from .unused import Note

_UNITED = ("generic_captions", "negatives", "verified_by")
_LISTED = ("source", "collector", "licence", "consent")
_ONE = ("culture", "place", "category", "era", "depth")


def one_record_each(entries: Entries) -> Entries:
    """The entries with one record for each image of a split, in the order of their first rows.

    Captions, generic captions, negatives and who verified are united, provenance is listed. Of culture, place,
    category, era and depth map the first one stated is used, and a note names the images whose rows state several.
    """
    rows: dict[tuple[Path, str], list[CultureRecord]] = {}
    for entry in entries:
        if isinstance(entry, CultureRecord):
            rows.setdefault((entry.image, entry.split), []).append(entry)
        else:
            yield entry
    for same in rows.values():
        if len(same) == 1:
            yield same[0]
            continue
        yield _united(same)
        if several := [name for name in _ONE if len(_stated(name, same)) > 1]:
            yield Note(
                f"The {len(same)} rows of {printable(same[0].image.name)} differ in {' and '.join(several)}: what the "
                "first one says is used."
            )


def _united(same: Sequence[CultureRecord]) -> CultureRecord:
    captions = tuple(dict.fromkeys(caption for record in same for caption in record.captions))
    fields: dict[str, Any] = {
        name: tuple(dict.fromkeys(value for record in same for value in getattr(record, name))) for name in _UNITED
    }
    fields |= {name: "; ".join(_stated(name, same)) for name in _LISTED}
    fields |= {name: values[0] for name in _ONE if (values := _stated(name, same))}
    return dataclasses.replace(same[0], caption=captions[0], other_captions=captions[1:], **fields)


def _stated(name: str, records: Sequence[CultureRecord]) -> list[Any]:
    """The different values of a field, without empty ones."""
    return [value for value in dict.fromkeys(getattr(record, name) for record in records) if value]
