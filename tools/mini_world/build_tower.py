"""Step 3 of the mini world: a small CLIP (ModifiedResNet image tower and text tower), on the unbiased world.

    python tools/mini_world/build_tower.py --work DIR [--steps 2500]

The text tower becomes the text encoder of the mini Stable Diffusion; the image tower is the mini feature network and
the CLIP of CLIPScore and KID. Every concept meets every tone, palette and place alike, so neither tower can prefer the
stereotype. Half of the captions name the tone and the background, so that the features carry them (as CLIP's do);
an image may have several right captions, and the loss counts them all. A further loss reads each token back from the
text tower's hidden states, so that the place is not forgotten there.
"""

from __future__ import annotations

import numpy as np
import open_clip
import torch
from common import arguments, to_unit, train, world
from open_clip.model import CLIP
from torch.nn import functional as F

from comfy_scoft.models.mini import layout

TONE_WORDS = {1: "pale", 2: "fair", 3: "tan", 4: "brown", 5: "deep"}
PALETTE_WORDS = {
    "gold": "gold and teal",
    "dusty": "dusty grey",
    "ice": "ice blue",
    "meadow": "lilac and green",
    "ember": "coral and maroon",
    "plain": "white",
}


def batch(rng: np.random.Generator, size: int):
    """Every concept once, then repeats with other attributes. Returns pixels, captions and the mask of right pairs."""
    names = list(world.concepts())
    order = [names[i] for i in rng.permutation(len(names))]
    order = (order + order)[:size]
    palettes, places = list(world.PALETTES), [None, *world.PLACES]
    images, captions, labels, complete = [], [], [], []
    for name in order:
        tone = int(rng.choice(world.concepts()[name].tones))
        palette = palettes[rng.integers(len(palettes))]
        images.append(world.render(name, palette, rng, tone=tone, flip=bool(rng.random() < 0.5)).rgb)
        text = world.caption(name, places[rng.integers(len(places))], int(rng.integers(5)))
        full = rng.random() < 0.5
        if full:
            skin = f" with {TONE_WORDS[tone]} skin" if tone else ""
            text += f"{skin} on {PALETTE_WORDS[palette]}"
        captions.append(text)
        labels.append((name, tone, palette))
        complete.append(full)
    right = torch.tensor(
        [[a[0] == b[0] and (not full or a == b) for b, full in zip(labels, complete, strict=True)] for a in labels]
    )
    return to_unit(np.stack(images)), captions, right


def degraded(x: torch.Tensor, noise: torch.Generator) -> torch.Tensor:
    """Images with a little blur and noise, like those that a decoder returns."""
    share = torch.rand(len(x), 1, 1, 1, generator=noise) * 0.8
    x = torch.lerp(x, F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1), share)
    return x + 0.08 * torch.rand(len(x), 1, 1, 1, generator=noise) * torch.randn(x.shape, generator=noise)


def main() -> None:
    args = arguments(__doc__, steps=2500, batch=96, lr=1e-3).parse_args()
    torch.manual_seed(0)
    clip = CLIP(**layout.TOWER_SETTINGS)
    tokenize = open_clip.SimpleTokenizer()
    used = {0, 49406, 49407}

    def loss_of(step: int) -> torch.Tensor:
        clip.train()
        rng, noise = np.random.default_rng((2, step)), torch.Generator().manual_seed(step)
        pixels, captions, right = batch(rng, args.batch)
        tokens = tokenize(captions)
        length = int((tokens != 0).sum(1).max())
        used.update(tokens.unique().tolist())
        image = F.normalize(clip.encode_image(degraded(pixels, noise)), dim=-1)
        hidden = clip.token_embedding(tokens[:, :length]) + clip.positional_embedding[:length]
        hidden = clip.transformer(hidden, attn_mask=clip.attn_mask[:length, :length])
        hidden = clip.ln_final(hidden)
        end = hidden[torch.arange(len(tokens)), tokens.argmax(-1)]
        text = F.normalize(end @ clip.text_projection, dim=-1)
        logits = clip.logit_scale.exp().clamp(max=60) * image @ text.t()
        by_image = torch.logsumexp(logits.masked_fill(~right, -1e4), 1) - torch.logsumexp(logits, 1)
        by_text = torch.logsumexp(logits.masked_fill(~right, -1e4), 0) - torch.logsumexp(logits, 0)
        ids = torch.tensor(sorted(used))
        mask = tokens[:, :length] != 0
        seen = hidden[mask] @ clip.token_embedding.weight[ids].t()
        target = torch.searchsorted(ids, tokens[:, :length][mask])
        return -(by_image.mean() + by_text.mean()) / 2 + 0.2 * F.cross_entropy(seen, target)

    def after(_: torch.nn.Module, step: int) -> None:
        clip.eval()
        with torch.no_grad():
            rng = np.random.default_rng(11)
            hits = []
            for _ in range(4):
                pixels, captions, right = batch(rng, 65)
                image = F.normalize(clip.encode_image(pixels), dim=-1)
                full = F.normalize(clip.encode_text(tokenize(captions)), dim=-1)
                guess = (image @ full.t()).argmax(1)
                hits.append(right[torch.arange(65), guess].float().mean())
            print(f"  step {step} picks a right caption: {torch.stack(hits).mean():.3f}", flush=True)
        torch.save({"clip": clip.state_dict(), "used": sorted(used)}, args.work / "clip.pt")
        clip.train()

    train(clip, loss_of, args, after)


if __name__ == "__main__":
    main()
