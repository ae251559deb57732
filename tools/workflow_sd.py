"""The workflows for models of one's own: training on Stable Diffusion 1.5 and XL, negatives, and using a LoRA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import workflow_files as files
import workflow_notes_sd as notes
import workflow_parts as parts
from workflow_form import Node, Socket, Workflow

from comfy_scoft.negatives.depth import FOR_PHOTOS

PICTURES = {"folder": "my community", "culture": "Korean", "place": "Korea"}
NEGATIVES = {"per_image": 5, "steps": 20, "cfg": 7.5, "strength": 1.0, "seed": 1}
LOSSES = {
    "Diffusion": {"weight": 0.7},
    "Memorization": {"weight": 0.3},
    "Perceptual": {"weight": 0.01},
    "Contrastive": {"weight": 0.05},
}
"""The paper's four losses with the weights of the authors' example."""
ROLLOUT = {"every": 10, "steps": 20, "guidance": 4.5, "gradient_step": "first"}
LORA = {"rank": 64, "alpha": 64.0, "targets": "attention"}
OPTIMIZER = {"learning_rate": 1e-4, "schedule": "cosine", "clip": 1.0}
TRAIN = {"steps": 3000, "batch_size": 1, "accumulation": 4, "seed": 1024, "precision": "bf16", "checkpoint_every": 250}
FEATURES = {"network": "CLIP RN50 (layer 5)", "checkpoint": files.CLIP_RN50.name}
PERCEPTUAL = {"network": "VGG16 (as released)", "checkpoint": files.VGG16.name}
PROMPTS = "a street in Korea\na family at dinner in Korea\na wedding in Korea\na street"
RUN = "my-community"
DEPTH = {"estimator": FOR_PHOTOS}
SAVED = {"name": "my community with negatives", "overwrite": True}
CONTROL = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
SAMPLER = {"steps": 30, "cfg": 7.5, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 1.0}


@dataclass(frozen=True)
class Family:
    """A base model and what goes with it. train: what differs from the settings of Stable Diffusion 1.5."""

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


def train_cultural_lora(w: Workflow, family: Family, run: str) -> None:
    """The paper's four losses and filtered negatives, at its settings or, where it states none, the released code's
    (docs/settings.md). run: also the LoRA's name."""
    base, dataset = base_and_images(w, family, family.note)
    features, dataset = negatives(w, base, family, dataset)
    w.group("What training looks at", parts.VIOLET, notes.LOSSES, 320)
    chain: dict[str, Socket] = {}
    looks = {"Perceptual": parts.load_features(w, "Eye for likeness", **PERCEPTUAL), "Contrastive": features}
    w.column(320)
    titles = ("Learn the pictures", "… but do not copy them", "Look like them", "Near them, far from the stereotype")
    for (name, given), title in zip(LOSSES.items(), titles, strict=True):
        more = {"features": looks[name]} if name in looks else {}
        chain = {"losses": w.add(f"SCoFT_{name}Loss", title, **given, **more, **chain)["losses"]}
    w.group("Train and save", parts.GREEN, family.train_note)
    options = parts.train_options(w, LORA, OPTIMIZER, ROLLOUT)
    w.column(380)
    settings = {**TRAIN, **family.train, "resolution": family.resolution, "run_name": run}
    settings |= {"preview_every": 250, "preview_prompt": PROMPTS.splitlines()[0]}
    given = {**parts.models(base), "dataset": dataset, **chain, **options, **settings}
    trained = w.add("SCoFT_TrainLora", "Train the LoRA", **given)
    w.column(340)
    w.add("SCoFT_SaveLora", "Save it with its card", lora=trained["lora"], filename_prefix=run)
    compare(w, base, trained["model"], family)


def base_and_images(w: Workflow, family: Family, note: str) -> tuple[Node, Socket]:
    w.group("Your model and your pictures", parts.BLUE, note, 420)
    base = parts.load_checkpoint(w, family.checkpoint.name)
    w.column(420)
    return base, parts.load_dataset(w, **PICTURES)


def negatives(w: Workflow, base: Node, family: Family, dataset: Socket) -> tuple[Socket, Socket]:
    """Two groups, captions with depth and negatives: (feature network, dataset with filtered negatives)."""
    w.group("Plain captions, near and far", parts.ORANGE, notes.SEE, 360)
    dataset = w.add("SCoFT_CaptionGeneric", "Plain captions", dataset=dataset, captions_per_image=5)["dataset"]
    dataset = w.add("SCoFT_EstimateDepth", "Near and far", dataset=dataset, **DEPTH)["dataset"]
    w.group("What the base model imagines (negatives)", parts.RED, notes.NEGATIVES, 360)
    control = parts.load_control_net(w, family.control.name)
    given = {**parts.models(base), "control_net": control, "dataset": dataset, **NEGATIVES}
    dataset = w.add("SCoFT_MakeNegatives", "Draw the stereotype", **given)["dataset"]
    w.column(360)
    features = parts.load_features(w, **FEATURES)
    given = {"dataset": dataset, "features": features, "threshold": -1.0}
    dataset = w.add("SCoFT_FilterNegatives", "Leave out what came out right", **given)["dataset"]
    w.column(460)
    w.add("SCoFT_PreviewDataset", "Pictures, depth and negatives", dataset=dataset)
    return features, dataset


