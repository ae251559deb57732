"""The benchmarks: the released loop's evaluations are counted, its losses are ours, and the measuring measures."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import micro_loss, random_weights, toy_base, toy_dataset, toy_embed, toy_features, toy_run

from benchmarks import __main__ as command_line
from benchmarks import cases, full_shape, measure, report, variants
from benchmarks.measure import Parts, Peak, counted, driven, ratio
from benchmarks.released import WEIGHTS, ReleasedLoop
from benchmarks.vgg import VggFile
from benchmarks.worlds import NEGATIVES, World, build, community
from comfy_scoft.dataset import aligned
from comfy_scoft.draws import of_micro_step
from comfy_scoft.features import FeatureOptions, load_features
from comfy_scoft.features.options import configured
from comfy_scoft.lora import LoraSettings, attach
from comfy_scoft.losses import ContrastiveLoss, DiffusionLoss, MemorizationLoss, PerceptualLoss
from comfy_scoft.settings import TrainSettings

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
    """One encode and three texts each; at a rollout also a decode, VGG16 built, and twelve looks at eleven pictures."""
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
        loop.micro_step()
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


def test_the_released_losses_and_their_gradient_are_ours(world: World, tmp_path: Path) -> None:
    """For one picture, noise and timestep, without augmentations: autograd through all 20 steps, decoder, VGG16 and
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
    total, terms = micro_loss(run, cache, 0)
    gradient = torch.autograd.grad(total, ours)

    loop = ReleasedLoop(world, file.build, lora=run.lora, rollout=run.rollout, views=0)
    awake({str(i): p for i, p in enumerate(loop.parameters)})
    (draw,) = of_micro_step(cache, run.settings, run.rollout, 1000, 0)
    record, schedule, t = cache.record(draw.sample), loop.base.schedule, torch.tensor([draw.t])
    z_t = schedule.add_noise(draw.z[None], draw.noise[None], t)
    words = loop.read(*(world.tokens(text) for text in (record.caption, draw.generic, "")))
    prediction, null, theirs = loop.denoising(z_t, t, draw.noise[None], words)
    image = loop.base.decode(loop.sample(z_t, t, words, prediction, null))
    pixels, negatives = aligned(record, 64, draw.sample[1])
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


def test_fast_mode_makes_fewer_calls_and_decodes_with_the_small_autoencoder(tmp_path: Path) -> None:
    """On Stable Diffusion 1.5's structure, a tenth as wide: the path that a GPU takes at full size."""
    world = build("sd15-tiny", pictures=6)
    variant = variants.fast("fast", world, tmp_path, steps=1, rollout_steps=5)
    decoded: list[bool] = []
    base = next(owner for owner, name, _ in variant.targets if name == "decode")
    decode = base.decode
    base.decode = lambda z, small=False: decoded.append(small) or decode(z, small)
    with driven([variant.body], CPU) as (loop,), counted(variant.unet) as found:
        loop.block()
    assert found["calls"] == 2 + 4 and decoded == [True]


def test_benchmark_pictures_have_five_negatives_and_two_models_share_their_weights() -> None:
    assert {len(record.negatives) for record in community().records} == {NEGATIVES}
    world = build("sd15-tiny", pictures=6)
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
    world, case = build("mini", pictures=6), cases.plain_case(batch=1, accumulation=2, checkpointing=True)
    made = [case.make(world, name, tmp_path, VggFile(tmp_path)) for name in case.names]
    model = cases._given(world).model.model.diffusion_model
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


# --- measuring ---


def test_driven_loops_take_turns_and_their_faults_come_through() -> None:
    log: list[str] = []
    before = threading.active_count()

    def body(name: str, last: int) -> Any:
        def loop(pause: measure.Pause) -> None:
            for i in range(last):
                log.append(f"{name}{i}")
                pause()
            raise ValueError(f"{name} is done")

        return loop

    with driven([body("a", 2), body("b", 9)], CPU) as (a, b):
        for loop in (a, b, a, b):
            assert loop.block() >= 0
        assert log == ["a0", "b0", "a1", "b1"]
        with pytest.raises(ValueError, match="a is done"):
            a.block()
    assert log == ["a0", "b0", "a1", "b1"], "a loop that is not wanted any more goes no further"
    assert threading.active_count() == before


def test_operations_are_counted_for_one_block_in_the_loops_own_thread() -> None:
    weight = torch.ones(3, 5)

    def body(pause: measure.Pause) -> None:
        while True:
            torch.ones(2, 3) @ weight
            pause()

    with driven([body], CPU) as (loop,):
        loop.block()
        assert loop.operations() == loop.operations() == 2 * 2 * 3 * 5
        loop.block()


