"""Learn, save, load and apply a preference, run inside a real ComfyUI with tiny random models."""

from __future__ import annotations

import copy
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy_inprocess as tiny
import pytest
import torch
from preference_toys import random_preference

comfy = tiny.start()

import folder_paths  # noqa: E402  (these need a started ComfyUI)
import nodes  # noqa: E402

from comfy_scoft.comfyui import correction as bridge  # noqa: E402
from comfy_scoft.comfyui.nodes.correct import LearnPreference, LoadPreference, RSCorrector, SavePreference  # noqa: E402
from comfy_scoft.corrector.preference import Preference  # noqa: E402
from comfy_scoft.corrector.prompt_gate import PlaceGate  # noqa: E402

SAMPLERS = ("ddim", "euler", "heun", "dpmpp_2m", "uni_pc")
NOISY = ("euler_ancestral", "dpmpp_sde")
WIDTHS = {"sd1": 24, "sd2": 40, "sdxl": 48}


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {family: tiny.tiny_model(family) for family in WIDTHS}


def conditioning(family: str, seed: int, rows: int = 1, **more: Any) -> list[list[Any]]:
    generator = torch.Generator().manual_seed(seed)
    pooled = torch.randn(rows, 8, generator=generator)
    return [[torch.randn(rows, 77, WIDTHS[family], generator=generator), {"pooled_output": pooled, **more}]]


def drawn(
    model: Any, family: str = "sd1", cfg: float = 4.0, sampler: str = "ddim", scheduler: str = "normal", **changes: Any
) -> torch.Tensor:
    """What stock KSampler makes of a MODEL: latents of two images."""
    positive = changes.get("positive") or conditioning(family, 1)
    empty = {"samples": torch.zeros(2, 4, 8, 8)}
    with torch.inference_mode():
        found = nodes.common_ksampler(
            *(model, 3, changes.get("steps", 3), cfg, sampler, scheduler, positive, conditioning(family, 2), empty)
        )
    return found[0]["samples"]


def corrected(model: Any, family: str = "sd1", strength: float = 1.0, start: float = 0.0, end: float = 1.0, **how: Any):
    with torch.inference_mode():
        preference = how.get("preference") or random_preference(family)
        return RSCorrector.execute(model, preference, strength, start, end).args[0]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_strength_nought_is_the_untouched_model_to_the_bit(models, sampler: str) -> None:
    plain = drawn(models["sd1"], sampler=sampler)
    assert torch.equal(plain, drawn(corrected(models["sd1"], strength=0.0), sampler=sampler))
    moved = drawn(corrected(models["sd1"]), sampler=sampler)
    assert bool(moved.isfinite().all()) and not torch.allclose(plain, moved, atol=1e-2)


@pytest.mark.parametrize("sampler", NOISY)
@pytest.mark.parametrize("scheduler", ["karras", "simple", "beta"])
def test_other_samplers_and_schedulers_are_corrected_too(models, sampler: str, scheduler: str) -> None:
    plain, moved = (drawn(m, "sd1", 4.0, sampler, scheduler) for m in (models["sd1"], corrected(models["sd1"])))
    assert bool(moved.isfinite().all()) and not torch.allclose(plain, moved, atol=1e-2)


@pytest.mark.parametrize("family", list(WIDTHS))
@pytest.mark.parametrize("cfg", [1.0, 7.0])
def test_every_family_is_corrected_with_and_without_guidance(models, family: str, cfg: float) -> None:
    plain = drawn(models[family], family, cfg)
    assert torch.equal(plain, drawn(corrected(models[family], family, 0.0), family, cfg))
    moved = drawn(corrected(models[family], family), family, cfg)
    assert bool(moved.isfinite().all()) and not torch.allclose(plain, moved, atol=1e-3)


