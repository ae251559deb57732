"""Negatives outside ComfyUI: by diffusers as by ComfyUI's sampler, and by any number of processes alike."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import comfy_inprocess as tiny
import pytest
import standins
import torch
from PIL import Image
from safetensors.torch import save_file
from toys import WIDTH, random_weights, toy_embed, toy_kl_autoencoder

comfy = tiny.start()

import nodes  # noqa: E402  (ComfyUI's)

from comfy_scoft.cli import negatives as negatives_cli  # noqa: E402
from comfy_scoft.comfyui import mini_model  # noqa: E402
from comfy_scoft.comfyui.depth_sampler import DepthSampler, size_multiple  # noqa: E402
from comfy_scoft.comfyui.resolution import native_resolution  # noqa: E402
from comfy_scoft.common.errors import UserError  # noqa: E402
from comfy_scoft.data.images import read_pixels  # noqa: E402
from comfy_scoft.mini_world import COMMUNITY  # noqa: E402
from comfy_scoft.models import single_file, state_dict_keys  # noqa: E402
from comfy_scoft.models.mini import layout  # noqa: E402
from comfy_scoft.models.noise_schedule import NoiseSchedule  # noqa: E402
from comfy_scoft.models.stable_diffusion import BaseModel, TextEmbedding  # noqa: E402
from comfy_scoft.negatives import controlnet_pipeline  # noqa: E402
from comfy_scoft.negatives.controlnet_pipeline import PipelineSampler, load_controlnet, scheduler_of  # noqa: E402
from comfy_scoft.negatives.depth import load_depth  # noqa: E402
from comfy_scoft.negatives.generate import NegativeSettings, Request  # noqa: E402
from comfy_scoft.training import distributed  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = layout.WEIGHTS / "checkpoints" / layout.CHECKPOINT
CONTROLNET = layout.WEIGHTS / "controlnet" / layout.CONTROLNET


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return single_file.load_base(CHECKPOINT)


@pytest.fixture(scope="module")
def control(base):
    return load_controlnet(CONTROLNET, base)


PROMPTS = ("a house in nuvia", "a farmer in nuvia")


def request(count: int = 2, prompts: tuple[str, ...] = PROMPTS) -> Request:
    """Of a house in the community set, with its estimated depth."""
    image = read_pixels(COMMUNITY / "train/images/ARCH_0.png").unsqueeze(0)
    hint = load_depth("relief (mini)").estimate(image).expand(1, 3, 64, 64)
    return Request(prompts[:count], (5, 6)[:count], hint)


@pytest.mark.parametrize("more", ["", " and a house in nuvia" * 30], ids=["short prompts", "a long one"])
def test_diffusers_draws_what_comfyuis_sampler_draws(base, control, more):
    """The same prompts, noise, steps and depth map through both, on the shipped weights."""
    wanted = request(2, (PROMPTS[0], PROMPTS[1] + more))
    settings = NegativeSettings(2, 8, 4.0, 0.9, resolution=64)
    assert mini_model.register()
    with torch.inference_mode():
        model, clip, vae = nodes.CheckpointLoaderSimple().load_checkpoint(layout.CHECKPOINT)
        (net,) = nodes.ControlNetLoader().load_controlnet(layout.CONTROLNET)
        progress = SimpleNamespace(update=lambda *_: None, total=99)
        theirs = DepthSampler(model, clip, vae, net, settings, progress)(wanted)
    ours = PipelineSampler(base, control, settings)(wanted)
    assert ours.shape == theirs.shape == (2, 64, 64, 3) and ours.dtype == torch.float32
    assert (ours - theirs).abs().mean() < 1e-3 and (ours[0] - ours[1]).abs().mean() > 0.05
    free = PipelineSampler(base, control, dataclasses.replace(settings, strength=0.0))(wanted)
    assert (free - ours).abs().mean() > 5e-3  # so the depth map counts, and alike in both
    assert native_resolution(model) == base.resolution == 64
    assert size_multiple(model) == controlnet_pipeline.size_multiple(base) == 16


@pytest.mark.parametrize("sampler", controlnet_pipeline.SAMPLERS)
@pytest.mark.long
def test_each_sampler_draws_the_same_picture_in_enough_steps(base, control, sampler):
    """From one noise, each comes to the image that many steps of Euler come to."""
    settings = NegativeSettings(1, 20, 4.0, resolution=64, sampler=sampler)
    drawn = PipelineSampler(base, control, settings)(request(1))
    euler = PipelineSampler(base, control, dataclasses.replace(settings, sampler="euler", steps=40))(request(1))
    assert (drawn - euler).abs().mean() < 0.02


def test_sdxl_is_drawn_with_its_pooled_text_and_sizes():
    """A small SD XL of random weights: what its second text input and its prompts say counts."""
    from diffusers import ControlNetModel, UNet2DConditionModel

    down, up = ("DownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")
    unet = UNet2DConditionModel(
        block_out_channels=(32, 64), layers_per_block=1, down_block_types=down, up_block_types=up,
        cross_attention_dim=WIDTH, attention_head_dim=(4, 8), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + 12,
    )  # fmt: skip
    random_weights(unet, 1)
    net = random_weights(ControlNetModel.from_unet(unet, load_weights_from_unet=False), 2)

    def drawn(pooled: float) -> torch.Tensor:
        def embed(text: str) -> TextEmbedding:
            return TextEmbedding(toy_embed(text).hidden, torch.full((1, 12), pooled * len(text)))

        base = BaseModel(unet, toy_kl_autoencoder(), NoiseSchedule.scaled_linear(), embed, "sdxl", vae_scaling=0.13025)
        return PipelineSampler(base, net, NegativeSettings(2, 2, 5.0))(request())

    one, other = drawn(0.1), drawn(0.3)
    assert one.shape == (2, 64, 64, 3) and torch.equal(one, drawn(0.1)) and (one - other).abs().max() > 1e-3
    assert (one[0] - one[1]).abs().mean() > 1e-2


def test_a_controlnet_in_diffusers_form_is_the_same_network(base, control, tmp_path):
    save_file({k: v.half() for k, v in control.state_dict().items()}, tmp_path / "diffusers.safetensors")
    again = load_controlnet(tmp_path / "diffusers.safetensors", base)
    assert all(torch.equal(v.half(), again.state_dict()[k].half()) for k, v in control.state_dict().items())


def test_a_wrong_controlnet_is_one_sentence(base, tmp_path):
    with pytest.raises(ValueError, match=r"^There is no file 'none\.safetensors' in .+: give a depth ControlNet .+\.$"):
        load_controlnet(tmp_path / "none.safetensors", base)
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(ValueError, match=r"^text\.safetensors is not a safetensors file that can be read: .+\.$"):
        load_controlnet(tmp_path / "text.safetensors", base)
    with pytest.raises(ValueError, match=r"^The weights of the ControlNet .+ do not fit: .+\.$"):
        load_controlnet(CHECKPOINT, base)
    with pytest.raises(ValueError, match=r"^There is no sampler 'x': choose one of euler, dpmpp_2m\.$"):
        PipelineSampler(base, None, NegativeSettings(sampler="x"))


FAMILIES = {
    "sd1": {"context_dim": 768, "channel_mult": [1, 2, 4, 4], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0]},
    "sdxl": {"context_dim": 2048, "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 2, 2, 10, 10]},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_of_a_full_size_controlnet_has_its_name_in_the_original_form(family):
    """Against ComfyUI's own class at the real size, on the meta device."""
    from diffusers import ControlNetModel, UNet2DConditionModel

    meta = torch.device("meta")
    with meta:
        unet = UNet2DConditionModel(**single_file.configuration(family)["unet"])
        ours = ControlNetModel.from_unet(
            unet, conditioning_embedding_out_channels=(16, 32, 96, 256), load_weights_from_unet=False
        )
    sizes = FAMILIES[family]
    levels = len(sizes["channel_mult"])
    config = {**tiny.COMMON, **sizes, "model_channels": 320, "num_res_blocks": [2] * levels, "hint_channels": 3}
    config |= {"transformer_depth_middle": sizes["transformer_depth"][-1] or 1, "device": meta}
    if family == "sdxl":
        config |= {"num_classes": "sequential", "adm_in_channels": 2816, "use_linear_in_transformer": True}
        config |= {"num_head_channels": 64}
    else:
        config |= {"num_heads": 8}
    config.pop("out_channels")
    theirs = comfy.cldm.cldm.ControlNet(**config).state_dict()
    names = state_dict_keys.unet_names(ours.state_dict(), 2)
    assert set(names.values()) == set(theirs)
    assert all(v.numel() == theirs[names[k]].numel() for k, v in ours.state_dict().items())


