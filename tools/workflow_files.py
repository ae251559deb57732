"""The model files that the workflows for models of one's own name: their addresses and folders.

The editor offers to download those it can fetch; the notes in the graphs list all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

HUB = "https://huggingface.co"


@dataclass(frozen=True)
class ModelFile:
    """folder: below ComfyUI's `models`. name: the file's name there. page: its repository on the hub.

    gigabytes: its approximate size. source: its name in the repository, if that differs.
    """

    folder: str
    name: str
    page: str
    gigabytes: float
    source: str = ""

    @property
    def link(self) -> str:
        return f"{HUB}/{self.page}/resolve/main/{self.source or self.name}"

    def row(self) -> str:
        """A line of a note's table."""
        link = f"[{self.source or self.name}]({self.link})" + (f", saved as {self.name}" if self.source else "")
        return f"| {link} | `models/{self.folder}` | {self.gigabytes:g} GB |"

    def offer(self) -> dict[str, str]:
        """The entry in a node's properties from which the editor lists missing models."""
        return {"name": self.name, "url": self.link, "directory": self.folder}


SD15 = ModelFile("checkpoints", "v1-5-pruned-emaonly-fp16.safetensors", "Comfy-Org/stable-diffusion-v1-5-archive", 2.1)
SD15_DEPTH = ModelFile(
    "controlnet", "control_v11f1p_sd15_depth_fp16.safetensors", "comfyanonymous/ControlNet-v1-1_fp16_safetensors", 0.7
)
SDXL = ModelFile("checkpoints", "sd_xl_base_1.0.safetensors", "stabilityai/stable-diffusion-xl-base-1.0", 6.9)
SDXL_DEPTH = ModelFile(
    "controlnet",
    "controlnet-depth-sdxl-1.0.safetensors",
    "diffusers/controlnet-depth-sdxl-1.0",
    2.5,
    "diffusion_pytorch_model.fp16.safetensors",
)
CLIP_RN50 = ModelFile(
    "clip_vision", "clip-rn50-openai.safetensors", "timm/resnet50_clip.openai", 0.4, "open_clip_model.safetensors"
)
VGG16 = ModelFile("clip_vision", "vgg16-imagenet.safetensors", "timm/vgg16.tv_in1k", 0.6, "model.safetensors")
DPT = f"""| all small files and `model.safetensors` of [DPT-hybrid]({HUB}/Intel/dpt-hybrid-midas/tree/main) \
| `models/depth_estimators/dpt` | 0.5 GB |"""
BLIP = f"""| all small files and `model.safetensors` of [BLIP]({HUB}/Salesforce/blip-image-captioning-base/tree/main) \
| `models/captioners/blip` | 1 GB |"""

OFFERED = {file.name: file.offer() for file in (SD15, SD15_DEPTH, SDXL, SDXL_DEPTH, CLIP_RN50, VGG16)}
"""By the name in a loader's menu."""


def table(*files: ModelFile | str) -> str:
    """The files as a Markdown table."""
    rows = [file if isinstance(file, str) else file.row() for file in files]
    return "\n".join(["| file | put it into | size |", "|---|---|---|", *rows])
