"""Generic captions c_b: what a general captioner, which does not know the place, says of an image (SCoFT, section 4.2).

The memorization loss compares an image's predictions under several of them, and negatives are generated from them. To
add a captioner: write a loader `(folder, device) -> Captioner`, and add a FolderLoader for it to CAPTIONERS.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..common.errors import UserError
from ..common.files import file_hash, write_atomically
from ..common.fingerprints import noise_seed
from ..common.mentions import mentions
from ..common.names import file_name
from ..common.progress import Observer
from ..common.settings import MAX_SEED, check, setting
from ..common.text import composed, printable
from ..models.hub import FolderLoader
from .images import open_image
from .records import CultureRecord, Dataset

Check = Callable[[], None]
"""Called before every token; may raise to stop."""

TOLERANCE = 1e-3
"""Tokens closer than this, in log-probability or probability mass, could change order by float32 rounding."""


@dataclass(frozen=True)
class Captioner:
    """A frozen image captioner.

    name: as in CAPTIONERS. identity: a hash of its weights and sampling settings; changes whenever its captions do.
    describe: (N images, K seeds for each, check) -> K captions of each. An image's captions depend on the image and its
        seeds only, not on the rest of the batch.
    """

    name: str
    identity: str
    describe: Callable[[Sequence[Image.Image], Sequence[Sequence[int]], Check], list[list[str]]]


@dataclass(frozen=True)
class CaptionSettings:
    """How generic captions are generated. Raises UserError for a bad value."""

    per_image: int = setting(5, "Generic captions per image.", min=1, max=20)
    seed: int = setting(0, "Random seed of the captions.", min=0, max=MAX_SEED, step=1)
    overwrite: bool = setting(
        False,
        "Off: keep generic captions that images already have. On: replace them. Your own captions are never changed.",
    )
    batch_size: int = setting(8, "Images captioned at once. Affects speed only.", min=1, max=64)

    def __post_init__(self) -> None:
        check(self)

    def wants(self, record: CultureRecord) -> bool:
        """Whether the record is to be captioned."""
        return self.overwrite or not record.generic_captions


def attach_captions(
    dataset: Dataset,
    captioner: Captioner,
    settings: CaptionSettings,
    folder: Path,
    observe: Observer | None = None,
    check: Check = lambda: None,
) -> tuple[Dataset, str]:
    """The dataset with generic captions, and a report. The community's captions do not change.

    Sampled captions are cached in `folder`, one text file for each image (`CaptionFile`), keyed by image content,
    captioner, K and seed. Edited files are used as they are.
    Raises UserError for an empty dataset or an unreadable image.
    """
    if not dataset.records:
        raise UserError("The dataset has no records: load or make some before describing them.")
    selected = [record for record in dataset.records if settings.wants(record)]
    contents = {record.image: file_hash(record.image) for record in selected}
    files = CaptionFile.all_of(folder)
    kept = {image: files.get(_key(captioner, content, settings)) for image, content in contents.items()}
    known = {image: file.captions for image, file in kept.items() if file and file.captions}
    missing = [image for image in contents if image not in known]
    for start in range(0, len(missing), settings.batch_size):
        images = missing[start : start + settings.batch_size]
        seeds = [[noise_seed(settings.seed, contents[i], k) for k in range(settings.per_image)] for i in images]
        described = captioner.describe([open_image(image) for image in images], seeds, check)
        for image, captions in zip(images, described, strict=True):
            known[image] = tuple(captions)
            CaptionFile.write(folder, image, _key(captioner, contents[image], settings), captioner.name, captions)
            if observe is not None:
                observe(len(known), len(contents), image)
    records = [
        dataclasses.replace(r, generic_captions=known[r.image]) if settings.wants(r) else r for r in dataset.records
    ]
    return dataset.replace(records), _report(records, len(selected), len(missing), captioner)


def _key(captioner: Captioner, content: str, settings: CaptionSettings) -> str:
    inputs = f"{captioner.identity}:{content}:{settings.per_image}:{settings.seed}"
    return hashlib.sha256(inputs.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class CaptionFile:
    """The captions of one image as an editable text file, one caption per line, named `<image name>-<key>.txt`.

    The first line begins with #, names the captioner, and ends with a checksum of the sampled captions, by which
    `edited` is decided.
    """

    captions: tuple[str, ...]
    edited: bool

    @classmethod
    def all_of(cls, folder: Path) -> dict[str, CaptionFile]:
        """Every file `*-<key>.txt` of a folder by its key."""
        files = {}
        for path in sorted(folder.glob("*-*.txt")) if folder.is_dir() else []:
            lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            captions = tuple(" ".join(line.split()) for line in lines if line.strip() and not line.startswith("#"))
            checksum = lines[0].rsplit(" ", 1)[-1] if lines and lines[0].startswith("#") else ""
            files[path.stem.rsplit("-", 1)[1]] = cls(captions, checksum != _checksum(captions))
        return files

    @classmethod
    def write(cls, folder: Path, image: Path, key: str, captioner: str, captions: Sequence[str]) -> None:
        stem = file_name(image.stem, "image", "_", ".")
        head = f"# {stem}, by {captioner}; one caption a line, change them as you like; as made: {_checksum(captions)}"
        write_atomically(folder / f"{stem}-{key}.txt", "\n".join([head, *captions, ""]).encode())


def edits(folder: Path) -> str:
    """A checksum of all edited caption files of a folder; "" if none is edited."""
    changed = {key: file.captions for key, file in CaptionFile.all_of(folder).items() if file.edited}
    return _checksum([f"{key}:{captions}" for key, captions in sorted(changed.items())]) if changed else ""


def _checksum(captions: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(captions).encode()).hexdigest()[:12]


def _report(records: Sequence[CultureRecord], selected: int, sampled: int, captioner: Captioner) -> str:
    """Counts, and a warning for generic captions that name the place or the culture."""
    lines = [
        f"{selected} of {len(records)} images captioned by {captioner.name}, {sampled} of them newly",
        f"Kept their generic captions: {len(records) - selected}",
    ]
    naming = [(r, name, text) for r in records for text in r.generic_captions for name in _named(r, text)]
    if naming:
        lines.append(
            f"Warning: {len(naming)} generic captions name the place or the culture, which a generic caption must "
            "not: change them in the dataset's metadata.jsonl or in the caption files"
        )
        lines += [f'- {printable(record.image.name)}: "{text}" names {name}' for record, name, text in naming]
    return "\n".join(lines)


def _named(record: CultureRecord, text: str) -> Iterator[str]:
    for name in dict.fromkeys((record.place, record.culture)):
        if mentions(name, composed(text)):
            yield name


class NucleusSampler:
    """A logits processor that samples each row's next token from its nucleus (Holtzman et al. 2020) with its own seed.

    It uses the Gumbel-max trick: argmax(log p + Gumbel noise) is a sample of p, so a row depends on its own scores and
    seed only, not on the batch. All other tokens get -inf, so any sampler after it picks the same token.

    unsure: (rows,) bool, True where rounding might have decided a token: the two best keys, or a token's cumulative
        probability and top_p, are closer than TOLERANCE.
    """

    def __init__(self, seeds: Sequence[int], end: int, top_p: float, min_tokens: int, check: Check) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.end, self.top_p, self.min_tokens, self.check = end, top_p, min_tokens, check
        self.unsure = torch.zeros(len(seeds), dtype=torch.bool)
        self._start = -1

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """input_ids: (rows, length so far); scores: (rows, vocabulary) -> 0 for one token of each row, else -inf."""
        self.check()
        if self._start < 0:
            self._start = input_ids.shape[1]
        generated = input_ids[:, self._start :]
        logits = scores.double()
        if generated.shape[1] < self.min_tokens:
            logits[:, self.end] = -torch.inf
        probability, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
        before = probability.cumsum(-1) - probability
        keys = probability.log() + self._gumbel(logits).gather(-1, order)
        thresholds = (self.top_p, self.top_p + TOLERANCE, self.top_p - TOLERANCE)
        best, wider, tighter = (keys.masked_fill(before >= p, -torch.inf).topk(2, -1) for p in thresholds)
        picks = best.indices[:, :1]
        narrow = wider.values[:, 0] - wider.values[:, 1] < TOLERANCE
        unsure = narrow | (wider.indices[:, 0] != picks[:, 0]) | (tighter.indices[:, 0] != picks[:, 0])
        self.unsure |= (unsure & ~(generated == self.end).any(-1)).cpu()
        chosen = order.gather(-1, picks)
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen, 0.0)

    def _gumbel(self, logits: Tensor) -> Tensor:
        size = logits.shape[-1]
        noise = [torch.empty(size, dtype=torch.float64).exponential_(generator=g) for g in self.generators]
        return torch.stack(noise).log().neg().to(logits.device)


TOP_P, MIN_TOKENS, MAX_TOKENS = 0.9, 5, 20
"""Sampling settings of BLIP's own demo."""