def test_the_noise_table_reaches_the_schedulers_as_it_is():
    table = NoiseSchedule.scaled_linear(prediction="v_prediction")
    found = scheduler_of(table, "euler")
    assert found.config.prediction_type == "v_prediction"
    assert torch.allclose(found.alphas_cumprod.double(), table.alphas_cumprod, rtol=1e-5)
    ending = torch.cat([table.alphas_cumprod[:-1], torch.zeros(1, dtype=torch.float64)])  # zero terminal SNR
    sigmas = scheduler_of(NoiseSchedule(ending, "v_prediction"), "euler").sigmas
    assert torch.isfinite(sigmas).all() and sigmas.max() > 4000


OPTIONS = ["--checkpoint", str(CHECKPOINT), "--controlnet", str(CONTROLNET), "--dataset", str(COMMUNITY)]
OPTIONS += ["--depth", "relief (mini)", "--split", "train", "--limit", "3", "--per-image", "2", "--steps", "2"]
OPTIONS += ["--cfg", "4", "--threads", "1"]
PROGRAM = "import sys; from comfy_scoft.cli.negatives import main; sys.exit(main())"


def start(out: Path, rank: int = 0, count: int = 1, port: int = 0, program: str = PROGRAM) -> subprocess.Popen:
    environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(count), "PYTHONPATH": str(ROOT)}
    environment |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", program, *OPTIONS, "--out", str(out)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}