def test_guidance_one_needs_no_second_pass(models) -> None:
    calls = []

    def count(apply: Any, given: dict[str, Any]) -> torch.Tensor:
        calls.append(len(given["input"]))
        return apply(given["input"], given["timestep"], **given["c"])

    watched = models["sd1"].clone()
    watched.set_model_unet_function_wrapper(count)
    drawn(corrected(watched), cfg=1.0)
    assert calls == [2, 2, 2]


def test_the_move_in_the_sampler_keeps_its_bound(models) -> None:
    seen = []

    def watch(args: dict[str, Any]) -> torch.Tensor:
        before, after = args["denoised"], hook(args)
        reach = (before - args["uncond_denoised"]).flatten(1).norm(dim=1)
        seen.append(((after - before).flatten(1).norm(dim=1) / reach).max())
        return after

    hook = bridge.sampler_hook(bridge.Correction(random_preference(), 0.8, 0.0, 1.0))
    watched = models["sd1"].clone()
    watched.set_model_sampler_post_cfg_function(watch)
    drawn(watched, steps=4)
    assert len(seen) == 4 and 0.1 < min(seen) and max(seen) <= 0.8 * (1 + 1e-5)


@pytest.mark.long
def test_only_the_window_is_corrected(models) -> None:
    plain = drawn(models["sd1"], steps=4)
    for start, end in ((0.5, 0.5), (0.8, 0.2), (0.999, 1.0)):
        same = torch.equal(plain, drawn(corrected(models["sd1"], start=start, end=end), steps=4))
        assert same == (start >= end)
    early, late = (drawn(corrected(models["sd1"], start=a, end=b), steps=4) for a, b in ((0.0, 0.4), (0.6, 1.0)))
    assert not torch.allclose(early, late, atol=1e-3)


def test_the_incoming_model_is_not_changed(models) -> None:
    model = models["sd1"]
    before, weights = copy.deepcopy(model.model_options), copy.deepcopy(model.model.state_dict())
    plain = drawn(model)
    drawn(corrected(model))
    assert model.model_options == before and torch.equal(drawn(model), plain)
    assert all(torch.equal(weights[name], value) for name, value in model.model.state_dict().items())
    twice = corrected(corrected(model, strength=0.3), strength=0.3)
    assert len(twice.model_options["sampler_post_cfg_function"]) == 2
    assert torch.equal(drawn(twice.clone()), drawn(twice))  # ComfyUI copies a MODEL's options in depth


@pytest.mark.long
def test_it_works_with_a_lora_and_a_controlnet(models) -> None:
    key = "diffusion_model.out.2.weight"
    size = models["sd1"].model.state_dict()[key].shape
    with_lora = models["sd1"].clone()
    assert with_lora.add_patches({key: (torch.ones(size) * 0.05,)}) == [key]
    positive = conditioning("sd1", 1)
    hint = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        control = tiny.tiny_controlnet("sd1")
        held, _ = nodes.ControlNetApplyAdvanced().apply_controlnet(
            positive, conditioning("sd1", 2), control, hint, 1.0, 0, 1
        )
    results = [
        drawn(model, positive=given)
        for given in (positive, held)
        for model in (with_lora, corrected(with_lora), corrected(models["sd1"]))
    ]
    assert all(bool(found.isfinite().all()) for found in results)
    for i, one in enumerate(results):
        assert not any(torch.allclose(one, other, atol=1e-4) for other in results[i + 1 :])


def asking(sign: float) -> Preference:
    """A preference whose gate is exactly open (1) or shut (0) by the sign of a prompt's first number."""
    gate = PlaceGate(24)
    with torch.no_grad():
        gate.weight[0] = sign * 1000.0
    return random_preference(place=gate.requires_grad_(False))


def prompt(*signs: float, **more: Any) -> list[list[Any]]:
    hidden = conditioning("sd1", 1, len(signs))[0][0]
    hidden[:, :, 0] = torch.tensor(signs)[:, None]
    return [[hidden, {"pooled_output": None, **more}]]


