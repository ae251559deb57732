"""Trains a preference on two sets of latents, and evaluates it on held-out images of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ..common.errors import UserError
from ..common.settings import MAX_SEED, check, setting
from ..models.noise_schedule import NoiseSchedule
from .evaluation import Evaluation, LatentPair, measure
from .preference import Preference, PreferenceHead, levels_for, log_preference, noised

MIN_IMAGES = 4
"""Minimum number of different images in each set."""
SAME = 1e-3
"""Two latents are of the same image if they differ by less than this share of their norm."""


@dataclass(frozen=True)
class PreferenceSettings:
    """How a preference is trained: AdamW with a one-cycle learning rate. Raises UserError for a bad value."""

    steps: int = setting(600, "Training steps; a few seconds to two minutes.", min=1, max=100_000, step=50)
    seed: int = setting(0, "Random seed.", min=0, max=MAX_SEED, step=1)
    batch_size: int = setting(64, "Latents per step, half from each set.", min=2)
    learning_rate: float = setting(3e-3, "Peak learning rate.", min=1e-8, max=1.0)
    held_out: float = setting(0.2, "Share of each set's images that is only used for evaluation.", min=0.01, max=0.89)
    width: int = setting(32, "Channels of the network.", min=1)
    flip: bool = setting(True, "Random horizontal flip.")

    def __post_init__(self) -> None:
        check(self)


def learn(
    preferred: Tensor,
    stereotyped: Tensor,
    schedule: NoiseSchedule,
    family: str,
    settings: PreferenceSettings | None = None,
    observe: Callable[[int, float], None] = lambda step, loss: None,
) -> tuple[Preference, Evaluation]:
    """Learn a preference for `preferred` over `stereotyped`, and evaluate it on held-out images.

    preferred, stereotyped: latents (N, C, h, w) and (M, C, h, w) of one size, scaled as for the UNet. schedule, family:
    of the base model. observe(step, loss): called after each step; may raise to stop. Raises UserError for a set with
    too few different images, sets that share images, and latents of different sizes.
    Deterministic on the CPU.
    """
    settings = settings or PreferenceSettings()
    with torch.inference_mode(False), torch.enable_grad():
        generator = torch.Generator().manual_seed(settings.seed)
        to_learn, held_out = split(preferred, stereotyped, settings.held_out, generator)
        head = trained(to_learn, schedule, settings, generator, observe)
    facts = {
        "schedule": {"steps": len(schedule), "prediction": schedule.prediction},
        "latent size": list(preferred.shape[2:]),
        "settings": asdict(settings),
    }
    evaluation = measure(Preference(head, family, facts=facts), to_learn, held_out, schedule)
    facts["evidence"] = evaluation.as_json()
    return Preference(head, family, evaluation.temperature, facts=facts), evaluation


def split(
    preferred: Tensor, stereotyped: Tensor, share: float, generator: torch.Generator
) -> tuple[LatentPair, LatentPair]:
    """Check the two sets and divide them into latents to learn from and held-out ones.

    The held-out images are chosen at random, at least one of each set; copies of an image stay together.
    """
    first, second = _checked(preferred, "preferred"), _checked(stereotyped, "stereotyped")
    if first.shape[1:] != second.shape[1:]:
        raise UserError(
            f"The preferred latents are {tuple(first.shape[1:])} and the stereotyped {tuple(second.shape[1:])}: give "
            "images of one size, through the same VAE."
        )
    shared = int(_alike(second, first).any(0).sum())
    if shared:
        raise UserError(
            f"{shared} of the {len(first)} preferred images are in the stereotyped set too: give two sets without an "
            "image in common."
        )
    held_first = _held_out(first, share, generator, "preferred")
    held_second = _held_out(second, share, generator, "stereotyped")
    return (first[~held_first], second[~held_second]), (first[held_first], second[held_second])


def _checked(latents: Tensor, name: str) -> Tensor:
    """The latents as float32 on the CPU. Raises UserError if there are none or a value is not finite."""
    if latents.ndim != 4 or len(latents) == 0:
        raise UserError(
            f"The {name} set has no images: connect at least {MIN_IMAGES} different images, all of the same size."
        )
    values = latents.detach().clone().float().cpu()
    if not bool(values.isfinite().all()):
        raise UserError(f"The VAE gives no finite numbers for the {name} set: use a VAE in float32 or bfloat16.")
    return values


def _alike(one: Tensor, other: Tensor) -> Tensor:
    """(N, M) bool: which latents of the two sets are of the same image."""
    a, b = one.flatten(1), other.flatten(1)
    apart = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    return apart < SAME * a.norm(dim=1, keepdim=True).clamp_min(1e-6)


def _held_out(latents: Tensor, share: float, generator: torch.Generator, name: str) -> Tensor:
    """(N,) bool: which are held out. Copies of an image count as one."""
    original = _alike(latents, latents).int().argmax(1)  # the first that is the same image
    different = original.unique()
    if len(different) < MIN_IMAGES:
        raise UserError(
            f"The {name} set has {len(different)} different image(s): give at least {MIN_IMAGES}, as some are held out "
            "for evaluation."
        )
    count = max(1, round(share * len(different)))
    order = different[torch.randperm(len(different), generator=generator)]
    return torch.isin(original, order[:count])


def trained(
    sets: LatentPair,
    schedule: NoiseSchedule,
    settings: PreferenceSettings,
    generator: torch.Generator,
    observe: Callable[[int, float], None],
) -> PreferenceHead:
    """A head trained on both sets at random timesteps, with a loss on every cell."""
    size = sets[0].shape[1:]
    head = initial(PreferenceHead(size[0], settings.width, levels_for(*size[1:])), generator)
    optimizer = torch.optim.AdamW(head.parameters(), lr=settings.learning_rate, weight_decay=1e-2)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.steps + 1, pct_start=0.1
    )
    half = settings.batch_size // 2
    sign = torch.cat([torch.ones(half), -torch.ones(half)])
    for step in range(settings.steps):
        z = torch.cat([part[torch.randint(len(part), (half,), generator=generator)] for part in sets])
        if settings.flip:
            mirrored = torch.rand(len(z), generator=generator) < 0.5
            z = torch.where(mirrored[:, None, None, None], z.flip(-1), z)
        z_t, sigma = noised(z, schedule, torch.randint(len(schedule), (len(z),), generator=generator), generator)
        loss = -log_preference(head(z_t, sigma), sign).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        observe(step + 1, loss.item())
    return head.requires_grad_(False).eval()


def initial(head: PreferenceHead, generator: torch.Generator) -> PreferenceHead:
    """Initialize weights like PyTorch's layers, U(−1/√n, 1/√n) for n inputs, but from the given generator."""
    with torch.no_grad():
        for layer in head.modules():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
                bound = layer.weight[0].numel() ** -0.5
                for values in (layer.weight, layer.bias):
                    assert values is not None
                    values.copy_(bound * (2.0 * torch.rand(values.shape, generator=generator) - 1.0))
    return head
