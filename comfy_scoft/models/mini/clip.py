"""The mini world's CLIP: open_clip's `CLIP` at 64 px, with weights that ship with the pack."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from ...common.errors import UserError
from ..state_dict_keys import expand_rows
from .layout import TOWER, TOWER_SETTINGS, WEIGHTS


def load_mini_clip_model(checkpoint: Path | None = None) -> Any:
    """open_clip's `CLIP`, frozen, float32. checkpoint: None for the shipped weights. UserError if missing."""
    from open_clip.model import CLIP
    from safetensors.torch import load_file

    path = Path(checkpoint) if checkpoint is not None else WEIGHTS / "clip" / TOWER
    if not path.is_file():
        raise UserError(f"The weights file {path.name} of the mini CLIP is missing: install the pack again.")
    weights = expand_rows(load_file(path), "token_embedding.weight")
    clip = CLIP(**TOWER_SETTINGS)
    clip.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()})
    return clip.eval().requires_grad_(False)


@lru_cache(maxsize=1)
def mini_clip() -> Any:
    """The shipped model, loaded once."""
    return load_mini_clip_model()


def image_text_cosine(images: Tensor, captions: list[str]) -> Tensor:
    """Cosine similarity (B,) of images (B, 3, 64, 64) in [-1, 1] and captions, by the mini CLIP."""
    import open_clip

    clip = mini_clip()
    image = F.normalize(clip.encode_image(images.float()), dim=-1)
    text = F.normalize(clip.encode_text(open_clip.SimpleTokenizer()(captions)), dim=-1)
    return (image * text).sum(-1)
