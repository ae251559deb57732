"""A tiny random world for the tests of the core: UNet, autoencoder, feature network, dataset on disk, run."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from comfy_scoft.data.records import CultureRecord, Dataset
from comfy_scoft.features import FeatureNetwork
from comfy_scoft.losses import ContrastiveLoss, DiffusionLoss, MemorizationLoss, PerceptualLoss
from comfy_scoft.losses.rollout import RolloutSettings
from comfy_scoft.models.lora import LoraSettings, trainable
from comfy_scoft.models.noise_schedule import NoiseSchedule
from comfy_scoft.models.stable_diffusion import BaseModel, TextEmbedding
from comfy_scoft.training.batches import samples_of_batch
from comfy_scoft.training.latent_cache import Cache
from comfy_scoft.training.memory import MemoryOptions
from comfy_scoft.training.objective import weighted_loss
from comfy_scoft.training.run import Run
from comfy_scoft.training.settings import OptimizerSettings, TrainSettings

if TYPE_CHECKING:  # takes seconds to import: only the tests that make a toy wait for it
    from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel


class Interrupted(Exception):
    """What a test's callback raises to stop a run."""


WIDTH = 16
"""Width of a toy caption's embedding."""


def random_weights(module: nn.Module, seed: int) -> nn.Module:
    """Frozen weights drawn by a generator: small, and no zeros anywhere (diffusers starts some layers at zero)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            noise = torch.randn(p.shape, generator=generator).to(p.dtype)
            if p.ndim == 1:
                p.copy_(0.05 * noise + (1.0 if name.endswith("weight") else 0.0))
            else:
                p.copy_(noise / p[0].numel() ** 0.5)
    return module.eval().requires_grad_(False)


def toy_unet(seed: int = 1, dtype: torch.dtype = torch.float32) -> UNet2DConditionModel:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    return random_weights(unet.double() if dtype == torch.float64 else unet, seed)


def toy_embed(caption: str) -> TextEmbedding:
    """A caption's embedding decided by its characters alone."""
    generator = torch.Generator().manual_seed(zlib.crc32(caption.encode()))
    return TextEmbedding(torch.randn(1, 7, WIDTH, generator=generator))


def toy_autoencoder(seed: int = 2) -> AutoencoderTiny:
    from diffusers import AutoencoderTiny

    sizes = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    counts = {"num_encoder_blocks": (1,) * 4, "num_decoder_blocks": (1,) * 4}
    return random_weights(AutoencoderTiny(**sizes, **counts), seed)


def toy_kl_autoencoder(seed: int = 2) -> AutoencoderKL:
    from diffusers import AutoencoderKL

    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    sizes = {"block_out_channels": (8,) * 4, "layers_per_block": 1, "norm_num_groups": 4, "latent_channels": 4}
    return random_weights(AutoencoderKL(**kinds, **sizes), seed)


def toy_base(
    prediction: str = "epsilon", dtype: torch.dtype = torch.float32, kl: bool = False, seed: int = 1
) -> BaseModel:
    vae: Any = toy_kl_autoencoder() if kl else toy_autoencoder()
    schedule = NoiseSchedule.scaled_linear(prediction=prediction)
    scaling = 0.5 if kl else 1.0
    vae = vae.double() if dtype == torch.float64 else vae
    return BaseModel(toy_unet(seed, dtype), vae, schedule, toy_embed, "mini", "toy", scaling)


def toy_features(seed: int = 3) -> FeatureNetwork:
    """Two convolutions of 16 px images: features (B, 8, 4, 4)."""
    module = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Tanh(), nn.Conv2d(8, 8, 3, 2, 1))
    random_weights(module, seed)
    return FeatureNetwork("toy", module, 16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), module)


class PlainFeatures:
    """A "network" that takes the image itself as features and the mean square as distance: for sums by hand."""

    name, module, views = "plain", nn.Identity(), None

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels

    preprocess = forward

    def to(self, device: torch.device) -> PlainFeatures:
        return self

    def extract(self, images: Tensor) -> Tensor:
        return images

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().flatten(1).mean(1)


def toy_dataset(folder: Path, negatives: tuple[int, ...] = (2, 0, 1, 3), size: int = 72, seed: int = 4) -> Dataset:
    """As many records as `negatives` has entries, each with that many negatives, written as PNG files."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)

    def picture(name: str) -> Path:
        coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((size + 8, size), Image.Resampling.BICUBIC).save(folder / name)
        return folder / name

    records = []
    for i, count in enumerate(negatives):
        image = picture(f"{i}.png")
        wrong = tuple(picture(f"{i}_{k}.png") for k in range(count))
        generic = tuple(f"a thing {i} seen {k}" for k in range(i % 3 + 1))
        records.append(CultureRecord(image, f"a {i} thing of ours", generic, "toy", "Toyland", negatives=wrong))
    return Dataset(folder, tuple(records), "toys")


def toy_run(folder: Path, losses: list[Any], **changes: Any) -> Run:
    """A run of a few steps at 64 px. `changes`: any of Run's fields, or of the settings it holds, by name.

    `steps` are the optimizer's, `rollout_steps` the rollout's.
    """
    train = {"steps": 3, "batch_size": 1, "accumulation": 1, "resolution": 64, "seed": 7, "checkpoint_every": 100}
    rollout = {"every": 2, "steps": changes.pop("rollout_steps", 3)}
    lora = {"rank": 2, "alpha": 3.0}
    optimizer = {"learning_rate": 1e-2}
    rest: dict[str, Any] = {}
    for name, value in changes.items():
        for group, kind in (
            (train, TrainSettings),
            (rollout, RolloutSettings),
            (lora, LoraSettings),
            (optimizer, OptimizerSettings),
        ):
            if name in kind.__dataclass_fields__:
                group[name] = value
                break
        else:
            rest[name] = value
    base = rest.pop("base", None) or toy_base()
    dataset = rest.pop("dataset", None) or toy_dataset(folder / "data")
    return Run(
        base,
        dataset,
        losses,
        rest.pop("run_folder", folder / "run"),
        TrainSettings(**train),
        LoraSettings(**lora),
        OptimizerSettings(**optimizer),
        RolloutSettings(**rollout),
        **rest,
    )


def all_losses() -> list[Any]:
    """The four losses, those on the rollout's image at ten times their weight."""
    network = toy_features()
    return [
        DiffusionLoss(),
        MemorizationLoss(),
        PerceptualLoss(network, weight=0.5),
        ContrastiveLoss(network, weight=0.5),
    ]


def learned(run: Run) -> Tensor:
    """Every number of the trained LoRA, fp32."""
    return torch.cat([p.detach().flatten() for p in trainable(run.base.unet).values()])


def batch_loss(
    run: Run, cache: Cache, batch: int = 0, check: Any = lambda: None
) -> tuple[Tensor, dict[str, list[float]]]:
    """The weighted loss of the images of one batch, as their mean, and its terms."""
    drawn = samples_of_batch(cache, run.settings, run.rollout, len(run.base.schedule), batch)
    loss, terms = weighted_loss(run, cache, drawn, MemoryOptions.of(run.settings), check)
    return loss * run.settings.accumulation, terms


def mean(values: list[float]) -> float:
    return sum(values) / len(values)
