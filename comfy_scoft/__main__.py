"""The command line: `python -m comfy_scoft <verb>`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .cli.exit_status import answered
from .cli.train import ON_THE_CARD, train


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status; a fault of the input is one sentence on stderr and status 1."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["demo"]:  # has options of its own
        from .cli.demo import main as demo

        return demo(given[1:]) or 0
    if given[:1] == ["negatives"]:  # has options of its own
        from .cli.negatives import main as negatives

        return negatives(given[1:])
    if given[:1] == ["benchmark"]:  # has options of its own
        from .cli.benchmark import main as benchmark

        return benchmark(given[1:])
    if given[:1] == ["protocol"]:  # has options of its own
        from .cli.paper_tables import main as protocol

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


if __name__ == "__main__":
    sys.exit(main())
