"""`python -m comfy_scoft protocol`: the paper's Tables 1, 2 and 4 from model files and datasets, start to end.

It can be killed at any moment; the same command goes on, and does nothing twice.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ..common.errors import UserError
from ..experiments.paper_tables import plan, prepare
from ..experiments.paper_tables.arms import PAPER, SHORT, SHORT_SIDE, TABLES, Scale
from ..experiments.paper_tables.data import load_cultures, load_generic
from ..experiments.paper_tables.networks import ROLES, Networks
from ..experiments.paper_tables.plan import Clock, calibrate
from ..experiments.paper_tables.run import work
from ..experiments.paper_tables.study import Study
from ..negatives.depth import FOR_PHOTOS
from ..training.run_folder import alone
from .exit_status import answered
from .options import Help, add_threads, set_threads

TIMES = "times.json"
log = partial(print, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the verb and return the exit status; a fault of the input is one sentence on stderr and status 1."""
    words = list(sys.argv[2:] if arguments is None else arguments)
    options = parser().parse_args(words)
    command = shlex.join(["python", "-m", "comfy_scoft", "protocol", *words])
    return answered(lambda: run(options, command), "What is done is kept; the same command goes on from there.")


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m comfy_scoft protocol",
        description="Reproduce the paper's Tables 1, 2 and 4. It can be stopped at any moment, and the same command "
        "goes on. docs/protocol.md says what is done and what the paper leaves open.",
        formatter_class=Help,
    )
    files = found.add_argument_group("files")
    files.add_argument("--model", type=Path, required=True, help="Stable Diffusion 1.4, .safetensors")
    files.add_argument("--controlnet", type=Path, help="a depth ControlNet of its family, where negatives are made "
                       "(default: none)")  # fmt: skip
    files.add_argument("--data", type=Path, nargs="+", required=True, help="a dataset for each culture, or a folder "
                       "of them: <culture>/train/metadata.jsonl and, if there is one, <culture>/test")  # fmt: skip
    files.add_argument("--generic", type=Path, help="a generic set such as COCO's val2017, for KID-COCO "
                       "(default: no KID-COCO)")  # fmt: skip
    files.add_argument("--generic-captions", type=Path, help="its captions in COCO's form, captions_val2017.json "
                       "(default: those in its folder)")  # fmt: skip
    files.add_argument("--networks", type=Path, help="folder of the feature networks' files, and of blip and depth "
                       "(default: only those that --network names)")  # fmt: skip
    files.add_argument("--network", action="append", default=[], metavar="ROLE=NAME[=FILE]",
                       help=f"another network or file for one of: {', '.join(ROLES)} "
                       "(default: the protocol's)")  # fmt: skip
    files.add_argument("--depth", default=FOR_PHOTOS, help="the depth estimator")
    files.add_argument("--out", type=Path, required=True, help="where everything is kept")
    files.add_argument("--answers", type=Path, help="folder with the answers to the survey pages (default: none yet)")
    what = found.add_argument_group("what is done")
    what.add_argument("--tables", type=int, nargs="+", default=list(TABLES), choices=TABLES, help="default: all")
    what.add_argument("--plan", action="store_true", help="only say what would be done, and how long it would take")
    what.add_argument("--short", action="store_true", help="few steps and images: shows that all of it runs")
    what.add_argument("--seed", type=int, default=1024, help="of splits, samples and trainings")
    what.add_argument("--filter-threshold", type=float, help="distance below which negatives are false; default: the "
                      "one that the distances suggest")  # fmt: skip
    how = found.add_argument_group("how")
    how.add_argument("--device", default="", help="default: cuda where there is a GPU, else cpu")
    how.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="default: float16 on a GPU, else "
                     "float32")  # fmt: skip
    how.add_argument("--precision", choices=("fp32", "fp16", "bf16"), help="of training; default: fp16 on a GPU, else "
                     "fp32")  # fmt: skip
    how.add_argument("--prediction", choices=("epsilon", "v_prediction"), help="default: as the checkpoint says")
    how.add_argument("--resolution", type=int, default=0, help="side in pixels; 0 takes the model's own")
    how.add_argument("--batch", type=int, default=0, help="images generated at once (default: 8)")
    add_threads(how, "bits")
    return found


def run(options: argparse.Namespace, command: str) -> int:
    set_threads(options.threads)
    study = opened(options)
    with alone(options.out):
        works = plan.works(study.cultures, study.arms, study.generic, study.scale, study.seed, study.tables)
        study.open()
        study.clock.plan(works)
        calibrate(study.clock, study.bare(), study.side, study.scale.batch)
        for culture in study.cultures:
            log(f"{culture.name}: {culture.report}")
        trainings = len(study.cultures) * sum(bool(arm.losses) for arm in study.arms)
        log("\n".join([*plan.described(works, trainings, study.clock), f"In all {study.clock.estimate()}."]))
        if not options.plan:
            work(study, command, options.answers, short=options.short)
    return 0


def opened(options: argparse.Namespace) -> Study:
    """The study of a command's options, everything checked that can be before anything is loaded."""
    device = computing_on(options.device)
    scale = sized(options, device)
    if not options.model.is_file():
        raise UserError(f"There is no file {options.model}: give a Stable Diffusion checkpoint (.safetensors).")
    tables = tuple(sorted(set(options.tables)))
    cultures = load_cultures(options.data, scale, options.seed, tables)
    generic = None
    if options.generic is not None and {1, 4} & set(tables):
        generic = load_generic(options.generic, options.generic_captions, scale, options.seed)
    study = Study(
        out=options.out,
        model=options.model,
        controlnet=options.controlnet,
        cultures=cultures,
        generic=generic,
        networks=Networks(options.networks, tuple(options.network), device),
        scale=scale,
        seed=options.seed,
        tables=tables,
        device=device,
        dtype=getattr(torch, options.dtype or ("float16" if device.type == "cuda" else "float32")),
        clock=Clock(options.out / TIMES, log),
        say=log,
        prediction=options.prediction,
        depth=options.depth,
        threshold=options.filter_threshold,
        side=options.resolution or (SHORT_SIDE if options.short else 0),
    )
    for role in study.roles():
        study.networks.named(role)
    if options.answers is not None and not options.answers.is_dir():
        raise UserError(f"There is no folder {options.answers}: give the one with the participants' .json files.")
    prepare.check(study)
    return study


def computing_on(name: str) -> torch.device:
    """The device of that name; "" is a GPU where there is one. Raises UserError, one sentence, where it is not."""
    try:
        found = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError) as error:  # PyTorch has both for a device that is not there
        raise UserError(f"PyTorch has no device {name!r} here: give cuda, cuda:1, … or cpu.") from error
    return found


def sized(options: argparse.Namespace, device: torch.device) -> Scale:
    """The paper's settings, or the short ones, with what the options change."""
    scale = SHORT if options.short else PAPER
    precision = options.precision or ("fp16" if device.type == "cuda" else "fp32")
    if options.resolution % 64:
        raise UserError(f"--resolution is {options.resolution}, but it must be a multiple of 64, or 0.")
    if options.batch < 0:
        raise UserError(f"--batch is {options.batch}, but it must be 1 or more, or 0 for the usual one.")
    scale = scale.at(options.resolution or scale.train.resolution, options.seed, precision)
    return replace(scale, batch=options.batch or scale.batch)