def compare(w: Workflow, base: Node, trained: Socket, family: Family) -> None:
    w.group("Before and after", parts.TEAL, notes.COMPARE, 340)
    given: dict[str, Any] = {"width": family.resolution, "height": family.resolution, "steps": 30, "cfg": family.cfg}
    given |= {"batch_size": 4, "images_per_prompt": 2, "seed": 1}
    column = {"before": ("Before training", base["MODEL"]), "after": ("After training", trained)}
    before, after = parts.generate_sets(w, base, ("What both models draw", PROMPTS), column, **given)
    w.column()
    grid = w.add("SCoFT_CompareGrid", "Side by side", set_1=before, set_2=after)["image"]
    w.column(460)
    w.add("SaveImage", "Before and after", images=grid, filename_prefix="scoft/before-after")


def make_negatives(w: Workflow) -> None:
    """Captions, depth, negatives and the filter, saved as a dataset."""
    base, dataset = base_and_images(w, SD15, notes.NEGATIVES_ONLY)
    _, dataset = negatives(w, base, SD15, dataset)
    w.group("Save", parts.GREEN, notes.KEEP, 340)
    w.add("SCoFT_SaveDataset", "Keep them", dataset=dataset, **SAVED)


def use_a_cultural_lora(w: Workflow) -> None:
    """Stock nodes only: an image without and with the LoRA."""
    w.group("Your model and the LoRA", parts.BLUE, notes.ONE_LORA, 420)
    base = parts.load_checkpoint(w, files.SD15.name)
    w.column(420)
    lora = parts.load_lora(w, base, "The community's LoRA", f"{RUN}_00001.safetensors")
    w.group("What to draw", parts.ORANGE, notes.PROMPT, 380)
    given = {"positive": encode(w, base, "The prompt", "photo of a market street in Korea")}
    given["negative"] = encode(w, base, "What to avoid", "")
    given["latent_image"] = w.add("EmptyLatentImage", "Its size", width=512, height=512, batch_size=4)["LATENT"]
    w.group("Without it and with it", parts.GREEN, notes.USE, 320)
    latents = {
        title: w.add("KSampler", title, model=model, seed=1, **given, **SAMPLER)["LATENT"]
        for title, model in {"Without the LoRA": base["MODEL"], "With the LoRA": lora}.items()
    }
    w.column(220)
    images = {title: decode(w, base, latent) for title, latent in latents.items()}
    w.column(460)
    for title, image in images.items():
        w.add("SaveImage", title, images=image, filename_prefix=f"scoft/{title.split()[0].lower()}")


def build_negatives_from_stock_nodes(w: Workflow) -> None:
    """Make Negatives, built by hand from ComfyUI's own sampler."""
    base, dataset = base_and_images(w, SD15, notes.STOCK)
    w.group("Stock nodes, once for each picture", parts.ORANGE, notes.LISTS, 320)
    deep = w.add("SCoFT_EstimateDepth", "Near and far", dataset=dataset, **DEPTH)["dataset"]
    lists = w.add("SCoFT_DatasetToLists", "One entry for each picture", dataset=deep)
    w.column(340)
    given = {"positive": encode(w, base, "The scene in the place", lists["negative_prompts"])}
    given["negative"] = encode(w, base, "Nothing to avoid", "")
    square = {"upscale_method": "lanczos", "width": 512, "height": 512, "crop": "center"}
    given["image"] = w.add("ImageScale", "Cut to a square", image=lists["depth"], **square)["IMAGE"]
    given["control_net"] = parts.load_control_net(w, files.SD15_DEPTH.name)
    w.column(320)
    held = w.add("ControlNetApplyAdvanced", "Hold the scene by its depth", **given, **CONTROL)
    size = w.add("EmptyLatentImage", "Five negatives each", width=512, height=512, batch_size=5)["LATENT"]
    w.column(320)
    given = {"positive": held["positive"], "negative": held["negative"], "latent_image": size, "seed": 1}
    latent = w.add("KSampler", "Draw the stereotype", model=base["MODEL"], **given, **SAMPLER)["LATENT"]
    images = decode(w, base, latent)
    w.group("Back into the set", parts.GREEN, notes.KEEP, 320)
    made = w.add("SCoFT_AttachNegatives", "Give them to their pictures", dataset=dataset, images=images)["dataset"]
    w.column(460)
    w.add("SCoFT_PreviewDataset", "Pictures and negatives", dataset=made)
    w.add("SCoFT_SaveDataset", "Keep them", dataset=made, **SAVED)


def encode(w: Workflow, base: Node, title: str, text: str | Socket) -> Socket:
    return w.add("CLIPTextEncode", title, clip=base["CLIP"], text=text)["CONDITIONING"]


def decode(w: Workflow, base: Node, latent: Socket) -> Socket:
    return w.add("VAEDecode", "", samples=latent, vae=base["VAE"])["IMAGE"]


WORKFLOWS: dict[str, Callable[[Workflow], None]] = {
    "train-cultural-lora-sd15": partial(train_cultural_lora, family=SD15, run=RUN),
    "make-negatives": make_negatives,
    "use-a-cultural-lora": use_a_cultural_lora,
    "build-negatives-from-stock-nodes": build_negatives_from_stock_nodes,
    "train-cultural-lora-sdxl": partial(train_cultural_lora, family=SDXL, run=f"{RUN}-xl"),
}
