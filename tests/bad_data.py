"""A dataset of one good record beside bad ones, and what must be said of those."""

import json

import numpy as np
import pytest
from PIL import Image

from comfy_scoft.data.dataset import load_folder

GOOD = {"file_name": "good.png", "text": "a good one"}


def one_sentence(error):
    text = str(error.value if hasattr(error, "value") else error)
    assert text.endswith(".") and "\n" not in text and ". " not in text and 20 < len(text) < 700, text
    return text


def noise(path, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(array).save(path)
    return path


def cut(path, keep=0.6):
    noise(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    return path


def load_with(folder, *lines):
    """Load the good line and the given ones; returns the sentences about those left out, after checking them."""
    raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in (GOOD, *lines)]
    (folder / "metadata.jsonl").write_bytes(b"\n".join(raw) + b"\n")
    dataset, report = load_folder(folder)
    first, *rest = report.splitlines()
    assert first == f"1 image loaded, {len(lines)} left out"
    assert [record.caption for record in dataset.records] == ["a good one"]
    faults = [line[2:] for line in rest if line.startswith("- ")]
    assert len(faults) == len(lines)
    with pytest.raises(ValueError) as error:
        load_folder(folder, strict=True)
    assert str(error.value) == faults[0]
    for fault in faults:
        one_sentence(fault)
    return faults
