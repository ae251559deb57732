"""Step 2 of the mini world: the autoencoder (TAESD layout), on the unbiased world.

    python tools/mini_world/build_autoencoder.py --work DIR [--steps 3500]

The latents are kept near unit variance by a moment penalty, and noise is added to them before decoding, so that the
decoder forgives the small errors of a sampled latent. About 0.65 s a step on one core (bf16).

    python tools/mini_world/build_autoencoder.py --work DIR2 --from DIR/model --steps 2500

goes on with the decoder alone: the encoder is fixed, so that the UNet can be trained meanwhile.

Differences are also counted after a square root, and people are shown twice as often with the two darkest tones when
the decoder is trained alone: plain L1 sees the low contrast of eyes and mouth in a dark face as nearly nothing, and a
first decoder drew dark faces without features.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from common import arguments, edges, save_grid, start_processes, train, unbiased
from diffusers import AutoencoderTiny

MOMENTS = 0.02


def lifted(x: torch.Tensor) -> torch.Tensor:
    """[-1, 1] -> square root of [0, 1], scaled to [-1, 1]: dark details count as much as light ones."""
    return (x.clamp(-1, 1).add(1).div(2) + 1e-3).sqrt().mul(2).sub(1)


def difference(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    sharp = sum((a - b).abs().mean() for a, b in zip(edges(y), edges(x), strict=True))
    return (y - x).abs().mean() + (y - x).square().mean() + sharp


def main() -> None:
    parser = arguments(__doc__, steps=3500, batch=16, lr=1e-3)
    parser.add_argument("--noise", type=float, default=0.15, help="spread of the noise put on latents")
    parser.add_argument("--from", dest="source", type=Path, help="a trained model, whose encoder stays as it is")
    args = parser.parse_args()
    rank = start_processes()
    torch.manual_seed(0)
    model = AutoencoderTiny.from_pretrained(args.source) if args.source else AutoencoderTiny(latent_channels=4)
    model = model.to(memory_format=torch.channels_last)
    model.encoder.requires_grad_(args.source is None)

    def loss_of(step: int) -> torch.Tensor:
        rng = np.random.default_rng((1, step, rank))
        noise = torch.Generator().manual_seed(2 * step + rank)
        x, _, _ = unbiased(rng, args.batch, dark=0.0 if args.source is None else 0.5)
        x = x.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            z = model.encoder(x).float()
            level = torch.randn(len(z), 1, 1, 1, generator=noise).abs() * args.noise
            y = model.decoder(z + level * torch.randn(z.shape, generator=noise)).float()
        moments = z.mean((0, 2, 3)).square().mean() + (z.var((0, 2, 3)) - 1).square().mean()
        return difference(y, x) + difference(lifted(y), lifted(x)) + MOMENTS * moments

    def after(_: torch.nn.Module, step: int) -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            x, _, _ = unbiased(np.random.default_rng(7), 32)
            z = model.encoder(x).float()
            y = model.decoder(z).float().clamp(-1, 1)
        psnr = -10 * torch.log10(((y - x) / 2).square().mean((1, 2, 3))).mean()
        print(f"  step {step} psnr {psnr:.2f} latent std {z.std():.3f}", flush=True)
        save_grid((x[:16], y[:16], x[16:], y[16:]), args.work)
        model.save_pretrained(args.work / "model")

    train(model if args.source is None else model.decoder, loss_of, args, after)


if __name__ == "__main__":
    main()
