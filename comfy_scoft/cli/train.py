"""`python -m comfy_scoft train`: a job's LoRA from the command line."""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from .exit_status import answered
from .options import Help, add_threads, set_threads

ON_THE_CARD = {
    "title": "title of the LoRA",
    "trigger_phrase": "trigger phrase: the words to use in a prompt",
    "authors": "authors",
    "licence": "license of the LoRA",
    "consent": "who consented, to what, and where the images come from",
}
"""The fields of the model card that a person fills in (`CardFields`), with their help."""
NEW, NEWEST = "off", "latest"
"""A new run, or the newest one of the job; anything else is the name of a run (training/run_folder.py)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the verb and return its exit status."""
    command = parser()
    options = command.parse_args(arguments)
    if options.job is None and options.resume not in (NEW, NEWEST):  # `--resume PATH`: the path is the job's
        options.job, options.resume = Path(options.resume), NEWEST
    if options.job is None:
        command.error("the job is missing: give the job.json that Export Training Job wrote, or its folder")
    return answered(lambda: train(options), "Nothing is saved.")


def parser() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(
        prog="python -m comfy_scoft train",
        description="Train a job from the node Export Training Job. Ctrl-C saves a checkpoint and stops.",
        formatter_class=Help,
    )
    command.add_argument("job", type=Path, nargs="?", metavar="JOB", help="the job.json, or its folder")
    command.add_argument("--out", type=Path, help="folder for the LoRA and the run (default: `trained` in the job's)")
    command.add_argument(
        "--resume",
        nargs="?",
        const=NEWEST,
        default=NEW,
        metavar="RUN",
        help="go on with the job's newest run, or with the one whose name is given: `train JOB --resume`, "
        "`train --resume JOB` and `train JOB --resume lora-2` all do (default: a new run)",
    )
    command.add_argument(
        "--models", type=Path, help="folder to search for model files that the job only names (default: the job's)"
    )
    add_threads(command, "LoRA")
    for name, text in ON_THE_CARD.items():
        option = f"--{name.replace('_', '-')}"
        command.add_argument(
            option, default="", metavar="TEXT", help=f"for the model card: {text} (default: not stated)"
        )
    return command


def stoppable() -> Callable[[], None]:
    """Have Ctrl-C and SIGTERM wait for the next safe moment, where the returned function raises KeyboardInterrupt.

    A second signal stops at once.
    """
    signals: list[int] = []

    def receive(number: int, frame: object) -> None:
        if signals:
            raise KeyboardInterrupt
        signals.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(ValueError):  # not the main thread
            signal.signal(number, receive)

    def check() -> None:
        if signals:
            raise KeyboardInterrupt

    return check


def run_named(resume: str, runs: Path) -> str:
    """The name of a run that is given by its name or by the path of its folder."""
    path = Path(resume)
    return path.name if path.is_dir() and path.resolve().parent == runs.resolve() else resume


def train(options: argparse.Namespace) -> int:
    """Train a job; writes the LoRA, its model card, and the run with its checkpoints and metrics.jsonl."""

    from ..common.errors import OtherProcess
    from ..training.distributed import launched
    from ..training.job import read_job, ready_run
    from ..training.model_card import CardFields, save_lora, training_record
    from ..training.run import Callbacks
    from ..training.run_folder import discard_empty, run_folder, run_line, stopped_at, train_and_log
    from ..training.validation import HELD_OUT
    from .progress import ProgressLine

    set_threads(options.threads)
    job = read_job(options.job)
    fields = CardFields(**{name: getattr(options, name) for name in ON_THE_CARD})
    out = options.out or job.folder / "trained"
    runs = out / "runs"
    distributed, _ = launched()
    folder = Path(
        distributed.first(str(run_folder(runs, job.name, run_named(options.resume, runs))) if distributed.main else "")
    )
    started, stop, line = time.monotonic(), stoppable(), ProgressLine(shown=distributed.main)
    text, losses = "starting", {"loss": "", HELD_OUT: ""}
    try:
        with line:
            if options.resume != NEW and distributed.main:
                line.say(run_line(folder, job.name, run_named(options.resume, runs)))
            run, notes = ready_run(job, folder, options.models, resume=options.resume != NEW)
            for note in notes:
                line.say(note)

            def check() -> None:
                stop()
                line.update(min(run.base.calls, line.total - 1), text, ", ".join(filter(None, losses.values())))

            def on_step(step: int, row: dict[str, float]) -> None:
                nonlocal text
                for name in ("loss", HELD_OUT):
                    if name in row:
                        losses[name] = f"{name} {row[name]:.4f}"
                text = f"step {step} of {job.steps}"

            def on_plan(calls: int) -> None:
                line.total = calls
                line.say(f"{calls} UNet calls planned.")

            result, rows = train_and_log(run, Callbacks(check, on_step, line.say, on_plan=on_plan))
            line.update(line.total, f"step {result.steps} of {job.steps}", ", ".join(filter(None, losses.values())))
    except OtherProcess:
        stop()  # this one may have been told to stop too, by the same signal
        raise
    except KeyboardInterrupt:
        how = "Give the same command again to go on." if options.resume != NEW else "Add --resume to go on."
        raise KeyboardInterrupt(stopped_at(folder, how)) from None
    finally:
        if distributed.main:
            discard_empty(folder)
    if not distributed.main:
        return 0
    record = training_record(run, result, rows, time.monotonic() - started)
    path = save_lora(out, job.name, result.lora, fields, record)
    print(f"{path}\n{path.with_suffix('.md')}\n{folder / 'metrics.jsonl'}")
    return 0
