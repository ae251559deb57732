"""`python -m comfy_scoft negatives`: negatives for a dataset from model files, on one process or many.

Each process takes every count-th record; torchrun and accelerate launch start several. Files are named by what decides
their content, so every process generates the same files for a record, and an interrupted run continues where it was,
with any number of processes.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import torch

from ..common.errors import OtherProcess, UserError
from ..common.settings import check_number, declaration
from ..data.dataset import load_folder, save_dataset
from ..data.images import write_png
from ..data.records import Dataset
from ..features import load_features
from ..models.single_file import load_base
from ..negatives.controlnet_pipeline import (
    PipelineSampler,
    load_controlnet,
    models_identity,
    size_multiple,
)
from ..negatives.depth import DEPTH, FOR_PHOTOS, DepthEstimator, attach_depth, load_depth
from ..negatives.filter import filter_negatives
from ..negatives.generate import NegativeSettings, make_negatives
from ..reports.plots import filter_page
from ..training.distributed import FINE, launched
from .exit_status import answered
from .options import Help, add_settings, add_threads, set_threads
from .progress import ProgressLine

PATIENCE = timedelta(days=1)
"""How long a process that has finished its share waits for the others. One that has ended is noticed at once."""
CPU = torch.device("cpu")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = parser().parse_args(arguments)
    return answered(lambda: run(options), "Finished negatives are kept; run the same command to continue.")


def parser() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(
        prog="python -m comfy_scoft negatives",
        description="Generate negatives for a dataset: the same scenes with the base model's own idea of the place.",
        formatter_class=Help,
    )
    files = command.add_argument_group("files")
    files.add_argument("--checkpoint", type=Path, required=True, help="Stable Diffusion 1.x, 2.x or XL, .safetensors")
    files.add_argument("--controlnet", type=Path, required=True, help="a depth ControlNet for it, .safetensors")
    files.add_argument("--dataset", type=Path, required=True, help="folder with metadata.jsonl, or images and .txt")
    files.add_argument("--out", type=Path, required=True, help="new folder; the result is in its sub-folder `dataset`")
    files.add_argument("--depth", default=FOR_PHOTOS, help=f"depth network: {', '.join(DEPTH)}")
    files.add_argument("--depth-weights", type=Path, help="folder with its weights (default: none, for relief)")
    files.add_argument("--again", action="store_true", help="also estimate depth of images that have a depth map")
    data = command.add_argument_group("dataset")
    data.add_argument("--place", default="", help="place of the records that name none (default: none)")
    data.add_argument("--culture", default="", help="culture of the records that name none (default: none)")
    data.add_argument("--split", default="all", help="train, test, validation or all")
    data.add_argument("--limit", type=int, default=0, help="maximum number of records; 0: all")
    sampling = command.add_argument_group("sampling")
    add_settings(sampling, NegativeSettings, "per_image", "steps", "cfg", "strength", "seed", "prompt_template")
    add_settings(sampling, NegativeSettings, "sampler", "batch_size")
    resolution = declaration(NegativeSettings, "resolution")[1].help
    sampling.add_argument("--resolution", type=int, default=0, help=f"{resolution} Default: 0, the model's own.")
    sampling.add_argument("--prediction", choices=("epsilon", "v_prediction"), help="default: as the checkpoint says")
    sampling.add_argument(
        "--dtype", choices=("float32", "float16", "bfloat16"), help="default: float16 on a GPU, else float32"
    )
    add_threads(sampling, "images")
    filtering = command.add_argument_group("filter")
    filtering.add_argument("--features", help="a feature network: remove negatives that look like their "
                           "image (default: keep all)")  # fmt: skip
    filtering.add_argument("--features-file", type=Path, help="file with its weights (default: none, for mini CLIP)")
    filtering.add_argument("--threshold", type=float, help="remove negatives below this distance (default: the one "
                           "that the distances themselves suggest)")  # fmt: skip
    return command


def run(options: argparse.Namespace) -> int:
    """Generate this process's share; the first process then waits for the others and writes the dataset."""
    names = [field.name for field in dataclasses.fields(NegativeSettings) if hasattr(options, field.name)]
    chosen = {name: getattr(options, name) for name in names if name != "resolution" or options.resolution}
    settings = NegativeSettings(**chosen)
    if options.threshold is not None:
        check_number("threshold", options.threshold, whole=False, min=0.0, max=None)
    set_threads(options.threads)
    distributed, device = launched("gloo", PATIENCE)
    dataset, report = load_folder(options.dataset, options.culture, options.place, (), options.split, options.limit)
    result = options.out / "dataset"
    try:
        if distributed.main and result.exists():
            raise UserError(f"The folder {result} already holds a result: choose another --out, or remove it.")
        work = Work(options, settings, device, show_progress=distributed.main)
        share = dataset.replace(distributed.share(dataset.records))
        if len(share):
            work.negatives(work.depth(share))
    except BaseException:
        distributed.leave(CPU)
        raise
    if distributed.main and distributed.count > 1:
        print("waiting for the other processes", file=sys.stderr)
    if distributed.worst(FINE, CPU) != FINE:
        raise OtherProcess("Another process stopped, so this one stops too; finished negatives are kept.")
    if not distributed.main:
        return 0
    work.show_progress = False
    finished, lines = work.filtered(work.negatives(work.depth(dataset)))  # all exist by now: this only reads them
    save_dataset(finished, result)
    count = sum(len(record.negatives) for record in finished.records)
    print("\n".join([report.splitlines()[0], *lines, f"{count} negatives in {result}"]))
    return 0


