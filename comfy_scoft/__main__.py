"""The command line: `python -m comfy_scoft <verb>`, or `python PACK <verb>` with the pack's folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from .common.console import printable_streams
from .common.fingerprints import pack_version
from .common.torchaudio import without_broken_torchaudio

VERBS = {
    "train": ("train", "train a job from the node Export Training Job"),
    "measure": ("measure", "measure a LoRA against its base model on a dataset, as the workflow evaluate does"),
    "negatives": ("negatives", "generate negatives for a dataset from model files, on any number of processes"),
    "survey": ("survey", "make the survey's page from folders of images, and the report from the answers"),
    "demo": ("demo", "run the shipped workflow in a running ComfyUI and show what changed"),
    "benchmark": ("benchmark", "measure what each loss does in the mini world, and write a page"),
    "protocol": ("paper_tables", "reproduce the paper's Tables 1, 2 and 4 with your own model, data and GPU"),
}
"""Each verb with its module in cli/, whose `main` takes the words after it, and its line of help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit status."""
    printable_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in VERBS:
        if not {"-h", "--help"} & {*given}:  # help comes at once
            without_broken_torchaudio()
        return import_module(f".cli.{VERBS[given[0]][0]}", __package__).main(given[1:])
    parser().parse_args(given)  # help, version, or what is wrong with it
    raise AssertionError("argparse knows every verb that is no error")


def parser() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(
        prog="python -m comfy_scoft",
        description="SCoFT outside ComfyUI.",
        epilog="VERB --help lists a verb's options.",
    )
    command.add_argument("--version", action="version", version=f"comfy_scoft {pack_version()}")
    verbs = command.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, (_, text) in VERBS.items():
        verbs.add_parser(name, help=text, add_help=False)
    return command


if __name__ == "__main__":
    sys.exit(main())