@pytest.mark.long
def test_only_prompts_that_ask_for_the_place_are_corrected(models) -> None:
    model, gated = models["sd1"], corrected(models["sd1"], preference=asking(1.0))
    here, elsewhere, both = prompt(1.0), prompt(-1.0), prompt(1.0, -1.0)
    assert torch.equal(drawn(gated, positive=elsewhere), drawn(model, positive=elsewhere))
    assert not torch.allclose(drawn(gated, positive=here), drawn(model, positive=here), atol=1e-2)
    apart = (drawn(gated, positive=both) - drawn(model, positive=both)).abs().amax((1, 2, 3))
    assert apart[0] > 1e-2 and apart[1] == 0
    half = {"start_percent": 0.0, "end_percent": 1.0}
    joined = [*prompt(-1.0, **half), *prompt(1.0, **half)]
    assert not torch.allclose(drawn(gated, positive=joined), drawn(model, positive=joined), atol=1e-2)


def test_the_gate_says_when_the_text_is_of_another_encoder(models) -> None:
    wrong = replace(random_preference(), place=PlaceGate(40))
    with pytest.raises(ValueError, match="24 values per token and the preference needs 40"):
        drawn(corrected(models["sd1"], preference=wrong))


# --- what is refused ---------------------------------------------------------------------------------------------


def test_a_preference_of_another_family_is_refused(models) -> None:
    assert {family: bridge.family(model) for family, model in models.items()} == {k: k for k in WIDTHS}
    with pytest.raises(ValueError, match=r"learned for sdxl, but this MODEL is sd1, which has other latents"):
        corrected(models["sd1"], preference=random_preference("sdxl"))
    with pytest.raises(ValueError, match="The latents have 4 channels and the preference was learned on 16"):
        drawn(corrected(models["sd1"], preference=random_preference("sd1", 16)))


def test_a_model_that_is_no_stable_diffusion_is_refused(models) -> None:
    flux = models["sd1"].clone()
    flux.add_object_patch("latent_format", comfy.latent_formats.Flux())
    with pytest.raises(ValueError, match=r"the correction works with Stable Diffusion 1\.x, 2\.x and XL models"):
        corrected(flux)
    flow = models["sd1"].clone()
    flow.add_object_patch("model_sampling", comfy.model_sampling.ModelSamplingDiscreteFlow())
    with pytest.raises(ValueError, match="the correction works with"):
        corrected(flow)


# --- learning, saving and loading --------------------------------------------------------------------------------