def load_blip(folder: Path, device: torch.device) -> Captioner:
    """BLIP (Li et al. 2022) from a folder in transformers' layout.

    Runs in float32: in half precision, rounding differs so much by batch size that captions would change.
    """
    from transformers import BlipForConditionalGeneration, BlipProcessor

    processor = BlipProcessor.from_pretrained(folder, local_files_only=True)
    with torch.inference_mode(False):
        model = BlipForConditionalGeneration.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    model = model.float().eval().requires_grad_(False).to(device)

    def describe(images: Sequence[Image.Image], seeds: Sequence[Sequence[int]], check: Check) -> list[list[str]]:
        captions, unsure = _sample_blip(model, processor, images, seeds, check)
        for i in range(len(images)) if len(images) > 1 else ():
            if unsure[i]:  # rounding depends on the batch: sample again as a batch of one
                captions[i] = _sample_blip(model, processor, images[i : i + 1], seeds[i : i + 1], check)[0][0]
        return captions

    identity = f"{file_hash(folder / BLIP.weights)}:{TOP_P}:{MIN_TOKENS}:{MAX_TOKENS}"
    return Captioner("BLIP", hashlib.sha256(identity.encode()).hexdigest(), describe)


def _sample_blip(
    model: Any, processor: Any, images: Sequence[Image.Image], seeds: Sequence[Sequence[int]], check: Check
) -> tuple[list[list[str]], list[bool]]:
    """K captions of each image, and for each image whether rounding may have decided one of their tokens."""
    from transformers import LogitsProcessorList

    each = len(seeds[0])
    pixels = processor(images=list(images), return_tensors="pt")["pixel_values"].to(model.device)
    end = model.config.text_config.sep_token_id
    sampler = NucleusSampler([seed for row in seeds for seed in row], end, TOP_P, MIN_TOKENS, check)
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with torch.no_grad(), exact:
        ids = model.generate(
            pixel_values=pixels,
            logits_processor=LogitsProcessorList([sampler]),
            do_sample=True,
            top_p=1.0,  # the sampler has already chosen
            top_k=0,
            num_return_sequences=each,
            max_new_tokens=MAX_TOKENS,
        )
    # the first token is BLIP's prompt
    texts = [" ".join(text.split()) for text in processor.batch_decode(ids[:, 1:], skip_special_tokens=True)]
    rows = range(0, len(texts), each)
    return [texts[i : i + each] for i in rows], [bool(sampler.unsure[i : i + each].any()) for i in rows]


_BLIP_HUB = ("Salesforce/blip-image-captioning-base", "Salesforce/blip-image-captioning-large")
BLIP = FolderLoader("BLIP", load_blip, "model.safetensors", "blip", _BLIP_HUB)
CAPTIONERS: dict[str, FolderLoader[Captioner]] = {"BLIP": BLIP}


def load_captioner(name: str, folder: Path | None = None, device: torch.device | None = None) -> Captioner:
    """The captioner of that name, loaded from its folder. Raises UserError for an unknown name or unusable folder."""
    if name not in CAPTIONERS:
        raise UserError(f"There is no captioner named {printable(name)!r}; choose one of {', '.join(CAPTIONERS)}.")
    return CAPTIONERS[name](folder, device or torch.device("cpu"))
