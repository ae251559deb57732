"""The measuring nodes on ComfyUI's sockets: chains, references, what is shown, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy_inprocess as tiny
import numpy as np
import pytest
import torch

comfy = tiny.start()

import nodes  # noqa: E402  (ComfyUI's, which needs a started ComfyUI)
from comfy.model_management import InterruptProcessingException  # noqa: E402

from comfy_scoft.comfyui import mini_model, widgets  # noqa: E402
from comfy_scoft.comfyui.nodes import denoising as nodes_denoising  # noqa: E402
from comfy_scoft.comfyui.nodes import evaluate as nodes_evaluate  # noqa: E402
from comfy_scoft.comfyui.nodes import metrics as nodes_metrics  # noqa: E402
from comfy_scoft.data.dataset import load_folder  # noqa: E402
from comfy_scoft.data.records import Dataset  # noqa: E402
from comfy_scoft.features import FeatureNetwork, load_features  # noqa: E402
from comfy_scoft.metrics import clip_score, diversity, kid, memorization  # noqa: E402
from comfy_scoft.metrics.image_set import ImageSet  # noqa: E402
from comfy_scoft.metrics.inputs import of_records  # noqa: E402
from comfy_scoft.metrics.kid import KidSettings  # noqa: E402
from comfy_scoft.metrics.scores import Score, Scores  # noqa: E402
from comfy_scoft.mini_world import COMMUNITY  # noqa: E402
from comfy_scoft.models.mini import layout  # noqa: E402
from comfy_scoft.reports.plots import by_model  # noqa: E402
from comfy_scoft.reports.plots.tables import number  # noqa: E402


@pytest.fixture(scope="module")
def eye() -> FeatureNetwork:
    return load_features("mini CLIP (layer 5)")


@pytest.fixture(scope="module")
def community() -> Dataset:
    return load_folder(COMMUNITY)[0]


@pytest.fixture(scope="module")
def sets(community: Dataset) -> tuple[ImageSet, ImageSet]:
    """Two "models": one draws training images as they are, the other mixes them with their neighbours."""
    train = community.split("train")
    images = of_records(train, (64, 64)).at(range(12))
    captions = tuple(train.records[i].caption for i in range(0, 12, 2) for _ in range(2))
    both = images, 0.5 * (images + images.roll(1, 0))
    return tuple(
        ImageSet((p.permute(0, 2, 3, 1) + 1) / 2, captions, tuple(range(12)), label)
        for p, label in zip(both, ("base", "LoRA"), strict=True)
    )


def run(node: Any, *given: Any, **named: Any) -> tuple:
    with torch.inference_mode():
        return node.execute(*given, **named).args


def test_each_node_gives_the_figures_of_the_core_and_adds_them_to_the_chain(
    sets: tuple[ImageSet, ImageSet], community: Dataset, eye: FeatureNetwork
) -> None:
    before, after = sets
    test = community.split("test")
    chain = run(nodes_metrics.KID, after, eye, "", dataset=test, compared_with=before, subset_size=4, subsets=5)[0]
    assert chain == kid.measure(after, test, eye, KidSettings(subset_size=4, subsets=5), before)
    for node, expected in (
        (nodes_metrics.ClipScore, clip_score.measure(after, eye, before)),
        (nodes_metrics.Diversity, diversity.measure(after, eye, before)),
    ):
        longer = run(node, after, eye, before, chain)[0]
        assert longer.rows == chain.rows + expected.rows and set(longer.settings) > set(chain.settings)
        assert run(node, after, eye, before, longer)[0].rows == longer.rows, "a figure is not repeated"
    memory, page = run(nodes_metrics.Memorization, after, eye, community, test, before, chain)
    assert memory.rows == chain.rows + memorization.measure(after, community, eye, before, test).scores.rows
    assert page.shape[0] == 1 and page.shape[3] == 3 and 0.0 <= float(page.min()) < float(page.max()) <= 1.0


def test_the_page_of_near_copies_shows_the_nearest_pairs_first(
    sets: tuple[ImageSet, ImageSet], community: Dataset, eye: FeatureNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    from comfy_scoft.reports.plots import canvas, copies

    said: list[str] = []
    write = canvas.Page.text
    monkeypatch.setattr(
        canvas.Page, "text", lambda self, x, y, text, *a, **k: (said.append(text), write(self, x, y, text, *a, **k))[1]
    )
    found = memorization.measure(sets[1], community, eye, held_out=community.split("test"))
    near = found.copies
    copies.copies_page(sets[1], found.training, near.nearest.tolist(), near.distances.tolist(), near.threshold, most=6)
    numbers = [float(text) for text in said if text.count(".") == 1 and text.replace(".", "").isdigit()]
    assert numbers == pytest.approx(sorted(near.distances.tolist())[:6], abs=5e-4)
    marked = sum(text == "near copy" for text in said)
    assert marked == min(6, int(near.copied.sum())) and said[0].startswith(f"LoRA: {int(near.copied.sum())} of 12")


def test_kid_takes_exactly_one_reference(
    sets: tuple[ImageSet, ImageSet], community: Dataset, eye: FeatureNetwork
) -> None:
    before, after = sets
    expected = kid.measure(after, before, eye, name="base")
    assert run(nodes_metrics.KID, after, eye, "", other_set=before)[0] == expected
    other = run(nodes_metrics.KID, after, eye, "base", other_images=before.images)[0]
    assert other.rows == expected.rows
    for given in ({}, {"dataset": community, "other_set": before}):
        with pytest.raises(ValueError, match=rf"KID has {len(given)} references connected, but it takes exactly one"):
            run(nodes_metrics.KID, after, eye, "", **given)


def test_nothing_is_shown_as_less_than_zero_that_rounds_to_it() -> None:
    assert [number(*figure) for figure in ((-0.004, 2), (-0.0, None), (-0.006, 2))] == ["0.00", "0", "-0.01"]


def test_merged_figures_stand_in_the_order_of_the_sockets_each_once() -> None:
    first, second = (Scores((Score(name, "base", 1.0, 0.5, 1.5, 3),), ((name, "so"),)) for name in "ab")
    merged = run(nodes_evaluate.MergeScores, second, scores_2=first, scores_5=second, scores_6=None)[0]
    assert [row.name for row in merged.rows] == ["b", "a"] and dict(merged.settings) == {"a": "so", "b": "so"}


def test_the_table_says_how_figures_were_measured_and_puts_places_below_one_another() -> None:
    rows = (
        Score("KID", "base", 2.0, 1.0, 3.0, 8),
        Score("KID", "LoRA", 1.0, 0.5, 3.0, 8, "a caution"),
        Score("dark skin", "LoRA · nuvia", 0.5, 0.2, 0.7, 9),
    )
    scores = Scores(rows, (("KID", "by a kernel"), ("oracle", "pixels")))
    moved = by_model(rows)
    assert [(row.name, row.group) for row in moved] == [("KID", "base"), ("KID", "LoRA"), ("dark skin · nuvia", "LoRA")]
    assert by_model(rows[2:]) == list(rows[2:]), "where all figures are by place, places stay columns"
    image, csv = run(nodes_evaluate.ScoreTable, scores, "Title")
    plain, _ = run(nodes_evaluate.ScoreTable, replace(scores, settings=()), "Title")
    assert image.shape[1] > plain.shape[1], "one more line below the table"
    assert csv.splitlines()[0].endswith("note,method") and csv.splitlines()[2].endswith('"a caution","by a kernel"')
    assert csv.splitlines()[3].endswith('9,"",""') and '"LoRA · nuvia"' in csv


@pytest.fixture(scope="module")
def mini(comfyui_path: Path) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE of the shipped mini checkpoint, by ComfyUI's own loader."""
    mini_model.register()
    with torch.inference_mode():
        return nodes.CheckpointLoaderSimple().load_checkpoint(layout.CHECKPOINT)


