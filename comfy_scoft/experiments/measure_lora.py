"""Measures a LoRA against its base model on a dataset, as the workflow `evaluate` does, from model files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..common.errors import UserError
from ..common.files import write_atomically
from ..common.fingerprints import of_tensors, short_hash
from ..common.settings import MAX_SEED, check, setting
from ..corrector.ddim import ddim_sample
from ..data.images import read_pixels, write_png
from ..data.records import Dataset
from ..features import FeatureNetwork
from ..metrics import bias, clip_score, denoising_gap, diversity, kid, memorization
from ..metrics.denoising_gap import DenoisingLosses
from ..metrics.image_set import ImageSet, examples, prompts_and_seeds
from ..metrics.inputs import OnImages
from ..metrics.scores import Scores, add
from ..models.lora import apply, load_lora, switched_off
from ..models.stable_diffusion import LATENT_CHANNELS, LATENT_FACTOR, BaseModel
from ..reports.plots import by_model, compare_grid, score_table
from ..reports.plots.tables import decimals_of, number
from ..training.latent_cache import Cache
from ..training.validation import MOST

BASE, LORA = "base", "LoRA"
"""The labels of the two models."""
HELD_OUT, TRAINED = "held-out captions", "training captions"
"""The two lists of prompts."""
COLUMNS = 8
"""Of the grid that is saved beside the scores."""

Sets = dict[str, dict[str, ImageSet]]
"""The images of each list of prompts, by the model's label."""
OnWork = Callable[[int, int, str], None]
"""Called with (done, total, what is being done), the former two in any unit."""


@dataclass(frozen=True)
class MeasureSettings:
    """How a LoRA is measured. Raises UserError for a bad value."""

    images_per_prompt: int = setting(
        4, "Images of each prompt, with the same seeds for both models.", min=2, max=1000, step=1
    )
    captions: int = setting(
        12, "Maximum number of prompts: captions of held-out images, and as many of training images.", min=1, max=10_000
    )
    strength: float = setting(1.0, "Strength of the LoRA.", min=-20.0, max=20.0)
    steps: int = setting(20, "Sampling steps (DDIM).", min=1, max=1000)
    cfg: float = setting(4.5, "Classifier-free guidance scale. Mini model: 3.", min=0.0, max=100.0)
    resolution: int = setting(0, "Side of the images in pixels. 0: the model's own.", min=0, max=2048)
    seed: int = setting(1, "First seed of each prompt.", min=0, max=MAX_SEED)
    batch_size: int = setting(8, "Images generated at once. Affects speed only.", min=1, max=512, identity=False)

    def __post_init__(self) -> None:
        check(self)
        if self.resolution % 64:
            raise UserError(f"resolution is {self.resolution}, but it must be a multiple of 64, or 0.")


@dataclass(frozen=True)
class Measured:
    """scores of both models and their change; left_out: a sentence for each metric that could not be measured."""

    scores: Scores
    sets: Sets
    left_out: tuple[str, ...]


