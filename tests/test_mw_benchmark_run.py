"""The mini-world benchmark at work: training, drawing, the control, the short form, and going on after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toys import toy_base, toy_features

from comfy_scoft.cli.benchmark import main
from comfy_scoft.experiments.mini_world.arms import LDM, SHORT, SHORT_IMAGES
from comfy_scoft.experiments.mini_world.generate import GUIDANCE, STEPS, sample
from comfy_scoft.experiments.mini_world.grid import ImageRequest
from comfy_scoft.experiments.mini_world.measurements import _fresh_images, rendered
from comfy_scoft.experiments.mini_world.tables import SECONDS
from comfy_scoft.experiments.mini_world.training import MatchedPerceptualLoss, World, trained, with_lora
from comfy_scoft.losses import ContrastiveLoss, LossContext, PerceptualLoss
from comfy_scoft.mini_world.oracle import classify
from comfy_scoft.negatives.controlnet_pipeline import scheduler_of

ROOT = Path(__file__).resolve().parents[1]


# --- the control ---


def gradient(loss: Any, network: Any, seed: int = 5) -> Tensor:
    """∂(Σ loss)/∂z_0 of three images with two negatives each, as the trainer takes it: (3, …)."""
    base, generator = toy_base(), torch.Generator().manual_seed(seed)
    z = torch.randn(3, 4, 8, 8, generator=generator).requires_grad_()
    near, far = (torch.randn(*shape, 8, 4, 4, generator=generator) for shape in ((3,), (3, 2)))
    context = LossContext(
        *(base, z.detach(), torch.zeros(3, dtype=torch.long), z.detach(), ("a",) * 3, ("b",) * 3),
        positive=lambda _: near,
        negatives=lambda _: (far, torch.ones(3, 2, dtype=torch.bool)),
    )
    context.image = base.decode(z)
    (found,) = torch.autograd.grad(loss(context).sum(), z)
    return found.flatten(1)


@pytest.mark.parametrize("margin", [0.05, 1.0])
def test_the_control_has_cs_gradient_norm_and_ps_direction_in_each_picture(margin: float) -> None:
    network = toy_features()
    own = gradient(MatchedPerceptualLoss(network, margin=margin), network)
    p, c = gradient(PerceptualLoss(network), network), gradient(ContrastiveLoss(network, margin=margin), network)
    assert torch.allclose(own.norm(dim=1), c.norm(dim=1), rtol=1e-4)
    open_hinge = c.norm(dim=1) > 0
    assert open_hinge.any()
    assert torch.allclose(torch.cosine_similarity(own, p)[open_hinge], torch.ones(int(open_hinge.sum())), atol=1e-5)
    assert not torch.allclose(p.norm(dim=1), c.norm(dim=1), rtol=0.05), "otherwise the control would control nothing"


def test_where_cs_hinge_is_closed_the_control_teaches_nothing() -> None:
    network = toy_features()
    loss = MatchedPerceptualLoss(network)
    object.__setattr__(loss, "margin", -10.0)  # out of range for users: closes the hinge for certain
    assert not gradient(loss, network).any()


# --- drawing ---


def prompts(count: int) -> list[ImageRequest]:
    return [ImageRequest(f"prompt {k}", 100 + k, "cook") for k in range(count)]


def test_pictures_are_those_of_diffusers_sampler() -> None:
    """DDIM without noise is Euler in σ (Karras et al. 2022); diffusers' own, on the same evenly spaced steps."""
    base, asked = toy_base(), prompts(3)
    found = sample(base, asked).astype(float)
    scheduler = scheduler_of(base.schedule, "euler")
    scheduler.set_timesteps(STEPS)
    noise = [torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(one.seed)) for one in asked]
    x = torch.stack(noise) * (1.0 + float(scheduler.sigmas[0]) ** 2) ** 0.5
    texts = [one.prompt for one in asked] + [""] * 3
    with torch.no_grad():
        for t in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x, t).repeat(2, 1, 1, 1)
            caption, empty = base.predict(scaled, t.round().long().expand(6), texts).chunk(2)
            x = scheduler.step(empty + GUIDANCE * (caption - empty), t, x).prev_sample
        expected = base.decode(x).clamp(-1, 1).add(1.0).mul(127.5).permute(0, 2, 3, 1).numpy()
    assert found.std() > 5 and np.abs(found - expected).mean() < 1.0


def test_a_picture_is_the_same_in_any_company() -> None:
    base, asked = toy_base(), prompts(3)
    together, alone = sample(base, asked).astype(int), sample(base, asked[1:2]).astype(int)
    assert np.abs(together[1] - alone[0]).max() <= 1 and np.abs(together[0] - together[1]).max() > 5


# --- what the measures compare with ---


def test_references_and_fresh_pictures_show_what_they_should(tmp_path: Path) -> None:
    community = rendered(("cook", "judge"), ("gold",), (3, 4, 5))
    seen = classify(community.permute(0, 3, 1, 2) * 2 - 1)
    assert all(one.dark and one.palette == "gold" for one in seen)
    assert [one.concept for one in seen] == ["cook"] * 18 + ["judge"] * 18
    others = classify(rendered(("cook",), ("ice", "meadow", "ember"), (1, 2, 3, 4, 5)).permute(0, 3, 1, 2) * 2 - 1)
    assert {one.palette for one in others} == {"ice", "meadow", "ember"}
    assert {one.tone for one in others} == {1, 2, 3, 4, 5}
    dataset = World(tmp_path).dataset
    image = _fresh_images(dataset)
    images = torch.stack([image((i, False))[0] for i in (0, 0, 1, 41)])
    fresh = classify(images)
    assert [one.concept for one in fresh] == ["farmer"] * 4 and all(one.dark and one.palette == "gold" for one in fresh)
    assert torch.equal(images[0], images[1]) and not torch.equal(images[0], images[3])


