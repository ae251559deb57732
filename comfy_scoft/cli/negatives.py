"""`python -m comfy_scoft negatives`: a dataset with negatives from files, on one process or many.

Each process takes every count-th record, by the RANK and WORLD_SIZE that torchrun, accelerate launch and clusters set.
They meet in the output folder alone: a record's files are named by what is in them, so whoever draws a record draws the
same, and an interrupted run goes on where it was, with any number of processes.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from ..common.errors import UserError
from ..common.files import write_atomically
from ..data.dataset import load_folder, save_dataset
from ..data.records import CultureRecord, Dataset
from ..features import load_features
from ..models.single_file import load_base
from ..negatives.controlnet_pipeline import (
    PipelineSampler,
    load_controlnet,
    models_identity,
    native_resolution,
    size_multiple,
)
from ..negatives.depth import DEPTH, DepthEstimator, attach_depth, depth_file, load_depth
from ..negatives.filter import filter_negatives
from ..negatives.generate import NegativeSettings, make_negatives, plan
from ..reports.plots import filter_page
from .exit_status import answered

PAUSE = 1.0
"""Seconds between two looks at what other processes have finished."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the verb and return the exit status; a fault of the input is one sentence on stderr and status 1."""
    options = parser().parse_args(arguments)
    return answered(lambda: run(options), "What was drawn is kept; the same command goes on from there.")


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m comfy_scoft negatives",
        description="Draw negatives for a dataset: the same scenes as the base model imagines the place.",
    )
    files = found.add_argument_group("files")
    files.add_argument("--checkpoint", type=Path, required=True, help="Stable Diffusion 1.x, 2.x or XL, .safetensors")
    files.add_argument("--controlnet", type=Path, required=True, help="a depth ControlNet of that family, .safetensors")
    files.add_argument("--dataset", type=Path, required=True, help="folder with metadata.jsonl, or images and .txt")
    files.add_argument("--out", type=Path, required=True, help="new folder; the result is in `dataset` below it")
    files.add_argument("--depth", default="MiDaS (controlnet-aux)", help=f"one of: {', '.join(DEPTH)}")
    files.add_argument("--depth-weights", type=Path, help="folder with that network's weights")
    files.add_argument("--again", action="store_true", help="estimate depth also where the dataset has some")
    data = found.add_argument_group("dataset")
    data.add_argument("--place", default="", help="for the records that name none; may be empty")
    data.add_argument("--culture", default="", help="for the records that name none")
    data.add_argument("--split", default="all", help="train, test, validation or all (default)")
    data.add_argument("--limit", type=int, default=0, help="take only the first so many records; 0 takes all")
    drawing = found.add_argument_group("drawing")
    for field in dataclasses.fields(NegativeSettings):
        if field.name not in ("resolution", "scheduler"):
            name, kind = field.name.replace("_", "-"), type(field.default)
            drawing.add_argument(f"--{name}", type=kind, default=field.default, help=f"default: {field.default}")
    drawing.add_argument("--resolution", type=int, default=0, help="side in pixels; 0 takes the model's own")
    drawing.add_argument("--prediction", choices=("epsilon", "v_prediction"), help="where the checkpoint does not say")
    drawing.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="default: float16 on a GPU")
    drawing.add_argument("--threads", type=int, help="CPU threads; the same number gives the same bits")
    sieve = found.add_argument_group("filter")
    sieve.add_argument("--features", help="a feature network: leave out negatives that look like their image")
    sieve.add_argument("--features-file", type=Path, help="file with that network's weights")
    sieve.add_argument("--threshold", type=float, default=0.0, help="the distance below which they are left out")
    return found


def run(options: argparse.Namespace) -> int:
    """Draw this process's share; the first process then waits for the others' and writes the dataset."""
    if options.threads:
        torch.set_num_threads(options.threads)
    rank, count = place()
    dataset, report = load_folder(options.dataset, options.culture, options.place, (), options.split, options.limit)
    result = options.out / "dataset"
    if rank == 0 and result.exists():
        raise UserError(f"The folder {result} holds a result already: give another --out, or remove it.")
    work = Work(options, processing_unit(), say=rank == 0)
    share = dataset.replace(dataset.records[rank::count])
    if len(share):
        work.negatives(work.depth(share))
    if rank != 0:
        return 0
    work.say = False
    wait(lambda: work.without_depth(dataset), "depth map")
    deep = work.depth(dataset)
    wait(lambda: work.without_negatives(deep), "record's negatives")
    finished, said = work.sieved(work.negatives(deep))
    save_dataset(finished, result)
    drawn = sum(len(record.negatives) for record in finished.records)
    print("\n".join([report.splitlines()[0], *said, f"{drawn} negatives in {result}"]))
    return 0


