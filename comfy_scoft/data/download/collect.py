"""A list of links -> a dataset in a folder, and a report on each link."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ...common.errors import DiskError, UserError
from ..dataset import load_folder
from ..dataset.metadata import normal_category, normal_era
from ..records import Dataset
from .address import Allowed, LinkError, Lookup, is_public, system_lookup
from .fetch import Fetcher
from .limits import Limits
from .links import Link, read_links
from .perceptual_hash import look_alikes
from .progress import run_watched
from .report import Outcome, line_of, report_csv, report_text
from .store import REPORT, SavedImage, Store

Duplicates = Literal["leave out the same file", "leave out look-alikes too", "keep all"]
OnProgress = Callable[[int, int, str], None]
"""Called ten times a second with (done, total, a line of text). May raise to stop the run."""


@dataclass
class _Downloads:
    """The state of a run. failed: link -> sentence; fetched: links."""

    store: Store
    todo: list[Link]
    failed: dict[str, str] = field(default_factory=dict)
    fetched: set[str] = field(default_factory=set)

    def report(self, on_progress: OnProgress) -> None:
        fetched, failed, total = len(self.fetched), len(self.failed), len(self.todo)
        on_progress(fetched + failed, total, f"{fetched} fetched, {failed} failed, {total} in all")


def collect(
    list_file: Path,
    folder: Path,
    culture: str = "",
    place: str = "",
    limit: int = 0,
    duplicates: Duplicates = "leave out the same file",
    limits: Limits | None = None,
    on_progress: OnProgress = lambda done, total, text: None,
    allowed: Allowed = is_public,
    lookup: Lookup = system_lookup,
) -> tuple[Dataset, str]:
    """Fetch the images of a list into `folder` and load it. Images of an earlier run are not fetched again.

    culture, place: defaults for rows that state none. limit: only the first `limit` valid rows; 0 for all.
    duplicates: what to do with the same file, or a look-alike, of an earlier row; all are reported.
    on_progress: if it raises, the images fetched so far are added to the dataset first; the next run continues.
    allowed, lookup: which addresses may be connected to, and how names are resolved; only tests change them.
    Returns the dataset (all splits) and the report. Raises UserError if the list is unusable, the folder has other
    content or cannot be written, or no link gave an image.
    """
    if limit < 0:
        raise UserError(f"The limit is {limit}: give 0 for all links, or how many to fetch.")
    limits = limits or Limits()
    links, invalid = read_links(list_file, limits.max_links)
    links = links[: limit or None]
    store = Store(folder, limits.max_pixels)
    store.open(lambda: on_progress(0, len(links), "checking earlier downloads"))
    first = {link.url: link for link in reversed(links)}
    todo = [link for link in links if link is first[link.url] and link.url not in store.saved]
    run = _Downloads(store, todo)
    try:
        if todo:
            run_watched(lambda: _fetch_all(run, limits, allowed, lookup), lambda: run.report(on_progress))
    finally:
        outcomes = _outcomes(links, run, duplicates)
        lines = [_metadata(o.link, o.saved, culture, place) for o in outcomes if (o.kept or o.captioned) and o.saved]
        store.write("metadata.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        store.write(REPORT, report_csv(outcomes, invalid))
        store.close()
    if not any(outcome.kept for outcome in outcomes):
        reasons = "; ".join(o.why.rstrip(".") for o in outcomes[:3])
        raise UserError(f"No link of {list_file.name} gave an image: {reasons}.")
    dataset, loaded = load_folder(folder)
    return dataset, report_text(list_file.name, folder.name, outcomes, invalid, loaded)


async def _fetch_all(run: _Downloads, limits: Limits, allowed: Allowed, lookup: Lookup) -> None:
    """One task for each link; `Fetcher` limits how many run at once."""
    fetcher = Fetcher(limits, allowed, lookup)
    tasks = [asyncio.ensure_future(_fetch_one(run, fetcher, link)) for link in run.todo]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await fetcher.session.close()


async def _fetch_one(run: _Downloads, fetcher: Fetcher, link: Link) -> None:
    part = run.store.part(link.number)
    try:
        origin = await fetcher.fetch(link.number, link.url, part)
        try:
            saved = await asyncio.to_thread(run.store.accept, link.number, link.url, origin)
        except DiskError:
            raise
        except UserError as error:
            raise LinkError(str(error)) from error
        run.store.log(saved)
        run.fetched.add(link.url)
    except LinkError as error:
        run.failed[link.url] = str(error)
    finally:
        part.unlink(missing_ok=True)


def _outcomes(links: list[Link], run: _Downloads, duplicates: Duplicates) -> list[Outcome]:
    """The result of each link, in order; of two that are the same, the earlier one counts, with both captions."""
    outcomes: list[Outcome] = []
    by_hash: dict[str, Outcome] = {}
    captions: dict[str, set[str]] = {}
    for link in links:
        saved = run.store.saved.get(link.url)
        if saved is None:
            why = run.failed.get(link.url, "It was not fetched: the run was stopped before its turn.")
            outcomes.append(Outcome(link, "failed", None, why))
            continue
        earlier = by_hash.get(saved.sha256)
        what: Any = "fetched" if link.url in run.fetched else "there"
        why = ""
        if earlier is not None:
            same = "link" if earlier.link.url == link.url else "file"
            what, why = "same", f"It is the same {same} as {line_of(earlier.link.where)}."
        outcome = Outcome(link, what, saved, why, kept=earlier is None or duplicates == "keep all")
        known = captions.setdefault(saved.sha256, set())
        if earlier is not None and not outcome.kept and not known.issuperset(link.row.text):
            outcome.saved, outcome.captioned = earlier.saved, True
        known.update(link.row.text)
        by_hash.setdefault(saved.sha256, outcome)
        outcomes.append(outcome)
    distinct = list(by_hash.values())
    for one, other in look_alikes([bytes.fromhex(o.saved.look) for o in distinct if o.saved]):
        distinct[other].alike = f"It looks like {line_of(distinct[one].link.where)}."
        distinct[other].kept = duplicates != "leave out look-alikes too"
    for outcome in outcomes:
        if outcome.captioned and outcome.saved:
            outcome.captioned = by_hash[outcome.saved.sha256].kept
    return outcomes


def _metadata(link: Link, saved: SavedImage, culture: str, place: str) -> dict[str, Any]:
    """A line of metadata: the row's fields and the download's provenance, without empty values."""
    row = link.row
    values: dict[str, Any] = {"file_name": saved.file} | row.model_dump()
    values |= {
        "culture": row.culture or culture,
        "place": row.place or place,
        "category": normal_category(row.category),
        "era": normal_era(row.era, link.where),
        "source": row.source or link.url,
        "origin": saved.origin if saved.origin != link.url else "",
        "sha256": saved.sha256,
        "fetched": saved.fetched,
    }
    return {key: value for key, value in values.items() if value}
