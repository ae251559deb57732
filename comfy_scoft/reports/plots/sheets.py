"""Sheets of images: a dataset's records, and models side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ...common.errors import UserError
from ...data.records import counted
from .canvas import INK, LINE, MUTED, SHADE, Page, tile, wrap

if TYPE_CHECKING:
    from ...data.records import CultureRecord, Dataset

TILE = 128
GAP = 8
EDGE = 20
WORDS = 300
WIDEST = 1500


def contact_sheet(dataset: Dataset, limit: int = 12, negatives: int = 5, unreadable: list[str] | None = None) -> Tensor:
    """Image, depth, negatives and words of each record, as many records side by side as fit. (H, W, 3) in [0, 1].

    limit: records shown, from the first; negatives: how many of each are shown at most (a note counts the others).
    An empty dataset gives a page that says so. Where a file cannot be read there is a frame with its name, and its
    record's captions make room for the reason; unreadable: a list that gets the reasons.
    """
    records = dataset.records[: max(1, limit)]
    depth = any(r.depth is not None for r in records)
    shown = max([min(len(r.negatives), negatives) for r in records], default=0)
    names = ["image", *(["depth"] if depth else []), *(["negatives"] if shown else [])]
    strip = (1 + depth + shown) * (TILE + GAP) + WORDS + EDGE
    across = max(1, min(WIDEST // strip, len(records)))
    lines = max(1, -(-len(records) // across))
    page = Page(EDGE + across * strip, 84 + lines * (TILE + GAP) + 8)
    first = f"the first {len(records)} of " if len(records) < len(dataset) else ""
    count = first + counted(dataset.records)
    title = wrap(f"{dataset.name} · {count}", page.width - 2 * EDGE, 1, 18, bold=True)
    page.text(EDGE, 18, title[0], 18, bold=True)
    if not records:
        page.text(EDGE, 74, "This dataset has no records.", 15, MUTED)
    for i, record in enumerate(records):
        x, y = EDGE + i % across * strip, 78 + i // across * (TILE + GAP)
        for k, name in enumerate(names if i < across else []):
            page.text(x + k * (TILE + GAP), 54, name, 13, MUTED)
        errors = _strip(page, (x, y), record, depth=depth, negatives=negatives)
        beside = (x + (1 + depth + shown) * (TILE + GAP) + 4, y)
        if errors:
            page.block(beside[0], y + 2, wrap(" ".join(errors), WORDS, 6, 13), 13)
            (unreadable if unreadable is not None else []).extend(errors)
        else:
            _words(page, beside, record, negatives)
    return page.tensor()


def _strip(page: Page, at: tuple[int, int], record: CultureRecord, *, depth: bool, negatives: int) -> list[str]:
    """The images of one record; an empty frame where a record lacks what others have. Returns why some are not read."""
    errors = []
    files: list[Path | None] = [record.image, *([record.depth] if depth else []), *record.negatives[:negatives]]
    for i, path in enumerate(files):
        x, y = at[0] + i * (TILE + GAP), at[1]
        if path is None:
            page.box(x, y, TILE, TILE, fill=SHADE, edge=LINE)
            page.text(x + TILE / 2, y + TILE / 2 - 8, "none", 12, MUTED, align="center")
        else:
            errors.append(page.file(x, y, path, TILE))
    return [error for error in errors if error]


def _words(page: Page, at: tuple[int, int], record: CultureRecord, negatives: int) -> None:
    """First caption, first generic caption, and what else is known, in at most six lines."""
    x, y = at
    caption = wrap(record.caption, WORDS, 3, 15)
    page.block(x, y + 2, caption, 15)
    below = y + 2 + 21 * len(caption) + 4
    if record.generic_captions:
        generic = wrap(record.generic_captions[0], WORDS, 2, 13)
        page.block(x, below, generic, 13, color=MUTED)
        below += 18 * len(generic) + 4
    facts = [record.category, record.era, record.split]
    if record.other_captions:
        facts.append(f"{len(record.captions)} captions")
    if len(record.negatives) > negatives:
        facts.append(f"{len(record.negatives)} negatives")
    page.text(x, below, wrap(" · ".join(f for f in facts if f), WORDS, 1, 12)[0], 12, MUTED)


def compare_grid(
    sets: Sequence[tuple[str, Tensor | Sequence[Tensor] | np.ndarray]],
    prompts: Sequence[str],
    seeds: Sequence[int],
    columns: int = 10,
    title: str = "",
    side: int = TILE,
) -> Tensor:
    """Models side by side: one row a set (its label, its images), one column a prompt and seed.

    Each set holds as many images ((N, H, W, 3) or N of (H, W, 3), in [0, 1]) as there are prompts and seeds. Only the
    first `columns` are shown, and the title says of how many; `side` is an image's side in pixels. Neighbours with one
    prompt share its heading. Returns (H, W, 3) in [0, 1]. Raises UserError for no sets or counts that differ.
    """
    _check(sets, prompts, seeds)
    shown = min(max(1, columns), len(prompts))
    left = EDGE + 160
    heading, groups = _headings(prompts[:shown], side)
    top = EDGE + (36 if title or shown < len(prompts) else 0) + heading + 22
    width = left + shown * (side + GAP) - GAP + EDGE
    page = Page(width, top + len(sets) * (side + GAP) - GAP + EDGE)
    note = f"the first {shown} of {len(prompts)}" if shown < len(prompts) else ""
    line = " · ".join(part for part in (title, note) if part)
    if line:
        page.text(EDGE, 16, wrap(line, width - 2 * EDGE, 1, 18, bold=True)[0], 18, bold=True)
    for start, count, lines in groups:
        x = left + start * (side + GAP)
        page.block(x, top - 24 - round(13 * 1.35) * len(lines), lines, 13)
        page.line(x, top - 21, count * (side + GAP) - GAP, MUTED)
    for k in range(shown):
        page.text(left + k * (side + GAP), top - 18, f"seed {seeds[k]}", 11, MUTED)
    for i, (label, images) in enumerate(sets):
        y = top + i * (side + GAP)
        lines = wrap(label, left - EDGE - 12, 4, 15, bold=True)
        page.block(EDGE, y + side / 2 - 10 * len(lines), lines, 15, bold=True, color=INK)
        for k in range(shown):
            page.image(left + k * (side + GAP), y, tile(images[k], side))
    return page.tensor()


def _check(sets: Sequence[tuple[str, Any]], prompts: Sequence[str], seeds: Sequence[int]) -> None:
    if not sets or not prompts:
        raise UserError("There is nothing to compare; give at least one set with at least one image.")
    for label, images in sets:
        if not len(images) == len(prompts) == len(seeds):
            raise UserError(
                f"The set {label!r} has {len(images)} images for {len(prompts)} prompts and {len(seeds)} seeds; "
                "compare sets made with the same prompts and seeds."
            )


def _headings(prompts: Sequence[str], side: int) -> tuple[int, list[tuple[int, int, list[str]]]]:
    """Height of the tallest heading, and (first column, columns, lines) of each run of equal prompts."""
    groups, start = [], 0
    while start < len(prompts):
        end = start
        while end < len(prompts) and prompts[end] == prompts[start]:
            end += 1
        room = (end - start) * (side + GAP) - GAP
        groups.append((start, end - start, wrap(prompts[start] or "(empty prompt)", room, 4, 13)))
        start = end
    return max(len(lines) for _, _, lines in groups) * round(13 * 1.35) + 6, groups
