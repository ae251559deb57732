"""Datasets as the nodes load and make them, in folders of ComfyUI that are empty."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from comfy_inprocess import start
from PIL import Image

comfy = start()
import folder_paths  # noqa: E402

from comfy_scoft.comfyui.nodes import data as nodes_data  # noqa: E402
from comfy_scoft.data.records import Dataset  # noqa: E402


def empty_folders(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ComfyUI's input, output and temp folders, empty."""
    for name in ("input", "output", "temp"):
        (root / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(root / name))
    return root


def captioned(folder: Path, count: int = 2, size: tuple[int, int] = (12, 8)) -> Path:
    """A folder of images with a caption beside each."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        values = np.random.default_rng(n).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"FOOD_{n}.png")
        (folder / f"FOOD_{n}.txt").write_text(f"dish {n}", encoding="utf-8")
    return folder


def load(folder: str, culture="", place="", categories="", split="all", limit=0):
    return nodes_data.LoadDataset.execute(folder, culture, place, categories, split, limit)


def one_sentence(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert isinstance(error.value, ValueError) and "\n" not in text and text.endswith(".")
    return text


def from_images(images, captions, generic=None, culture="c", place="p"):
    node = nodes_data.DatasetFromImages
    return node.execute(images, captions, [culture], [place], generic_captions=generic)[0]


def batches(*sizes):
    noise = torch.Generator().manual_seed(1)
    return [(torch.rand(*size, 3, generator=noise) * 255).round() / 255 for size in sizes]


def with_depth(dataset: Dataset, folder: Path) -> Dataset:
    for n, record in enumerate(dataset.records):
        Image.new("L", Image.open(record.image).size, 40 * n).save(folder / f"depth_{n}.png")
    return dataset.replace(
        dataclasses.replace(record, depth=folder / f"depth_{n}.png") for n, record in enumerate(dataset.records)
    )
