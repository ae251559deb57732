"""The command line: `python -m comfy_scoft <verb>`."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from .command import answered

ON_THE_CARD = {
    "title": "what the LoRA is called",
    "trigger_phrase": "words that call up what it learned",
    "authors": "who made it",
    "licence": "what others may do with it",
    "consent": "who agreed, to what, and where the pictures come from",
}
"""What only people can say (the fields of `CardFields`), and what to write there."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status; a fault of the input is one sentence on stderr and status 1."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["demo"]:  # has options of its own
        from .demo import main as demo

        return demo(given[1:]) or 0
    if given[:1] == ["negatives"]:  # has options of its own
        from .negatives_cli import main as negatives

        return negatives(given[1:])
    if given[:1] == ["benchmark"]:  # has options of its own
        from .benchmark.cli import main as benchmark

        return benchmark(given[1:])
    if given[:1] == ["protocol"]:  # has options of its own
        from .protocol.cli import main as protocol

        return protocol(given[1:])
    options = parser().parse_args(given)
    return answered(lambda: train(options), "What was learned is kept; add --resume to go on.")


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m comfy_scoft", description="SCoFT outside ComfyUI.")
    verbs = found.add_subparsers(dest="verb", required=True)
    verbs.add_parser("demo", help="drive a running ComfyUI through the shipped workflow and show what changed")
    verbs.add_parser("negatives", help="draw negatives for a dataset from model files, on any number of processes")
    verbs.add_parser("benchmark", help="measure in the mini world what each loss does, and write a page of it")
    verbs.add_parser("protocol", help="the paper's Tables 1, 2 and 4 on your own Stable Diffusion, data and GPU")
    one = verbs.add_parser("train", help="train a job that the node Export Training Job wrote")
    one.add_argument("job", type=Path, help="the job.json, or the folder that holds it")
    one.add_argument("--out", type=Path, help="folder for the LoRA and the run (default: `trained` beside job.json)")
    one.add_argument(
        "--resume",
        nargs="?",
        const="latest",
        default="off",
        help="go on with the newest run in that folder, or a named one",
    )
    one.add_argument("--models", type=Path, help="where to look for model files that the job only names")
    one.add_argument("--threads", type=int, help="CPU threads; the same number gives the same bits")
    for name, words in ON_THE_CARD.items():
        one.add_argument(f"--{name.replace('_', '-')}", default="", metavar="TEXT", help=f"for the card: {words}")
    return found


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

    from .card import CardFields, save_lora, training_record
    from .errors import OtherProcess
    from .job import read_job, run_job
    from .processes import launched
    from .runs import OFF, discard_empty, run_folder
    from .trainer import Watch

    if options.threads:
        torch.set_num_threads(options.threads)
    job = read_job(options.job)
    said = CardFields(**{name: getattr(options, name) for name in ON_THE_CARD})
    out = options.out or job.folder / "trained"
    processes, _ = launched()
    folder = Path(processes.first(str(run_folder(out / "runs", job.name, options.resume)) if processes.main else ""))
    started, stop = time.monotonic(), stoppable()
    with tqdm(total=job.steps, unit="step", desc=folder.name, dynamic_ncols=True, disable=not processes.main) as bar:

        def observe(step: int, row: dict[str, float]) -> None:
            bar.update(step - bar.n)
            bar.set_postfix({key: f"{value:.4g}" for key, value in row.items() if key != "step"}, refresh=False)

        watch = Watch(check=stop, observe=observe, say=lambda text: bar.write(text, file=sys.stderr))
        try:
            run, result, rows = run_job(job, folder, options.resume != OFF, options.models, watch)
        except OtherProcess:
            stop()  # this one may have been told to stop too, by the same signal
            raise
        finally:
            if processes.main:
                discard_empty(folder)
    if not processes.main:
        return 0
    record = training_record(run, result, rows, time.monotonic() - started)
    path = save_lora(out, job.name, result.lora, said, record)
    print(f"{path}\n{path.with_suffix('.md')}\n{folder / 'metrics.jsonl'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
