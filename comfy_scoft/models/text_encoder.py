"""The text encoders of a single-file checkpoint, outside ComfyUI: captions -> TextEmbedding, as ComfyUI embeds them.

Nothing is downloaded: the sizes are in `configs/`, and the vocabulary is the one that open_clip carries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from ..common.errors import UserError
from ..common.settings import Choice
from . import state_dict_keys
from .mini import layout
from .stable_diffusion import TextEmbedding

START, END, LENGTH = 49406, 49407, 77
WINDOW = LENGTH - 2
"""Tokens of a text in one window of the encoder, beside start and end."""
UNUSED = ("position_ids", "logit_scale", "text_projection.weight")
"""Parts of a CLIP that a file may carry and the hidden states do not need."""

Weights = dict[str, Tensor]


class LongCaptions(Choice):
    """What is read of a text of more than WINDOW tokens: every window, as ComfyUI's CLIP Text Encode does, or the first
    alone, as in the released code."""

    ALL = "all windows"
    FIRST = "first window"


class Hidden(StrEnum):
    """The states that the UNet reads: the last layer's (normalized, as CLIP gives them), or the penultimate layer's,
    normalized (SD 2.x) or as they are (SD XL)."""

    LAST = "last"
    PENULTIMATE_NORMALIZED = "penultimate, normalized"
    PENULTIMATE = "penultimate"


def token_ids(caption: str, pad: int = END) -> Tensor:
    """(windows, 77) int64, each a start, at most 75 tokens of CLIP's vocabulary, an end, and `pad` for the rest.

    OpenAI's CLIP pads with its end token, OpenCLIP with 0. ComfyUI's CLIP Text Encode splits a text without weights
    into the same windows.
    """
    ids = _vocabulary().encode(caption)
    windows = [[START, *ids[i : i + WINDOW], END] for i in range(0, max(1, len(ids)), WINDOW)]
    return torch.tensor([window + [pad] * (LENGTH - len(window)) for window in windows])


@lru_cache(maxsize=100_000)
def is_long(caption: str) -> bool:
    """Whether a text has more than WINDOW tokens."""
    return len(caption.encode()) > WINDOW and len(token_ids(caption)) > 1  # no token is shorter than a byte


@lru_cache(maxsize=1)
def _vocabulary() -> Any:
    import open_clip

    return open_clip.SimpleTokenizer()


def embedder(
    parts: Sequence[Mapping[str, Any]],
    read: Callable[[str], Weights],
    advice: str,
    long_captions: LongCaptions = LongCaptions.ALL,
) -> Callable:
    """caption -> TextEmbedding, by the encoders that `parts` (the "text" of a family's configuration) describe.

    `read` gives the weights under a prefix of the file. It is asked at the first caption: a job that stores its
    embeddings never loads an encoder. Hidden states of two encoders are put side by side, as SD XL was trained.
    """
    encoders: list[Callable[[str], TextEmbedding]] = []

    def embed(caption: str) -> TextEmbedding:
        if not encoders:
            encoders.extend(_encoder(part, read(part["prefix"]), advice, long_captions) for part in parts)
        found = [encode(caption) for encode in encoders]
        pooled = next((text.pooled for text in found if text.pooled is not None), None)
        return TextEmbedding(torch.cat([text.hidden for text in found], dim=-1), pooled)

    return embed


def _encoder(
    part: Mapping[str, Any], weights: Weights, advice: str, long_captions: LongCaptions
) -> Callable[[str], TextEmbedding]:
    """One encoder. Its windows are one batch, put side by side; the pooled embedding is the first one's."""
    projection = None
    if part["names"] == "open_clip":
        projection = weights.get("text_projection")
        if projection is None and "text_projection.weight" in weights:  # as ComfyUI saves it
            projection = weights["text_projection.weight"].T
        try:
            weights = state_dict_keys.clip_text_weights(weights)
        except KeyError as error:
            raise UserError(f"The weights of the text encoder do not fit: {error} is missing: {advice}") from error
    encoder = text_encoder({**layout.TEXT, **part["config"]}, weights, advice)
    pad, kind, pooled = part["pad"], Hidden(part["hidden"]), part.get("pooled", False)
    if pooled and projection is None:
        raise UserError(f"The file lacks the text projection of its second text encoder: {advice}")

    def embed(caption: str) -> TextEmbedding:
        ids = token_ids(caption, pad)[: None if long_captions is LongCaptions.ALL else 1]
        with torch.no_grad():
            found = encoder(ids, output_hidden_states=kind != Hidden.LAST)
            last = found[0]
            hidden = last if kind == Hidden.LAST else found.hidden_states[-2]
            if kind == Hidden.PENULTIMATE_NORMALIZED:
                hidden = _body(encoder).final_layer_norm(hidden)
            end = int((ids[0] == END).nonzero()[0])
            return TextEmbedding(hidden.flatten(0, 1).unsqueeze(0), last[:1, end] @ projection if pooled else None)

    return embed


def _body(encoder: nn.Module) -> Any:
    """transformers 4 keeps the layers in `text_model`, transformers 5 in the model itself."""
    return getattr(encoder, "text_model", encoder)


def text_encoder(config: Mapping[str, Any], weights: Weights, advice: str = "give another checkpoint.") -> Any:
    """transformers' CLIPTextModel with the text weights of a single file ("text_model.…"), frozen.

    With "eager" attention its hidden states are, bit for bit, those of ComfyUI on a CPU: a job exported there trains
    the same LoRA here (a test compares the two).
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        encoder = CLIPTextModel(CLIPTextConfig(**config, attn_implementation="eager"))
    weights = state_dict_keys.expand_rows(weights, "text_model.embeddings.token_embedding.weight")
    known = {k.removeprefix("text_model."): v for k, v in weights.items() if not k.endswith(UNUSED)}
    # transformers 5 dropped "text_model." from its own names
    names = {k: k.removeprefix("text_model.") for k in encoder.state_dict() if not k.endswith("position_ids")}
    filled = state_dict_keys.fill(encoder, names, known, "the text encoder", advice)
    _body(filled).embeddings.position_ids = torch.arange(LENGTH).unsqueeze(0)  # a buffer that no file need hold
    return filled
