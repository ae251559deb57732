"""`python -m comfy_scoft train`: a job's LoRA from the command line."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

ON_THE_CARD = {
    "title": "what the LoRA is called",
    "trigger_phrase": "what in a prompt evokes what it learned",
    "authors": "who made it",
    "licence": "what others may do with it",
    "consent": "who agreed, to what, and where the images come from",
}
"""What only people can state (the fields of `CardFields`), and what to write there."""


def stoppable() -> Callable[[], None]:
    """Make Ctrl-C (and a cluster's SIGTERM) wait for the next safe moment; the function it returns raises there.

    A second one stops at once.
    """
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(ValueError):  # not the main thread
            signal.signal(number, ask)

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    return check


def train(options: argparse.Namespace) -> int:
    """Train a job; writes the LoRA with its card, and the run's checkpoints and metrics.jsonl beside them."""
    import torch
    from tqdm import tqdm

    from ..common.errors import OtherProcess
    from ..training.distributed import launched
    from ..training.job import read_job, run_job
    from ..training.model_card import CardFields, save_lora, training_record
    from ..training.run import Callbacks
    from ..training.run_folder import OFF, discard_empty, run_folder

    if options.threads:
        torch.set_num_threads(options.threads)
    job = read_job(options.job)
    fields = CardFields(**{name: getattr(options, name) for name in ON_THE_CARD})
    out = options.out or job.folder / "trained"
    distributed, _ = launched()
    folder = Path(
        distributed.first(str(run_folder(out / "runs", job.name, options.resume)) if distributed.main else "")
    )
    started, stop = time.monotonic(), stoppable()
    with tqdm(total=job.steps, unit="step", desc=folder.name, dynamic_ncols=True, disable=not distributed.main) as bar:

        def on_step(step: int, row: dict[str, float]) -> None:
            bar.update(step - bar.n)
            bar.set_postfix({key: f"{value:.4g}" for key, value in row.items() if key != "step"}, refresh=False)

        def on_message(text: str) -> None:
            bar.write(text, file=sys.stderr)

        callbacks = Callbacks(
            check_interrupt=stop,
            on_step=on_step,
            on_message=on_message,
            on_plan=lambda calls: on_message(f"{calls} UNet calls planned."),
        )
        try:
            run, result, rows = run_job(job, folder, options.models, resume=options.resume != OFF, callbacks=callbacks)
        except OtherProcess:
            stop()  # this one may have been told to stop too, by the same signal
            raise
        finally:
            if distributed.main:
                discard_empty(folder)
    if not distributed.main:
        return 0
    record = training_record(run, result, rows, time.monotonic() - started)
    path = save_lora(out, job.name, result.lora, fields, record)
    print(f"{path}\n{path.with_suffix('.md')}\n{folder / 'metrics.jsonl'}")
    return 0
