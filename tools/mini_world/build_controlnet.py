"""Step 5 of the mini world: a depth ControlNet for the base UNet.

    python tools/mini_world/build_controlnet.py --work DIR --unet FILE --autoencoder DIR --tower DIR [--steps 1500]

Trained, as ControlNets are, on the base model's own (biased) images, with their depth as the hint. Half of the
captions are dropped, so that the structure must come from the hint. The UNet stays as it is.
"""

from __future__ import annotations

import numpy as np
import torch
from build_unet import denoising_loss, image_bank, scheduler, text_bank, training_batch
from common import arguments, train
from diffusers import AutoencoderTiny

from comfy_scoft.models.mini import layout

VARIANTS = 8


def main() -> None:
    args = arguments(__doc__, "unet", "autoencoder", "tower", steps=1500, batch=16, lr=5e-4).parse_args()
    torch.manual_seed(0)
    unet = layout.build_unet()
    unet.load_state_dict(torch.load(args.unet, weights_only=True))
    unet.requires_grad_(False)
    control = layout.build_controlnet(unet)
    bank = image_bank(AutoencoderTiny.from_pretrained(args.autoencoder), 5, VARIANTS)
    hidden, rows = text_bank(args.tower)
    alphas = scheduler().alphas_cumprod

    def loss_of(step: int) -> torch.Tensor:
        rng, generator = np.random.default_rng((6, step)), torch.Generator().manual_seed(step)
        images, captions = training_batch(rng, args.batch, VARIANTS, rows, 0.5)
        z, hint = (torch.stack([bank[art][part][k] for art, k in images]) for part in (0, 1))
        text = hidden[captions]

        def predict(z_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            down, mid = control(z_t, t, text, hint.expand(-1, 3, -1, -1), return_dict=False)
            residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
            return unet(z_t, t, text, **residuals).sample

        return denoising_loss(predict, z, generator, alphas)

    def after(model: torch.nn.Module, step: int) -> None:
        torch.save(model.state_dict(), args.work / "controlnet.pt")

    train(control, loss_of, args, after)


if __name__ == "__main__":
    main()