@pytest.mark.long
def test_one_process_and_two_write_the_same_files(tmp_path):
    alone = start(tmp_path / "alone")
    assert alone.wait(600) == 0, alone.stderr.read()
    port = free_port()
    both = [start(tmp_path / "both", rank, 2, port) for rank in (0, 1)]
    for one in both:
        assert one.wait(600) == 0, one.stderr.read()
    assert both[0].stdout.read().splitlines()[-1].startswith("6 negatives in ") and both[1].stdout.read() == ""
    assert files(tmp_path / "both") == files(tmp_path / "alone")
    lines = [json.loads(line) for line in (tmp_path / "both/dataset/train/metadata.jsonl").read_text().splitlines()]
    assert [len(line["negative_imgpath"]) for line in lines] == [2, 2, 2] and all(line["depth"] for line in lines)
    assert len(list((tmp_path / "both/work/negatives").rglob("*.png"))) == 6


@pytest.mark.long
def test_what_is_there_is_not_drawn_again_and_the_filter_shows_what_it_leaves_out(tmp_path, monkeypatch, capsys):
    class Broken(PipelineSampler):
        calls = 0

        def __call__(self, request):
            Broken.calls += 1
            if Broken.calls == 3:
                raise KeyboardInterrupt
            return super().__call__(request)

    monkeypatch.setattr(negatives_cli, "PipelineSampler", Broken)
    options = [*OPTIONS, "--out", str(tmp_path / "out"), "--features", "mini CLIP (layer 5)", "--threshold", "2"]
    assert negatives_cli.main(options) == 130
    assert "Stopped. Finished negatives are kept" in capsys.readouterr().err
    assert negatives_cli.main(options) == 0 and Broken.calls == 4
    said = capsys.readouterr().out
    assert "0 of 6 negatives kept, 6 dropped" in said and said.splitlines()[-1].startswith("0 negatives in ")
    assert (tmp_path / "out/filtered.png").read_bytes().startswith(b"\x89PNG")
    assert negatives_cli.main(options) == 1
    assert "already holds a result: choose another --out, or remove it." in capsys.readouterr().err


@pytest.mark.long
def test_a_full_size_sd15_and_its_controlnet_draw_through_the_command(tmp_path, capsys):
    """Random weights in the real files' names, keys and shapes; half precision to spare memory."""
    models = {"--checkpoint": standins.write("sd1", tmp_path), "--controlnet": standins.write("sd1-depth", tmp_path)}
    options = [str(part) for pair in models.items() for part in pair] + OPTIONS[4:]
    options += ["--out", str(tmp_path / "out"), "--limit", "1", "--steps", "1", "--resolution", "64"]
    assert negatives_cli.main([*options, "--dtype", "bfloat16"]) == 0, capsys.readouterr().err
    drawn = sorted((tmp_path / "out/dataset").rglob("*_0_?.png"))
    assert [Image.open(path).size for path in drawn] == [(64, 64)] * 2
    assert drawn[0].read_bytes() != drawn[1].read_bytes()


@pytest.mark.parametrize("end", ["os._exit(9)", "raise UserError('The image is gone: put it back.')"])
@pytest.mark.long
def test_a_process_that_ends_too_early_is_one_sentence_for_the_others(end: str, tmp_path: Path) -> None:
    """Killed, or stopped by a fault of its own: the first process does not wait for it, and what was made stays."""
    broken = f"""
import os
from comfy_scoft.cli import negatives
from comfy_scoft.common.errors import UserError
def ends(*_): {end}
negatives.Work.negatives = ends
import sys; sys.exit(negatives.main())
"""
    port, out = free_port(), tmp_path / "out"
    first, second = start(out, 0, 2, port), start(out, 1, 2, port, broken)
    said = first.communicate(timeout=300)[1], second.communicate(timeout=300)[1]
    assert first.returncode == 1 and second.returncode == (9 if "_exit" in end else 1)
    assert "Another process" in said[0].splitlines()[-1] and "this one stops too" in said[0] and "Trace" not in said[0]
    assert not (out / "dataset").exists() and len(list((out / "work/negatives").rglob("*.png"))) == 4


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2 of WORLD_SIZE 2"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK and WORLD_SIZE must be whole numbers"),
        (
            {"RANK": "1", "WORLD_SIZE": "2"},
            "WORLD_SIZE is 2, but LOCAL_RANK, MASTER_ADDR, MASTER_PORT not set",
        ),
    ],
)
def test_variables_of_a_launcher_that_cannot_be_are_one_sentence(
    variables: dict[str, str], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=rf"^{fault}[^\n]+\.$"):
        distributed.launched()