class Words:
    """A CLIP whose tokens are words, decided by their letters alone."""

    def tokenize(self, text: str, disable_weights: bool) -> dict[str, list[str]]:
        assert disable_weights
        return {"l": [text]}

    def encode_from_tokens(self, tokens: dict, return_pooled: bool) -> tuple[torch.Tensor, torch.Tensor]:
        words = (tokens["l"][0].lower().split() + ["."] * 8)[:8]
        seeds = [zlib.crc32(word.encode()) for word in words]
        rows = [torch.randn(24, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(rows)[None], torch.zeros(1, 24)


def images_of(count: int, seed: int, red: float, size: int = 64) -> list[torch.Tensor]:
    """A list of IMAGEs of two sizes, as other nodes give them."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.rand(count, 4, 4, 3, generator=generator).repeat_interleave(16, 1).repeat_interleave(16, 2) * 0.5
    found[..., 0] += red
    return [found[: count // 2], found[count // 2 :, :, :48]]


def learn(model: Any, vae: Any, preferred: list, stereotyped: list, **more: Any) -> tuple[Any, ...]:
    given = {"steps": [20], "seed": [1], "resolution": [64], **more}
    with torch.inference_mode():
        return LearnPreference.execute([model], [vae], preferred, stereotyped, **given).args


@pytest.fixture(scope="module")
def vae() -> Any:
    return tiny.tiny_vae()


@pytest.mark.long
def test_a_preference_is_learned_kept_loaded_and_applied(models, vae, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", dict(folder_paths.folder_names_and_paths))
    captions = [f"a {thing} in kora" for thing in ("cook", "tree", "house", "drum")]
    asked = {"clip": [Words()], "place": ["kora"], "captions": captions, "other_places": ["lund, oslo"]}
    found, chart, words = learn(models["sd1"], vae, images_of(8, 1, 0.5), images_of(6, 2, 0.0), **asked)
    assert found.family == "sd1" and found.head.channels == 4 and found.facts["latent size"] == [8, 8]
    assert found.facts["place"]["others"] == ["lund", "oslo"] and found.place is not None
    assert chart.shape[0] == 1 and chart.shape[-1] == 3 and "It corrects prompts for kora" in words
    path = Path(SavePreference.execute(found, "kora", "Kora", "CC0").args[0])
    assert path == tmp_path / "scoft" / "preferences" / "kora_00001.safetensors"
    (combo,) = LoadPreference.define_schema().inputs
    assert path.name in combo.options
    assert LoadPreference.fingerprint_inputs(path.name) == LoadPreference.fingerprint_inputs(path.name)
    with torch.inference_mode():
        loaded, told = LoadPreference.execute(path.name).args
    assert told.startswith("Kora\nCC0\n")
    there = [[Words().encode_from_tokens({"l": ["a judge in kora"]}, False)[0], {"pooled_output": None}]]
    plain, ours, theirs = (
        drawn(m, positive=there)
        for m in (models["sd1"], *(corrected(models["sd1"], preference=p) for p in (found, loaded)))
    )
    assert torch.equal(ours, theirs) and not torch.equal(ours, plain)
    for name in ("../kora_00001.safetensors", str(path), "other.safetensors"):
        with pytest.raises(ValueError, match="choose one from the list"):
            LoadPreference.execute(name)


def test_without_a_place_or_captions_every_prompt_is_corrected(models, vae) -> None:
    found, _, words = learn(models["sd1"], vae, images_of(8, 1, 0.5), images_of(8, 2, 0.0), clip=[Words()], place=[" "])
    assert found.place is None and "It has no prompt gate" in words


@pytest.mark.parametrize(
    ("preferred", "stereotyped", "sentence"),
    [
        ([torch.zeros(0, 64, 64, 3)], images_of(8, 2, 0.0), "The preferred set has no images"),
        (images_of(8, 1, 0.5), images_of(2, 2, 0.0), r"The stereotyped set has 2 different image\(s\)"),
        (images_of(8, 1, 0.5), images_of(8, 1, 0.5), "8 of the 8 preferred images are in the stereotyped set too"),
    ],
)
def test_sets_that_cannot_teach_are_refused_in_one_sentence(models, vae, preferred, stereotyped, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        learn(models["sd1"], vae, preferred, stereotyped)


def test_a_vae_of_another_model_is_refused(models) -> None:
    class Wide:
        def encode(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels.new_zeros(len(pixels), 16, 8, 8)

        def decode(self, latents: torch.Tensor) -> torch.Tensor:
            return latents.new_zeros(len(latents), 64, 64, 3)

    with pytest.raises(ValueError, match="The VAE makes latents of 16 channels and the MODEL reads 4"):
        learn(models["sd1"], Wide(), images_of(8, 1, 0.5), images_of(8, 2, 0.0))


def test_latents_are_scaled_as_the_unet_reads_them(models, vae) -> None:
    images = torch.cat(images_of(2, 1, 0.2)[:1])
    with torch.inference_mode():
        plain = vae.encode(vae.decode(vae.encode(images)))
        for family, scale in (("sd1", 0.18215), ("sdxl", 0.13025)):
            progress = bridge.Progress(10)
            found = bridge.encode(models[family], vae, list(images), 64, progress, 0)
            assert torch.allclose(found, plain * scale, atol=1e-5)


def test_the_interrupt_stops_learning(models, vae) -> None:
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        learn(models["sd1"], vae, images_of(8, 1, 0.5), images_of(8, 2, 0.0))
    assert not comfy.model_management.processing_interrupted()