@pytest.mark.long
def test_the_denoising_gap_of_a_patched_model_is_compared_with_the_base(mini: tuple, community: Dataset) -> None:
    model, clip, vae = mini
    changed = model.clone()
    key = "diffusion_model.out.2.weight"
    noise = torch.randn(model.model.state_dict()[key].shape, generator=torch.Generator().manual_seed(0))
    changed.add_patches({key: ("diff", (0.5 * noise,))})
    few = (
        community.replace(community.split("train").records[:3]),
        community.replace(community.split("test").records[:2]),
    )
    given = {"clip": clip, "vae": vae, "dataset": few[0], "held_out": few[1], "label": "LoRA", "resolution": 64}
    before = {k: v.clone() for k, v in model.model.state_dict().items()}
    rows = run(nodes_denoising.DenoisingGap, model=changed, compared_with=model, **given)[0].rows
    assert [(row.group, row.n) for row in rows] == [(g, n) for n in (3, 2, 5) for g in ("base", "LoRA", "change")]
    assert rows[2].value > 0, "noise in its weights makes a model denoise less well"
    alone = run(nodes_denoising.DenoisingGap, model=model, **{**given, "label": "base"})[0].rows
    assert [row.value for row in alone] == pytest.approx([row.value for row in rows if row.group == "base"], rel=1e-5)
    assert all(torch.equal(value, before[k]) for k, value in model.model.state_dict().items())


def test_the_denoising_gap_refuses_what_says_nothing(mini: tuple, community: Dataset) -> None:
    model, clip, vae = mini
    train, test = community.split("train"), community.split("test")
    given = {"model": model, "clip": clip, "vae": vae, "label": "a", "resolution": 64}
    for data, kept, sentence in (
        (test, train, "no image of the split 'train', the only one that is trained on"),
        (train, train, "trained on too, so it would show nothing"),
    ):
        with pytest.raises(ValueError, match=sentence):
            run(nodes_denoising.DenoisingGap, dataset=data, held_out=kept, **given)


def test_an_interrupt_stops_before_the_next_batch(
    sets: tuple[ImageSet, ImageSet], eye: FeatureNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop() -> None:
        raise InterruptProcessingException

    monkeypatch.setattr(widgets, "check_interrupt", stop)
    for node in (nodes_metrics.ClipScore, nodes_metrics.Diversity):
        with pytest.raises(InterruptProcessingException):
            run(node, sets[0], eye)


def test_a_network_without_words_is_refused_by_clip_score_alone(
    sets: tuple[ImageSet, ImageSet], eye: FeatureNetwork
) -> None:
    silent = replace(eye, read=None)
    assert np.isfinite(run(nodes_metrics.Diversity, sets[0], silent)[0].rows[0].value)
    with pytest.raises(ValueError, match="does not compare images with words"):
        run(nodes_metrics.ClipScore, sets[0], silent)
