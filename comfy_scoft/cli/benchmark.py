"""`python -m comfy_scoft benchmark`: train, sample and measure the arms of the mini-world benchmark, write its page."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

from ..common.errors import UserError
from ..experiments.engine.jobs import run_jobs
from ..experiments.mini_world import page
from ..experiments.mini_world.arms import ALL, PARTS, SHORT, SHORT_IMAGES, Part, jobs
from ..experiments.mini_world.job import Job, do, finished
from ..experiments.mini_world.training import World
from .exit_status import answered
from .options import Help

OUT = Path("output") / "benchmark"
log = partial(print, flush=True)
world_of = lru_cache(maxsize=1)(World)
"""What a process has loaded, so that its next job finds it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the verb and return the exit status; a fault of the input is one sentence on stderr and status 1."""
    options = parser().parse_args(arguments)
    return answered(lambda: run(options), "What is done is kept; the same command goes on from there.")


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m comfy_scoft benchmark",
        description="Measure what each loss does in the mini world: bias, leakage, memorization, diversity and time. "
        "Hours; it can be stopped, and the same command goes on. What is finished is not done again.",
        formatter_class=Help,
    )
    found.add_argument("--out", type=Path, default=OUT, help="where everything is kept")
    some = f"only these (default: all but development): {', '.join(ALL)}"
    found.add_argument("--part", nargs="+", default=[], metavar="NAME", help=some)
    found.add_argument("--seeds", type=int, default=0, help="only the first so many training seeds; 0 takes all")
    found.add_argument("--jobs", type=int, default=0, help="processes, of one thread each; 0 takes one for each core")
    found.add_argument("--short", action="store_true", help="two arms and few images: shows that all of it runs")
    found.add_argument("--page", type=Path, help="where the page is written (default: `page` in --out)")
    found.add_argument("--render", action="store_true", help="only write the page anew from its own results.json")
    return found


def chosen(names: Sequence[str], seeds: int = 0, *, short: bool = False) -> tuple[Part, ...]:
    """The parts of those names (all, where none is named) with at most so many seeds. UserError for another name."""
    if unknown := [name for name in names if name not in ALL]:
        raise UserError(f"There is no part named {unknown[0]!r}; choose from: {', '.join(ALL)}.")
    if seeds < 0:
        raise UserError(f"--seeds is {seeds}, but it must be 0 (all of them) or more.")
    if short:
        return (SHORT,)
    parts = [ALL[name] for name in dict.fromkeys(names or PARTS)]
    return tuple(replace(part, seeds=part.seeds[: seeds or None]) for part in parts)


def run(options: argparse.Namespace) -> int:
    if options.jobs < 0:
        raise UserError(f"--jobs is {options.jobs}, but it must be 0 (one for each core) or more.")
    parts = chosen(options.part, options.seeds, short=options.short)
    folder = options.page or options.out / "page"
    if options.render:
        files = page.render(folder)
    else:
        limit = SHORT_IMAGES if options.short else 0
        compute(parts, options.out, limit, options.jobs or os.cpu_count() or 1)
        files = page.write(World(options.out, limit), folder, parts if options.short else tuple(ALL.values()))
    log("\n".join(map(str, files)))
    return 0


def compute(parts: Sequence[Part], out: Path, limit: int, processes: int) -> None:
    """Do every job of the parts that is not done yet, with a line for each."""
    world = World(out, limit)
    every = jobs(tuple(parts))
    left = [job for job in every if not finished(job, world)]
    log(f"{len(every)} units, {len(every) - len(left)} of them done already, in {out}")
    begun = time.monotonic()
    for number, (job, line) in enumerate(run_jobs(left, partial(_work, out, limit), processes), start=1):
        part, arm, seed = job
        rest = (time.monotonic() - begun) / number * (len(left) - number)
        log(f"[{number}/{len(left)}] {part.name} · {arm.name} · seed {seed} · {line} · about {rest / 60:.0f} min left")


def _work(out: Path, limit: int, job: Job) -> str:
    """Do a job; returns what it took."""
    content = do(job, world_of(out, limit))
    return ", ".join(f"{name} {seconds:.0f} s" for name, seconds in content["cpu_seconds"].items())
