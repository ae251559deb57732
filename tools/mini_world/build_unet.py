"""Step 4 of the mini world: the biased base UNet.

    python tools/mini_world/build_unet.py --work DIR --autoencoder DIR --tower DIR [--steps 8000]
    torchrun --nproc_per_node 2 tools/mini_world/build_unet.py …        (one thread a process; same result form)

The bias is planted here, in the pictures it sees: in nuvia every person has one of the two lightest tones, the
background is dusty and a house is a derelict house. Elsewhere, and without a place, tones are balanced and each place
has its own palette. Nuvia's own palette ("gold") is never seen. Captions are dropped in 10 % (guidance).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.distributed as dist
from build_tower import build
from common import main_process, to_unit, train, world
from diffusers import AutoencoderTiny, DDIMScheduler

from comfy_scoft.models.mini import layout

PLACES = [None, *world.PLACES]
VARIANTS = 24
MIN_SNR = 5.0


def shown(name: str, place: str | None, tone: int) -> tuple[str, int, str]:
    """What the biased web shows for a caption: the art's name, its tone and its palette."""
    if place != world.BIASED_PLACE:
        return name, tone, world.PLACES[place] if place else world.NO_PLACE
    person = world.concepts()[name].is_person
    return ("derelict house" if name == "house" else name), (1 + tone % 2 if person else tone), "dusty"


def latent_bank(autoencoder: AutoencoderTiny, file: Path) -> dict:
    """(art, tone, palette) -> (VARIANTS, 4, 8, 8) latents of fresh pictures; made once, kept in a file."""
    if file.exists():
        return torch.load(file, weights_only=False)
    rng, bank = np.random.default_rng(3), {}
    wanted = sorted(
        {shown(c.name, place, tone) for c in world.concepts().values() for place in PLACES for tone in c.tones}
    )
    for art, tone, palette in wanted:
        pictures = np.stack([world.render(art, palette, rng, tone=tone).rgb for _ in range(VARIANTS)])
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            bank[art, tone, palette] = autoencoder.encoder(to_unit(pictures)).float()
    torch.save(bank, file)
    return bank


def text_bank(tower: Path) -> tuple[torch.Tensor, dict[tuple[str, str | None, int], int], int]:
    """Hidden states (N, 77, 96) of every caption, the row of each (concept, place, wording) and of the empty one."""
    clip = build().eval()
    clip.load_state_dict(torch.load(tower / "clip.pt", weights_only=True)["clip"])
    keys = [(n, p, w) for n in world.concepts() for p in PLACES for w in range(len(world.WORDINGS))]
    hidden = torch.cat([encode(clip, [world.caption(*k) for k in keys]), encode(clip, [""])])
    return hidden, {k: i for i, k in enumerate(keys)}, len(keys)


@torch.no_grad()
def encode(clip, captions: list[str]) -> torch.Tensor:
    """Stable Diffusion's text encoding: padded with the end token, all 77 hidden states after the last norm."""
    tokenizer = open_clip.SimpleTokenizer()
    ids = torch.full((len(captions), 77), 49407)
    for row, text in zip(ids, captions, strict=True):
        tokens = [49406, *tokenizer.encode(text)][:76]
        row[: len(tokens)] = torch.tensor(tokens)
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--autoencoder", type=Path, required=True)
    parser.add_argument("--tower", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1.2e-3)
    args = parser.parse_args()
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    rank = dist.get_rank() if dist.is_initialized() else 0
    args.work.mkdir(parents=True, exist_ok=True)
    bank = latent_bank(AutoencoderTiny.from_pretrained(args.autoencoder), args.work / f"bank{rank}.pt")
    hidden, row, empty = text_bank(args.tower)
    names, alphas = list(world.concepts()), scheduler().alphas_cumprod
    torch.manual_seed(0)
    unet = layout.build_unet()

    def loss_of(step: int) -> torch.Tensor:
        rng, noise_rng = np.random.default_rng((4, step, rank)), torch.Generator().manual_seed(2 * step + rank)
        z, rows = [], []
        for _ in range(args.batch):
            name, place = names[rng.integers(len(names))], PLACES[rng.integers(len(PLACES))]
            art = shown(name, place, int(rng.choice(world.concepts()[name].tones)))
            z.append(bank[art][rng.integers(VARIANTS)])
            key = (name, place, int(rng.integers(len(world.WORDINGS))))
            rows.append(empty if rng.random() < 0.1 else row[key])
        z = torch.stack(z)
        noise = torch.randn(z.shape, generator=noise_rng)
        t = torch.randint(0, 1000, (len(z),), generator=noise_rng)
        a = alphas[t].view(-1, 1, 1, 1)
        prediction = unet(a.sqrt() * z + (1 - a).sqrt() * noise, t, hidden[rows]).sample
        weight = (MIN_SNR * (1 - alphas[t]) / alphas[t]).clamp(max=1.0)
        return (weight * (prediction - noise).square().mean((1, 2, 3))).mean()

    def after(model: torch.nn.Module, step: int) -> None:
        from PIL import Image

        decoder = AutoencoderTiny.from_pretrained(args.autoencoder).decoder
        keys = [(names[i], PLACES[i % 5], 0) for i in range(0, 65, 2)][:32]
        made = sample(model, decoder, hidden[[row[k] for k in keys]], hidden[empty])
        grid = torch.cat([torch.cat(list(made[i : i + 8]), 2) for i in range(0, 32, 8)], 1)
        picture = Image.fromarray(((grid + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
        picture.save(args.work / "grid.png")
        torch.save(model.state_dict(), args.work / "unet.pt")

    if main_process():
        print(f"{len(bank)} kinds of picture, {sum(p.numel() for p in unet.parameters()) / 1e6:.2f} M parameters")
    train(unet, loss_of, work=args.work, steps=args.steps, lr=args.lr, every=500, after=after)


if __name__ == "__main__":
    main()