def test_operations_are_those_that_pytorch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    base = toy_base(kl=True)
    attach(base.unet, LoraSettings(rank=2), torch.Generator().manual_seed(0))

    def work() -> None:
        z = torch.ones(2, 4, 8, 8)
        with torch.no_grad():
            base.encode(base.predict(z, torch.tensor([3, 9]), ["one", "two"]).repeat(1, 1, 8, 8)[:, :3])
        (base.predict(z, torch.tensor([3, 9]), ["one", "two"]).sum() + base.decode(z.requires_grad_()).sum()).backward()

    with FlopCounterMode(display=False) as theirs:
        work()
    with measure.Operations() as ours:
        work()
    assert ours.total == theirs.get_total_flops() > 1e7


def test_time_by_part_counts_each_instant_once_for_the_innermost() -> None:
    class Work:
        def outer(self) -> None:
            time.sleep(0.05)
            self.inner()

        def inner(self) -> None:
            time.sleep(0.1)

    work, parts = Work(), Parts(CPU)
    start = time.perf_counter()
    with parts.watching([(work, "outer", "outer"), (work, "inner", lambda: "inner")]):
        work.outer()
        time.sleep(0.02)
    whole = time.perf_counter() - start
    assert set(parts.seconds) == {"outer", "inner", "other"}
    assert parts.seconds["outer"] >= 0.05 and parts.seconds["inner"] >= 0.1 and parts.seconds["other"] >= 0.02
    assert sum(parts.seconds.values()) <= whole
    work.inner()
    assert parts.seconds["inner"] < whole, "what is not watched is not counted"


def test_a_ratio_is_the_median_of_those_of_rounds() -> None:
    found = ratio([2.0, 9.0, 4.0], [1.0, 3.0, 1.0])  # 2, 3, 4
    assert (found["median"], found["least"], found["most"]) == (3.0, 2.0, 4.0)
    assert found["least"] <= found["low"] <= found["median"] <= found["high"] <= found["most"]
    assert ratio([1.0] * 5, [2.0] * 5) == dict.fromkeys(("median", "least", "most", "low", "high"), 0.5)


def test_peak_memory_is_that_between_its_ends() -> None:
    held = bytearray(300_000_000)
    del held
    peak = Peak(CPU)
    held = bytearray(100_000_000)
    del held
    assert 95e6 < peak.read() < 200e6


# --- the command ---


