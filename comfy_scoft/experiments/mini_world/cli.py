"""`python -m comfy_scoft benchmark`: train, draw and read the arms of the mini-world benchmark, then write its page."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch

from ...cli.exit_status import answered
from ...common.errors import UserError
from . import page
from .arms import ALL, PARTS, SHORT, SHORT_IMAGES, Part, units
from .training import World
from .unit import Unit, do, finished

OUT = Path("output") / "benchmark"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the verb and return the exit status; a fault of the input is one sentence on stderr and status 1."""
    options = parser().parse_args(arguments)
    return answered(lambda: run(options), "What is done is kept; the same command goes on from there.")


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m comfy_scoft benchmark",
        description="Measure what each loss does in the mini world: bias, leakage, memorization, diversity and time. "
        "Hours; it can be stopped, and the same command goes on. What is finished is not done again.",
    )
    found.add_argument("--out", type=Path, default=OUT, help=f"where everything is kept (default: {OUT})")
    found.add_argument(
        "--part",
        nargs="+",
        default=[],
        metavar="NAME",
        help=f"only these (default: all but development): {', '.join(ALL)}",
    )
    found.add_argument("--seeds", type=int, default=0, help="only the first so many training seeds; 0 takes all")
    found.add_argument("--jobs", type=int, default=0, help="processes, of one thread each; 0 takes one for each core")
    found.add_argument("--short", action="store_true", help="two arms and few images: shows that all of it runs")
    found.add_argument("--page", type=Path, help="where the page is written (default: `page` in --out)")
    return found


def chosen(names: Sequence[str], seeds: int = 0, short: bool = False) -> tuple[Part, ...]:
    """The parts of those names (all, where none is named) with at most so many seeds. UserError for another name."""
    if unknown := [name for name in names if name not in ALL]:
        raise UserError(f"There is no part named {unknown[0]!r}; choose from: {', '.join(ALL)}.")
    if seeds < 0:
        raise UserError(f"--seeds is {seeds}, but it must be 0 (all of them) or more.")
    if short:
        return (SHORT,)
    found = [ALL[name] for name in dict.fromkeys(names or PARTS)]
    return tuple(replace(part, seeds=part.seeds[: seeds or None]) for part in found)


def run(options: argparse.Namespace) -> int:
    if options.jobs < 0:
        raise UserError(f"--jobs is {options.jobs}, but it must be 0 (one for each core) or more.")
    parts = chosen(options.part, options.seeds, options.short)
    limit = SHORT_IMAGES if options.short else 0
    world = World(options.out, limit)
    todo = [unit for unit in units(parts) if not finished(unit, world)]
    total = len(units(parts))
    say(f"{total} units, {total - len(todo)} of them done already, in {options.out}")
    begun = time.monotonic()
    for number, (unit, line) in enumerate(work(todo, world, options.jobs or os.cpu_count() or 1), start=1):
        part, arm, seed = unit
        left = (time.monotonic() - begun) / number * (len(todo) - number)
        say(f"[{number}/{len(todo)}] {part.name} · {arm.name} · seed {seed} · {line} · about {left / 60:.0f} min left")
    shown = parts if options.short else tuple(ALL.values())
    files = page.write(world, options.page or options.out / "page", shown)
    say("\n".join(map(str, files)))
    return 0


def say(text: str) -> None:
    print(text, flush=True)


def work(todo: Sequence[Unit], world: World, jobs: int) -> Iterator[tuple[Unit, str]]:
    """Do the units in `jobs` processes of one thread each, and yield each with a line about it when it is done."""
    if jobs == 1 or len(todo) < 2:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield from ((unit, _line(do(unit, world))) for unit in todo)
        finally:
            torch.set_num_threads(threads)
        return
    with _environment(ONE_THREAD):  # read by the new processes when they import torch
        pool = ProcessPoolExecutor(min(jobs, len(todo)), multiprocessing.get_context("spawn"))
        waiting = {pool.submit(_one, unit, world.out, world.limit): unit for unit in todo}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "A process of the benchmark was ended from outside, perhaps for want of memory; what is done is kept: "
                "run the same command again, with fewer --jobs."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


@lru_cache(maxsize=1)
def _world(out: Path, limit: int) -> World:
    """What a process has loaded, so that its next unit finds it."""
    torch.set_num_threads(1)
    return World(out, limit)


def _one(unit: Unit, out: Path, limit: int) -> str:
    return _line(do(unit, _world(out, limit)))


def _line(content: dict) -> str:
    return ", ".join(f"{name} {seconds:.0f} s" for name, seconds in content["cpu_seconds"].items())


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
