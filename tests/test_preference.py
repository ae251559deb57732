"""The preference: what it learns, what it says of itself, its gradient, its file, and what it refuses."""

from __future__ import annotations

import json
import pickle
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from preference_toys import QUICK, SCHEDULE, latents, learned, random_preference
from safetensors.torch import load_file, save_file

from comfy_scoft.corrector import preference_file
from comfy_scoft.corrector.evaluation import Evaluation, calibration_error, fitted_temperature
from comfy_scoft.corrector.preference import Preference, image_log_odds, levels_for, log_preference, sigmas
from comfy_scoft.corrector.prompt_gate import MADE_UP, MAX_CAPTIONS, PlaceGate, contrasts, learn_place
from comfy_scoft.corrector.report import report
from comfy_scoft.corrector.training import PreferenceSettings, learn, split
from comfy_scoft.reports.plots.preference import preference_chart


@pytest.fixture(scope="module")
def striped():
    """Sets that differ in their pattern and not in their mean color."""
    return learned(stripes=0.8)


def test_it_tells_unseen_pictures_apart_where_noise_lets_it(striped) -> None:
    _, found = striped
    assert found.held_out == (6, 6) and found.learned_from == (24, 24)
    assert found.accuracy[0] > 0.85 and min(found.accuracy[:3]) > 0.7 and found.accuracy[-1] < 0.8
    assert found.timesteps == tuple(range(50, 1000, 100))
    assert all(low <= value <= high for low, value, high in zip(found.low, found.accuracy, found.high, strict=True))
    assert max(found.color) < 0.75 and found.warnings() == []
    for stripes in (0.8, 0.0):
        right = (learned_odds(striped[0], latents(20, 7, stripes=stripes)) > 0) == (stripes > 0)
        assert right.float().mean() > 0.9


def learned_odds(preference: Preference, z: torch.Tensor, t: int = 100) -> torch.Tensor:
    now = torch.full((len(z),), t)
    return image_log_odds(preference.head(z * SCHEDULE.alpha_bar(now)[0].sqrt().float(), sigmas(SCHEDULE, now)))


def test_sets_that_differ_in_colour_alone_are_said_to() -> None:
    _, found = learned(shift=0.8)
    assert min(found.accuracy[:3]) > 0.95 and min(found.color[:3]) > 0.95
    assert len(found.warnings()) == 1 and found.warnings()[0].startswith("Mean color alone classifies the sets as well")


def test_sets_that_do_not_differ_teach_nothing_and_it_says_so() -> None:
    _, found = learned()
    assert found.warnings()[0].startswith("The preference learned nothing")


def test_few_pictures_make_rough_figures() -> None:
    _, found = learn(latents(6, 1, stripes=1.0), latents(6, 2), SCHEDULE, "mini", QUICK)
    assert found.held_out == (1, 1) and found.warnings()[-1] == (
        "Only 2 images were held out, so these metrics are rough."
    )


def test_the_same_seed_learns_the_same_whatever_the_global_one() -> None:
    weights = []
    for global_seed, seed in ((0, 3), (1, 3), (1, 4)):
        torch.manual_seed(global_seed)
        settings = replace(QUICK, steps=5, seed=seed)
        found, _ = learn(latents(6, 1, 1.0), latents(6, 2), SCHEDULE, "mini", settings)
        weights.append(torch.cat([p.flatten() for p in found.head.parameters()]))
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])


def test_it_learns_inside_inference_mode_and_can_be_stopped() -> None:
    def stop(step: int, loss: float) -> None:
        assert loss > 0
        if step == 2:
            raise KeyboardInterrupt

    with torch.inference_mode():
        sets = latents(6, 1, 1.0), latents(6, 2)
        found, _ = learn(*sets, SCHEDULE, "mini", replace(QUICK, steps=3))
        assert not next(found.head.parameters()).is_inference()
        with pytest.raises(KeyboardInterrupt):
            learn(*sets, SCHEDULE, "mini", QUICK, stop)


def test_copies_of_a_picture_are_held_out_together() -> None:
    z = latents(8, 1)
    doubled = torch.cat([z, z * (1 + 1e-5)])
    for seed in range(5):
        learned_from, held_out = split(doubled, latents(5, 2), 0.25, torch.Generator().manual_seed(seed))
        assert [len(part) for part in (*learned_from, *held_out)] == [12, 4, 4, 1]
        assert torch.allclose(held_out[0][:2], held_out[0][2:], rtol=1e-4)