def test_what_is_known_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One case after the other, each kept as soon as it is there; other code or other rounds are done anew."""
    asked: list[list[str]] = []

    def child(given: list[str]) -> Any:
        asked.append(list(given))
        if "plain" in given and len(asked) == 2:
            raise SystemExit("failed")
        return 2_000_000 if "--memory" in given else measured()

    monkeypatch.setattr(command_line, "_child", child)
    given = ["--world", "mini", "--short", "--out", str(tmp_path), "--case", "rollout", "--case", "plain"]
    with pytest.raises(SystemExit, match="failed"):
        command_line.main(given)
    assert set(report.load(tmp_path)) == {"mini rollout"}, "the case that was done is kept"
    assert command_line.main(given) == 0 and len(asked) == 3 and asked[2][:2] == ["--case", "plain"]
    assert set(report.load(tmp_path)) == {"mini rollout", "mini plain"}
    assert command_line.main(given) == 0 and len(asked) == 3
    command_line.main([*given, "--rounds", "3"])
    assert len(asked) == 5
    monkeypatch.setattr(report, "code_digest", lambda: "other")
    command_line.main([*given, "--rounds", "3"])
    assert len(asked) == 7
    command_line.main([*given, "--rounds", "3", "--fresh"])
    assert len(asked) == 9
    without = [item for item in given if item != "--short"]
    command_line.main([*without[:-2], "--rounds", "3"])
    assert [item[-2:] for item in asked[10:]] == [["--memory", "one"], ["--memory", "two"]]
    assert report.load(tmp_path)["mini rollout"]["peak memory"] == {"one": 2_000_000, "two": 2_000_000}
    (tmp_path / report.RESULTS).write_text("{half", encoding="utf-8")
    assert report.load(tmp_path) == {}


def measured() -> dict[str, Any]:
    """A case as a child process answers it."""
    one = {"seconds": [1.0, 2.0, 3.0], "once": {"texts": 3.0}, "operations": 4e9, "parts": {"UNet": 0.5, "other": 0.25}}
    one |= {"calls": 27.2, "samples": 27.2, "calls with gradient": 4.0, "samples with gradient": 4.0}
    two = {**one, "seconds": [0.5, 0.5, 1.0], "once": {}, "operations": 2e9, "calls": 9.6, "parts": {"other": 0.1}}
    found = {"one": one, "two": two}
    return {
        "title": "A case",
        "world": "a toy",
        "precision": "fp32",
        "device": "cpu",
        "pictures": 6,
        "steps in a block": 5,
        "rounds": 3,
        "variants": found,
        "comparisons": [cases._compared(cases.Comparison("one", "two", 3.5), found)],
        "machine": report.machine(),
        "command": "python run.py bench",
    }


def test_the_page_tells_ratios_counts_parts_and_the_machine_but_neither_its_name_nor_folders() -> None:
    page = report.page({"mini case": {**measured(), "peak memory": {"one": 2_000_000, "two": 1_500_000}}})
    # ratios of the rounds 2, 4, 3; with a thousandth of a second more for what is done once
    assert "| one / two | **3.00** | 2.00 to 4.00 | 2.00 to 4.00 | 3.00 | 2.00 | 3.5: **missed** |" in page
    assert "| one | 2.0000 | 27.2 | 4.0 | 27.2 | 4.0 | 2 | texts 3.00 |" in page
    assert "| UNet | 500.0 |  |" in page and "| other | 250.0 | 100.0 |" in page
    assert "**None of this was run on a GPU.**" in page and "torch" in page
    assert "run on a GPU" not in report.page({"x": {**measured(), "device": "cuda"}})
    for secret in (str(Path.home()), str(ROOT), platform.node()):
        assert not secret or secret not in page


def test_operations_at_full_size_are_those_that_the_method_states(tmp_path: Path) -> None:
    """34.4 and 25.6 TFLOP an optimizer step; the design counted other small parts (a ViT, no backward to weights)."""
    found = full_shape.operations()
    sums = {name: sum(parts.values()) / 1e12 for name, parts in found.items()}
    assert sums["released"] == pytest.approx(34.4, rel=0.03)
    assert sums[cases.PAPER] == pytest.approx(25.6, rel=0.03)
    assert sums[cases.PAPER] < sums[cases.SAME] < sums["released"]
    assert command_line.main(["--case", "operations", "--out", str(tmp_path)]) == 0
    assert f"**{sums['released']:.1f}**" in (tmp_path / report.PAGE).read_text(encoding="utf-8")


def test_a_missed_target_is_said_to_be_missed() -> None:
    spread = dict.fromkeys(("median", "least", "most", "low", "high"), 1.4)
    base = {"slow": "a", "fast": "b", "ratio": spread, "ratio with what is done once": 1.3, "ratio of operations": 1.2}
    assert report._verdict({**base, "target": 1.5}) == "1.5: **missed**"
    assert report._verdict({**base, "target": 1.4}) == "1.4: reached"
    assert report._verdict({**base, "target": None}) == ""


@pytest.mark.recorded
def test_cases_of_each_kind_run_from_end_to_end(comfyui_path: Path, tmp_path: Path) -> None:
    """Loops of each kind in processes of their own, at Stable Diffusion 1.5's structure; and the peak of one."""
    kinds = ("rollout", "plain-accumulated", "plain-batch", "operations")
    out = ["--threads", "1", "--out", str(tmp_path), "--world", "sd15-tiny"]
    given = [sys.executable, "-m", "benchmarks", "--short", "--rounds", "1", *out]
    given += [part for kind in kinds for part in ("--case", kind)]
    done = subprocess.run(given, cwd=ROOT, capture_output=True, text=True, timeout=880)
    assert done.returncode == 0, done.stderr
    results = report.load(tmp_path)
    assert set(results) == {"operations", *(f"sd15-tiny {kind}" for kind in kinds[:3])}
    found = results["sd15-tiny rollout"]["variants"]
    assert found[cases.REBUILT]["parts"]["building VGG16"] > 0 and "building VGG16" not in found[cases.SAME]["parts"]
    del results["operations"]
    for case in results.values():
        assert case["rounds"] == 1
        for one in case["variants"].values():
            assert len(one["seconds"]) == 1 and one["seconds"][0] > 0 and one["operations"] > 1e8
    plain = {key: results[f"sd15-tiny {key}"]["variants"] for key in kinds[1:3]}
    assert [v[cases.CORE]["samples"] for v in plain.values()] == [4.0, 16.0]
    assert [v[cases.ATTENTION]["samples"] for v in plain.values()] == [4.0, 4.0]
    assert (tmp_path / report.PAGE).read_text(encoding="utf-8") in done.stdout
    assert cases.peak_memory("rollout", "sd15-tiny", cases.PAPER, pictures=6) > 0
