"""CLIPScore: how well images match their prompts by a CLIP model (Hessel et al. 2021).

Every score has the paper's caution: people of the cultures preferred SCoFT's images while their CLIPScore fell
(Table 1), since CLIP shares the bias of models trained on similar images.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..common.errors import UserError
from ..features import FeatureNetwork
from ..models.text_encoder import WINDOW, is_long
from .image_set import ImageSet
from .inputs import BATCH, ImageCounter, OnImages, checked_sets, set_embeddings
from .intervals import RESAMPLES
from .scores import Scores, mean_scores

CAUTION = (
    "CLIPScore does not measure cultural competence: in the paper it fell while the people of the cultures found the "
    "images better, for a CLIP shares the bias of the models that it judges."
)


def clip_scores(images: Tensor, texts: Tensor) -> list[float]:
    """max(100 cos, 0), in [0, 100], of image embeddings (N, D) and the embeddings of their prompts (N, D).

    Hessel et al. have the factor 2.5 in place of 100, and the values of SCoFT's tables (0.8) are of that scale.
    """
    return (100.0 * F.cosine_similarity(images.double(), texts.double(), dim=1)).clamp(min=0.0).tolist()


def measure(
    images: ImageSet,
    network: FeatureNetwork,
    compared_with: ImageSet | None = None,
    observe: OnImages = lambda done, total: None,
    batch: int = BATCH,
) -> Scores:
    """Mean CLIPScore of a set and its prompts; with `compared_with`, also of that set, and the paired change.

    A CLIP compares at most its own 77 tokens, start and end included: that is the metric, and what a longer prompt says
    after them does not count.
    Raises UserError for a network without a text encoder, an empty prompt, and sets that cannot be compared.
    """
    sets = checked_sets(images, compared_with)
    if not all(prompt.strip() for prompt in images.prompts):
        raise UserError("Some images have no prompt, but CLIPScore compares images with prompts: give each one.")
    prompts = list(dict.fromkeys(images.prompts))
    texts = network.text_embedding(prompts)[torch.tensor([prompts.index(prompt) for prompt in images.prompts])]
    counter = ImageCounter(sum(len(s.images) for s in sets), observe)
    values = [clip_scores(vectors, texts) for vectors in set_embeddings(network, sets, counter, batch)]
    name = f"CLIPScore · {network.name}"
    rows = mean_scores(name, [s.label for s in sets], values, images.prompts, 0.0, 100.0, CAUTION)
    method = (
        f"mean of 100 max(cos, 0) over images and their {len(prompts)} prompts (published CLIPScore: 2.5 max(cos, 0), "
        f"a fortieth); interval by {RESAMPLES} bootstrap samples of the prompts; higher agrees better"
    )
    if cut := sum(map(is_long, prompts)):
        method += f"; of {cut} prompts only the first {WINDOW} tokens count, which is all that a CLIP compares"
    return Scores(tuple(rows), ((name, method),))