def place() -> tuple[int, int]:
    """(rank, number of processes), as launchers set them. Raises UserError for what cannot be."""
    try:
        rank, count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    except UserError as error:
        raise UserError("RANK and WORLD_SIZE must be whole numbers: set both, or neither.") from error
    if not 0 <= rank < count:
        raise UserError(f"RANK is {rank} of WORLD_SIZE {count}: ranks begin at 0 and end before WORLD_SIZE.")
    return rank, count


def processing_unit() -> torch.device:
    """The GPU that the launcher means for this process, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def wait(missing: Callable[[], int], what: str) -> None:
    """Until nothing is missing; says what it waits for. Other processes draw it, so there is no limit in time."""
    said = -1
    while left := missing():
        if left != said:
            print(f"waiting for the other processes: {left} {what}{'s' if left > 1 else ''}", file=sys.stderr)
            said = left
        time.sleep(PAUSE)


class Work:
    """Models and folders of one command; what it makes lies under `--out` in `work`, named by content."""

    def __init__(self, options: argparse.Namespace, device: torch.device, say: bool) -> None:
        self.options, self.device, self.say = options, device, say
        self.folder = options.out / "work"
        number = options.dtype or ("float16" if device.type == "cuda" else "float32")
        base = load_base(options.checkpoint, options.prediction, getattr(torch, number))
        names = [field.name for field in dataclasses.fields(NegativeSettings)]
        chosen = {name: getattr(options, name) for name in names if hasattr(options, name)}
        chosen["resolution"] = options.resolution or native_resolution(base)
        self.settings = NegativeSettings(**chosen)
        controlnet = load_controlnet(options.controlnet, base)
        self.sampler = PipelineSampler(base, controlnet, self.settings, device)
        self.multiple = size_multiple(base)
        self.identity = models_identity(options.checkpoint, options.controlnet, self.sampler)
        self._estimator: DepthEstimator | None = None

    def depth(self, dataset: Dataset) -> Dataset:
        """With a depth map at each record: the dataset's own, or an estimated one."""
        bare = [record for record in dataset.records if self._lacks_depth(record)]
        if not bare:
            return dataset
        with self._bar("depth", len(bare)) as bar:
            deep = attach_depth(dataset.replace(bare), self._network(), self.folder / "depth", lambda *_: bar.update())
        found = {id(old): new for old, new in zip(bare, deep.records, strict=True)}
        return dataset.replace(found.get(id(record), record) for record in dataset.records)

    def negatives(self, dataset: Dataset) -> Dataset:
        """With negatives at each record; those that are there are not drawn again."""
        with self._bar("negatives", len(dataset)) as bar:
            return make_negatives(
                *(dataset, self.settings, self.sampler, self.folder / "negatives", self.identity, self.multiple),
                observe=lambda *_: bar.update(),
            )

    def without_depth(self, dataset: Dataset) -> int:
        """How many records have no depth map yet."""
        bare = [record for record in dataset.records if self._lacks_depth(record)]
        return sum(not depth_file(record, self._network(), self.folder / "depth").is_file() for record in bare)

    def without_negatives(self, dataset: Dataset) -> int:
        """How many records lack some of their negatives."""
        facts = (self.settings, self.folder / "negatives", self.identity, self.multiple)
        return sum(not plan(record, *facts).finished() for record in dataset.records)

    def sieved(self, dataset: Dataset) -> tuple[Dataset, list[str]]:
        """Without false negatives, where a network is named; an image of them is written, and the report returned."""
        if not self.options.features:
            return dataset, []
        network = load_features(self.options.features, self.options.features_file).to(self.device)
        found = filter_negatives(dataset, network, self.options.threshold)
        page = io.BytesIO()
        Image.fromarray(filter_page(found).mul(255).round().byte().numpy()).save(page, format="PNG")
        write_atomically(self.options.out / "filtered.png", page.getvalue())
        return found.dataset, [found.report(), str(self.options.out / "filtered.png")]

    def _lacks_depth(self, record: CultureRecord) -> bool:
        return record.depth is None or self.options.again

    def _network(self) -> DepthEstimator:
        if self._estimator is None:
            self._estimator = load_depth(self.options.depth, self.options.depth_weights, self.device)
        return self._estimator

    def _bar(self, what: str, total: int) -> tqdm:
        return tqdm(total=total, desc=what, unit="picture", dynamic_ncols=True, disable=not self.say)