# --- the short form ---


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("short")
    assert main(["--short", "--jobs", "1", "--out", str(out)]) == 0
    return out


def contents(out: Path) -> dict[str, Any]:
    """Every unit's file, without what differs from run to run."""
    found = {}
    for path in sorted((out / "units").rglob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        del content["cpu_seconds"]
        for name in ("cpu_seconds", "seconds"):
            content["training"].pop(name, None)
        found[path.relative_to(out).as_posix()] = content
    return found


@pytest.mark.long
def test_the_short_form_trains_draws_reads_and_writes_the_page(short: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = contents(short)
    assert sorted(found) == [
        "units/ablation/+MPC-101.json",
        "units/ablation/LDM-101.json",
        "units/base/short-101.json",
    ]
    base, mpc = found["units/base/short-101.json"], found["units/ablation/+MPC-101.json"]
    ldm = found["units/ablation/LDM-101.json"]
    assert base["model"] == "base" and base["training"] == {}
    assert ldm["training"]["unet_calls"] == 6 and mpc["training"]["unet_calls"] > 12, "a rollout at two of the steps"
    assert {"diffusion", "memorization"} <= mpc["training"]["last"].keys()
    nuvia = base["cells"]["held-out kinds · nuvia"]
    assert len(nuvia) == 4 and all(row["palette"] == "dusty" and row["tone"] <= 2 for row in nuvia)
    assert [r["concept"] for r in nuvia] == [r["kind"] for r in nuvia]
    assert mpc["measures"]["gap"]["train"] != base["measures"]["gap"]["train"]
    assert len(mpc["measures"]["gap"]["fresh"]) == 2 * len(mpc["measures"]["gap"]["train"]) == 2 * SHORT_IMAGES
    names = {path.name for path in (short / "page").iterdir()}
    assert names == {"results.json", "page.md", "page.html", "page.png", "samples.png"}
    assert not list(short.rglob("*.part")) and not list(short.rglob("run"))
    assert main(["--short", "--jobs", "1", "--out", str(short)]) == 0, "and again, with nothing to do"
    assert "3 units, 3 of them done already" in capsys.readouterr().out


@pytest.mark.long
def test_a_damaged_file_is_made_again_from_what_was_drawn(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = short / "units" / "ablation" / "LDM-101.json"
    before = contents(short)
    path.write_text(path.read_text(encoding="utf-8")[:1000], encoding="utf-8")
    monkeypatch.setattr("comfy_scoft.experiments.engine.training.train", None)
    monkeypatch.setattr("comfy_scoft.experiments.mini_world.generate.sample", None)
    assert main(["--short", "--jobs", "1", "--out", str(short)]) == 0
    assert contents(short) == before


@pytest.mark.long
def test_the_merged_lora_draws_as_the_one_beside_the_weights(short: Path) -> None:
    from comfy_scoft.models.lora import attach

    world = World(short, SHORT_IMAGES)
    arm = next(arm for arm in SHORT.arms if arm.name == LDM.name)
    lora = {k: v * 20 if "lora_up" in k else v for k, v in trained(arm, 101, world).lora().items()}
    merged, beside = with_lora(world, arm, lora), world.fresh()
    attach(beside.unet, arm.lora, torch.Generator(), lora)
    z, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([500, 900])
    half = with_lora(world, replace(arm, lora_strength=0.5), lora)
    scaled = with_lora(world, arm, {k: v / 2 if "lora_up" in k else v for k, v in lora.items()})
    with torch.no_grad():
        one, two, base = (b.predict(z, t, ["a cook in nuvia"] * 2) for b in (merged, beside, world.base))
        less, same = (b.predict(z, t, ["a cook in nuvia"] * 2) for b in (half, scaled))
    assert torch.allclose(one, two, atol=1e-4) and (one - base).abs().max() > 1e-2
    assert torch.allclose(less, same, atol=1e-5) and (less - one).abs().max() > 1e-3


@pytest.mark.long
def test_killed_and_gone_on_with_in_two_processes_it_gives_the_same(short: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "comfy_scoft", "benchmark", "--short", "--out", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for wanted in ("trained/*/facts.json", "units/ablation/LDM-101.json"):
        killed = subprocess.Popen([*command, "--jobs", "1"], cwd=ROOT, env=environment, start_new_session=True)
        end = time.monotonic() + 500
        while not list(tmp_path.glob(wanted)) and time.monotonic() < end and killed.poll() is None:
            time.sleep(0.02)
        os.killpg(killed.pid, signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL, f"it ended before there was {wanted}"
    done = subprocess.run([*command, "--jobs", "2"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path) == contents(short)
    for name in ("page.html", "samples.png"):
        assert (tmp_path / "page" / name).is_file()


@pytest.mark.recorded
def test_a_rerun_gives_the_committed_figures_within_their_intervals() -> None:
    """All of the ablation anew (hours; it goes on where it was): every figure lies in the interval on the page."""
    out = ROOT / "output" / "benchmark-again"
    assert main(["--part", "ablation", "--out", str(out)]) == 0
    then, now = (
        json.loads((folder / "results.json").read_text(encoding="utf-8"))["parts"][0]["arms"]
        for folder in (ROOT / "benchmarks" / "mini_world", out / "page")
    )
    assert set(now) == set(then)
    for name, arm in then.items():
        for key, figure in arm["figures"].items():
            if figure["low"] is not None and key != SECONDS:
                assert figure["low"] <= now[name]["figures"][key]["value"] <= figure["high"], (name, key)
