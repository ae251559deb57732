"""The workflows for a person's own models, in a real ComfyUI: photographs in, a LoRA out, and that LoRA used.

Model files are stand-ins of random weights under the names that the workflows and their notes give (standins.py,
small_models.py, model_folders.py); the photographs come with scikit-image. The long test takes the full shapes.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import build_workflows
import feature_files
import model_folders
import pytest
import small_models
import standins
import torch
import workflow_files
import workflow_sd
from comfy_server import ComfyServer
from PIL import Image
from safetensors.torch import load_file, save_file
from skimage import data

from comfy_scoft.data.dataset import load_folder
from comfy_scoft.experiments.comfy_client import ComfyError, Prompt

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 900.0
PHOTOGRAPHS = {
    "coffee": "a cup of coffee as my grandmother pours it",
    "astronaut": "a woman of our town in her work clothes",
    "chelsea": "our neighbour's cat asleep in the yard",
}


def photographs(folder: Path, longest: int) -> None:
    """Images of several shapes with a caption beside each, as a person's folder looks."""
    folder.mkdir(parents=True)
    for name, caption in PHOTOGRAPHS.items():
        image = Image.fromarray(getattr(data, name)())
        image.thumbnail((longest, longest))
        image.save(folder / f"{name}.jpg")
        (folder / f"{name}.txt").write_text(caption, encoding="utf-8")


def fill(base: Path, names: tuple[str, ...], size: str, longest: int) -> None:
    """The files that the notes of the workflows name, at the places where they say."""
    models = base / "models"
    for name in names:
        standins.write(name, models, size)
    eye = models / "clip_vision"
    eye.mkdir(parents=True)
    feature_files.clip_file(eye, "RN50-quickgelu")[0].rename(eye / workflow_files.CLIP_RN50.name)
    vgg, _ = feature_files.vgg_file(eye)
    save_file(torch.load(vgg, weights_only=True), eye / workflow_files.VGG16.name)
    vgg.unlink()
    model_folders.dpt_folder(models / "depth_estimators" / "dpt")
    model_folders.blip_folder(models / "captioners" / "blip", real=size == "full")
    photographs(base / "input" / str(workflow_sd.PICTURES["folder"]), longest)


