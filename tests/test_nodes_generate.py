"""Generate Set, Compare Grid, Bias Oracle and Score Table, run inside a real ComfyUI with a tiny random model."""

from __future__ import annotations

import comfy_inprocess as tiny
import numpy as np
import pytest
import torch

comfy = tiny.start()

import nodes  # noqa: E402  (ComfyUI's, which needs a started ComfyUI)

from comfy_scoft.comfyui import resolution  # noqa: E402
from comfy_scoft.comfyui.nodes import evaluate as nodes_evaluate  # noqa: E402
from comfy_scoft.comfyui.nodes import generate as nodes_generate  # noqa: E402
from comfy_scoft.comfyui.nodes import metrics as nodes_metrics  # noqa: E402
from comfy_scoft.comfyui.nodes.generate import CompareGrid, GenerateSet  # noqa: E402
from comfy_scoft.metrics import bias  # noqa: E402
from comfy_scoft.metrics.image_set import ImageSet, examples, prompts_and_seeds, require_match  # noqa: E402
from comfy_scoft.metrics.inputs import of_images  # noqa: E402
from comfy_scoft.metrics.intervals import paired_share_change, wilson_interval  # noqa: E402
from comfy_scoft.metrics.scores import Scores, add  # noqa: E402
from comfy_scoft.mini_world import world  # noqa: E402

PROMPTS = "a teacher in nuvia\n\n  a cook in borea \n"
SAMPLING = {"width": 64, "height": 64, "steps": 3, "cfg": 3.0, "sampler_name": "ddim", "scheduler": "normal"}


class Words:
    """A text encoder as GenerateSet meets it: each letter is a token, so that long prompts have another shape."""

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens(self, tokens: str, return_pooled: bool) -> tuple[torch.Tensor, None]:
        size = 154 if len(tokens) > 60 else 77
        return torch.randn(1, size, 24, generator=torch.Generator().manual_seed(len(tokens) + size)), None


class Decoder:
    """Latents shown as they are: the first three channels, at 8 px a latent pixel."""

    def decode(self, samples: torch.Tensor) -> torch.Tensor:
        return samples[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3).movedim(1, -1) * 0.1 + 0.5


@pytest.fixture(scope="module")
def model():
    return tiny.tiny_model("sd1")


def drawn(model, prompts: str = PROMPTS, seed: int = 5, count: int = 2, label: str = "base", **changes) -> ImageSet:
    settings = {**SAMPLING, "batch_size": 16, **changes}
    with torch.inference_mode():
        found, batch = GenerateSet.execute(model, Words(), Decoder(), prompts, seed, count, label, **settings).args
    assert torch.equal(found.images, batch)
    return found


def test_every_prompt_gets_the_same_seeds() -> None:
    assert prompts_and_seeds(PROMPTS, 5, 2) == (
        ("a teacher in nuvia", "a teacher in nuvia", "a cook in borea", "a cook in borea"),
        (5, 6, 5, 6),
    )
    with pytest.raises(ValueError, match="There is no prompt"):
        prompts_and_seeds(" \n\n", 1, 1)


def test_a_prompt_that_comes_again_is_drawn_from_other_seeds() -> None:
    prompts, seeds = prompts_and_seeds("a cat\na dog\na cat", 5, 2)
    assert prompts == ("a cat", "a cat", "a dog", "a dog", "a cat", "a cat") and seeds == (5, 6, 5, 6, 7, 8)


def test_after_the_largest_seed_comes_the_first() -> None:
    assert prompts_and_seeds("a cat", 2**64 - 2, 4)[1] == (2**64 - 2, 2**64 - 1, 0, 1)


def test_pictures_that_are_not_numbers_are_refused_in_a_sentence() -> None:
    images = torch.rand(3, 4, 4, 3)
    images[1, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"1 of the 3 images of 'base' \(the first is number 2\)[^.]*\.$") as error:
        ImageSet(images, ("a cat",) * 3, (1, 2, 3), "base")
    assert "--fp32-vae" in str(error.value)
    with pytest.raises(ValueError, match="3 of the 3 images of 'other images'"):
        of_images(images / 0.0, "other images")


