"""CONTRIBUTING's recipes: their code goes into a copy of the pack, where a loss, features, a metric and a node run.

What checkpoints and logs say of a new loss is tested in test_add_a_loss.py."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from toys import toy_base, toy_dataset

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
COPY = "pack_with_the_recipes"
FILES = dict(
    re.findall(r"^# (comfy_scoft/\S+\.py)\n(.*)", block, re.DOTALL)[0]
    for block in map(textwrap.dedent, re.findall(r"^ *```python\n(.*?)^ *```$", TEXT, re.DOTALL | re.MULTILINE))
)
"""Each file that a recipe writes -> its code."""
ADDED = re.findall(r"In `(\S+\.py)`, add `(from [^`]+)` to the\s+imports and\s+`([^`]+)` to\s+`(\w+)`", TEXT)
"""(file, import, entry, the list or dict that the entry goes into)."""


def with_lines(text: str, line: str, entry: str, table: str) -> str:
    """A module's text with an import before its other ones, and an entry at the head of a list or dict."""
    first = re.search(r"^from \.", text, re.MULTILINE)
    assert first is not None
    text = f"{text[: first.start()]}{line}\n{text[first.start() :]}"
    text, count = re.subn(rf"^( *{table}\b[^=\n]*= [\[{{]\n)", rf"\g<1>{entry}\n", text, flags=re.MULTILINE)
    assert count == 1, table
    return text


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the pack with all recipes followed, importable as COPY."""
    copy = tmp_path_factory.mktemp("recipes") / COPY
    ignored = shutil.ignore_patterns("__pycache__", "weights", "assets", "community", "example")
    shutil.copytree(ROOT / "comfy_scoft", copy / "comfy_scoft", ignore=ignored)
    for name in ("__init__.py", "nodes.py"):
        shutil.copy(ROOT / name, copy / name)
    for name, code in FILES.items():
        assert not (copy / name).exists()
        (copy / name).write_text(code, encoding="utf-8")
    for name, line, entry, table in ADDED:
        (copy / name).write_text(with_lines((copy / name).read_text("utf-8"), line, entry, table), encoding="utf-8")
    sys.path.append(str(copy.parent))
    yield copy
    sys.path.remove(str(copy.parent))
    for name in [n for n in sys.modules if n.split(".")[0] == COPY]:
        del sys.modules[name]


def part(pack: Path, name: str) -> ModuleType:
    return importlib.import_module(f"{pack.name}.comfy_scoft.{name}")


def image_set(pack: Path, label: str, saturation: float) -> Any:
    """Four images of one color: gray at saturation 0."""
    color = torch.tensor([1.0, 1.0 - saturation, 1.0 - saturation]).expand(4, 8, 8, 3)
    return part(pack, "metrics.image_set").ImageSet(color.clone(), ("a house",) * 4, (1, 2, 3, 4), label)


def test_every_recipe_is_found() -> None:
    assert len(FILES) == 4 and [Path(name).parent.name for name in FILES] == ["losses", "features", "metrics", "nodes"]
    assert [entry[3] for entry in ADDED] == ["LOSSES", "FEATURES", "nodes"]


def test_the_loss_is_on_the_menu_and_computes_what_it_says(pack: Path) -> None:
    losses = part(pack, "losses")
    context = type("Context", (), {"image": torch.full((2, 3, 4, 4), 0.75)})()
    loss = losses.LOSSES["brightness"](target=0.25)
    assert loss(context).tolist() == [0.25, 0.25] and loss.weight == 1.0


def test_the_loss_is_trained(pack: Path, tmp_path: Path) -> None:
    run = part(pack, "training.run").Run(
        base=toy_base(),
        dataset=toy_dataset(tmp_path / "data"),
        losses=[part(pack, "losses").LOSSES["brightness"]()],
        folder=tmp_path / "run",
        settings=part(pack, "training.settings").TrainSettings(steps=1, accumulation=1, resolution=64),
        lora=part(pack, "models.lora").LoraSettings(rank=2, alpha=2.0),
        rollout=part(pack, "losses.rollout").RolloutSettings(every=1, steps=2),
    )
    assert part(pack, "training.trainer").train(run).metrics[0]["brightness"] > 0


def test_the_feature_network_is_on_the_menu_and_tells_colors_and_places_apart(pack: Path) -> None:
    features = part(pack, "features")
    assert "color layout" in features.FEATURES
    network = features.load_features("color layout")
    red, left = torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    red[:, 0], left[:, 0, :, :32] = 1.0, 1.0
    found = network.extract(torch.cat([red, left]).requires_grad_())
    assert found.shape == (2, 3, 8, 8) and found.requires_grad
    assert network.distance(found[:1], found[:1]).item() == pytest.approx(0.0, abs=1e-6)
    assert network.distance(found[:1], found[1:]).item() > 0.01
    assert features.load_features(network.name).name == network.name


def test_the_metric_counts_what_it_says(pack: Path) -> None:
    gray, pink = image_set(pack, "before", 0.0), image_set(pack, "after", 0.5)
    scores = part(pack, "metrics.saturation").measure(pink, gray)
    assert [(row.group, row.value, row.n) for row in scores.rows] == [
        *(("before", 0.0, 4), ("after", 0.5, 4), ("change", 0.5, 4))
    ]


def test_the_node_is_in_the_table_of_contents_and_runs(pack: Path, comfyui_path: Path) -> None:
    nodes = importlib.import_module(f"{pack.name}.nodes").Extension.nodes
    (node,) = (kind for kind in nodes if kind.__name__ == "Saturation")
    schema = node.define_schema()
    assert schema.node_id == "SCoFT_Saturation" and [i.id for i in schema.inputs][:2] == ["images", "compared_with"]
    assert all(entry.tooltip for entry in (*schema.inputs, *schema.outputs))
    (scores,) = node.execute(image_set(pack, "set", 0.5)).args
    assert [row.value for row in scores.rows] == [0.5]
