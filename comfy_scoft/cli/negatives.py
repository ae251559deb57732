"""`python -m comfy_scoft negatives`: a dataset with negatives from files, on one process or many.

Each process takes every count-th record; torchrun and accelerate launch start several. Files are named by what decides
their content, so any process makes the same file of a record, and an interrupted run goes on where it was, with any
number of processes.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from ..common.errors import OtherProcess, UserError
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
from ..negatives.depth import DEPTH, DepthEstimator, attach_depth, load_depth
from ..negatives.filter import filter_negatives
from ..negatives.generate import NegativeSettings, make_negatives
from ..reports.plots import filter_page
from ..training.distributed import FINE, launched
from .exit_status import answered

PATIENCE = timedelta(days=1)
"""How long a process that has finished its share waits for the others. One that has ended is noticed at once."""
CPU = torch.device("cpu")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the verb and return the exit status; a fault of the input is one sentence on stderr and status 1."""
    options = parser().parse_args(arguments)
    return answered(lambda: run(options), "What was made is kept; the same command goes on from there.")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m comfy_scoft negatives",
        description="Make negatives for a dataset: the same scenes as the base model imagines the place.",
    )
    files = parser.add_argument_group("files")
    files.add_argument("--checkpoint", type=Path, required=True, help="Stable Diffusion 1.x, 2.x or XL, .safetensors")
    files.add_argument("--controlnet", type=Path, required=True, help="a depth ControlNet of that family, .safetensors")
    files.add_argument("--dataset", type=Path, required=True, help="folder with metadata.jsonl, or images and .txt")
    files.add_argument("--out", type=Path, required=True, help="new folder; the result is in `dataset` below it")
    files.add_argument("--depth", default="MiDaS (controlnet-aux)", help=f"one of: {', '.join(DEPTH)}")
    files.add_argument("--depth-weights", type=Path, help="folder with that network's weights")
    files.add_argument("--again", action="store_true", help="estimate depth also where the dataset has some")
    data = parser.add_argument_group("dataset")
    data.add_argument("--place", default="", help="for the records that name none; may be empty")
    data.add_argument("--culture", default="", help="for the records that name none")
    data.add_argument("--split", default="all", help="train, test, validation or all (default)")
    data.add_argument("--limit", type=int, default=0, help="take only the first so many records; 0 takes all")
    sampling = parser.add_argument_group("sampling")
    for field in dataclasses.fields(NegativeSettings):
        if field.name not in ("resolution", "scheduler"):
            name, kind = field.name.replace("_", "-"), type(field.default)
            sampling.add_argument(f"--{name}", type=kind, default=field.default, help=f"default: {field.default}")
    sampling.add_argument("--resolution", type=int, default=0, help="side in pixels; 0 takes the model's own")
    sampling.add_argument("--prediction", choices=("epsilon", "v_prediction"), help="where the checkpoint does not say")
    sampling.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="default: float16 on a GPU")
    sampling.add_argument("--threads", type=int, help="CPU threads; the same number gives the same bits")
    sieve = parser.add_argument_group("filter")
    sieve.add_argument("--features", help="a feature network: leave out negatives that look like their image")
    sieve.add_argument("--features-file", type=Path, help="file with that network's weights")
    sieve.add_argument("--threshold", type=float, default=0.0, help="the distance below which they are left out")
    return parser


def run(options: argparse.Namespace) -> int:
    """Make this process's share; the first process then waits for the others' and writes the dataset."""
    distributed, device = launched("gloo", PATIENCE)
    if options.threads:
        torch.set_num_threads(options.threads)
    dataset, report = load_folder(options.dataset, options.culture, options.place, (), options.split, options.limit)
    result = options.out / "dataset"
    try:
        if distributed.main and result.exists():
            raise UserError(f"The folder {result} holds a result already: give another --out, or remove it.")
        work = Work(options, device, show_progress=distributed.main)
        share = dataset.replace(distributed.share(dataset.records))
        if len(share):
            work.negatives(work.depth(share))
    except BaseException:
        distributed.leave(CPU)
        raise
    if distributed.main and distributed.count > 1:
        print("waiting for the other processes", file=sys.stderr)
    if distributed.worst(FINE, CPU) != FINE:
        raise OtherProcess("Another process stopped, so this one stops too; what was made is kept.")
    if not distributed.main:
        return 0
    work.show_progress = False
    finished, lines = work.filtered(work.negatives(work.depth(dataset)))  # all are there: this reads them
    save_dataset(finished, result)
    count = sum(len(record.negatives) for record in finished.records)
    print("\n".join([report.splitlines()[0], *lines, f"{count} negatives in {result}"]))
    return 0


class Work:
    """Models and folders of one command; what it makes lies under `--out` in `work`, named by content."""

    def __init__(self, options: argparse.Namespace, device: torch.device, *, show_progress: bool) -> None:
        self.options, self.device, self.show_progress = options, device, show_progress
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
        """With negatives at each record; those that are there are not made again."""
        with self._bar("negatives", len(dataset)) as bar:
            return make_negatives(
                *(dataset, self.settings, self.sampler, self.folder / "negatives", self.identity, self.multiple),
                observe=lambda *_: bar.update(),
            )

    def filtered(self, dataset: Dataset) -> tuple[Dataset, list[str]]:
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
        return tqdm(total=total, desc=what, unit="image", dynamic_ncols=True, disable=not self.show_progress)
