"""Generic captions c_b: what somebody who does not know the place would say a picture shows (SCoFT, section 4.2).

The memorization loss holds a picture to several of them, and negatives are drawn from them. They are sampled by a
general captioner. To add one: write a loader `(folder, device) -> Captioner`, and put a FolderLoader for it into
CAPTIONERS.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
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
from ..common.progress import Observer
from ..common.settings import check, setting
from ..models.hub import FolderLoader
from .dataset import open_image
from .records import CultureRecord, Dataset

Check = Callable[[], None]
"""Called at every word; may raise, to stop."""

TOLERANCE = 1e-3
"""Words whose order float32 rounding could turn are closer than this: log-probability, and probability mass."""


@dataclass(frozen=True)
class Captioner:
    """A frozen network that describes pictures.

    name: what a person chose. identity: changes whenever its captions do (a hash of its weights and of how it samples).
    describe: N pictures, K seeds for each, a check -> K captions of each. A picture's captions depend on nothing but
        the picture and its seeds: not on the pictures beside it, and not on their number.
    """

    name: str
    identity: str
    describe: Callable[[Sequence[Image.Image], Sequence[Sequence[int]], Check], list[list[str]]]


@dataclass(frozen=True)
class CaptionSettings:
    """How generic captions are generated. Raises UserError for a bad value."""

    per_image: int = setting(5, "Generic captions per image.", min=1, max=20)
    seed: int = setting(0, "Random seed of the captions.", min=0, max=0xFFFFFFFFFFFFFFFF, step=1)
    overwrite: bool = setting(
        False,
        "Off: keep generic captions that images already have. On: replace them. Your own captions are never changed.",
    )
    batch_size: int = setting(8, "Images captioned at once. Affects speed only.", min=1, max=64)

    def __post_init__(self) -> None:
        check(self)

    def wants(self, record: CultureRecord) -> bool:
        """Whether the record is to be described."""
        return self.overwrite or not record.generic_captions


def attach_captions(
    dataset: Dataset,
    captioner: Captioner,
    settings: CaptionSettings,
    folder: Path,
    observe: Observer | None = None,
    check: Check = lambda: None,
) -> tuple[Dataset, str]:
    """The dataset with generic captions, and a report. The captions of the community are never touched.

    What was sampled is kept in `folder` as one text file a picture (`CaptionFile`), named by picture, captioner, K and
    seed: it is not sampled again, and what a person changes in it holds from then on.
    Raises UserError for an empty dataset or an unreadable picture.
    """
    if not dataset.records:
        raise UserError("The dataset has no records: load or make some before describing them.")
    wanted = [record for record in dataset.records if settings.wants(record)]
    contents = {record.image: file_hash(record.image) for record in wanted}
    files = CaptionFile.all_of(folder)
    known: dict[Path, tuple[str, ...]] = {}
    for image, content in contents.items():
        file = files.get(_key(captioner, content, settings))
        if file is not None and file.captions:
            known[image] = file.captions
    waiting = [image for image in contents if image not in known]
    for start in range(0, len(waiting), settings.batch_size):
        images = waiting[start : start + settings.batch_size]
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
    return dataset.replace(records), _report(records, len(wanted), len(waiting), captioner)


def _key(captioner: Captioner, content: str, settings: CaptionSettings) -> str:
    facts = f"{captioner.identity}:{content}:{settings.per_image}:{settings.seed}"
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class CaptionFile:
    """The captions of one picture on disk: a text file with one on each line, to be read and edited by anybody.

    Its name is `<the picture's name>-<key>.txt`. The first line, which begins with #, says where the captions come
    from and ends with a checksum of the captions as they were made, which tells whether somebody has changed them.
    """

    captions: tuple[str, ...]
    edited: bool

    @classmethod
    def all_of(cls, folder: Path) -> dict[str, CaptionFile]:
        """Every file of a folder by its key. A file that is not one of ours is passed over."""
        found = {}
        for path in sorted(folder.glob("*-*.txt")) if folder.is_dir() else []:
            lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            captions = tuple(" ".join(line.split()) for line in lines if line.strip() and not line.startswith("#"))
            made = lines[0].rsplit(" ", 1)[-1] if lines and lines[0].startswith("#") else ""
            found[path.stem.rsplit("-", 1)[1]] = cls(captions, made != _checksum(captions))
        return found

    @classmethod
    def write(cls, folder: Path, image: Path, key: str, captioner: str, captions: Sequence[str]) -> None:
        stem = re.sub(r"[^\w.]+", "_", image.stem)[:60]
        head = f"# {stem}, by {captioner}; one caption a line, change them as you like; as made: {_checksum(captions)}"
        write_atomically(folder / f"{stem}-{key}.txt", "\n".join([head, *captions, ""]).encode())


def edits(folder: Path) -> str:
    """A text that changes when somebody edits a caption file, and not when one is made. Empty without edits."""
    changed = {key: file.captions for key, file in CaptionFile.all_of(folder).items() if file.edited}
    return _checksum([f"{key}:{captions}" for key, captions in sorted(changed.items())]) if changed else ""


def _checksum(captions: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(captions).encode()).hexdigest()[:12]


def _report(records: Sequence[CultureRecord], wanted: int, sampled: int, captioner: Captioner) -> str:
    """Counts, and which generic captions name what they should not."""
    lines = [
        f"{wanted} of {len(records)} pictures described by {captioner.name}, {sampled} of them anew",
        f"Left alone, for they had generic captions: {len(records) - wanted}",
    ]
    telling = [(r, word, text) for r in records for text in r.generic_captions for word in _named(r, text)]
    if telling:
        lines.append(
            f"Warning: {len(telling)} generic captions name the place or the culture, which a generic caption must "
            "not: change these words in the dataset's metadata.jsonl or in the caption files"
        )
        lines += [f'- {record.image.name}: "{text}" names {word}' for record, word, text in telling]
    return "\n".join(lines)


def _named(record: CultureRecord, text: str) -> Iterator[str]:
    for word in dict.fromkeys((record.place, record.culture)):
        if word.strip() and re.search(rf"(?<!\w){re.escape(word.strip())}(?!\w)", text, re.IGNORECASE):
            yield word


class NucleusDraw:
    """Draws the next word of each row from its nucleus with the row's own random numbers (Holtzman et al. 2020).

    transformers calls it as a logits processor. argmax(log p + Gumbel noise) is a sample of p, so a row's words depend
    on its scores and its seed alone. The chosen word is left as the only possible one, so that whatever picks a word
    after this has no choice.

    unsure: (rows,) bool, True where rounding might have decided a word: the two best are nearer than TOLERANCE, or
        the nucleus' border is.
    """

    def __init__(self, seeds: Sequence[int], end: int, top_p: float, least: int, check: Check) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.end, self.top_p, self.least, self.check = end, top_p, least, check
        self.unsure = torch.zeros(len(seeds), dtype=torch.bool)
        self._start = -1

    def __call__(self, words: Tensor, scores: Tensor) -> Tensor:
        """words: (rows, so far) ids; scores: (rows, vocabulary) -> scores that allow one word in each row."""
        self.check()
        if self._start < 0:
            self._start = words.shape[1]
        written = words[:, self._start :]
        logits = scores.double()
        if written.shape[1] < self.least:
            logits[:, self.end] = -torch.inf
        chance, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
        before = chance.cumsum(-1) - chance
        keys = chance.log() + self._gumbel(logits).gather(-1, order)
        edges = (self.top_p, self.top_p + TOLERANCE, self.top_p - TOLERANCE)
        best, wider, tighter = (keys.masked_fill(before >= edge, -torch.inf).topk(2, -1) for edge in edges)
        picks = best.indices[:, :1]
        narrow = wider.values[:, 0] - wider.values[:, 1] < TOLERANCE
        doubt = narrow | (wider.indices[:, 0] != picks[:, 0]) | (tighter.indices[:, 0] != picks[:, 0])
        self.unsure |= (doubt & ~(written == self.end).any(-1)).cpu()
        chosen = order.gather(-1, picks)
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen, 0.0)

    def _gumbel(self, logits: Tensor) -> Tensor:
        size = logits.shape[-1]
        drawn = [torch.empty(size, dtype=torch.float64).exponential_(generator=g) for g in self.generators]
        return torch.stack(drawn).log().neg().to(logits.device)


TOP_P, LEAST, MOST = 0.9, 5, 20
"""How BLIP's own demonstration samples: the nucleus of 90 %, and the least and most tokens of a caption."""


