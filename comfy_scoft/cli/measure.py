"""`python -m comfy_scoft measure`: the metrics of a LoRA against its base model, from model files and a dataset."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from ..common.errors import UserError
from ..data.dataset import load_folder
from ..data.records import Dataset
from ..experiments.measure_lora import Measurement, MeasureSettings, save, text_table
from ..features import FEATURES, load_features
from ..models.placement import to_device
from ..models.single_file import load_base
from .exit_status import answered
from .options import Help, add_settings, add_threads, set_threads
from .progress import ProgressLine

MINI, PHOTOGRAPHS = "mini CLIP (layer 5)", "CLIP ViT-B/32"
"""The usual feature network of the mini world and of photographs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the verb and return its exit status."""
    options = parser().parse_args(arguments)
    return answered(lambda: run(options), "Images that were generated are kept; the same command goes on from there.")


def parser() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(
        prog="python -m comfy_scoft measure",
        description="Measure a LoRA against its base model: KID to held-out images, CLIPScore, memorization, diversity "
        "and the denoising gap, each with its 95% interval, and in the mini world the bias. Prints a table, and saves "
        "scores.json and images.",
        formatter_class=Help,
    )
    command.add_argument("lora", type=Path, metavar="LORA", help="the LoRA, .safetensors")
    command.add_argument("--checkpoint", type=Path, required=True, help="its base model, .safetensors")
    command.add_argument("--dataset", type=Path, required=True, help="folder that it was trained on (its split train)")
    command.add_argument("--held-out", type=Path, help="images of the same kind that it was not trained on (default: "
                         "the dataset's own of other splits)")  # fmt: skip
    command.add_argument("--out", type=Path, help="folder for the results (default: `measured/<LoRA>` here)")
    command.add_argument("--features", default="", help="the network that compares images, best one that no loss of "
                         f"the training looked through: {', '.join(FEATURES)} (default: {PHOTOGRAPHS}, for the mini "
                         f"model {MINI})")  # fmt: skip
    command.add_argument("--features-file", type=Path, help="file with its weights (default: none, for mini CLIP)")
    add_settings(command, MeasureSettings, *(field.name for field in dataclasses.fields(MeasureSettings)))
    command.add_argument("--prediction", choices=("epsilon", "v_prediction"), help="default: as the checkpoint says")
    add_threads(command, "figures")
    return command


def run(options: argparse.Namespace) -> int:
    """Measure, print the table and the paths of what was saved."""
    set_threads(options.threads)
    settings = MeasureSettings(**{f.name: getattr(options, f.name) for f in dataclasses.fields(MeasureSettings)})
    if not options.lora.is_file():
        raise UserError(f"There is no LoRA {str(options.lora)!r}: give a .safetensors file.")
    trained, held_out = parts(options.dataset, options.held_out)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    base = load_base(options.checkpoint, options.prediction)
    name = options.features or (MINI if base.family == "mini" else PHOTOGRAPHS)
    network = load_features(name, options.features_file).to(device)
    to_device(base.unet, device, torch.float32 if device.type == "cpu" else torch.float16)
    to_device(base.vae, device, torch.float32)
    out = options.out or Path("measured") / options.lora.stem
    with ProgressLine() as line:

        def observe(done: int, total: int, text: str) -> None:
            line.total = total
            line.update(done, text)

        measurement = Measurement(base, options.lora, trained, held_out, network, out / "images", settings, observe)
        measured = measurement.run()
    files = save(measurement, measured, out)
    print("\n".join([*text_table(measured.scores), *measured.left_out, *map(str, files)]))
    return 0


def parts(folder: Path, other: Path | None) -> tuple[Dataset, Dataset]:
    """The images that were trained on, and those that were not."""
    dataset, _ = load_folder(folder)
    trained = dataset.split("train")
    return trained, (load_folder(other)[0] if other is not None else dataset).without(trained)