@dataclass
class Measurement:
    """A LoRA on its base model, and what it is measured on.

    base: on its device; the LoRA is put on it. trained, held_out: images that the LoRA has learned from and others.
    network: through which images are compared. images: a folder that keeps what was generated. observe: sees progress.
    """

    base: BaseModel
    lora: Path
    trained: Dataset
    held_out: Dataset
    network: FeatureNetwork
    images: Path
    settings: MeasureSettings
    observe: OnWork = lambda done, total, text: None

    def __post_init__(self) -> None:
        """Raise UserError, one sentence, for what cannot be measured, before anything is generated."""
        if len(self.trained) < 3:
            raise UserError(
                f"The dataset has {len(self.trained)} image(s) of the split 'train', but at least 3 that the LoRA was "
                "trained on are needed: give the folder that it was trained on."
            )
        if not self.network.viewable:
            raise UserError(
                f"{self.network.name} compares whole images and gives no vector for one: give --features a network "
                "such as CLIP ViT-B/32, DINOv2 L/14 or DreamSim."
            )
        self.side = self.settings.resolution or self.base.resolution
        self.model = short_hash(self.base.identity())
        apply(self.base.unet, self.lora, self.settings.strength)

    def run(self) -> Measured:
        """Generate both models' images of the captions, and measure them. Images that are there are taken."""
        asked, left_out = {TRAINED: self._prompts(self.trained)}, []
        if len(self.held_out) >= 2:
            asked = {HELD_OUT: self._prompts(self.held_out), **asked}
        else:
            left_out.append("No images are held out, so there is no KID to them and no denoising gap.")
        if self.network.read is None:
            left_out.append(f"{self.network.name} reads no prompts, so there is no CLIPScore.")
        count = sum(len(prompts) for prompts, _ in asked.values())
        sets: Sets = {}
        metrics = self._metrics(sets, {name: len(prompts) for name, (prompts, _) in asked.items()})
        steps = 2 * count * self.settings.steps
        total, done = steps + sum(units for _, units, _ in metrics), 0

        def generating() -> None:
            nonlocal done
            done += 1
            self.observe(done, total, f"generating 2 × {count} images")

        for name, (prompts, seeds) in asked.items():
            sets[name] = {label: self._generated(label, prompts, seeds, generating) for label in (BASE, LORA)}
        scores: Scores | None = None
        before = steps
        for text, units, measure in metrics:
            scores = add(scores, measure(partial(self._measuring, before, units, total, text)))
            before += units
            self.observe(before, total, text)
        assert scores is not None
        return Measured(scores, sets, tuple(left_out))

    def _measuring(self, before: int, units: int, total: int, text: str, done: int, of: int) -> None:
        self.observe(before + units * done // max(1, of), total, text)

    def _metrics(self, sets: Sets, counts: dict[str, int]) -> list[tuple[str, int, Callable[[OnImages], Scores]]]:
        """Each metric's name, the images that pass through a network for it, and the measurement once there are sets.

        counts: of the images of each list of prompts.
        """
        trained, held_out, network = self.trained, self.held_out, self.network
        others, first = (held_out if len(held_out) else None), next(iter(counts))

        def pair(name: str) -> tuple[ImageSet, ImageSet]:
            return sets[name][LORA], sets[name][BASE]

        def kid_to_held_out(see: OnImages) -> Scores:
            one, base = pair(HELD_OUT)
            return kid.measure(one, held_out, network, compared_with=base, name="held-out images", observe=see)

        def clip(see: OnImages) -> Scores:
            one, base = pair(first)
            return clip_score.measure(one, network, base, see)

        def memorized(see: OnImages) -> Scores:
            one, base = pair(TRAINED)
            return memorization.measure(one, trained, network, base, others, observe=see).scores

        def diverse(see: OnImages) -> Scores:
            one, base = pair(TRAINED)
            return diversity.measure(one, network, base, see)

        of_first, of_trained = 2 * counts[first], 2 * counts[TRAINED]
        found: list[tuple[str, int, Callable[[OnImages], Scores]]] = []
        if HELD_OUT in counts:
            found.append(("KID", of_first + len(held_out), kid_to_held_out))
        if network.read is not None:
            found.append(("CLIPScore", of_first, clip))
        found.append(("memorization", of_trained + len(trained) + len(held_out), memorized))
        found.append(("diversity", of_trained, diverse))
        if HELD_OUT in counts:
            found.append(("denoising gap", 2 * sum(min(len(part), MOST) for part in (trained, held_out)), self._gap))
        if self.base.family == "mini":
            found.append(("bias", of_first, lambda see: bias.measure(*pair(first), see)))
        return found

    def _prompts(self, dataset: Dataset) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """The prompt and the seed of each image: captions, evenly spread over the dataset."""
        captions = list(dict.fromkeys(" ".join(record.caption.split()) for record in dataset.records))
        count = min(self.settings.captions, len(captions))
        some = [captions[i * len(captions) // count] for i in range(count)]
        return prompts_and_seeds("\n".join(some), self.settings.seed, self.settings.images_per_prompt)

    def _generated(
        self, label: str, prompts: tuple[str, ...], seeds: tuple[int, ...], check: Callable[[], None]
    ) -> ImageSet:
        """A model's images, each from its own noise, kept as PNG files, with their prompts, that are not made again."""
        settings, base = self.settings, self.base
        how = [settings.steps, settings.cfg, self.side, prompts, seeds, self.model]
        how += [of_tensors(load_lora(self.lora)), settings.strength] if label == LORA else []
        folder = self.images / f"{label}-{short_hash(how)}"
        paths = [folder / f"{i:05}.png" for i in range(len(prompts))]
        shape = (LATENT_CHANNELS, self.side // LATENT_FACTOR, self.side // LATENT_FACTOR)
        for start in range(0, len(paths), settings.batch_size):
            some = range(start, min(start + settings.batch_size, len(paths)))
            if all(paths[i].is_file() for i in some):
                for _ in range(len(some) * settings.steps):
                    check()
                continue
            noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seeds[i])) for i in some])
            with self._model(label):
                asked = [prompts[i] for i in some]

                def each_step(count: int = len(some)) -> None:
                    for _ in range(count):
                        check()

                z = ddim_sample(base, noise.to(base.device), asked, None, settings.cfg, settings.steps, each_step)
            for i, one in zip(some, z, strict=True):
                write_atomically(paths[i].with_suffix(".txt"), prompts[i].encode())
                with torch.no_grad():
                    write_png(base.decode(one[None])[0].add(1.0).div(2.0).permute(1, 2, 0), paths[i])
        pixels = torch.stack([read_pixels(path) for path in paths])
        return ImageSet(pixels.add(1.0).div(2.0).permute(0, 2, 3, 1), prompts, seeds, label)

    def _gap(self, observe: OnImages) -> Scores:
        latents: list[dict[Any, Any]] = [{}, {}]
        images, calls, losses = 2 * sum(min(len(part), MOST) for part in (self.trained, self.held_out)), 0, []

        def check() -> None:
            nonlocal calls
            observe(calls := min(calls + 1, images), images)

        for label in (BASE, LORA):
            with self._model(label), torch.no_grad():
                caches = [
                    Cache(self.base, part, self.side, latents=known)
                    for part, known in zip((self.trained, self.held_out), latents, strict=True)
                ]
                both = [denoising_gap.losses(self.base, cache, self.settings.seed, check) for cache in caches]
            losses.append((label, DenoisingLosses(*both)))
        return denoising_gap.gap_scores(losses, f" at {self.side} pixels, {denoising_gap.TIMES} timesteps per image")

    def _model(self, label: str) -> AbstractContextManager[None]:
        return switched_off(self.base.unet) if label == BASE else nullcontext()


