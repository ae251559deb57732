from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..common.errors import UserError
from ..common.settings import check, setting
from ..data.prompts import build_prompt, record_prompts
from ..data.records import CultureRecord
from .context import Calls, Loss, LossContext, per_sample_mse

PROMPTS = "{generic}"


@dataclass(frozen=True)
class PriorLoss(Loss):
    """Prior preservation: ``mean‖ε_θ(z_t, t, p) − sg ε_base(z_t, t, p)‖²`` for prompts p that should stay as they are.

    Without it, what is learned for one place leaks into prompts that name another place, or none. Here the base model's
    own prediction (LoRA switched off), on the noised training image, is the target for such prompts, so it needs no
    further images. Not part of SCoFT; after the prior preservation of DreamBooth (Ruiz et al. 2023), with the base
    model's prediction in place of its images (as in learning without forgetting, Li and Hoiem 2016).
    prompts: one a line, templates as `prompts.build_prompt` fills them in: "{generic} in peru". For each image of
    each step one line is sampled, or the empty prompt: classifier-free guidance subtracts its prediction, so a drift
    there would appear in every guided image with its sign reversed.
    Raises UserError where there is no prompt, or one cannot be filled in.
    """

    name: ClassVar[str] = "prior"
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

    @property
    def calls(self) -> Calls:
        return Calls(own=1, own_base=1)

    def captions(self, record: CultureRecord) -> tuple[str, ...]:
        """The prompts of a record: the empty one and each template, with each of its generic captions."""
        count = len(record.generic_captions or record.captions)
        filled = [prompt for template in self.templates for prompt in record_prompts(record, template, count)]
        return ("",) * count + tuple(filled)

    def __call__(self, context: LossContext) -> Tensor:
        prompts = []
        for record, rand in zip(context.records, context.loss_rand, strict=True):
            own = self.captions(record)
            prompts.append(own[int(rand * len(own))])
        return per_sample_mse(context.predict(prompts), context.predict_base(prompts))
