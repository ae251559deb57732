"""CLIPScore: how well images and their prompts agree, by a CLIP (Hessel et al. 2021).

The paper's own caution goes with every figure: while the people of the cultures found SCoFT's images better, their
CLIPScore fell (Table 1), for a CLIP shares the bias of the models that learned from images like its own.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..common.errors import UserError
from ..features import FeatureNetwork
from .image_set import ImageSet
from .inputs import BATCH, Observer, Work, checked_sets, embeddings, of_images
from .intervals import RESAMPLES, bootstrap_mean, paired_difference_interval
from .scores import CHANGE, Score, Scores

CAUTION = (
    "CLIPScore does not measure cultural competence: in the paper it fell while the people of the cultures found the "
    "images better, for a CLIP shares the bias of the models that it judges."
)


def clip_scores(images: Tensor, texts: Tensor) -> list[float]:
    """max(100 cos, 0) of N vectors of images (N, D) and those of their prompts (N, D), in [0, 100]."""
    return (100.0 * F.cosine_similarity(images.double(), texts.double(), dim=1)).clamp(min=0.0).tolist()


def measure(
    images: ImageSet,
    network: FeatureNetwork,
    compared_with: ImageSet | None = None,
    observe: Observer = lambda done, total: None,
    batch: int = BATCH,
) -> Scores:
    """Mean CLIPScore of a set with its own prompts; with `compared_with`, of that too, and the paired change.

    Raises UserError, one sentence, for a network without words, an empty prompt, and sets that do not belong together.
    """
    sets = checked_sets(images, compared_with)
    if not all(prompt.strip() for prompt in images.prompts):
        raise UserError("Some images have no prompt, but CLIPScore compares images with prompts: give each one.")
    known = list(dict.fromkeys(images.prompts))
    words = network.text_embedding(known)
    texts = words[torch.tensor([known.index(prompt) for prompt in images.prompts])]
    work = Work(sum(len(s.images) for s in sets), observe)
    found = [clip_scores(embeddings(network, of_images(s.images, s.label), work, batch), texts) for s in sets]
    title = f"CLIPScore · {network.name}"
    rows = [
        Score(title, part.label, *bootstrap_mean(values, groups=part.prompts).cut(0.0, 100.0), len(values), CAUTION)
        for part, values in zip(sets, found, strict=True)
    ]
    if len(found) == 2:
        change = paired_difference_interval(found[1], found[0], groups=images.prompts)
        rows.append(Score(title, CHANGE, *change, len(found[1]), CAUTION))
    said = f"mean of max(100 cos, 0) over images and their {len(known)} prompts; interval by {RESAMPLES} bootstrap "
    return Scores(tuple(rows), ((title, said + "samples of the prompts; higher agrees better"),))
