"""Depth maps: the structure that a negative shares with its image.

To add an estimator: write a loader `() -> DepthEstimator`, or a FolderLoader for one whose weights a person keeps in a
folder, and put it in DEPTH.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..common.errors import UserError
from ..common.files import file_hash
from ..common.progress import Observer
from ..common.text import printable
from ..data.images import open_image, read_pixels, save_by_content, write_png
from ..data.records import Dataset
from ..models.hub import FolderLoader
from ..models.mini import depth_net
from ..models.weight_files import unpickled


@dataclass(frozen=True)
class DepthEstimator:
    """A frozen network that tells near from far.

    name: what a person chose. identity: changes whenever its answers do (a hash of its weights).
    estimate: images (B, 3, H, W) in [-1, 1] -> depth (B, 1, H, W) in [0, 1], near is bright.
    """

    name: str
    identity: str
    estimate: Callable[[Tensor], Tensor]


def load_relief() -> DepthEstimator:
    """The mini world's estimator: the relief of a figure before its background, seen at 64 px.

    Raises UserError when its weights are missing from the pack.
    """
    net, side = depth_net.load(), (depth_net.SIZE, depth_net.SIZE)

    def estimate(images: Tensor) -> Tensor:
        small = images.float()
        if images.shape[-2:] != side:
            small = F.interpolate(small, side, mode="bicubic", antialias=True).clamp(-1, 1)
        with torch.no_grad():
            depth = net(small)
        if images.shape[-2:] != side:
            depth = F.interpolate(depth, images.shape[-2:], mode="bilinear")
        return depth

    return DepthEstimator("relief (mini)", file_hash(depth_net.WEIGHTS / depth_net.FILE), estimate)


MIDAS_SIDE, MIDAS_MULTIPLE, MIDAS_LONGEST = 512, 64, 1536
"""controlnet-aux looks at an image whose shorter side is about 512 px, its sides multiples of 64; the last is a limit
for strips that would not fit into memory."""


def load_midas(folder: Path, device: torch.device) -> DepthEstimator:
    """MiDaS DPT-hybrid by controlnet-aux, as the depth ControlNet of Stable Diffusion 1.x was trained with it."""
    with _timm_as_it_was():
        from controlnet_aux.midas.midas.dpt_depth import DPTDepthModel  # takes seconds
    net = DPTDepthModel(backbone="vitb_rn50_384", non_negative=True)
    net.load_state_dict(unpickled(folder / MIDAS.weights))  # the package itself would run what a pickle asks for
    net = net.float().eval().requires_grad_(False).to(device)

    def estimate(images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        scale = min(MIDAS_SIDE / min(height, width), MIDAS_LONGEST / max(height, width))
        size = tuple(max(1, round(side * scale / MIDAS_MULTIPLE)) * MIDAS_MULTIPLE for side in (height, width))
        seen = images.float()
        if size != (height, width):
            seen = F.interpolate(seen, size, mode="bicubic", antialias=True).clamp(-1, 1)
        with torch.no_grad():
            return _near_is_bright(net(seen.to(device)), height, width)

    return DepthEstimator("MiDaS (controlnet-aux)", file_hash(folder / MIDAS.weights), estimate)


def load_transformers(folder: Path, device: torch.device) -> DepthEstimator:
    """Any depth network of transformers, from a folder: its own image processor prepares the images."""
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.inference_mode(False):
        net = AutoModelForDepthEstimation.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    net = net.float().eval().requires_grad_(False).to(device)
    metric = getattr(net.config, "depth_estimation_type", "relative") == "metric"

    def estimate(images: Tensor) -> Tensor:
        seen_as = images.float().add(1.0).mul(127.5).round().clamp(0, 255).to("cpu", torch.uint8)
        as_pil = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in seen_as]
        seen = processor(images=as_pil, return_tensors="pt")["pixel_values"].to(device)
        with torch.no_grad():
            found = net(pixel_values=seen).predicted_depth
        if metric:  # metres: far is large; all others answer with closeness
            found = found.clamp_min(1e-3).reciprocal()
        return _near_is_bright(found, *images.shape[-2:])

    name = str(net.config.model_type)
    return DepthEstimator(name, file_hash(folder / TRANSFORMERS_WEIGHTS), estimate)


def _near_is_bright(closeness: Tensor, height: int, width: int) -> Tensor:
    """Answers (B, h, w), near is large -> (B, 1, height, width) in [0, 1]: each from its least to its greatest.

    So were the maps made that the depth ControlNets saw in training. A flat answer gives an all-dark map.
    """
    depth = closeness.float().cpu().unsqueeze(1)
    if depth.shape[-2:] != (height, width):
        depth = F.interpolate(depth, (height, width), mode="bilinear", antialias=True)
    least, most = depth.amin((2, 3), keepdim=True), depth.amax((2, 3), keepdim=True)
    return (depth - least) / (most - least).clamp_min(1e-8)


@contextmanager
def _timm_as_it_was() -> Iterator[None]:
    """timm's lists of models come out as they went in: importing controlnet-aux replaces entries of them, and warns."""
    from timm.models import _registry as registry

    tables = [v for v in vars(registry).values() if isinstance(v, dict | set)]
    before = [copy.deepcopy(table) if isinstance(table, dict) else set(table) for table in tables]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for table, kept in zip(tables, before, strict=True):
            table.clear()
            table.update(kept)