@pytest.mark.parametrize(
    ("preferred", "stereotyped", "sentence"),
    [
        (latents(0, 1), latents(5, 2), "The preferred set has no images"),
        (latents(5, 1), latents(0, 2), "The stereotyped set has no images"),
        (latents(3, 1), latents(5, 2), r"The preferred set has 3 different image\(s\): give at least 4"),
        (latents(1, 1).repeat(9, 1, 1, 1), latents(5, 2), r"has 1 different image\(s\)"),
        (latents(5, 1), latents(5, 1), "5 of the 5 preferred images are in the stereotyped set too"),
        (latents(5, 1), torch.cat([latents(5, 2), latents(5, 1)[2:3]]), "1 of the 5 preferred images"),
        (latents(5, 1), latents(5, 2, size=16), "give images of one size, through the same VAE"),
        (latents(5, 1) / 0.0, latents(5, 2), "The VAE gives no finite numbers for the preferred set"),
    ],
)
def test_sets_that_cannot_teach_are_refused(preferred, stereotyped, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as told:
        learn(preferred, stereotyped, SCHEDULE, "mini", QUICK)
    assert str(told.value).count(". ") == 0 and str(told.value).endswith(".")


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="^steps is 0, but it must be a whole number from 1 to "):
        PreferenceSettings(steps=0)


def test_the_gradient_is_that_of_the_log_preference() -> None:
    found = random_preference()
    found.head.double()
    generator = torch.Generator().manual_seed(8)
    z = torch.randn(2, 4, 16, 16, generator=generator, dtype=torch.float64)
    sigma = torch.tensor([0.3, 5.0], dtype=torch.float64)

    def log(point: torch.Tensor) -> torch.Tensor:
        maps = [m / found.temperature for m in found.head(point, sigma)]
        cells = [(1 / (1 + torch.exp(-m))).log().mean((1, 2)) for m in maps]
        return (cells[0] + cells[1]) / 2

    gradient, left = found.gradient(z, sigma)
    leaf = z.clone().requires_grad_(True)
    (by_autograd,) = torch.autograd.grad(log(leaf).sum(), leaf)
    assert torch.allclose(gradient, by_autograd, rtol=1e-9, atol=1e-15)
    direction = torch.randn(z.shape, generator=generator, dtype=torch.float64)
    slope = (log(z + 1e-5 * direction) - log(z - 1e-5 * direction)) / 2e-5
    assert torch.allclose((gradient * direction).sum((1, 2, 3)), slope, rtol=1e-6)
    assert torch.allclose(left, 1 - log(z).exp()) and z.grad is None


def test_cells_that_look_preferred_already_pull_least() -> None:
    odds = torch.tensor([[[0.0, 4.0]]], requires_grad=True)
    (gradient,) = torch.autograd.grad(log_preference([odds]).sum(), odds)
    assert gradient[0, 0].tolist() == pytest.approx([0.5 / 2, (1 - torch.tensor(4.0).sigmoid().item()) / 2], rel=1e-4)
    assert log_preference([odds], torch.tensor([-1.0])).item() == pytest.approx(
        -(0.6931472 + torch.nn.functional.softplus(torch.tensor(4.0)).item()) / 2
    )


