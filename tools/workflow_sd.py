"""The workflows for a person's own models: training on Stable Diffusion 1.5 and XL, negatives, and using a LoRA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import workflow_files as files
import workflow_notes_sd as notes
from workflow_form import Node, Socket, Workflow

BLUE, RED, VIOLET, GREEN, ORANGE, TEAL = "#3f789e", "#8a3b3b", "#6b4a8e", "#4a7a4a", "#a1663a", "#2f7d7d"

PICTURES = {"folder": "my community", "culture": "Korean", "place": "Korea"}
NEGATIVES = {"per_image": 5, "steps": 20, "cfg": 7.5, "strength": 1.0, "seed": 1}
LOSSES = {"Diffusion": {"weight": 0.7}, "Memorization": {"weight": 0.3}, "Contrastive": {"weight": 0.05}}
ROLLOUT = {"every": 10, "steps": 20, "guidance": 4.5, "gradient_step": "first"}
LORA = {"rank": 64, "alpha": 64.0, "targets": "attention"}
OPTIMIZER = {"learning_rate": 1e-4, "schedule": "cosine", "clip": 1.0}
TRAIN = {"steps": 3000, "batch_size": 1, "accumulation": 4, "seed": 1024, "precision": "bf16", "checkpoint_every": 250}
EYE = {"network": "CLIP RN50 (layer 5)", "checkpoint": files.CLIP_RN50.name}
THRESHOLD = 0.1
PROMPTS = "a street in Korea\na family at dinner in Korea\na wedding in Korea\na street"
CARD = {"filename_prefix": "my-community"}
WORDS = "photo of a market street in Korea"
SAMPLER = {"steps": 30, "cfg": 7.5, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 1.0}


@dataclass(frozen=True)
class Family:
    """A base model and what goes with it. train: what differs from the paper's settings."""

    checkpoint: files.ModelFile
    control: files.ModelFile
    resolution: int
    note: str
    train_note: str
    cfg: float
    train: dict[str, Any]


SD15 = Family(files.SD15, files.SD15_DEPTH, 512, notes.SD15, notes.TRAIN_SD15, 7.5, {})
SDXL = Family(
    files.SDXL, files.SDXL_DEPTH, 1024, notes.SDXL, notes.TRAIN_SDXL, 6.0, {"checkpointing": "UNet and decoder"}
)


def train_cultural_lora_sd15(w: Workflow) -> None:
    """The paper's settings on Stable Diffusion 1.5."""
    train_cultural_lora(w, SD15, "my-community")


def train_cultural_lora_sdxl(w: Workflow) -> None:
    """The same on Stable Diffusion XL."""
    train_cultural_lora(w, SDXL, "my-community-xl")


def train_cultural_lora(w: Workflow, family: Family, run: str) -> None:
    base, dataset = base_and_images(w, family)
    dataset = describe(w, dataset)
    features, dataset = negatives(w, base, family, dataset)
    w.group("4 · What training looks at", VIOLET, notes.LOSSES)
    w.column(320)
    chain: dict[str, Socket] = {}
    titles = ("Learn the pictures", "… but do not copy them", "Near them, far from the stereotype")
    for (name, given), title in zip(LOSSES.items(), titles, strict=True):
        more = {"features": features} if name == "Contrastive" else {}
        chain = {"losses": w.add(f"SCoFT_{name}Loss", title, **given, **more, **chain)["losses"]}
    w.group("5 · Train and save", GREEN, family.train_note)
    w.column()
    options = {
        "lora": w.add("SCoFT_LoraOptions", "Size of the LoRA", **LORA)["options"],
        "optimizer": w.add("SCoFT_OptimizerOptions", "How fast it learns", **OPTIMIZER)["options"],
        "rollout": w.add("SCoFT_RolloutOptions", "Pictures drawn while training", **ROLLOUT)["options"],
    }
    w.column(380)
    settings = {**TRAIN, **family.train, "resolution": family.resolution, "run_name": run}
    settings |= {"preview_every": 250, "preview_prompt": PROMPTS.splitlines()[0]}
    parts = {key: base[key.upper()] for key in ("model", "clip", "vae")}
    trained = w.add("SCoFT_TrainLora", "Train the LoRA", **parts, dataset=dataset, **chain, **options, **settings)
    w.column(340)
    w.add("SCoFT_SaveLora", "Save it with its card", lora=trained["lora"], **(CARD | {"filename_prefix": run}))
    compare(w, base, trained, family)


