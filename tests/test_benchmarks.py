"""The benchmarks: the released loop's evaluations are counted, its losses are ours, and loops share one model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import batch_loss, random_weights, toy_base, toy_dataset, toy_embed, toy_features, toy_run

from benchmarks import cases, core_node, variants
from benchmarks.measure import counted, driven
from benchmarks.released import WEIGHTS, ReleasedLoop
from benchmarks.vgg import VggFile
from benchmarks.worlds import NEGATIVES, World, build, community
from comfy_scoft.data.crop import aligned
from comfy_scoft.features import FeatureOptions, load_features
from comfy_scoft.features.options import configured
from comfy_scoft.losses import ContrastiveLoss, DiffusionLoss, MemorizationLoss, PerceptualLoss
from comfy_scoft.models.lora import LoraSettings, attach
from comfy_scoft.training.batches import samples_of_batch
from comfy_scoft.training.settings import TrainSettings

CPU = torch.device("cpu")


SEED = 3
"""One whose first four rollouts start at t >= 19, in both loops: from there on a path has all its 20 steps."""


ROOT = Path(__file__).resolve().parent.parent


class ToyEncoder(nn.Module):
    """Letters -> what the toy base embeds them to."""

    def forward(self, ids: Tensor) -> tuple[Tensor]:
        return (toy_embed(bytes(ids[0].tolist()).decode()).hidden,)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(
        name="toy",
        shape="toys",
        base=toy_base,
        encoder=ToyEncoder(),
        tokens=lambda caption: torch.tensor([list(caption.encode())], dtype=torch.int64),
        features=lambda views=0: configured(toy_features(), FeatureOptions(views=views)),
        dataset=toy_dataset(tmp_path / "data", (NEGATIVES,) * 6),
        resolution=64,
        device=CPU,
        precision="fp32",
    )


# --- what is evaluated ---


@pytest.mark.long
def test_the_released_loop_makes_27_2_unet_calls_an_optimizer_step_and_ours_9_6(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted over ten optimizer steps of four micro-steps: two have a graph of all of them in ours, 40 in theirs."""
    settings = TrainSettings(resolution=64, seed=SEED)
    loop = ReleasedLoop(world, toy_convolutions, rebuild=True, settings=settings)
    drawn: list[int] = []
    sample = loop.sample
    monkeypatch.setattr(loop, "sample", lambda z, t, *rest: drawn.append(int(t)) or sample(z, t, *rest))
    with counted(loop.base.unet) as theirs:
        for _ in range(10):
            loop.step()
    assert len(drawn) == 4 and min(drawn) >= 19
    assert theirs == {
        "calls": 272,
        "samples": 272,
        "calls with gradient": 40,
        "samples with gradient": 40,
    }
    variant = variants.exact("ours", world, tmp_path, steps=10, seed=SEED)
    variant.prepare()
    with driven([variant.body], CPU) as (ours,), counted(variant.unet) as found:
        ours.block()
    assert found == {
        "calls": 96,
        "samples": 40 + 40 + 4 * 2 * 20,  # with a graph; generic captions; four guided rollouts of 20 steps
        "calls with gradient": 10,
        "samples with gradient": 40,
    }


def test_a_released_micro_step_evaluates_what_the_script_does(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One encode and three texts each; at a rollout also a decode, VGG16 built, and twelve looks at eleven images."""
    loop = ReleasedLoop(world, toy_convolutions, rebuild=True)
    seen: dict[str, list[int]] = {"encode": [], "text": [], "decode": [], "vgg": [], "features": []}

    def spied(name: str, function: Any, size: Any = lambda *a: 1) -> Any:
        return lambda *a, **k: seen[name].append(size(*a)) or function(*a, **k)

    monkeypatch.setattr(loop.base, "encode", spied("encode", loop.base.encode))
    monkeypatch.setattr(loop.base, "decode", spied("decode", loop.base.decode))
    monkeypatch.setattr(world.encoder, "forward", spied("text", world.encoder.forward))
    monkeypatch.setattr(loop, "vgg", spied("vgg", loop.vgg))
    loop.features.module.register_forward_pre_hook(lambda module, given: seen["features"].append(len(given[0])))
    for _ in range(11):
        loop.one_pass()
    assert {name: len(found) for name, found in seen.items()} == {
        "encode": 11,
        "text": 33,
        "decode": 2,
        "vgg": 2,
        "features": 2 * 2 * (1 + NEGATIVES),
    }
    assert set(seen["features"]) == {11}
    kept = ReleasedLoop(world, spied("vgg", toy_convolutions), rebuild=False)
    kept.step()
    assert len(seen["vgg"]) == 3


def toy_convolutions() -> nn.Module:
    """Places 0 to 2 of VGG16's list: two convolutions, an in-place ReLU between them."""
    return random_weights(nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(6, 6, 3)), 9)