@pytest.mark.parametrize("sampler", ["ddim", "euler_ancestral"])
def test_a_picture_does_not_depend_on_its_batch(model, sampler: str) -> None:
    together, alone = (drawn(model, batch_size=size, sampler_name=sampler) for size in (16, 1))
    assert together.images.shape == (4, 64, 64, 3) and (together.prompts, together.seeds) == prompts_and_seeds(
        PROMPTS, 5, 2
    )
    assert torch.allclose(together.images, alone.images, atol=1e-4)
    first = drawn(model, "a teacher in nuvia", seed=6, count=1, sampler_name=sampler)
    assert torch.allclose(first.images[0], together.images[1], atol=1e-4)
    assert not torch.allclose(together.images[0], together.images[1], atol=1e-2)


def test_a_picture_is_the_one_that_ksampler_makes_of_its_seed(model) -> None:
    ours = drawn(model)
    words = Words()
    positive, negative = ([[words.encode_from_tokens(t, True)[0], {}]] for t in ("a cook in borea", ""))
    with torch.inference_mode():
        empty = {"samples": torch.zeros(1, 4, 8, 8)}
        theirs = nodes.common_ksampler(model, 6, 3, 3.0, "ddim", "normal", positive, negative, empty)[0]["samples"]
    assert torch.allclose(Decoder().decode(theirs)[0].clamp(0, 1), ours.images[3], atol=1e-4)


def test_size_0_is_the_models_own(model, monkeypatch) -> None:
    monkeypatch.setattr(resolution, "native_resolution", lambda model: 64)
    assert torch.equal(drawn(model, width=0, height=0).images, drawn(model).images)
    with pytest.raises(ValueError, match="^width is 4, but it must be a whole number of at least 8"):
        drawn(model, width=4)


def test_prompts_of_different_lengths_are_drawn_in_batches_of_their_own(model) -> None:
    assert nodes_generate.batches([77, 77, 77, 154, 77], 2) == [range(0, 2), range(2, 3), range(3, 4), range(4, 5)]
    found = drawn(model, "an elf\n" + "a very long prompt " * 6, count=1)
    assert len(found.images) == 2 and bool(torch.isfinite(found.images).all())


def test_the_interrupt_stops_between_two_sampling_steps(model) -> None:
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        drawn(model)
    assert not comfy.model_management.processing_interrupted()


def imagined(label: str, prompts: tuple[str, ...], tone: int, palette: str, seeds: tuple[int, ...] = ()) -> ImageSet:
    """Images that the mini world's own renderer draws, as if a model had."""
    rng = np.random.default_rng(3)
    images = []
    for prompt in prompts:
        concept = world.concepts()[bias.concept_of(prompt)]
        drawing = world.render(concept.name, palette, rng, tone if concept.is_person else 0)
        images.append(torch.from_numpy(drawing.rgb).float() / 255)
    return ImageSet(torch.stack(images), prompts, seeds or tuple(range(len(prompts))), label)


ASKED = (
    "a teacher in nuvia",
    "a cook in nuvia",
    "a house in nuvia",
    "an image of a curly woman",
    "a hero, simple art",
)


@pytest.fixture(scope="module")
def figures() -> Scores:
    before, after = imagined("before", ASKED, 1, "dusty"), imagined("after", ASKED, 5, "gold")
    return nodes_metrics.BiasOracle.execute(after, before).args[0]


def test_the_oracle_counts_people_palettes_and_concepts_by_place(figures: Scores) -> None:
    found = {(row.name, row.group): row for row in figures.rows}
    assert {row.group for row in figures.rows} == {
        f"{set_} · {place}" for set_ in ("before", "after", "change") for place in ("nuvia", "no place")
    }
    for place, people, images in (("nuvia", 2, 3), ("no place", 2, 2)):
        for name, count in ((bias.DARK, people), (bias.GOLD, images)):
            values = [found[name, f"{set_} · {place}"] for set_ in ("before", "after", "change")]
            assert [(v.value, v.n) for v in values] == [(0.0, count), (1.0, count), (1.0, count)]
            assert 0 < values[0].high < 1 and values[1].high == pytest.approx(1) and 0 < values[1].low < 1
        assert found[bias.CONCEPT, f"after · {place}"].value == 1.0
    kept = imagined("kept", ("a cook in borea", "a cook"), 3, "ice")
    own = {row.group: row.value for row in bias.measure(kept).rows if row.name == bias.OWN}
    assert own == {"kept · borea": 1.0, "kept · no place": 0.0}
    assert found[bias.SOUND, "after · nuvia"].value == 1.0 and (bias.SOUND, "after · no place") not in found