def test_any_size_is_answered_and_larger_latents_are_seen_at_more_scales() -> None:
    assert [levels_for(*size) for size in ((4, 4), (8, 8), (16, 12), (64, 64), (96, 128), (512, 512))] == [
        *(1, 1, 1, 4, 4, 4)
    ]
    head = random_preference().head
    for size in ((1, 1), (8, 8), (9, 31)):
        maps = head(torch.zeros(3, 4, *size), torch.full((3,), 2.0))
        assert [tuple(m.shape[1:]) for m in maps] == [size, tuple(max(1, s // 2) for s in size)]
        assert image_log_odds(maps).shape == (3,)


def test_a_cell_sees_its_neighbours_and_no_more() -> None:
    preference, _ = learn(latents(4, 1), latents(4, 2), SCHEDULE, "mini", replace(QUICK, steps=1))
    z = latents(1, 3)
    changed = z.clone()
    changed[0, :, 4, 4] += 1.0
    now = torch.tensor([1.0])
    moved = (preference.head(changed, now)[0] != preference.head(z, now)[0]).nonzero()[:, 1:]
    assert moved.amin(0).tolist() == [3, 3] and moved.amax(0).tolist() == [5, 5]


def test_endless_noise_has_a_finite_level() -> None:
    flat = replace(SCHEDULE, alphas_cumprod=torch.tensor([0.9, 0.5, 0.0]))
    assert sigmas(flat, torch.tensor([1, 2])).tolist() == pytest.approx([1.0, 1000.0], rel=1e-3)


# --- calibration -------------------------------------------------------------------------------------------------


def test_the_temperature_undoes_overconfidence() -> None:
    generator = torch.Generator().manual_seed(1)
    true = torch.randn(1, 20000, generator=generator) * 2
    wanted = torch.where(torch.rand(20000, generator=generator) < true[0].sigmoid(), 1.0, -1.0)
    assert fitted_temperature(3 * true, wanted) == pytest.approx(3.0, rel=0.05)
    assert calibration_error(true, wanted) < 0.02 < 0.1 < calibration_error(3 * true, wanted)
    assert fitted_temperature(true, torch.ones(20000)) == 1.0


def test_the_calibration_error_is_the_gap_between_said_and_true() -> None:
    odds = torch.logit(torch.tensor([[0.95, 0.95, 0.25, 0.25]]))
    assert calibration_error(odds, torch.tensor([1.0, -1.0, 1.0, -1.0])) == pytest.approx((0.45 + 0.25) / 2)


# --- what is shown -----------------------------------------------------------------------------------------------


def test_the_chart_and_the_report_say_what_was_measured(striped) -> None:
    preference, found = striped
    chart = preference_chart(found)
    assert chart.ndim == 3 and chart.shape[-1] == 3 and float(chart.min()) < 0.5
    told = report(preference)
    assert "24 preferred and 24 stereotyped images, measured on 6 and 6 held out" in told
    assert "It has no prompt gate" in told and "Warning" not in told
    assert Evaluation.from_json(json.loads(json.dumps(preference.facts["evidence"]))) == found
    assert "It has no evaluation" in report(random_preference())


# --- the prompt's place ------------------------------------------------------------------------------------------


def embedded(text: str) -> torch.Tensor:
    """Each word a fixed vector, eight tokens a text."""
    words = (text.lower().replace(".", "").split() + ["."] * 8)[:8]
    rows = [torch.randn(12, generator=torch.Generator().manual_seed(zlib.crc32(w.encode()))) for w in words]
    return torch.stack(rows)[None]


CAPTIONS = [f"a {thing} in Kora" for thing in ("cook", "tree", "house", "drum", "child", "boat")]


def test_the_gate_opens_for_the_place_and_for_no_other() -> None:
    gate, seen = learn_place(embedded, CAPTIONS, "kora", ["lund"], torch.Generator().manual_seed(0))
    opened = {
        text: float(gate(embedded(text))) for text in ("a judge in kora", "kora", "a judge", "a judge in lund", "")
    }
    assert min(opened["a judge in kora"], opened["kora"]) > 0.8
    assert max(opened["a judge"], opened["a judge in lund"], opened[""]) < 0.2
    assert seen["with the place"] > 0.8 and seen["without it"] < 0.2
    again, _ = learn_place(embedded, CAPTIONS, "kora", ["lund"], torch.Generator().manual_seed(0))
    assert torch.equal(again.weight, gate.weight)


def test_captions_are_read_with_and_without_the_place() -> None:
    given = ["A boat in Kora.", "A boat in Kora.", "Kora's rivers", "a koran", "a tree"]
    naming, without = contrasts(given, "kora", ["Lund"], torch.Generator().manual_seed(0))
    assert naming == ["A boat in Kora.", "Kora's rivers"]
    assert [texts[:2] for texts in without] == [["A boat.", "A boat in Lund."], ["'s rivers", "Lund's rivers"]]
    assert all(len(texts) == 2 + MADE_UP for texts in without)
    many = [f"image {i} of Kora" for i in range(60)]
    assert 12 <= len(contrasts(many, "Kora", [], torch.Generator())[0]) <= MAX_CAPTIONS
    with pytest.raises(ValueError, match="None of the 5 captions names the place 'Lund'"):
        contrasts(given, "Lund", [], torch.Generator())


def test_the_text_of_another_encoder_is_refused() -> None:
    with pytest.raises(ValueError, match="has 6 values per token and the preference needs 12"):
        PlaceGate(12)(torch.zeros(1, 3, 6))


# --- the file ----------------------------------------------------------------------------------------------------


def test_a_saved_preference_comes_back_the_same(tmp_path: Path, striped) -> None:
    gate, _ = learn_place(embedded, CAPTIONS, "kora", [], torch.Generator().manual_seed(0))
    preference = replace(striped[0], place=gate)
    path = preference_file.free_name(tmp_path, "kora")
    preference_file.save(preference, path, "Kora as it is", "CC-BY-4.0")
    assert (
        path.name == "kora_00001.safetensors"
        and preference_file.free_name(tmp_path, "kora").name == "kora_00002.safetensors"
    )
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with torch.inference_mode():
        found = preference_file.load(path)
    assert (found.family, found.temperature) == (preference.family, preference.temperature)
    assert "colour" in found.facts["evidence"], "a key of files that exist"
    assert found.facts["title"] == "Kora as it is" and found.facts["licence"] == "CC-BY-4.0"
    assert Evaluation.from_json(found.facts["evidence"]) == striped[1]
    z, sigma = latents(3, 9), torch.tensor([0.1, 1.0, 9.0])
    for ours, theirs in zip(found.gradient(z, sigma), preference.gradient(z, sigma), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(found.place(embedded("a cook in kora")), gate(embedded("a cook in kora")))


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a\\b", ".hidden", "c:x", "a\nb"])
def test_a_name_that_is_a_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a file"):
        preference_file.free_name(tmp_path, name)


def hostile(path: Path, how: str) -> None:
    """A file that is not what it says it is."""
    preference_file.save(random_preference(), path)
    tensors = load_file(path)
    told = {"family": "sd1", "channels": 4, "width": 16, "levels": 2, "temperature": 1.0, "place width": 0, "facts": {}}
    kind = preference_file.FORMAT
    if how == "noise":
        path.write_bytes(bytes(range(256)) * 4)
    elif how == "pickle":
        path.write_bytes(pickle.dumps({"weights": [1.0]}))
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif how == "missing":
        path.unlink()
    else:
        if how == "a lora":
            kind = "lora"
        elif how == "wide":
            told["width"] = 10**9
        elif how == "NaN":
            tensors["head.enter.weight"][0] = float("nan")
        elif how == "lacking":
            del tensors["head.enter.bias"]
        elif how == "more":
            tensors["extra"] = torch.zeros(1)
        elif how == "shape":
            tensors["head.enter.weight"] = torch.zeros(16, 9, 3, 3)
        elif how == "family":
            told["family"] = "flux"
        elif how == "half a character":
            told["facts"] = {"title": "\ud800"}
        elif how == "temperature":
            told["temperature"] = -1.0
        elif how == "place":
            told["place width"] = 8
        words = "[1, 2" if how == "json" else json.dumps(told)
        save_file(tensors, path, {"scoft": kind, "preference": words})


FAULTS = ("noise", "pickle", "cut", "missing", "a lora", "wide", "NaN", "lacking", "more", "shape", "family")
FAULTS += ("temperature", "place", "json", "half a character")


@pytest.mark.parametrize("how", FAULTS)
def test_a_hostile_file_is_refused_in_one_sentence(tmp_path: Path, how: str) -> None:
    path = tmp_path / "p.safetensors"
    hostile(path, how)
    with pytest.raises(ValueError, match=r"^p\.safetensors is not a preference that can be read: [^.]*\.$"):
        preference_file.load(path)


def test_a_file_too_large_to_be_one_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "big.safetensors"
    with path.open("wb") as file:
        file.truncate(preference_file.MAX_BYTES + 1)
    with pytest.raises(ValueError, match="not a preference"):
        preference_file.load(path)


def test_facts_that_are_not_what_they_should_be_are_left_out_of_the_report(tmp_path: Path) -> None:
    strange = replace(random_preference(), facts={"evidence": {"accuracy": "all"}, "place": 3, "title": "T"})
    preference_file.save(strange, tmp_path / "s.safetensors")
    assert "It has no evaluation" in report(preference_file.load(tmp_path / "s.safetensors"))
