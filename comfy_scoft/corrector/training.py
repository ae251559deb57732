"""Learns a preference from two sets of latents, some images of each kept back to measure it with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ..common.errors import UserError
from ..common.settings import check, setting
from ..models.noise_schedule import NoiseSchedule
from .evaluation import Evidence, measure
from .preference import Preference, PreferenceHead, levels_for, log_preference, sigmas

FEWEST = 4
"""Different images that each set must have."""
SAME = 1e-3
"""Two latents are of one image when they differ by less than this share of their size."""


@dataclass(frozen=True)
class PreferenceSettings:
    """How a preference is trained: AdamW with a one-cycle learning rate. Raises UserError for a bad value."""

    steps: int = setting(600, "Training steps; a few seconds to two minutes.", min=1, max=100_000, step=50)
    seed: int = setting(0, "Random seed.", min=0, max=2**53 - 1, step=1)
    batch_size: int = setting(64, "Latents per step, half from each set.", min=2)
    learning_rate: float = setting(3e-3, "Peak learning rate.", min=1e-8, max=1.0)
    held_out: float = setting(0.2, "Share of each set's images that is only used for evaluation.", min=0.01, max=0.89)
    width: int = setting(32, "Channels of the network.", min=1)
    flip: bool = setting(True, "Random horizontal flip.")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Sets:
    """Latents (N, C, h, w) of the two sets and which of each are held out (N,) bool."""

    preferred: Tensor
    stereotyped: Tensor
    preferred_held: Tensor
    stereotyped_held: Tensor

    def part(self, held: bool) -> tuple[Tensor, Tensor]:
        """Preferred and stereotyped latents that are held out, or that are learned from."""
        chosen = (self.preferred_held == held), (self.stereotyped_held == held)
        return self.preferred[chosen[0]], self.stereotyped[chosen[1]]


def learn(
    preferred: Tensor,
    stereotyped: Tensor,
    schedule: NoiseSchedule,
    family: str,
    settings: PreferenceSettings | None = None,
    observe: Callable[[int, float], None] = lambda step, loss: None,
) -> tuple[Preference, Evidence]:
    """A preference for `preferred` over `stereotyped`, and what held-out images say of it.

    preferred, stereotyped: latents (N, C, h, w) and (M, C, h, w), scaled as the UNet reads them, of one size. schedule:
    the base model's own; family: its family. observe(step, loss): after each step; it may raise to stop. Raises
    UserError for a set with too few different images, sets that share images, and latents of different sizes.
    On the CPU, the same latents and settings give the same preference.
    """
    settings = settings or PreferenceSettings()
    with torch.inference_mode(False), torch.enable_grad():
        generator = torch.Generator().manual_seed(settings.seed)
        sets = split(preferred, stereotyped, settings.held_out, generator)
        head = trained(sets.part(held=False), schedule, settings, generator, observe)
    facts = {
        "schedule": {"steps": len(schedule), "prediction": schedule.prediction},
        "latent size": list(preferred.shape[2:]),
        "settings": asdict(settings),
    }
    found = measure(Preference(head, family, facts=facts), sets.part(held=False), sets.part(held=True), schedule)
    facts["evidence"] = found.as_json()
    return Preference(head, family, found.temperature, facts=facts), found


def split(preferred: Tensor, stereotyped: Tensor, share: float, generator: torch.Generator) -> Sets:
    """Checks the two sets and draws which images are held out: at least one of each, copies on the same side."""
    first, second = _plain(preferred, "preferred"), _plain(stereotyped, "stereotyped")
    if first.shape[1:] != second.shape[1:]:
        raise UserError(
            f"The preferred latents are {tuple(first.shape[1:])} and the stereotyped {tuple(second.shape[1:])}: give "
            "images of one size, through the same VAE."
        )
    shared = int(_alike(second, first).any(0).sum())
    if shared:
        raise UserError(
            f"{shared} of the {len(first)} preferred images are in the stereotyped set too: give two sets without a "
            "image in common."
        )
    held = [_held(found, share, generator, name) for found, name in ((first, "preferred"), (second, "stereotyped"))]
    return Sets(first, second, *held)


def _plain(latents: Tensor, name: str) -> Tensor:
    """Ordinary float32 latents on the CPU; UserError for none, and for values that are not numbers."""
    if latents.ndim != 4 or len(latents) == 0:
        raise UserError(
            f"The {name} set has no images: connect at least {FEWEST} different images as images of one size."
        )
    found = latents.detach().clone().float().cpu()
    if not bool(found.isfinite().all()):
        raise UserError(f"The VAE gives no finite numbers for the {name} set: use a VAE in float32 or bfloat16.")
    return found


def _alike(one: Tensor, other: Tensor) -> Tensor:
    """(N, M) bool: which latents of the two sets are of the same image."""
    a, b = one.flatten(1), other.flatten(1)
    apart = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    return apart < SAME * a.norm(dim=1, keepdim=True).clamp_min(1e-6)


def _held(latents: Tensor, share: float, generator: torch.Generator, name: str) -> Tensor:
    """(N,) bool: which are held out. Copies of an image count as one."""
    original = _alike(latents, latents).int().argmax(1)  # the first that is the same image
    different = original.unique()
    if len(different) < FEWEST:
        raise UserError(
            f"The {name} set has {len(different)} different image(s): give at least {FEWEST}, for some are kept back "
            "to measure with."
        )
    count = max(1, round(share * len(different)))
    order = different[torch.randperm(len(different), generator=generator)]
    return torch.isin(original, order[:count])


def trained(
    sets: tuple[Tensor, Tensor],
    schedule: NoiseSchedule,
    settings: PreferenceSettings,
    generator: torch.Generator,
    observe: Callable[[int, float], None],
) -> PreferenceHead:
    """A head fitted to both sets, noised to random timesteps; every cell is asked for its own answer."""
    size = sets[0].shape[1:]
    head = initial(PreferenceHead(size[0], settings.width, levels_for(*size[1:])), generator)
    optimizer = torch.optim.AdamW(head.parameters(), lr=settings.learning_rate, weight_decay=1e-2)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.steps + 1, pct_start=0.1
    )
    half = settings.batch_size // 2
    wanted = torch.cat([torch.ones(half), -torch.ones(half)])
    for step in range(settings.steps):
        drawn = [part[torch.randint(len(part), (half,), generator=generator)] for part in sets]
        z = torch.cat(drawn)
        if settings.flip:
            mirrored = torch.rand(len(z), generator=generator) < 0.5
            z = torch.where(mirrored[:, None, None, None], z.flip(-1), z)
        z_t, sigma = noised(z, schedule, torch.randint(len(schedule), (len(z),), generator=generator), generator)
        loss = -log_preference(head(z_t, sigma), wanted).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        observe(step + 1, loss.item())
    return head.requires_grad_(False).eval()


def initial(head: PreferenceHead, generator: torch.Generator) -> PreferenceHead:
    """Weights drawn by the generator, as PyTorch's layers draw theirs by the global one: U(−1/√n, 1/√n), n inputs."""
    with torch.no_grad():
        for layer in head.modules():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
                bound = layer.weight[0].numel() ** -0.5
                for values in (layer.weight, layer.bias):
                    assert values is not None
                    values.copy_(bound * (2.0 * torch.rand(values.shape, generator=generator) - 1.0))
    return head


def noised(z: Tensor, schedule: NoiseSchedule, t: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """z_t (B, C, h, w) and its noise levels σ (B,) for clean latents and timesteps (B,)."""
    return schedule.add_noise(z, torch.randn(z.shape, generator=generator), t), sigmas(schedule, t)