class Work:
    """Models and folders of one command. Its files are in `--out`, sub-folder `work`, named by content."""

    def __init__(
        self, options: argparse.Namespace, settings: NegativeSettings, device: torch.device, *, show_progress: bool
    ) -> None:
        self.options, self.device, self.show_progress = options, device, show_progress
        self.folder = options.out / "work"
        number = options.dtype or ("float16" if device.type == "cuda" else "float32")
        base = load_base(options.checkpoint, options.prediction, getattr(torch, number))
        self.settings = dataclasses.replace(settings, resolution=options.resolution or base.resolution)
        controlnet = load_controlnet(options.controlnet, base)
        self.sampler = PipelineSampler(base, controlnet, self.settings, device)
        self.multiple = size_multiple(base)
        self.identity = models_identity(options.checkpoint, options.controlnet, self.sampler)

    def depth(self, dataset: Dataset) -> Dataset:
        """The dataset with a depth map for each record: its own, or an estimated one."""
        bare = [record for record in dataset.records if record.depth is None or self.options.again]
        if not bare:
            return dataset
        with self._line(len(bare)) as line:
            deep = attach_depth(dataset.replace(bare), self._estimator, self.folder / "depth", line.watch("depth"))
        estimated = {id(old): new for old, new in zip(bare, deep.records, strict=True)}
        return dataset.replace(estimated.get(id(record), record) for record in dataset.records)

    def negatives(self, dataset: Dataset) -> Dataset:
        """The dataset with negatives for each record. Existing ones are not generated again."""
        with self._line(len(dataset)) as line:
            return make_negatives(
                *(dataset, self.settings, self.sampler, self.folder / "negatives", self.identity, self.multiple),
                observe=line.watch("negatives"),
            )

    def filtered(self, dataset: Dataset) -> tuple[Dataset, list[str]]:
        """The dataset without false negatives, if --features is set, and the lines to print; saves filtered.png."""
        if not self.options.features:
            return dataset, []
        network = load_features(self.options.features, self.options.features_file).to(self.device)
        with ProgressLine(len(dataset)) as line:
            result = filter_negatives(dataset, network, self.options.threshold, line.watch("filter"))
        page = self.options.out / "filtered.png"
        write_png(filter_page(result), page)
        return result.dataset, [result.report(), str(page)]

    @cached_property
    def _estimator(self) -> DepthEstimator:
        return load_depth(self.options.depth, self.options.depth_weights, self.device)

    def _line(self, total: int) -> ProgressLine:
        return ProgressLine(total, shown=self.show_progress)
