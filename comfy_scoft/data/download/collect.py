"""A list of links -> a dataset in a folder, and a report of what became of each link."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...common.errors import UserError
from ..dataset import load_folder
from ..dataset.metadata import normal_category, normal_era
from ..records import Dataset
from .address import Allowed, LinkError, Lookup, is_public, system_lookup
from .fetch import Fetcher
from .limits import Limits
from .links import Link, read_links
from .perceptual_hash import look_alikes
from .progress import run_watched
from .report import Outcome, place, report_csv, report_text
from .store import LOG, DiskError, Saved, Store

Doubles = Literal["leave out the same file", "leave out look-alikes too", "keep all"]
Callbacks = Callable[[int, int, str], None]
"""Called ten times a second with (done, total, a line of text). What it raises stops the run."""


@dataclass
class _Run:
    """What a run has to do, and how far it is."""

    store: Store
    todo: list[Link]
    failed: dict[str, str]
    """By link: why it gave no image."""
    fresh: set[str]

    @property
    def text(self) -> str:
        return f"{len(self.fresh)} fetched, {len(self.failed)} failed, {len(self.todo)} asked for"


def collect(
    list_file: Path,
    folder: Path,
    culture: str = "",
    place: str = "",
    limit: int = 0,
    doubles: Doubles = "leave out the same file",
    limits: Limits | None = None,
    watch: Callbacks = lambda done, total, text: None,
    allowed: Allowed = is_public,
    lookup: Lookup = system_lookup,
) -> tuple[Dataset, str]:
    """Fetch the images of a list into `folder` and load it. What is there already, unchanged, is not asked for again.

    culture, place: for rows that state none. limit: only the first so many good rows; 0 for all.
    doubles: what to do with images that are there twice, by their bytes or by how they look; all are reported.
    watch: see `Watch`. If it raises, what has arrived is entered in the dataset first; the next run goes on from there.
    allowed, lookup: which addresses may be asked, and how names are resolved. For tests; everybody else leaves them.
    Returns the dataset (all splits) and the report. Raises UserError with one sentence when the list is of no use, the
    folder holds something else or cannot be written, or no link gave an image.
    """
    if limit < 0:
        raise UserError(f"The limit is {limit}: give 0 for all links, or how many to fetch.")
    limits = limits or Limits()
    links, faults = read_links(list_file, limits.max_links)
    links = links[: limit or None]
    store = Store(folder, limits.max_pixels)
    store.open(lambda: watch(0, len(links), "looking at what is there"))
    first = {link.url: link for link in reversed(links)}
    run = _Run(store, [link for link in links if link is first[link.url] and link.url not in store.saved], {}, set())
    try:
        if run.todo:
            run_watched(
                lambda: _fetch_all(run, Fetcher, limits, allowed, lookup),
                lambda: watch(len(run.fresh) + len(run.failed), len(run.todo), run.text),
            )
    finally:
        outcomes = _judge(links, run, doubles)
        store.write_metadata([_metadata(o.link, o.saved, culture, place) for o in outcomes if o.kept and o.saved])
        store.write_report(report_csv(outcomes, faults))
        store.close()
    if not any(outcome.kept for outcome in outcomes):
        reasons = "; ".join(o.why.rstrip(".") for o in outcomes[:3])
        raise UserError(f"No link of {list_file.name} gave an image: {reasons}.")
    dataset, loaded = load_folder(folder)
    return dataset, report_text(list_file.name, folder.name, outcomes, faults, loaded)


async def _fetch_all(
    run: _Run, make: Callable[[Limits, Allowed, Lookup], Fetcher], limits: Limits, allowed: Allowed, lookup: Lookup
) -> None:
    """Every link that is not there yet, each in a task; `Fetcher` sees to it that few ask at once."""
    fetcher = make(limits, allowed, lookup)
    tasks = [asyncio.ensure_future(_fetch_one(run, fetcher, link)) for link in run.todo]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await fetcher.close()


async def _fetch_one(run: _Run, fetcher: Fetcher, link: Link) -> None:
    part = run.store.part(link.number)
    try:
        origin = await fetcher.fetch(link.number, link.url, part)
        try:
            saved = await asyncio.to_thread(run.store.keep, link.number, link.url, origin)
        except DiskError:
            raise
        except UserError as fault:
            raise LinkError(str(fault)) from fault
        run.store.enter(saved)
        run.fresh.add(link.url)
    except LinkError as fault:
        run.failed[link.url] = str(fault)
    finally:
        part.unlink(missing_ok=True)


def _judge(links: list[Link], run: _Run, doubles: Doubles) -> list[Outcome]:
    """What became of each link, in the list's order: of two that are the same, the earlier one counts."""
    outcomes: list[Outcome] = []
    by_hash: dict[str, Outcome] = {}
    for link in links:
        saved = run.store.saved.get(link.url)
        if saved is None:
            why = run.failed.get(link.url, "It was not fetched: the run was stopped before its turn.")
            outcomes.append(Outcome(link, "failed", None, why))
            continue
        earlier = by_hash.get(saved.sha256)
        what: Any = "fetched" if link.url in run.fresh else "there"
        why = ""
        if earlier is not None:
            same = "link" if earlier.link.url == link.url else "file"
            what, why = "same", f"It is the same {same} as {place(earlier.link.where)}."
        outcomes.append(Outcome(link, what, saved, why, kept=earlier is None or doubles == "keep all"))
        by_hash.setdefault(saved.sha256, outcomes[-1])
    distinct = list(by_hash.values())
    for one, other in look_alikes([bytes.fromhex(o.saved.look) for o in distinct if o.saved]):
        distinct[other].alike = f"It looks like {place(distinct[one].link.where)}."
        distinct[other].kept = doubles != "leave out look-alikes too"
    return outcomes


def _metadata(link: Link, saved: Saved, culture: str, where: str) -> dict[str, Any]:
    """A line of metadata: the community's words, and where, when and what was fetched. Nothing empty."""
    line = link.line
    values: dict[str, Any] = {
        "file_name": saved.file,
        "text": line.text,
        "blip_text": line.blip_text,
        "culture": line.culture or culture,
        "place": line.place or where,
        "category": normal_category(line.category),
        "era": normal_era(line.era, link.where),
        "tags": line.tags,
        "split": line.split,
        "source": line.source or link.url,
        "collector": line.collector,
        "licence": line.licence,
        "consent": line.consent,
        "verified_by": line.verified_by,
        "url": link.url,
        "origin": saved.origin if saved.origin != link.url else "",
        "sha256": saved.sha256,
        "fetched": saved.fetched,
    }
    return {key: value for key, value in values.items() if value}


def collected_by_links(folder: Path) -> bool:
    """Whether a folder was made by `collect`."""
    return (folder / LOG).is_file()
