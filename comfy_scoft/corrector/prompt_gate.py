"""The prompt gate: a linear classifier on the text encoder's hidden states of whether a prompt names the place.

Without it, a preference would correct images of every place. The gate detects the last token of the place's name.
CLIP's text encoders are causal, so the position of that token can be read off the hidden states: those of two texts
are equal up to the first token that differs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..common.errors import UserError
from ..common.mentions import mentions
from ..common.text import composed, printable

MAX_CAPTIONS = 24
MADE_UP = 8
"""Invented names that replace the place in each caption."""
SHRINKAGE = 0.1
"""Shrinkage of the tokens' covariance to a multiple of the identity (Ledoit & Wolf 2004), as there are few tokens."""
DOUBT, STEEP = 2 / 3, 12.0
"""The gate is half open at the share DOUBT of the way from the strongest caption without the place to the weakest with
it, and its log-odds rise by STEEP over that way; so it stays closed in doubt."""
_PREPOSITION = re.compile(r"\b(?:in|of|from|at|near)\s+\Z", re.IGNORECASE)
LETTERS = ("bcdfghklmnprstvz", "aeiou")

Embed = Callable[[str], Tensor]
"""A text -> its hidden states (1, tokens, width)."""


class PlaceGate(nn.Module):
    """Hidden states (B, tokens, width) of prompts -> (B,) in [0, 1], by each prompt's strongest token."""

    mean: Tensor
    spread: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.bias = nn.Parameter(torch.zeros(()))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))

    @property
    def width(self) -> int:
        return len(self.weight)

    def log_odds(self, hidden: Tensor) -> Tensor:
        return ((hidden - self.mean) / self.spread @ self.weight).amax(dim=1) + self.bias

    def forward(self, hidden: Tensor) -> Tensor:
        if hidden.shape[-1] != self.width:
            raise UserError(
                f"The prompt's embedding has {hidden.shape[-1]} values per token and the preference needs "
                f"{self.width}: use it with the text encoder it was learned with, or learn it again."
            )
        return self.log_odds(hidden.to(self.weight.dtype)).sigmoid()


