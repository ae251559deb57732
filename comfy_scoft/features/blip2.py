"""BLIP-2's Q-Former: 32 queries asked of an image, in the space that BLIP-2 compares with text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .clip_conv import OPENAI_MEAN, OPENAI_STD
from .distances import mean_square
from .network import FeatureNetwork
from .weights import local_file, read_weights, require

IMAGE_SIDE = ("vision_model.", "query_tokens", "qformer.", "vision_projection.")
TEXT_SIDE = ("embeddings", "text_projection", "itm_head")


def load_blip2(checkpoint: Path | None = None) -> FeatureNetwork:
    """The projected answers to the queries, each of length 1, at 224 px: (B, 256, 32); images are stretched.

    As released (utilities/blip2_loss.py): mean squared error of normalized features. About 1.1 billion parameters:
    4.5 GB of memory in fp32. transformers' `Blip2ForImageTextRetrieval`, its text side left out.
    """
    name = "BLIP-2 Q-Former"
    path = local_file(checkpoint, name, "the model.safetensors of Salesforce/blip2-itm-vit-g", "query_tokens")
    transformers = require("transformers", "transformers", name)
    config = transformers.Blip2Config(image_text_hidden_size=256, qformer_config={"use_qformer_text_input": True})
    weights = {key: value.float() for key, value in read_weights(path).items() if key.startswith(IMAGE_SIDE)}
    with torch.device("meta"):  # nothing is drawn at random only to be replaced
        model: Any = transformers.Blip2ForImageTextRetrieval(config)
    for part in TEXT_SIDE:
        setattr(model, part, nn.Identity())
    model.load_state_dict(weights, assign=True)
    assert not any(buffer.is_meta for buffer in model.buffers()), "all that is left comes from the file"

    def queries(x: Tensor) -> Tensor:
        seen = model.vision_model(pixel_values=x, return_dict=True).last_hidden_state
        answers = model.qformer(
            query_embeds=model.query_tokens.expand(len(x), -1, -1),
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:-1], dtype=torch.long, device=x.device),
            return_dict=True,
        ).last_hidden_state
        return F.normalize(model.vision_projection(answers).float(), dim=-1).transpose(1, 2)

    return FeatureNetwork(name, model, 224, OPENAI_MEAN, OPENAI_STD, queries, clamp=True, metric=mean_square)