def base_and_images(w: Workflow, family: Family, note: str = "") -> tuple[Node, Socket]:
    w.group("1 · Your model and your pictures", BLUE, note or family.note)
    w.column(420)
    base = w.add("CheckpointLoaderSimple", "The base model", ckpt_name=family.checkpoint.name)
    w.column(420)
    return base, w.add("SCoFT_LoadDataset", "The community's pictures", split="train", **PICTURES)["dataset"]


def describe(w: Workflow, dataset: Socket) -> Socket:
    w.group("2 · Plain captions, near and far", ORANGE, notes.SEE)
    w.column(360)
    plain = w.add("SCoFT_CaptionGeneric", "Plain captions", dataset=dataset, captions_per_image=5)["dataset"]
    return w.add("SCoFT_EstimateDepth", "Near and far", dataset=plain, estimator="MiDaS (controlnet-aux)")["dataset"]


def negatives(w: Workflow, base: Node, family: Family, dataset: Socket) -> tuple[Socket, Socket]:
    """(feature network, dataset with filtered negatives)."""
    w.group("3 · What the base model imagines (negatives)", RED, notes.NEGATIVES)
    w.column(360)
    control = w.add("ControlNetLoader", "Holds the scene", control_net_name=family.control.name)["CONTROL_NET"]
    parts = {"model": base["MODEL"], "clip": base["CLIP"], "vae": base["VAE"], "control_net": control}
    made = w.add("SCoFT_MakeNegatives", "Draw the stereotype", **parts, dataset=dataset, **NEGATIVES)["dataset"]
    w.column(360)
    features = w.add("SCoFT_LoadFeatures", "Eye that compares pictures", **EYE)["features"]
    given = {"features": features, "threshold": THRESHOLD}
    kept = w.add("SCoFT_FilterNegatives", "Leave out what came out right", dataset=made, **given)["dataset"]
    w.column(460)
    w.add("SCoFT_PreviewDataset", "Pictures, depth and negatives", dataset=kept)
    return features, kept


def compare(w: Workflow, base: Node, trained: Node, family: Family) -> None:
    w.group("6 · Before and after", TEAL, notes.COMPARE)
    w.column(340)
    asked = w.add("PrimitiveStringMultiline", "What both models draw", value=PROMPTS)["STRING"]
    w.column(320)
    side = family.resolution
    given = {"clip": base["CLIP"], "vae": base["VAE"], "prompts": asked, "seed": 1, "images_per_prompt": 2}
    given |= {"width": side, "height": side, "steps": 30, "cfg": family.cfg, "batch_size": 4}
    before = w.add("SCoFT_GenerateSet", "Before training", model=base["MODEL"], label="before", **given)["images"]
    after = w.add("SCoFT_GenerateSet", "After training", model=trained["model"], label="after", **given)["images"]
    w.column()
    grid = w.add("SCoFT_CompareGrid", "Side by side", set_1=before, set_2=after)["image"]
    w.column(460)
    w.add("SaveImage", "Before and after", images=grid, filename_prefix="scoft/before-after")


def make_negatives(w: Workflow) -> None:
    """Captions, depth, negatives and the filter, saved as a dataset."""
    base, dataset = base_and_images(w, SD15)
    dataset = describe(w, dataset)
    _, dataset = negatives(w, base, SD15, dataset)
    w.group("4 · Save", GREEN, notes.KEEP)
    w.column(340)
    w.add("SCoFT_SaveDataset", "Keep them", dataset=dataset, name="my community with negatives", overwrite=True)