@pytest.mark.long
def test_the_released_losses_and_their_gradient_are_ours(world: World, tmp_path: Path) -> None:
    """For one image, noise and timestep, without augmentations: autograd through all 20 steps, decoder, VGG16 and
    feature network there, ⟨κ g, ε_c⟩ here."""
    file = VggFile(tmp_path)
    vgg = load_features("VGG16 (as released)", file.path)
    losses = [
        DiffusionLoss(),
        MemorizationLoss(),
        ContrastiveLoss(toy_features(), form="difference"),
        PerceptualLoss(vgg, weight=0.01),
    ]
    run = toy_run(tmp_path, losses, dataset=world.dataset, grid="released", rollout_steps=20, every=1, accumulation=4)
    cache, _ = run.caches()
    ours = awake(attach(run.base.unet, run.lora, torch.Generator()))
    total, terms = batch_loss(run, cache, 0)
    gradient = torch.autograd.grad(total, ours)

    loop = ReleasedLoop(world, file.build, lora=run.lora, rollout=run.rollout, views=0)
    awake({str(i): p for i, p in enumerate(loop.parameters)})
    (draw,) = samples_of_batch(cache, run.settings, run.rollout, 1000, 0)
    record, schedule, t = cache.record(draw.sample), loop.base.schedule, torch.tensor([draw.t])
    z_t = schedule.add_noise(draw.z[None], draw.noise[None], t)
    words = loop.encode_prompts(*(world.tokens(text) for text in (record.caption, draw.generic, "")))
    prediction, null, theirs = loop.denoising(z_t, t, draw.noise[None], words)
    image = loop.base.decode(loop.sample(z_t, t, words, prediction, null))
    pixels, negatives = aligned(record, 64, flip=draw.sample[1])
    theirs |= loop.on_image(image, pixels[None], negatives)
    whole = torch.stack([WEIGHTS[name] * value for name, value in theirs.items()]).sum()
    expected = torch.autograd.grad(whole, loop.parameters)

    assert draw.t >= 19
    names = {
        "diffusion": "diffusion",
        "memorization": "memorization",
        "contrastive": "contrastive",
        "vgg": "perceptual",
    }
    for name, value in theirs.items():
        (mine,) = terms[names[name]]
        assert mine == pytest.approx(float(value.detach()), rel=1e-4, abs=1e-6), name
    ours_flat, flat = (torch.cat([g.flatten() for g in found]) for found in (gradient, expected))
    assert (ours_flat - flat).norm() < 1e-4 * flat.norm()
    plain = torch.autograd.grad(0.7 * loop.denoising(z_t, t, draw.noise[None], words)[2]["diffusion"], loop.parameters)
    assert (torch.cat([g.flatten() for g in plain]) - flat).norm() > 0.01 * flat.norm(), "the other terms have a share"


def awake(parameters: dict[str, nn.Parameter]) -> list[nn.Parameter]:
    """Numbers that do something: a fresh LoRA has B = 0."""
    with torch.no_grad():
        for i, p in enumerate(parameters.values()):
            p.copy_(0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return list(parameters.values())


@pytest.mark.long
def test_fast_mode_makes_fewer_calls_and_decodes_with_the_small_autoencoder(tmp_path: Path) -> None:
    """On Stable Diffusion 1.5's structure, a tenth as wide: the path that a GPU takes at full size."""
    world = build("sd15-tiny", images=6)
    variant = variants.fast("fast", world, tmp_path, steps=1, rollout_steps=5)
    decoded: list[bool] = []
    base = next(owner for owner, name, _ in variant.targets if name == "decode")
    decode = base.decode
    base.decode = lambda z, small=False: decoded.append(small) or decode(z, small=small)
    with driven([variant.body], CPU) as (loop,), counted(variant.unet) as found:
        loop.block()
    assert found["calls"] == 2 + 4 and decoded == [True]


def test_benchmark_pictures_have_five_negatives_and_two_models_share_their_weights() -> None:
    assert {len(record.negatives) for record in community().records} == {NEGATIVES}
    world = build("sd15-tiny", images=6)
    one, two = world.base(), world.base()
    attach(one.unet, LoraSettings(rank=2), torch.Generator())
    names = dict(one.unet.named_parameters())
    assert not [name for name in dict(two.unet.named_parameters()) if "lora" in name]
    for name, p in two.unet.named_parameters():
        assert (
            p.data_ptr()
            == names.get(
                name, names.get(name.replace(".weight", ".base_layer.weight").replace(".bias", ".base_layer.bias"))
            ).data_ptr()
        )


# --- the core node ---


@pytest.mark.long
def test_the_core_node_and_ours_take_the_same_samples_and_leave_the_model_as_it_was(
    comfyui_path: Path, tmp_path: Path
) -> None:
    """In a process of its own: the core node leaves ComfyUI otherwise than the tests of other files expect it."""
    places = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tools")]
    code = (
        "import sys; from pathlib import Path; sys.path[:0] = {}; import test_benchmarks as t; t.take_turns(Path({!r}))"
    )
    command = [sys.executable, "-c", code.format(places, str(tmp_path))]
    environment = {**os.environ, "COMFYUI_PATH": str(comfyui_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and done.stdout.endswith("took turns\n"), done.stdout + done.stderr


def take_turns(tmp_path: Path) -> None:
    """Both loops in turns on one MODEL."""
    world, case = build("mini", images=6), cases.plain_case(batch=1, accumulation=2, checkpointing=True)
    made = [case.make(world, name, tmp_path, VggFile(tmp_path)) for name in case.names]
    model = core_node.sockets(world).model.model.diffusion_model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with driven([v.body for v in made], CPU) as loops:
        for _ in range(2):
            for variant, loop in zip(made, loops, strict=True):
                with counted(variant.unet) as found:
                    assert loop.block() > 0
                assert found["samples"] == 2 * case.steps
                assert found["calls"] == (2 if variant.name == cases.CORE else 1) * case.steps
        after = model.state_dict()
        assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    shapes = [sum(p.numel() for p in v.unet.parameters() if p.requires_grad) for v in made[1:]]
    assert shapes[0] < shapes[1]
    print("took turns")