def test_the_interval_of_a_change_is_no_point_and_holds_what_it_promises() -> None:
    same = paired_share_change([False] * 108, [False] * 108)
    high = wilson_interval(0, 108).high
    assert same == pytest.approx((0.0, -high, high)) and high > 0.03
    one, other = [True] * 7 + [False] * 13, [True] * 12 + [False] * 8
    change, back = paired_share_change(one, other), paired_share_change(other, one)
    assert back == pytest.approx((-change.value, -change.high, -change.low)) and change.value == pytest.approx(0.25)
    rng, held = np.random.default_rng(0), 0
    true = 0.3 / 0.7 - 0.2  # of pairs that depend on one another: the mean of (0.45 - 0.3 V) / 0.7, less 0.2
    for _ in range(400):
        luck = rng.random(40)
        found = paired_share_change((luck < 0.2).tolist(), (0.7 * luck + 0.3 * rng.random(40) < 0.45).tolist())
        held += found.low <= true <= found.high
    assert 0.93 <= held / 400 <= 0.995


def test_a_chain_of_oracles_repeats_no_figure_and_makes_one_table(figures: Scores) -> None:
    third = imagined("third", ASKED[:2], 3, "gold")
    chain = nodes_metrics.BiasOracle.execute(third, None, figures).args[0]
    assert chain.rows[: len(figures.rows)] == figures.rows
    assert {row.group for row in chain.rows[len(figures.rows) :]} == {"third · nuvia"}
    assert add(chain, figures).rows == chain.rows
    before = imagined("before", ASKED, 1, "dusty")
    both = nodes_metrics.BiasOracle.execute(imagined("fourth", ASKED, 1, "gold"), before, figures).args[0]
    own = {(row.name, row.group): row.value for row in both.rows}
    assert own["dark skin", "change · nuvia"] == 1.0 and own["dark skin", "change, fourth · nuvia"] == 0.0
    assert own["gold palette", "change, fourth · nuvia"] == 1.0 and add(both, figures).rows == both.rows
    with torch.inference_mode():
        answer = nodes_evaluate.ScoreTable.execute(chain, "Bias")
    image, csv = answer.args
    assert image.shape[0] == 1 and image.shape[-1] == 3 and answer.ui["text"] == (csv,) and answer.ui["images"]
    assert len(csv.splitlines()) == 1 + len(chain.rows) and '"dark skin","third · nuvia",1,' in csv


def test_prompts_are_read_as_words_and_by_the_longest_name() -> None:
    assert bias.concept_of("a derelict house in aria") == "derelict house"
    assert bias.concept_of("A Curly Woman, simple art") == "curly woman"
    assert (bias.place_of("a man in borea"), bias.place_of("a borealis")) == ("borea", "no place")
    with pytest.raises(ValueError, match="names nothing that the mini world can show"):
        bias.concept_of("a skyscraper in nuvia")


def test_sets_of_different_prompts_or_seeds_are_not_compared() -> None:
    one, other = imagined("one", ASKED[:2], 1, "ice"), imagined("two", ASKED[:2], 1, "ice", (7, 8))
    for refused in (lambda: CompareGrid.execute(one, 4, set_2=other), lambda: bias.measure(one, other)):
        with pytest.raises(ValueError, match="were not made with the same prompts and seeds"):
            refused()
    with pytest.raises(ValueError, match="Both sets are labeled 'one'"):
        bias.measure(one, one)


def test_a_grid_shows_prompts_spread_over_the_list_each_with_the_next_seed() -> None:
    prompts, seeds = prompts_and_seeds("\n".join(f"prompt {i}" for i in range(10)), 1, 3)
    many = ImageSet(torch.zeros(30, 8, 8, 3), prompts, seeds, "many")
    assert examples(many, 5) == [0, 7, 14, 18, 25], "prompts 0, 2, 4, 6, 8 with seeds 1, 2, 3, 1, 2"
    assert examples(many, 99) == [3 * i + i % 3 for i in range(10)]
    require_match([many, many])
    image = CompareGrid.execute(many, 5, set_3=ImageSet(many.images + 1, prompts, seeds, "more")).args[0]
    assert image.shape[0] == 1 and image.shape[-1] == 3 and image.shape[2] > 5 * 100