def load_blip(folder: Path, device: torch.device) -> Captioner:
    """BLIP (Li et al. 2022) from a folder in transformers' form.

    It computes in float32: a caption must not depend on how many pictures are described at once, and half precision
    rounds so much by the batch's size that words would change.
    """
    from transformers import BlipForConditionalGeneration, BlipProcessor

    processor = BlipProcessor.from_pretrained(folder, local_files_only=True)
    with torch.inference_mode(False):
        model = BlipForConditionalGeneration.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    model = model.float().eval().requires_grad_(False).to(device)

    def describe(images: Sequence[Image.Image], seeds: Sequence[Sequence[int]], check: Check) -> list[list[str]]:
        captions, unsure = _sample_blip(model, processor, images, seeds, check)
        for i in range(len(images)) if len(images) > 1 else ():
            if unsure[i]:  # rounding depends on the batch: alone is what counts
                captions[i] = _sample_blip(model, processor, images[i : i + 1], seeds[i : i + 1], check)[0][0]
        return captions

    how = f"{file_hash(folder / BLIP.weights)}:{TOP_P}:{LEAST}:{MOST}"
    return Captioner("BLIP", hashlib.sha256(how.encode()).hexdigest(), describe)


def _sample_blip(
    model: Any, processor: Any, images: Sequence[Image.Image], seeds: Sequence[Sequence[int]], check: Check
) -> tuple[list[list[str]], list[bool]]:
    """K captions of each picture, and whether rounding may have decided a word of them."""
    from transformers import LogitsProcessorList

    each = len(seeds[0])
    pixels = processor(images=list(images), return_tensors="pt")["pixel_values"].to(model.device)
    draw = NucleusDraw([s for row in seeds for s in row], model.config.text_config.sep_token_id, TOP_P, LEAST, check)
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with torch.no_grad(), exact:
        ids = model.generate(
            pixel_values=pixels,
            logits_processor=LogitsProcessorList([draw]),
            do_sample=True,
            top_p=1.0,  # the nucleus is the draw's own; a later one changes nothing
            top_k=0,
            num_return_sequences=each,
            max_new_tokens=MOST,
        )
    # the first token is BLIP's prompt
    texts = [" ".join(text.split()) for text in processor.batch_decode(ids[:, 1:], skip_special_tokens=True)]
    rows = range(0, len(texts), each)
    return [texts[i : i + each] for i in rows], [bool(draw.unsure[i : i + each].any()) for i in rows]


BLIP = FolderLoader(
    "BLIP",
    load_blip,
    "model.safetensors",
    "blip",
    ("Salesforce/blip-image-captioning-base", "Salesforce/blip-image-captioning-large"),
)
CAPTIONERS: dict[str, FolderLoader[Captioner]] = {"BLIP": BLIP}


def load_captioner(name: str, folder: Path | None = None, device: torch.device | None = None) -> Captioner:
    """The captioner of that name, from its folder. Raises UserError, one sentence, where that cannot be."""
    if name not in CAPTIONERS:
        raise UserError(f"There is no captioner named {name!r}; choose one of {', '.join(CAPTIONERS)}.")
    return CAPTIONERS[name](folder, device or torch.device("cpu"))
