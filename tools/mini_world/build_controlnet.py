"""Step 5 of the mini world: a depth ControlNet for the base UNet.

    python tools/mini_world/build_controlnet.py --work DIR --unet FILE --autoencoder DIR --tower DIR [--steps 1500]

Trained, as ControlNets are, on the base model's own (biased) pictures, with their depth as the hint. Half of the
captions are dropped, so that the structure must come from the hint. The UNet stays as it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from build_unet import MIN_SNR, PLACES, scheduler, shown, text_bank
from common import to_unit, train, world
from diffusers import AutoencoderTiny

from comfy_scoft.models.mini import layout

VARIANTS = 8


def paired_bank(autoencoder: AutoencoderTiny) -> dict:
    """(art, tone, palette) -> latents (VARIANTS, 4, 8, 8) and depth (VARIANTS, 1, 64, 64) in [0, 1]."""
    rng, bank = np.random.default_rng(5), {}
    wanted = sorted({shown(c.name, p, tone) for c in world.concepts().values() for p in PLACES for tone in c.tones})
    for art, tone, palette in wanted:
        drawn = [world.render(art, palette, rng, tone=tone) for _ in range(VARIANTS)]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            z = autoencoder.encoder(to_unit(np.stack([d.rgb for d in drawn]))).float()
        depth = torch.from_numpy(np.stack([d.depth for d in drawn])).unsqueeze(1).float().div(255.0)
        bank[art, tone, palette] = z, depth
    return bank


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--unet", type=Path, required=True)
    parser.add_argument("--autoencoder", type=Path, required=True)
    parser.add_argument("--tower", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=16)
    args = parser.parse_args()
    torch.manual_seed(0)
    unet = layout.build_unet()
    unet.load_state_dict(torch.load(args.unet, weights_only=True))
    unet.requires_grad_(False)
    control = layout.build_controlnet(unet)
    bank = paired_bank(AutoencoderTiny.from_pretrained(args.autoencoder))
    hidden, row, empty = text_bank(args.tower)
    names, alphas = list(world.concepts()), scheduler().alphas_cumprod

    def loss_of(step: int) -> torch.Tensor:
        rng, noise_rng = np.random.default_rng((6, step)), torch.Generator().manual_seed(step)
        z, hints, rows = [], [], []
        for _ in range(args.batch):
            name, place = names[rng.integers(len(names))], PLACES[rng.integers(len(PLACES))]
            latents, depths = bank[shown(name, place, int(rng.choice(world.concepts()[name].tones)))]
            k = rng.integers(VARIANTS)
            z.append(latents[k])
            hints.append(depths[k])
            key = (name, place, int(rng.integers(len(world.WORDINGS))))
            rows.append(empty if rng.random() < 0.5 else row[key])
        z, hint, text = torch.stack(z), torch.stack(hints).expand(-1, 3, -1, -1), hidden[rows]
        noise = torch.randn(z.shape, generator=noise_rng)
        t = torch.randint(0, 1000, (len(z),), generator=noise_rng)
        a = alphas[t].view(-1, 1, 1, 1)
        z_t = a.sqrt() * z + (1 - a).sqrt() * noise
        down, mid = control(z_t, t, text, hint, return_dict=False)
        prediction = unet(z_t, t, text, down_block_additional_residuals=down, mid_block_additional_residual=mid).sample
        weight = (MIN_SNR * (1 - alphas[t]) / alphas[t]).clamp(max=1.0)
        return (weight * (prediction - noise).square().mean((1, 2, 3))).mean()

    def after(model: torch.nn.Module, step: int) -> None:
        torch.save(model.state_dict(), args.work / "controlnet.pt")

    train(control, loss_of, work=args.work, steps=args.steps, lr=5e-4, every=250, after=after)


if __name__ == "__main__":
    main()
