"""The progress bar of a node counts all of its work, never runs back, and a node that is stopped says what it keeps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_nodes_training import KNOBS, place, sockets  # noqa: F401  (fixtures)
from toys import toy_dataset, toy_features

from comfy_scoft.comfyui import runtime, stopped
from comfy_scoft.comfyui.compat import comfy
from comfy_scoft.comfyui.nodes import denoising as nodes_denoising
from comfy_scoft.comfyui.nodes import generate as nodes_generate
from comfy_scoft.comfyui.nodes import negatives as nodes_negatives
from comfy_scoft.comfyui.nodes import training as nodes_training
from comfy_scoft.corrector import prompt_gate
from comfy_scoft.metrics import diversity
from comfy_scoft.metrics.image_set import ImageSet

Shown = list[tuple[int, int]]


@pytest.fixture
def bar(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """(done, total) of every update, also of those that a person is not shown for being too many."""
    found: Shown = []

    def update(self: runtime.Progress, done: int, text: str = "", preview: Any = None) -> None:
        found.append((done, self.total))

    monkeypatch.setattr(runtime.Progress, "update", update)
    return found


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(runtime.Progress, "say", lambda self, text: found.append(text))
    return found


def complete(bar: Shown) -> None:
    """It moves, never back, and ends where it should."""
    done = [of for of, _ in bar]
    assert done == sorted(done) and bar[-1][0] == bar[-1][1] > 1, bar


@pytest.mark.long
def test_the_bar_of_a_training_counts_captions_images_steps_validation_and_previews(
    place: Path,  # noqa: F811
    sockets: dict,  # noqa: F811
    bar: Shown,
    tmp_path: Path,
) -> None:
    watched = {"validation": toy_dataset(tmp_path / "held out", negatives=(0, 0)), "validate_every": 1}
    watched |= {"preview_every": 1, "preview_prompt": "a thing"}
    execute(nodes_training.TrainLora, sockets, **watched, run_name="run", resume="off")
    complete(bar)
    total, planned = bar[-1][1], {of for _, of in bar}
    records = len(sockets["dataset"])
    encoded = sum(1 for done, _ in bar if done < total and done < 2 * records + 2)
    assert len(planned) <= 3 and encoded >= 2 * records + 2, "each image twice, the two held-out ones once"
    assert min(of for of in planned if of > 1) > 0.7 * total, "what is expected before the plan is near it"


@pytest.mark.long
def test_the_bar_of_an_export_counts_what_is_encoded_and_what_is_written(
    place: Path,  # noqa: F811
    sockets: dict,  # noqa: F811
    bar: Shown,
) -> None:
    execute(nodes_training.ExportJob, sockets, job_name="tiny", checkpoint="stored in the job")
    complete(bar)
    assert len({done for done, _ in bar}) > 4 * len(sockets["dataset"])


@pytest.mark.long
def test_the_bar_of_the_denoising_gap_moves_with_each_image(
    place: Path,  # noqa: F811
    sockets: dict,  # noqa: F811
    bar: Shown,
    tmp_path: Path,
) -> None:
    others = toy_dataset(tmp_path / "held out", negatives=(0, 0, 0))
    given = {key: sockets[key] for key in ("model", "clip", "vae", "dataset")}
    nodes_denoising.DenoisingGap.execute(
        **given, held_out=others, label="LoRA", resolution=64, compared_with=sockets["model"]
    )
    complete(bar)
    images = len(sockets["dataset"]) + len(others)
    assert len({done for done, _ in bar if done}) >= 2 * images


def test_pairs_of_images_count_too() -> None:
    seen: Shown = []
    images = ImageSet(
        torch.rand(24, 16, 16, 3, generator=torch.Generator().manual_seed(0)), ("a",) * 24, tuple(range(24)), "one"
    )
    diversity.measure(images, toy_features(), observe=lambda done, total: seen.append((done, total)))
    complete(seen)
    assert seen[-1][1] == 24 + 5, "276 pairs, 64 at once"


def test_texts_of_a_prompt_gate_are_counted_before_they_are_embedded() -> None:
    captions = [f"a {thing} in kora" for thing in ("house", "cook", "tree", "market", "road")]
    texts: list[str] = []

    def embed(text: str) -> torch.Tensor:
        texts.append(text)
        words = [sum(map(ord, word)) % 97 for word in ("start", *text.split())]
        return torch.tensor([[[float(word)] * 4 for word in [*words, *[0] * (12 - len(words))]]]) + torch.rand(1, 12, 4)

    prompt_gate.learn_place(embed, captions, "kora", ["lund"], torch.Generator().manual_seed(0))
    assert len(texts) == prompt_gate.most_texts(5, 1) == 2 + 5 * (1 + 1 + 1 + prompt_gate.MADE_UP)
    assert prompt_gate.most_texts(10_000, 0) == 2 + prompt_gate.MAX_CAPTIONS * (2 + prompt_gate.MADE_UP)


class Stop(comfy.model_management.InterruptProcessingException):
    pass


def test_a_node_that_is_stopped_says_what_it_keeps(said: list[str]) -> None:
    with pytest.raises(Stop), stopped.when_stopped(nodes_negatives.MakeNegatives, "Finished negatives are kept."):
        raise Stop
    with pytest.raises(ValueError), stopped.when_stopped(nodes_negatives.MakeNegatives, "Finished negatives are kept."):
        raise ValueError("an error has its own sentence")
    assert said == ["Stopped. Finished negatives are kept. Queue again to go on."]


def test_every_node_with_a_long_work_says_what_it_keeps(
    monkeypatch: pytest.MonkeyPatch, said: list[str], tmp_path: Path
) -> None:
    """Stopped at its first check."""

    def stop(*_: Any, **__: Any) -> None:
        raise Stop

    monkeypatch.setattr(nodes_negatives, "attach_depth", stop)
    with pytest.raises(Stop):
        nodes_negatives.EstimateDepth.execute([toy_dataset(tmp_path)], ["relief (mini)"])
    monkeypatch.setattr(nodes_generate, "generate", stop)
    with pytest.raises(Stop):
        nodes_generate.GenerateSet.execute(None, None, None, "a", 1, 1, "one", steps=1, width=64, height=64)
    assert said == [
        "Stopped. Finished depth maps are kept. Queue again to go on.",
        "Stopped. Nothing of it is kept.",
    ]
    nodes = Path(stopped.__file__).parent.glob("nodes/*.py")
    told = {path.stem for path in nodes if "when_stopped(" in path.read_text(encoding="utf-8")}
    assert told >= {"captions", "collect", "correct", "generate", "negatives", "training"}


def execute(node: Any, sockets: dict, **more: Any) -> Any:  # noqa: F811
    hidden = SimpleNamespace(unique_id="9", prompt={}, extra_pnginfo=None)
    ready = type(node.__name__, (node,), {"hidden": hidden})
    with torch.inference_mode():
        return ready.execute(**{**sockets, **KNOBS, **more})