def contrasts(
    captions: Sequence[str], place: str, others: Sequence[str], generator: torch.Generator
) -> tuple[list[str], list[list[str]]]:
    """At most MAX_CAPTIONS captions that name the place, and for each its variants that do not.

    Variants: the place left out, replaced by each of `others`, and by MADE_UP invented names. Raises UserError if no
    caption names the place.
    """
    texts = dict.fromkeys(composed(caption).strip() for caption in captions)
    naming = [text for text in texts if mentions(place, text)]
    if not naming:
        raise UserError(
            f"None of the {len(captions)} captions names the place {printable(place)!r}: write it as the captions do, "
            "or leave it empty, and the preference will hold for all prompts."
        )
    chosen = naming[:: -(-len(naming) // MAX_CAPTIONS)]
    without = []
    for caption in chosen:
        names = [*others, *(_made_up(generator) for _ in range(MADE_UP))]
        parts = _around(caption, mentions(place, caption))
        bare = [_PREPOSITION.sub("", part) for part in parts[:-1]] + parts[-1:]
        left_out = re.sub(r"\s+([,.;:!?])", r"\1", " ".join(" ".join(bare).split()))
        without.append([left_out, *(other.join(parts) for other in names)])
    return chosen, without


def _around(text: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    """The parts of a text between these (start, end)."""
    ends = [0, *(end for _, end in spans)]
    return [text[end:start] for end, (start, _) in zip(ends, [*spans, (len(text), 0)], strict=True)]


def _made_up(generator: torch.Generator) -> str:
    """A random name of two or three syllables."""
    count = int(torch.randint(2, 4, (), generator=generator))
    return "".join(row[int(torch.randint(len(row), (), generator=generator))] for _ in range(count) for row in LETTERS)


def most_texts(captions: int, others: int) -> int:
    """At most how many texts `learn_place` embeds of so many captions and names of other places."""
    return 2 + min(captions, MAX_CAPTIONS) * (2 + others + MADE_UP)


def learn_place(
    embed: Embed,
    captions: Sequence[str],
    place: str,
    others: Sequence[str],
    generator: torch.Generator,
    check: Callable[[], None] = lambda: None,
) -> tuple[PlaceGate, dict[str, float]]:
    """The gate, and its mean on held-out captions: "with the place" and "without it", NaN for fewer than four captions.

    For these means a gate is fitted without every fourth caption; the returned gate is fitted to all. check: called
    before each text is embedded; may raise to stop.
    """

    def embedded(text: str) -> Tensor:
        check()
        return embed(text)[0].detach().clone().float().cpu()

    naming, without = contrasts(captions, place, others, generator)
    states = [[embedded(text) for text in texts] for texts in ([place, f"{place} {place}"], naming, *without)]
    longest = max(len(text) for texts in states for text in texts)
    (once, twice), yes, *variants = (torch.stack([_lengthened(text, longest) for text in texts]) for texts in states)
    tokens = max(1, first_difference(once, twice) - 1)  # the first state is that of the start token
    no = torch.stack(variants)  # (N, K, T, C), and yes is (N, T, C)
    ends = [
        min(first_difference(one, other) for other in replaced) + tokens - 1
        for one, replaced in zip(yes, no[:, 1:], strict=True)
    ]
    last = torch.tensor([min(end, yes.shape[1] - 1) for end in ends])
    held = torch.arange(len(yes)) % 4 == 3
    with_place = without_it = float("nan")
    if held.any():
        gate = _fitted(yes[~held], no[~held].flatten(0, 1), last[~held])
        with_place, without_it = (float(gate(part).mean()) for part in (yes[held], no[held].flatten(0, 1)))
    return _fitted(yes, no.flatten(0, 1), last), {"with the place": with_place, "without it": without_it}


def _lengthened(states: Tensor, length: int) -> Tensor:
    """A text's hidden states (T, C), repeated and cut to (length, C): nothing but its own tokens is added."""
    return states.repeat(-(-length // len(states)), 1)[:length]


def first_difference(one: Tensor, other: Tensor) -> int:
    """The first token at which two texts' hidden states (T, C) differ; T if there is none."""
    apart = (one - other).norm(dim=1) > 1e-3 * one.norm(dim=1).clamp_min(1e-6)
    return int(apart.int().argmax()) if apart.any() else len(one)


@torch.no_grad()
def _fitted(yes: Tensor, no: Tensor, last: Tensor) -> PlaceGate:
    """Linear discriminant analysis of the last tokens of the name, yes[i, last[i]], against all other tokens."""
    ending = torch.zeros(yes.shape[:2], dtype=torch.bool)
    ending[torch.arange(len(yes)), last] = True
    after = torch.arange(yes.shape[1])[None] > last[:, None]  # their states depend on the name: in neither class
    names, rest = yes[ending], torch.cat([yes[~ending & ~after], no.flatten(0, 1)])
    gate = PlaceGate(yes.shape[-1])
    gate.mean, gate.spread = rest.mean(0), rest.std(0).clamp_min(1e-6)
    names, rest = (names - gate.mean) / gate.spread, (rest - gate.mean) / gate.spread
    covariance = rest.T @ rest / len(rest)
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * torch.eye(gate.width) * covariance.diagonal().mean()
    gate.weight.copy_(torch.linalg.solve(covariance, names.mean(0)))
    lowest, highest = gate.log_odds(yes).min(), gate.log_odds(no).max()
    slope = STEEP / (lowest - highest).clamp_min(1e-3)
    gate.bias.copy_(-slope * (highest + DOUBT * (lowest - highest)))
    gate.weight.mul_(slope)
    return gate.requires_grad_(False).eval()