TRANSFORMERS_WEIGHTS = "model.safetensors"
MIDAS: FolderLoader[DepthEstimator] = FolderLoader(
    "MiDaS (controlnet-aux)", load_midas, "dpt_hybrid-midas-501f0c75.pt", "", ("lllyasviel/Annotators",)
)
DEPTH: dict[str, Callable[..., DepthEstimator]] = {
    "relief (mini)": load_relief,
    MIDAS.name: MIDAS,
    "DPT-hybrid (transformers)": FolderLoader(
        "DPT-hybrid (transformers)", load_transformers, TRANSFORMERS_WEIGHTS, "dpt", ("Intel/dpt-hybrid-midas",)
    ),
    "Depth Anything V2 (transformers)": FolderLoader(
        "Depth Anything V2 (transformers)",
        load_transformers,
        TRANSFORMERS_WEIGHTS,
        "depth_anything",
        ("depth-anything/Depth-Anything-V2-Small-hf", "depth-anything/Depth-Anything-V2-Base-hf"),
    ),
}


def load_depth(name: str, folder: Path | None = None, device: torch.device | None = None) -> DepthEstimator:
    """The estimator of that name, from the folder of its weights where it needs one.

    Raises UserError, one sentence, for another name, and where the folder is missing or holds something else.
    """
    if name not in DEPTH:
        raise UserError(f"There is no depth estimator named {printable(name)!r}; choose one of {', '.join(DEPTH)}.")
    loader = DEPTH[name]
    return loader(folder, device or torch.device("cpu")) if isinstance(loader, FolderLoader) else loader()


def attach_depth(dataset: Dataset, estimator: DepthEstimator, folder: Path, observe: Observer | None = None) -> Dataset:
    """The dataset with a depth map at every record, in place of any that was there.

    Maps are 8-bit gray PNGs of the image's own size in `folder`, named by the content of the image and the
    estimator: one that is there is not made again. Raises UserError for an empty dataset or an unreadable image.
    """
    if not dataset.records:
        raise UserError("The dataset has no records: load or make some before estimating their depth.")
    records = []
    for record in dataset.records:
        name = hashlib.sha256(f"{estimator.identity}:{file_hash(record.image)}".encode()).hexdigest()[:32]
        path = folder / f"{name}.png"
        if not path.is_file():
            depth = estimator.estimate(read_pixels(record.image).unsqueeze(0))
            write_png(depth[0, 0], path)
        records.append(dataclasses.replace(record, depth=path))
        if observe is not None:
            observe(len(records), len(dataset), path)
    return dataset.replace(records)


def attach_depth_images(dataset: Dataset, images: Sequence[Tensor], folder: Path) -> Dataset:
    """The dataset with `images`, each (H, W, C) in [0, 1], near is bright, as its depth maps, in the records' order.

    Colors are averaged. Any size will do whose shape is the image's, within 5 %. They are written as PNGs named by
    their content. Raises UserError when there is not one for each record, or an image does not fit.
    """
    if len(images) != len(dataset):
        raise UserError(
            f"There are {len(images)} depth images for {len(dataset)} records: connect one for each, in their order."
        )
    records = []
    for n, (record, image) in enumerate(zip(dataset.records, images, strict=True)):
        if image.ndim != 3 or 0 in image.shape or not torch.isfinite(image).all():
            raise UserError(f"Depth image {n + 1} is not an image of numbers: check the node that made it.")
        width, height = open_image(record.image).size
        if not 0.95 < (image.shape[1] / image.shape[0]) / (width / height) < 1.05:
            raise UserError(
                f"Depth image {n + 1} has {image.shape[1]} × {image.shape[0]} pixels, another shape than its image "
                f"{record.image.name} ({width} × {height}): do not crop or pad it."
            )
        path = save_by_content(image[..., :3].mean(-1), folder)
        records.append(dataclasses.replace(record, depth=path))
    return dataset.replace(records)