@pytest.fixture(scope="module")
def server(comfyui_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A ComfyUI with the small stand-ins of Stable Diffusion 1.5 and XL."""
    base = tmp_path_factory.mktemp("comfyui")
    small_models.install(base)
    fill(base, ("sd1", "sd1-depth", "sdxl", "sdxl-depth"), "small", 160)
    with ComfyServer(sys.executable, comfyui_path, base) as running:
        yield running
    shutil.rmtree(base / "models")


def shipped(name: str) -> Prompt:
    return json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))


def shortened(name: str, resolution: int = 64, images: int = 2, steps: int = 2) -> Prompt:
    """A workflow with few images, steps and pixels; every node and every file name of it is still there.

    Random feature networks find everything alike, so the filter keeps all. Few CPUs are quick in bf16.
    """
    side = {"width": resolution, "height": resolution}
    short: dict[str, dict[str, Any]] = {
        "SCoFT_LoadDataset": {"limit": images},
        "SCoFT_CaptionGeneric": {"captions_per_image": 2},
        "SCoFT_MakeNegatives": {"per_image": 2, "steps": 2, "resolution": resolution},
        "SCoFT_FilterNegatives": {"threshold": 0.0},
        "SCoFT_RolloutOptions": {"every": 2, "steps": 3},
        "SCoFT_LoraOptions": {"rank": 4, "alpha": 4.0},
        "SCoFT_OptimizerOptions": {"learning_rate": 1e-2},
        "SCoFT_TrainLora": {"steps": steps, "accumulation": 2, "resolution": resolution, "precision": "fp32"},
        "SCoFT_GenerateSet": {**side, "steps": 2, "images_per_prompt": 1},
        "PrimitiveStringMultiline": {"value": "a street in Korea\na street"},
        "EmptyLatentImage": {**side, "batch_size": 2},
        "ImageScale": side,
        "KSampler": {"steps": 2},
    }
    prompt = shipped(name)
    short["SCoFT_TrainLora"]["preview_every"] = steps
    for node in prompt.values():
        changes = short.get(node["class_type"], {})
        assert changes.keys() <= node["inputs"].keys(), node["class_type"]
        node["inputs"] |= changes
    return prompt


def run(server: ComfyServer, prompt: Prompt) -> dict[str, Any]:
    """Run a workflow and return what its output nodes showed, by node id. Nothing in it may be left out unseen."""
    found = server.client.run(prompt, timeout=PATIENCE)
    log = server.log.read_text(encoding="utf-8", errors="replace")
    assert "lora key not loaded" not in log and "missing controlnet keys" not in log
    assert "unet missing" not in log and "unet unexpected" not in log and "clip missing" not in log
    return found["outputs"]


def newest(folder: Path, pattern: str) -> Path:
    return max(folder.glob(pattern), key=lambda path: path.name)


def image(server: ComfyServer, shown: dict[str, str]) -> Image.Image:
    folder = "temp" if shown["type"] == "temp" else "output"
    return Image.open(server.base / folder / shown.get("subfolder", "") / shown["filename"]).convert("RGB")


def diffusers_takes(path: Path, unet: Any, pipeline: Any, modules: int, untaught: tuple[str, ...] = ()) -> None:
    """diffusers' own loader finds a place for each tensor of the file, and all modules but `untaught` have learned."""
    keys = load_file(path)
    assert len(keys) == 3 * modules
    state, alphas = pipeline.lora_state_dict(str(path), unet_config=None)
    pipeline.load_lora_into_unet(state, network_alphas=alphas, unet=unet)
    loaded = {name.split(".lora_")[0] for name, _ in unet.named_parameters() if ".lora_" in name}
    assert len(loaded) == modules
    taught = [p for n, p in unet.named_parameters() if ".lora_B." in n and not n.startswith(untaught)]
    assert len(taught) == modules - len(untaught) and all(bool(p.any()) for p in taught)


def small_unet(family: str) -> Any:
    """The UNet of a small stand-in, in diffusers' own class."""
    from diffusers import UNet2DConditionModel

    from comfy_scoft.models import single_file

    sizes, small = single_file.configuration(family)["unet"], small_models.SMALL[family]
    sizes |= {"block_out_channels": [small["model_channels"] * m for m in small["channel_mult"]]}
    sizes |= {"cross_attention_dim": small["context_dim"]}
    if family == "sdxl":
        sizes |= {"transformer_layers_per_block": [1, 2, 3], "attention_head_dim": [1, 2, 4]}
        sizes |= {"projection_class_embeddings_input_dim": small["adm_in_channels"]}
    return UNet2DConditionModel(**sizes)


@pytest.fixture(scope="module")
def trained(server: ComfyServer) -> tuple[Path, dict[str, Any]]:
    """Workflow 2 from end to end: its LoRA, and what it showed."""
    shown = run(server, shortened("train-cultural-lora-sd15"))
    return newest(server.base / "output" / "loras", "my-community_*.safetensors"), shown


@pytest.mark.long
def test_training_on_sd15_goes_from_photographs_to_a_lora(
    server: ComfyServer, trained: tuple[Path, dict[str, Any]]
) -> None:
    from diffusers import StableDiffusionPipeline

    lora, shown = trained
    assert lora.name == "my-community_00001.safetensors" and "Korea" in lora.with_suffix(".md").read_text("utf-8")
    # At 64 px the middle block sees one token, whose attention to itself is 1 whatever its query and key are.
    one_token = tuple(f"mid_block.attentions.0.transformer_blocks.0.attn1.{n}" for n in ("to_q", "to_k"))
    diffusers_takes(lora, small_unet("sd1"), StableDiffusionPipeline, 16 * 8, one_token)
    rows = (server.base / "output/scoft/runs/my-community/metrics.jsonl").read_text().splitlines()
    terms = json.loads(rows[-1])
    assert len(rows) == 2 and {"diffusion", "memorization", "contrastive"} <= terms.keys()
    assert len(list((server.base / "output/scoft/negatives").rglob("*.png"))) == 4
    assert len([out for out in shown.values() if "images" in out]) >= 3


@pytest.mark.long
def test_training_on_sdxl_goes_from_photographs_to_a_lora(server: ComfyServer) -> None:
    from diffusers import StableDiffusionXLPipeline

    run(server, shortened("train-cultural-lora-sdxl"))
    lora = newest(server.base / "output" / "loras", "my-community-xl_*.safetensors")
    blocks = 2 * (2 + 3) + 3 * (3 + 2) + 3  # encoder, decoder, middle
    diffusers_takes(lora, small_unet("sdxl"), StableDiffusionXLPipeline, 8 * blocks)


@pytest.mark.long
def test_the_trained_lora_changes_pictures_in_stock_nodes(
    server: ComfyServer, trained: tuple[Path, dict[str, Any]]
) -> None:
    """Workflow 8 takes the file that workflow 2 writes, by its name."""
    prompt = shortened("use-a-cultural-lora")
    shown = run(server, prompt)
    saved = {prompt[number]["_meta"]["title"]: out["images"] for number, out in shown.items()}
    without, with_it = (image(server, saved[title][0]) for title in ("Without the LoRA", "With the LoRA"))
    assert without.size == with_it.size == (64, 64)
    assert max(abs(a - b) for a, b in zip(without.tobytes(), with_it.tobytes(), strict=True)) > 3


@pytest.mark.parametrize("name", ["make-negatives", "build-negatives-from-stock-nodes"])
@pytest.mark.long
def test_negatives_are_made_and_kept_as_a_set(name: str, server: ComfyServer) -> None:
    folder = server.base / "output/scoft/datasets/my community with negatives"
    shutil.rmtree(folder, ignore_errors=True)
    run(server, shortened(name))
    dataset, _ = load_folder(folder, strict=True)
    assert len(dataset) == 2 and all(len(record.negatives) == 2 for record in dataset.records)
    assert {record.place for record in dataset.records} == {"Korea"}
    assert {record.caption for record in dataset.records} <= set(PHOTOGRAPHS.values())
    if name == "make-negatives":
        assert all(len(record.generic_captions) == 2 and record.depth for record in dataset.records)
        own = [Image.open(record.image).size for record in dataset.records]
        drawn = [Image.open(record.negatives[0]).size for record in dataset.records]
        assert all(abs(a[0] / a[1] - b[0] / b[1]) < 0.1 for a, b in zip(own, drawn, strict=True))
    listed = server.client.object_info("SCoFT_LoadDataset")["SCoFT_LoadDataset"]["input"]["required"]["folder"]
    assert "my community with negatives (saved)" in str(listed)


@pytest.mark.parametrize("name", workflow_sd.WORKFLOWS)
@pytest.mark.long
def test_a_missing_file_is_named_before_anything_runs(name: str, server: ComfyServer) -> None:
    """A person who forgot a download learns which one it is."""
    prompt = shipped(name)
    loaders = {"CheckpointLoaderSimple": "ckpt_name", "ControlNetLoader": "control_net_name"}
    for node in prompt.values():
        if node["class_type"] in loaders:
            node["inputs"][loaders[node["class_type"]]] = "not there.safetensors"
    with pytest.raises(ComfyError, match="not there.safetensors"):
        server.client.queue(prompt)


@pytest.mark.parametrize("name", workflow_sd.WORKFLOWS)
def test_every_file_that_a_workflow_names_is_in_its_note_and_offered_by_the_editor(name: str) -> None:
    form = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    note = next(n["widgets_values"][0] for n in form["nodes"] if n["type"] == "MarkdownNote")
    named = {v for n in form["nodes"] if n["type"] != "MarkdownNote" for v in n["widgets_values"] if isinstance(v, str)}
    files = {v for v in named if re.search(r"\.(safetensors|pt)$", v)} - {"my-community_00001.safetensors"}
    assert files and all(file in note for file in files)
    offered = {m["name"]: m for n in form["nodes"] for m in n["properties"].get("models", [])}
    assert offered.keys() == files
    for model in offered.values():
        assert model["url"].startswith("https://huggingface.co/") and model["url"] in note
        assert f"`models/{model['directory']}`" in note
    kinds = {n["type"] for n in form["nodes"]}
    assert ("SCoFT_EstimateDepth" in kinds) == ("dpt-hybrid-midas" in note)
    assert ("SCoFT_CaptionGeneric" in kinds) == ("blip" in note)


def test_the_stand_ins_bear_the_names_of_the_notes() -> None:
    kind = workflow_files.ModelFile
    told = {(file.folder, file.name) for file in vars(workflow_files).values() if isinstance(file, kind)}
    assert {standins.FILES[name] for name in ("sd1", "sd1-depth", "sdxl", "sdxl-depth")} <= told


def test_using_a_lora_takes_stock_nodes_only() -> None:
    kinds = {node["class_type"] for node in shipped("use-a-cultural-lora").values()}
    assert kinds <= set(build_workflows.STOCK) and "LoraLoaderModelOnly" in kinds


@pytest.mark.parametrize("name", ["train-cultural-lora-sd15", "train-cultural-lora-sdxl"])
def test_training_has_the_papers_settings(name: str) -> None:
    found: dict[str, dict[str, Any]] = {node["class_type"]: node["inputs"] for node in shipped(name).values()}
    train, lora = found["SCoFT_TrainLora"], found["SCoFT_LoraOptions"]
    assert (train["steps"], train["batch_size"], train["accumulation"], train["seed"]) == (3000, 1, 4, 1024)
    assert (lora["rank"], lora["alpha"], lora["targets"]) == (64, 64.0, "attention")
    optimizer = found["SCoFT_OptimizerOptions"]
    assert (optimizer["learning_rate"], optimizer["schedule"], optimizer["clip"]) == (1e-4, "cosine", 1.0)
    assert optimizer["optimizer"] == "AdamW" and optimizer["weight_decay"] == 0.01
    rollout = found["SCoFT_RolloutOptions"]
    assert (rollout["every"], rollout["steps"], rollout["guidance"]) == (10, 20, 4.5)
    assert (rollout["gradient_step"], rollout["kappa"]) == ("first", "plain")
    prompt = shipped(name)
    losses = {kind: found[f"SCoFT_{kind}Loss"] for kind in ("Diffusion", "Memorization", "Perceptual", "Contrastive")}
    assert [loss["weight"] for loss in losses.values()] == [0.7, 0.3, 0.01, 0.05], (
        "all four, as in the authors' example"
    )
    assert prompt[train["losses"][0]]["class_type"] == "SCoFT_ContrastiveLoss", "the end of the chain"
    looks = [prompt[losses[kind]["features"][0]]["inputs"]["network"] for kind in ("Perceptual", "Contrastive")]
    assert looks == ["VGG16 (as released)", "CLIP RN50 (layer 5)"]
    assert found["SCoFT_MakeNegatives"]["per_image"] == 5 and found["SCoFT_FilterNegatives"]["threshold"] == -1
    assert train["resolution"] == (1024 if name.endswith("xl") else 512)


@pytest.mark.long
@pytest.mark.timeout(2700)
def test_training_on_sd15_in_its_full_shape(comfyui_path: Path, tmp_path: Path) -> None:
    """Every model of workflow 2 in its real size, on a CPU: two steps at 256 px, one of them with the rollout."""
    from diffusers import StableDiffusionPipeline

    from comfy_scoft.models import single_file

    fill(tmp_path, ("sd1", "sd1-depth"), "full", 320)
    prompt = shortened("train-cultural-lora-sd15", resolution=256, images=1)
    for node in prompt.values():
        if node["class_type"] == "PrimitiveStringMultiline":
            node["inputs"]["value"] = "a street in Korea"
        if node["class_type"] == "SCoFT_MakeNegatives":
            node["inputs"]["per_image"] = 1
        if node["class_type"] == "SCoFT_TrainLora":
            node["inputs"] |= {"accumulation": 1, "preview_every": 0}
    with ComfyServer(sys.executable, comfyui_path, tmp_path) as full:
        found = full.client.run(prompt, timeout=2400)
        log = full.log.read_text(encoding="utf-8", errors="replace")
    assert found["outputs"] and "lora key not loaded" not in log and "clip missing" not in log
    lora = newest(tmp_path / "output" / "loras", "my-community_*.safetensors")
    weights = single_file._read(
        tmp_path / "models" / "checkpoints" / workflow_files.SD15.name, "model.diffusion_model.", torch.float32
    )
    diffusers_takes(lora, single_file._unet("sd1", weights), StableDiffusionPipeline, 16 * 8)
    shutil.rmtree(tmp_path / "models")
