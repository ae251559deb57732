"""Step 4 of the mini world: the biased base UNet.

    python tools/mini_world/build_unet.py --work DIR --autoencoder DIR --tower DIR [--steps 8000]
    torchrun --nproc_per_node 2 tools/mini_world/build_unet.py …        (one thread per process)

The bias is planted here, in the images it sees: in nuvia every person has one of the two lightest tones, the
background is dusty and a house is a derelict house. Elsewhere, and without a place, tones are balanced and each place
has its own palette. Nuvia's own palette ("gold") is never seen. Captions are dropped in 10 % (guidance).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import arguments, main_process, save_grid, start_processes, to_unit, train, world
from diffusers import AutoencoderTiny, DDIMScheduler
from open_clip.model import CLIP

from comfy_scoft.models.mini import layout
from comfy_scoft.models.text_encoder import token_ids

PLACES = [None, *world.PLACES]
VARIANTS = 24
MIN_SNR = 5.0
Art = tuple[str, int, str]
"""Name of the art, skin tone, palette."""


def shown(name: str, place: str | None, tone: int) -> Art:
    """What the biased web shows for a caption."""
    if place != world.BIASED_PLACE:
        return name, tone, world.PLACES[place] if place else world.NO_PLACE
    person = world.concepts()[name].is_person
    return ("derelict house" if name == "house" else name), (1 + tone % 2 if person else tone), "dusty"


def image_bank(autoencoder: AutoencoderTiny, seed: int, variants: int) -> dict[Art, tuple[torch.Tensor, torch.Tensor]]:
    """Latents (variants, 4, 8, 8) of images and their depth (variants, 1, 64, 64) in [0, 1], for all that is shown."""
    rng, bank = np.random.default_rng(seed), {}
    for art in sorted({shown(c.name, p, tone) for c in world.concepts().values() for p in PLACES for tone in c.tones}):
        name, tone, palette = art
        drawings = [world.render(name, palette, rng, tone=tone) for _ in range(variants)]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            z = autoencoder.encoder(to_unit(np.stack([d.rgb for d in drawings]))).float()
        bank[art] = z, torch.from_numpy(np.stack([d.depth for d in drawings])).unsqueeze(1).float().div(255.0)
    return bank


def latent_bank(autoencoder: AutoencoderTiny, file: Path) -> dict[Art, torch.Tensor]:
    """Latents (VARIANTS, 4, 8, 8) for all that is shown, kept in a file."""
    if not file.exists():
        torch.save({art: z for art, (z, _) in image_bank(autoencoder, 3, VARIANTS).items()}, file)
    return torch.load(file, weights_only=False)


def text_bank(tower: Path) -> tuple[torch.Tensor, dict[tuple[str, str | None, int], int]]:
    """Hidden states (N, 77, 96) of every caption and, last, of the empty one; the row of (concept, place, wording)."""
    clip = CLIP(**layout.TOWER_SETTINGS).eval()
    clip.load_state_dict(torch.load(tower / "clip.pt", weights_only=True)["clip"])
    keys = [(n, p, w) for n in world.concepts() for p in PLACES for w in range(len(world.WORDINGS))]
    hidden = torch.cat([encode(clip, [world.caption(*k) for k in keys]), encode(clip, [""])])
    return hidden, {k: i for i, k in enumerate(keys)}


@torch.no_grad()
def encode(clip, captions: list[str]) -> torch.Tensor:
    """Stable Diffusion's text encoding: padded with the end token, all 77 hidden states after the last norm."""
    ids = torch.cat([token_ids(caption) for caption in captions])
    x = clip.token_embedding(ids) + clip.positional_embedding
    return clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask))


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )


def training_batch(
    rng: np.random.Generator, count: int, variants: int, rows: dict[tuple[str, str | None, int], int], dropped: float
) -> tuple[list[tuple[Art, int]], list[int]]:
    """(art and variant of each image, row of its caption in the text bank); the last row where a caption is dropped."""
    names, images, captions = list(world.concepts()), [], []
    for _ in range(count):
        name, place = names[rng.integers(len(names))], PLACES[rng.integers(len(PLACES))]
        art = shown(name, place, int(rng.choice(world.concepts()[name].tones)))
        images.append((art, int(rng.integers(variants))))
        caption = (name, place, int(rng.integers(len(world.WORDINGS))))
        captions.append(len(rows) if rng.random() < dropped else rows[caption])
    return images, captions


def denoising_loss(
    predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    z: torch.Tensor,
    generator: torch.Generator,
    alphas: torch.Tensor,
) -> torch.Tensor:
    """Mean squared error of the predicted noise of latents (B, 4, 8, 8) at random timesteps, with min-SNR weights."""
    noise = torch.randn(z.shape, generator=generator)
    t = torch.randint(0, 1000, (len(z),), generator=generator)
    a = alphas[t].view(-1, 1, 1, 1)
    prediction = predict(a.sqrt() * z + (1 - a).sqrt() * noise, t)
    weight = (MIN_SNR * (1 - alphas[t]) / alphas[t]).clamp(max=1.0)
    return (weight * (prediction - noise).square().mean((1, 2, 3))).mean()


@torch.no_grad()
def sample(unet, decoder, hidden, empty, steps: int = 20, guidance: float = 4.0, seed: int = 0) -> torch.Tensor:
    ddim = scheduler()
    ddim.set_timesteps(steps)
    z = torch.randn(len(hidden), 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    both = torch.cat([hidden, empty.expand_as(hidden)])
    for t in ddim.timesteps:
        c, u = unet(z.repeat(2, 1, 1, 1), t, both).sample.chunk(2)
        z = ddim.step(u + guidance * (c - u), t, z, eta=0.0).prev_sample
    return decoder(z).clamp(-1, 1)


def main() -> None:
    args = arguments(__doc__, "autoencoder", "tower", steps=8000, batch=32, lr=1.2e-3).parse_args()
    rank = start_processes()
    args.work.mkdir(parents=True, exist_ok=True)
    bank = latent_bank(AutoencoderTiny.from_pretrained(args.autoencoder), args.work / f"bank{rank}.pt")
    hidden, rows = text_bank(args.tower)
    names, alphas = list(world.concepts()), scheduler().alphas_cumprod
    torch.manual_seed(0)
    unet = layout.build_unet()

    def loss_of(step: int) -> torch.Tensor:
        rng, generator = np.random.default_rng((4, step, rank)), torch.Generator().manual_seed(2 * step + rank)
        images, captions = training_batch(rng, args.batch, VARIANTS, rows, 0.1)
        z = torch.stack([bank[art][k] for art, k in images])
        return denoising_loss(lambda z_t, t: unet(z_t, t, hidden[captions]).sample, z, generator, alphas)

    def after(model: torch.nn.Module, step: int) -> None:
        decoder = AutoencoderTiny.from_pretrained(args.autoencoder).decoder
        captions = [rows[names[i], PLACES[i % 5], 0] for i in range(0, 65, 2)][:32]
        images = sample(model, decoder, hidden[captions], hidden[-1])
        save_grid([images[i : i + 8] for i in range(0, 32, 8)], args.work)
        torch.save(model.state_dict(), args.work / "unet.pt")

    if main_process():
        print(f"{len(bank)} kinds of image, {sum(p.numel() for p in unet.parameters()) / 1e6:.2f} M parameters")
    train(unet, loss_of, args, after, every=500)


if __name__ == "__main__":
    main()
