"""Negatives x⁻: pictures with the structure of a community's picture and the base model's own idea of the place.

x⁻ = SD + ControlNet-depth( depth(x), prompt = generic caption + " in <place>" ). What draws them is a function, so that
ComfyUI's own sampler serves inside it and another one outside; here is all that decides *what* is drawn, from which
noise, and under which name it is kept.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

import torch
from torch import Tensor
from torch.nn import functional as F

from .dataset import aligned, open_image
from .depth import Observer, file_hash, read_pixels, write_png
from .features import FeatureNetwork
from .records import CultureRecord, Dataset

TEMPLATE = "{generic} in {place}"
FIELDS = ("generic", "place", "caption", "culture", "category")


@dataclass(frozen=True)
class NegativeSettings:
    """How negatives are drawn. Raises ValueError, one sentence, for what cannot be.

    per_image: how many of each picture (the paper: 5). steps, cfg, sampler, scheduler: the sampler's.
    strength: the ControlNet's, 0 lets it out. seed: any; each negative has its own noise derived from it.
    prompt_template: see `build_prompt`.
    resolution: side in pixels of a square with as many pixels as a negative gets; its shape is the picture's.
    """

    per_image: int = 5
    steps: int = 20
    cfg: float = 7.5
    strength: float = 1.0
    seed: int = 0
    prompt_template: str = TEMPLATE
    sampler: str = "euler"
    scheduler: str = "normal"
    resolution: int = 512

    def __post_init__(self) -> None:
        for name, least in (("per_image", 1), ("steps", 1), ("resolution", 16), ("cfg", 0), ("strength", 0)):
            value = getattr(self, name)
            if not value >= least:
                raise ValueError(f"{name} is {value}, but negatives need at least {least}: raise it.")
        build_prompt(self.prompt_template, generic="a picture", place="a place")


def build_prompt(
    template: str, generic: str, place: str = "", caption: str = "", culture: str = "", category: str = ""
) -> str:
    """The template with its fields filled in: `{generic} in {place}` -> "a house in nuvia".

    Where a field is empty it vanishes together with the one word before it, so that without a place the same template
    gives "a house"; a place that the words before it name already is not said twice.
    Raises ValueError for another field, a lone brace, and a template that names neither {generic} nor {caption}.
    """
    values = {"generic": generic, "place": place, "caption": caption, "culture": culture, "category": category}
    known = ", ".join(f"{{{name}}}" for name in FIELDS)
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"The prompt template {template!r} has a lone brace: write fields as {known}.") from error
    names = [field for _, field, _, _ in parts if field is not None]
    if odd := [name for name in names if name not in FIELDS]:
        raise ValueError(f"The prompt template names {{{odd[0]}}}, but the fields are {known}: use these.")
    if not {"generic", "caption"} & set(names):
        raise ValueError(
            "The prompt template must name {generic} or {caption}: write for example {generic} in {place}."
        )
    text = ""
    for literal, field, _, _ in parts:
        value = " ".join(values[field].split()) if field else ""
        if field == "place" and value and re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text, re.IGNORECASE):
            value = ""
        if field and not value:
            literal = re.sub(r"\s*\S*\s*\Z", "", literal)
        text += literal + value
    return " ".join(text.split()).strip(" ,;:")


def record_prompts(record: CultureRecord, template: str, count: int) -> tuple[str, ...]:
    """`count` prompts: the generic captions in turn, or the caption itself where there are none."""
    words = record.generic_captions or (record.caption,)
    facts = {name: getattr(record, name) for name in ("place", "caption", "culture", "category")}
    return tuple(build_prompt(template, generic=words[k % len(words)], **facts) for k in range(count))


def record_hash(record: CultureRecord) -> str:
    """SHA-256 of what a negative is bound to: the picture and its depth map, by content and not by name."""
    assert record.depth is not None
    return hashlib.sha256(f"{file_hash(record.image)}:{file_hash(record.depth)}".encode()).hexdigest()


def noise_seed(seed: int, content: str, k: int) -> int:
    """The seed in [0, 2⁶³) of a record's k-th negative: the same whatever other records there are, in any order."""
    digest = hashlib.sha256(f"{seed}:{content}:{k}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class Request:
    """The N negatives of one record, to be drawn in one batch: N prompts, N seeds, one depth map.

    hint: the depth map (1, 3, height, width) in [0, 1], stretched to the size at which is drawn.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    hint: Tensor

    def noise(self, channels: int, factor: int = 8) -> Tensor:
        """(N, channels, height / factor, width / factor) standard normal, each sample from its own seed."""
        height, width = (side // factor for side in self.hint.shape[-2:])
        drawn = [
            torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(seed))
            for seed in self.seeds
        ]
        return torch.cat(drawn)


Draw = Callable[[Request], Tensor]
"""Draws a request: N pictures (N, height, width, 3) in [0, 1]."""


def drawn_size(width: int, height: int, resolution: int, multiple: int) -> tuple[int, int]:
    """(width, height) with about resolution² pixels in the picture's shape, each side a multiple of `multiple`."""
    scale = resolution / (width * height) ** 0.5
    return tuple(max(multiple, round(side * scale / multiple) * multiple) for side in (width, height))


def kept_size(width: int, height: int, resolution: int) -> tuple[int, int]:
    """(width, height) of the file: the picture's exact shape, never larger than it, at most resolution² pixels."""
    scale = min(1.0, resolution / (width * height) ** 0.5)
    return tuple(max(1, round(side * scale)) for side in (width, height))


def make_negatives(
    dataset: Dataset,
    settings: NegativeSettings,
    draw: Draw,
    folder: Path,
    identity: str,
    multiple: int = 64,
    observe: Observer | None = None,
) -> Dataset:
    """The dataset with `per_image` new negatives at each record, in place of any that were there.

    Files lie in `<folder>/<key>/<k>.png`; the key hashes the models' `identity`, the settings, and the record's
    picture, depth and prompts. A record whose files are all there is not drawn again, so an interrupted run goes on
    where it was. `multiple`: what the sides of a drawn picture must be divisible by.
    Raises ValueError when the dataset is empty or a record has no depth map.
    """
    if not dataset.records:
        raise ValueError("The dataset has no records: load or make some before making negatives.")
    if bare := [record for record in dataset.records if record.depth is None]:
        raise ValueError(
            f"{len(bare)} of {len(dataset)} records have no depth map ({bare[0].image.name} is the first): "
            "connect Estimate Depth before Make Negatives."
        )
    records = []
    for record in dataset.records:
        paths = _negatives_of(record, settings, draw, folder, identity, multiple)
        records.append(dataclasses.replace(record, negatives=paths))
        if observe is not None:
            observe(len(records), len(dataset), paths[-1])
    return dataset.replace(records)


def _negatives_of(
    record: CultureRecord, settings: NegativeSettings, draw: Draw, folder: Path, identity: str, multiple: int
) -> tuple[Path, ...]:
    content = record_hash(record)
    prompts = record_prompts(record, settings.prompt_template, settings.per_image)
    drawn = {k: v for k, v in dataclasses.asdict(settings).items() if k != "prompt_template"}  # the prompts say it
    facts = [identity, drawn, multiple, content, prompts]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    paths = tuple(folder / key / f"{k}.png" for k in range(settings.per_image))
    if all(path.is_file() for path in paths):
        return paths
    assert record.depth is not None, "checked before the first record"
    size = open_image(record.image).size
    width, height = drawn_size(*size, settings.resolution, multiple)
    depth = read_pixels(record.depth).add(1.0).div(2.0).unsqueeze(0)
    hint = _resized(depth, width, height)
    seeds = tuple(noise_seed(settings.seed, content, k) for k in range(settings.per_image))
    pictures = draw(Request(prompts, seeds, hint)).float().cpu()
    assert pictures.shape == (len(paths), height, width, 3)
    width, height = kept_size(*size, settings.resolution)
    pictures = _resized(pictures.movedim(-1, 1), width, height).movedim(1, -1)
    for path, picture in zip(paths, pictures, strict=True):
        write_png(picture, path)
    return paths


def _resized(images: Tensor, width: int, height: int) -> Tensor:
    """(B, C, H, W) in [0, 1] at another size: stretched, not cropped, so that everything stays in register."""
    if images.shape[-2:] == (height, width):
        return images
    return F.interpolate(images, (height, width), mode="bicubic", antialias=True).clamp(0, 1)


def attach_negatives(dataset: Dataset, images: Sequence[Tensor], folder: Path) -> Dataset:
    """The dataset with `images`, each (H, W, 3) in [0, 1], as its negatives, in place of any that were there.

    There are n for each record: the first n are the first record's, and so on. They are written as PNGs named by
    their content. Raises ValueError when the counts do not fit or an image is not one.
    """
    count, total = len(dataset), len(images)
    if not count or not total or total % count:
        raise ValueError(
            f"There are {total} images for {count} records, but each record needs equally many negatives: "
            "give the same number for each, in the records' order."
        )
    for n, image in enumerate(images):
        if image.ndim != 3 or image.shape[-1] not in (3, 4) or not torch.isfinite(image).all():
            raise ValueError(
                f"Image {n + 1} is not a picture of (height, width, 3) numbers: check the node that made it."
            )
    paths = [save_by_content(image[..., :3], folder) for image in images]
    each = total // count
    return dataset.replace(
        dataclasses.replace(record, negatives=tuple(paths[i * each : (i + 1) * each]))
        for i, record in enumerate(dataset.records)
    )


def save_by_content(image: Tensor, folder: Path) -> Path:
    """Write an image (H, W, 3) in [0, 1] as a PNG named by its pixels; one that is there is left alone."""
    path = folder / f"{pixel_hash(image)[:32]}.png"
    if not path.is_file():
        write_png(image, path)
    return path


def pixel_hash(image: Tensor) -> str:
    """SHA-256 of an image's size and its pixels as 8-bit values; values are in [0, 1]."""
    pixels = image.detach().float().cpu().clamp(0, 1).mul(255).round().to(torch.uint8)
    return hashlib.sha256(f"{tuple(pixels.shape)}".encode() + pixels.contiguous().numpy().tobytes()).hexdigest()


def filter_negatives(
    dataset: Dataset, network: FeatureNetwork, threshold: float, observe: Observer | None = None
) -> tuple[Dataset, str]:
    """Drop false negatives: those whose feature distance D(f(x⁻), f(x)) to their own picture is below `threshold`.

    Distances lie in [0, 2]; both pictures are seen under one crop at the network's own size. Returns the dataset and
    a report with counts, the spread of the distances (to choose a threshold by), and each negative dropped.
    Raises ValueError for a threshold outside [0, 2] and a dataset without negatives.
    """
    if not 0.0 <= threshold <= 2.0:
        raise ValueError(f"The threshold is {threshold}, but distances lie between 0 and 2: choose one in that range.")
    if not any(record.negatives for record in dataset.records):
        raise ValueError("The dataset has no negatives to filter: connect Make Negatives or Attach Negatives first.")
    records, distances, dropped = [], [], []
    for record in dataset.records:
        own = _distances(record, network)
        keep = [path for path, far in zip(record.negatives, own, strict=True) if far >= threshold]
        dropped += [(record, k, far) for k, far in enumerate(own) if far < threshold]
        distances += own
        records.append(dataclasses.replace(record, negatives=tuple(keep)))
        if observe is not None:
            observe(len(records), len(dataset), record.image)
    bare = sum(not new.negatives and bool(old.negatives) for new, old in zip(records, dataset.records, strict=True))
    return dataset.replace(records), _report(network, threshold, distances, dropped, bare)


def _distances(record: CultureRecord, network: FeatureNetwork) -> list[float]:
    if not record.negatives:
        return []
    pixels, negatives = aligned(record, network.size, flip=False)
    device = next((p.device for p in network.module.parameters()), torch.device("cpu"))
    with torch.no_grad():
        found = network.extract(torch.cat([pixels.unsqueeze(0), negatives]).to(device))
        return network.distance(found[1:], found[:1].expand_as(found[1:])).tolist()


def _report(
    network: FeatureNetwork,
    threshold: float,
    distances: list[float],
    dropped: list[tuple[CultureRecord, int, float]],
    bare: int,
) -> str:
    total = len(distances)
    spread = torch.tensor(distances).quantile(torch.tensor([0.0, 0.05, 0.5, 1.0])).tolist()
    lines = [
        f"{total - len(dropped)} of {total} negatives kept, {len(dropped)} dropped",
        f"Reason: closer than {threshold:g} to their own picture, by {network.name}",
        "Distances: least {:.3f}, 5 % below {:.3f}, half below {:.3f}, largest {:.3f}".format(*spread),
    ]
    if bare:
        lines.append(f"Pictures left without negatives: {bare} (they still train, with their positive term alone)")
    lines += [f"- {record.image.name}, negative {k + 1}: distance {far:.3f}" for record, k, far in dropped]
    return "\n".join(lines)
