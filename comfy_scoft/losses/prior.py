from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..common.errors import UserError
from ..common.settings import check, setting
from ..data.prompts import build_prompt, record_prompts
from ..data.records import CultureRecord
from .context import Loss, LossContext, per_sample_mse

PROMPTS = "{generic}"


@dataclass(frozen=True)
class PriorLoss(Loss):
    """Prior preservation: ``mean‖ε_θ(z_t, t, p) − sg ε_base(z_t, t, p)‖²`` for prompts p that should stay as they are.

    What is learned for one place otherwise leaks into prompts that name another place or none. Here the base model's
    own prediction (LoRA switched off), on the noised training image, is the target for such prompts, so it needs no
    further images. Not part of SCoFT; after the prior preservation of DreamBooth (Ruiz et al. 2023), with the base
    model's prediction in place of its images (as in learning without forgetting, Li and Hoiem 2016).
    prompts: one a line, templates as `prompts.build_prompt` fills them in: "{generic} in peru". For each image of
    each step one line is drawn, or the empty prompt, from which classifier-free guidance leads away: a drift of its
    prediction would turn up in every guided image with its sign reversed.
    Raises UserError where there is no prompt, or one cannot be filled in.
    """

    name: ClassVar[str] = "prior"
    own_prediction: ClassVar[bool] = True
    weight: float = setting(1.0, "Loss weight. 0: logged, but not trained on.", min=0.0, max=100.0, step=0.5)
    prompts: str = setting(
        PROMPTS,
        "Prompts whose result should not change, one per line. {generic} is the image's generic caption. Name other "
        "places, for example '{generic} in peru'. The empty prompt is always included.",
    )

    def __post_init__(self) -> None:
        check(self)
        if not self.templates:
            raise UserError("The Prior Loss has no prompt to keep as it is; write one a line, such as {generic}.")
        for template in self.templates:
            build_prompt(template, generic="an image")

    @property
    def templates(self) -> tuple[str, ...]:
        return tuple(line.strip() for line in self.prompts.splitlines() if line.strip())

    def texts(self, record: CultureRecord) -> tuple[str, ...]:
        """What is drawn from for a record: the empty prompt and each template, with each of its generic captions."""
        count = len(record.generic_captions or (record.caption,))
        filled = [text for template in self.templates for text in record_prompts(record, template, count)]
        return ("",) * count + tuple(filled)

    def __call__(self, context: LossContext) -> Tensor:
        texts = []
        for record, choice in zip(context.records, context.choices, strict=True):
            known = self.texts(record)
            texts.append(known[int(choice * len(known))])
        return per_sample_mse(context.predict(texts), context.predict_base(texts))