def use_a_cultural_lora(w: Workflow) -> None:
    """Stock nodes only: a picture without and with the LoRA."""
    w.group("1 · Your model and the LoRA", BLUE, notes.ONE_LORA)
    w.column(420)
    base = w.add("CheckpointLoaderSimple", "The base model", ckpt_name=files.SD15.name)
    w.column(420)
    name = f"{CARD['filename_prefix']}_00001.safetensors"
    lora = w.add("LoraLoaderModelOnly", "The community's LoRA", model=base["MODEL"], lora_name=name, strength_model=1.0)
    w.group("2 · What to draw", ORANGE, notes.PROMPT)
    w.column(380)
    wanted = w.add("CLIPTextEncode", "The prompt", clip=base["CLIP"], text=WORDS)["CONDITIONING"]
    unwanted = w.add("CLIPTextEncode", "What to avoid", clip=base["CLIP"], text="")["CONDITIONING"]
    empty = w.add("EmptyLatentImage", "Its size", width=512, height=512, batch_size=4)["LATENT"]
    w.group("3 · Without it and with it", GREEN, notes.USE)
    w.column(320)
    given = {"positive": wanted, "negative": unwanted, "latent_image": empty, "seed": 1, **SAMPLER}
    drawn = {
        "Without the LoRA": w.add("KSampler", "Without the LoRA", model=base["MODEL"], **given)["LATENT"],
        "With the LoRA": w.add("KSampler", "With the LoRA", model=lora["MODEL"], **given)["LATENT"],
    }
    w.column(220)
    pictures = {
        title: w.add("VAEDecode", "", samples=latent, vae=base["VAE"])["IMAGE"] for title, latent in drawn.items()
    }
    w.column(460)
    for title, images in pictures.items():
        w.add("SaveImage", title, images=images, filename_prefix=f"scoft/{title.split()[0].lower()}")


def build_negatives_from_stock_nodes(w: Workflow) -> None:
    """Make Negatives, built by hand from ComfyUI's own sampler."""
    base, dataset = base_and_images(w, SD15, notes.STOCK)
    w.group("2 · Stock nodes, once for each picture", ORANGE, notes.LISTS)
    w.column(320)
    deep = w.add("SCoFT_EstimateDepth", "Near and far", dataset=dataset, estimator="MiDaS (controlnet-aux)")["dataset"]
    lists = w.add("SCoFT_DatasetToLists", "One entry for each picture", dataset=deep)
    w.column(340)
    wanted = w.add("CLIPTextEncode", "The scene in the place", clip=base["CLIP"], text=lists["negative_prompts"])
    empty = w.add("CLIPTextEncode", "Nothing to avoid", clip=base["CLIP"], text="")
    square = {"upscale_method": "lanczos", "width": 512, "height": 512, "crop": "center"}
    hint = w.add("ImageScale", "Cut to a square", image=lists["depth"], **square)["IMAGE"]
    control = w.add("ControlNetLoader", "Holds the scene", control_net_name=files.SD15_DEPTH.name)["CONTROL_NET"]
    w.column(320)
    held = w.add(
        "ControlNetApplyAdvanced",
        "Hold the scene by its depth",
        positive=wanted["CONDITIONING"],
        negative=empty["CONDITIONING"],
        control_net=control,
        image=hint,
        strength=1.0,
        start_percent=0.0,
        end_percent=1.0,
    )
    size = w.add("EmptyLatentImage", "Five negatives each", width=512, height=512, batch_size=5)["LATENT"]
    w.column(320)
    given = {"positive": held["positive"], "negative": held["negative"], "latent_image": size, "seed": 1}
    latent = w.add("KSampler", "Draw the stereotype", model=base["MODEL"], **given, **SAMPLER)["LATENT"]
    images = w.add("VAEDecode", "", samples=latent, vae=base["VAE"])["IMAGE"]
    w.group("3 · Back into the set", GREEN, notes.KEEP)
    w.column(320)
    made = w.add("SCoFT_AttachNegatives", "Give them to their pictures", dataset=dataset, images=images)["dataset"]
    w.column(460)
    w.add("SCoFT_PreviewDataset", "Pictures and negatives", dataset=made)
    w.add("SCoFT_SaveDataset", "Keep them", dataset=made, name="my community with negatives", overwrite=True)


WORKFLOWS: dict[str, Callable[[Workflow], None]] = {
    "train-cultural-lora-sd15": train_cultural_lora_sd15,
    "make-negatives": make_negatives,
    "use-a-cultural-lora": use_a_cultural_lora,
    "build-negatives-from-stock-nodes": build_negatives_from_stock_nodes,
    "train-cultural-lora-sdxl": train_cultural_lora_sdxl,
}
