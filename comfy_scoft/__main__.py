"""The command line: `python -m comfy_scoft <verb>`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .cli.exit_status import answered
from .cli.options import Help
from .cli.train import ON_THE_CARD, train


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit status."""
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
    return answered(lambda: train(options), "The last checkpoint is saved; add --resume to continue.")


def parser() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(prog="python -m comfy_scoft", description="SCoFT outside ComfyUI.")
    verbs = command.add_subparsers(dest="verb", required=True)
    verbs.add_parser("demo", help="run the shipped workflow in a running ComfyUI and show what changed")
    verbs.add_parser("negatives", help="generate negatives for a dataset from model files, on any number of processes")
    verbs.add_parser("benchmark", help="measure what each loss does in the mini world, and write a page")
    verbs.add_parser("protocol", help="reproduce the paper's Tables 1, 2 and 4 with your own model, data and GPU")
    one = verbs.add_parser("train", help="train a job from the node Export Training Job", formatter_class=Help)
    one.add_argument("job", type=Path, help="the job.json, or its folder")
    one.add_argument("--out", type=Path, help="folder for the LoRA and the run (default: `trained` next to job.json)")
    one.add_argument(
        "--resume",
        nargs="?",
        const="latest",
        default="off",
        metavar="NAME",
        help="resume the newest run in that folder, or the one named NAME",
    )
    one.add_argument("--models", type=Path, help="folder to search for model files that the job only names")
    one.add_argument("--threads", type=int, help="CPU threads; the same number gives exactly the same LoRA")
    for name, text in ON_THE_CARD.items():
        one.add_argument(f"--{name.replace('_', '-')}", default="", metavar="TEXT", help=f"for the model card: {text}")
    return command


if __name__ == "__main__":
    sys.exit(main())