def as_json(measurement: Measurement, measured: Measured) -> dict[str, Any]:
    """The scores and how they were measured, as plain JSON; None where there is no interval."""

    def plain(row: Any) -> dict[str, Any]:
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(row).items()}

    return {
        "format": "scoft-scores",
        "version": 1,
        "lora": measurement.lora.name,
        "base": measurement.base.name,
        "dataset": measurement.trained.name,
        "images": {"trained": len(measurement.trained), "held out": len(measurement.held_out)},
        "features": measurement.network.name,
        "settings": {**asdict(measurement.settings), "resolution": measurement.side},
        "scores": [plain(row) for row in measured.scores.rows],
        "methods": measured.scores.methods(),
        "left out": list(measured.left_out),
    }


def text_table(scores: Scores) -> Iterator[str]:
    """The scores as lines for a console: each metric, and below it base, LoRA and change with their intervals."""
    rows = by_model(scores.rows)
    for name in dict.fromkeys(row.name for row in rows):
        own = [row for row in rows if row.name == name]
        decimals = decimals_of(own)
        cells = [
            f"{row.group} {number(row.value, decimals)}"
            + (f" [{number(row.low, decimals)}, {number(row.high, decimals)}]" if math.isfinite(row.high) else "")
            for row in own
        ]
        yield name
        yield "    " + "   ".join(cells)


def save(measurement: Measurement, measured: Measured, folder: Path) -> list[Path]:
    """Write scores.json, scores.csv, table.png and a grid of images of each list of prompts; returns their paths."""
    content = json.dumps(as_json(measurement, measured), indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / "scores.json", content.encode())
    write_atomically(folder / "scores.csv", measured.scores.csv().encode())
    title = f"{measurement.lora.stem} and {measurement.base.name}"
    notes = [f"{name}: {method}." for name, method in measured.scores.methods().items()]
    write_png(score_table(by_model(measured.scores.rows), title, [*measured.left_out, *notes]), folder / "table.png")
    grids = []
    for name, sets in measured.sets.items():
        columns = examples(sets[BASE], COLUMNS)
        rows: Sequence[Any] = [(label, each.images[columns]) for label, each in sets.items()]
        prompts, seeds = [sets[BASE].prompts[i] for i in columns], [sets[BASE].seeds[i] for i in columns]
        grids.append(folder / f"{name.replace(' ', '-')}.png")
        write_png(compare_grid(rows, prompts, seeds, len(columns)), grids[-1])
    return [folder / "scores.json", folder / "scores.csv", folder / "table.png", *grids]
