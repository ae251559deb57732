"""What is trained: the arms of the benchmark as plain data, and the parts that they make up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ...losses.rollout import GradientStep, RolloutSettings
from ...models.lora import LoraSettings, Targets
from ...training.settings import OptimizerSettings, TrainSettings, identity_fields
from ..engine.training import LossSpec
from .grid import DEVELOPMENT_SEEDS, FRESH_SEEDS, GUIDANCE, TEST_SEEDS

FEATURES = "mini CLIP (layer 5)"
TRAIN = TrainSettings(steps=300, batch_size=8, accumulation=1, resolution=64, flip=False)
LORA = LoraSettings(rank=16, alpha=16.0)
OPTIMIZER = OptimizerSettings(learning_rate=1e-3, warmup=10)
ROLLOUT = RolloutSettings(every=5, steps=10)
"""The settings of the demo's workflow (workflows/train-cultural-lora-mini.json)."""

SNAPSHOTS = 6
"""The LoRA is also kept at each sixth of a training."""


@dataclass(frozen=True)
class Arm:
    """One way to train and to generate. losses: empty is the base model itself, untrained.

    at: the step whose LoRA generates the images, a multiple of steps / SNAPSHOTS; 0 is the end of the training.
    lora_strength: factor of the trained LoRA in generation. strength: of RS-Corrector in generation; 0 is none. asks:
    whether the corrector looks for the place in the prompt. guidance: the guidance scale of generation.
    """

    name: str
    losses: tuple[LossSpec, ...] = ()
    train: TrainSettings = TRAIN
    lora: LoraSettings = LORA
    optimizer: OptimizerSettings = OPTIMIZER
    rollout: RolloutSettings = ROLLOUT
    at: int = 0
    lora_strength: float = 1.0
    strength: float = 0.0
    asks: bool = True
    guidance: float = GUIDANCE

    @property
    def untouched(self) -> bool:
        """Whether it is the base model as it is, which all other arms are paired with."""
        return not self.losses and not self.strength and self.guidance == GUIDANCE

    def described(self, seed: int) -> dict[str, Any]:
        """All settings that decide the training, as plain JSON; the name, and what is generated, do not."""
        train = replace(self.train, seed=seed)
        groups = {"train": train, "lora": self.lora, "optimizer": self.optimizer, "rollout": self.rollout}
        return {
            "losses": [[name, dict(options)] for name, options in self.losses],
            **{key: identity_fields(value) for key, value in groups.items()},
        }


@dataclass(frozen=True)
class Part:
    """Arms that are compared with one another on the same seeds and grid. about: the question of the part.

    compare: (name of an arm before, and of one after), beside the base model that every arm is compared with. An arm
    before that is not of the part is the ablation's.
    """

    name: str
    about: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...] = TEST_SEEDS
    form: str = "full"
    compare: tuple[tuple[str, str], ...] = ()


def perceptual(weight: float = 1.0) -> LossSpec:
    return "perceptual", {"features": FEATURES, "weight": weight}


def contrastive(weight: float = 1.0, margin: float = 0.05, features: str = FEATURES) -> LossSpec:
    return "contrastive", {"features": features, "weight": weight, "margin": margin}


def scoft(name: str, *more: LossSpec, memorization: float = 0.3) -> Arm:
    """An arm of the diffusion loss, the memorization loss of that weight, and more losses."""
    return Arm(name, (*LDM.losses, ("memorization", {"weight": memorization}), *more))


BASE = Arm("base")
LDM = Arm("LDM", (("diffusion", {"weight": 0.7}),))
M = scoft("+M")
MP = scoft("+MP", perceptual())
MPC = scoft("+MPC", contrastive())
RELEASED = (
    scoft("+MP, released weights", perceptual(0.05)),
    scoft("+MPC, released weights", contrastive(0.05, margin=0.2)),
)
KEPT = "{generic}\n{generic} in borea\n{generic} in aria"
"""Prompts that the settings of the careful arms were chosen with; caldia is not among them."""
NAMED = KEPT + "\n{generic} in caldia"
INVENTED = "velmora tirsk ombela quandor zhelu pastrin ikkaro noubel".split()
"""Names of places that no image, prompt or measurement knows."""


def _careful(
    name: str, prompts: str = NAMED, weight: float = 6.0, prior: float = 20.0, steps: int = 900, *, kv: bool = False
) -> Arm:
    """weight: of the contrastive loss; prior: of the one that holds the other prompts; kv: a LoRA on K and V alone."""
    return replace(
        scoft(name, contrastive(weight), ("prior", {"weight": prior, "prompts": prompts})),
        train=replace(TRAIN, steps=steps),
        lora=replace(LORA, targets=Targets.CROSS_KV if kv else Targets.ATTENTION),
        optimizer=replace(OPTIMIZER, learning_rate=3e-3),
    )


def _narrow(name: str, prompts: str = NAMED) -> Arm:
    return _careful(name, prompts, weight=10.0, prior=36.0, kv=True)


CAREFUL, NARROW = _careful("careful"), _narrow("careful, K + V alone")
"""Settings that were chosen on development seeds, kinds and places (see SEARCH)."""
UNNAMED = (
    _careful(f"{CAREFUL.name}, caldia not named", KEPT),
    _narrow(f"{NARROW.name}, caldia not named", KEPT),
    _narrow(f"{NARROW.name}, invented names for caldia", "\n".join([KEPT, *(f"{{generic}} in {n}" for n in INVENTED)])),
)
CORRECTED = (
    *(Arm(f"corrected, strength {strength:g}", strength=strength) for strength in (2.5, 3.0, 3.5)),
    Arm("corrected, strength 3, asks no prompt", strength=3.0, asks=False),
    replace(LDM, name="LDM, corrected, strength 2.5", strength=2.5),
)


def _both(name: str, arm: Arm, strength: float) -> Arm:
    """A little less of the LoRA, and RS-Corrector beside it. strength: the corrector's."""
    return replace(arm, name=f"{name}, {strength:g}", lora_strength=0.9, strength=strength)


def _guided(arm: Arm, scale: float, name: str = "") -> Arm:
    return replace(arm, name=f"{name or arm.name}, guidance {scale:g}", guidance=scale)


COMBINED = (
    _both("both", CAREFUL, 1.0),
    *(_both("both, K + V alone", NARROW, strength) for strength in (0.5, 1.0)),
)
NARROW_BOTH = COMBINED[1]
"""The preset's training and strengths, at the guidance of all other arms."""
SCALES = (3.0, 2.0, 1.5)
GUIDED = (
    *(_guided(BASE, scale) for scale in SCALES[1:]),
    *(_guided(NARROW_BOTH, scale, "preset") for scale in SCALES),
    *(_guided(arm, SCALES[-1]) for arm in (LDM, MPC)),
)
"""The base model and the preset at each guidance scale, and what the lowest alone does for other trainings."""
PRESET = GUIDED[4]
"""What the workflow train-cultural-lora-careful trains and generates with."""


def _weights() -> tuple[Arm, ...]:
    """Each of the three weights and the margin alone, lower and higher than the workflow's, and a narrower LoRA."""
    return (
        *(M, MP, MPC),
        *(scoft(f"M {w:g}", memorization=w) for w in (0.1, 0.6, 1.2)),
        *(scoft(f"P {w:g}", perceptual(w)) for w in (0.1, 0.3, 3.0)),
        *(scoft(f"C {w:g}", contrastive(w)) for w in (0.1, 0.3, 3.0)),
        *(scoft(f"margin {m:g}", contrastive(margin=m)) for m in (0.0, 0.1, 0.2)),
        replace(MPC, name="K + V alone", lora=NARROW.lora),
    )


def _features() -> tuple[Arm, ...]:
    """+MPC with each layer of the mini CLIP, and with the gradient in each of the rollout's steps (Figure 7)."""
    layers = [scoft(f"layer {k}", contrastive(features=f"mini CLIP (layer {k})")) for k in range(1, 6)]
    steps = [
        replace(MPC, name=f"gradient in the {step} step", rollout=replace(ROLLOUT, gradient_step=step))
        for step in (GradientStep.LAST, GradientStep.RANDOM)
    ]
    return (*layers, *steps)


def _along() -> tuple[Arm, ...]:
    """LDM, +M and +MPC at each sixth of their training (Figure 9)."""
    every = TRAIN.steps // SNAPSHOTS
    steps = range(every, TRAIN.steps + 1, every)
    return tuple(replace(arm, name=f"{arm.name}, step {at}", at=at) for arm in (LDM, M, MPC) for at in steps)


def _against(before: str, arms: tuple[Arm, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((before, arm.name) for arm in arms if arm.name != before)


def _against_both(arms: tuple[Arm, ...]) -> tuple[tuple[str, str], ...]:
    """Against LDM and against +MPC: a correction has a price beside either."""
    return tuple(pair for before in (LDM, MPC) for pair in _against(before.name, arms))


def _weight_pairs(arms: tuple[Arm, ...]) -> tuple[tuple[str, str], ...]:
    """Each changed weight against the arm that has the workflow's."""
    usual = {"M": M, "P": MP, "C": MPC, "margin": MPC, "K": MPC}
    return tuple((usual[arm.name.split()[0]].name, arm.name) for arm in arms if arm.name.split()[0] in usual)


ADDED = ((LDM.name, M.name), (M.name, MP.name), (M.name, MPC.name), (MP.name, MPC.name))
"""What M adds, P, C, and C in place of P."""
MATCHED = scoft("+MP at C's norm", ("matched", contrastive()[1]))
_TWO_SEEDS = TEST_SEEDS[:2]
_PARTS = (
    Part(
        *("ablation", "What each loss adds, at the settings of the demo's workflow.", (BASE, LDM, M, MP, MPC)),
        compare=ADDED,
    ),
    Part(
        *("careful", "Settings chosen on other seeds, kinds and places than those shown here.", (CAREFUL, NARROW)),
        compare=_against_both((CAREFUL, NARROW)),
    ),
    Part(
        "combined",
        "A careful LoRA at 0.9 of its strength, and RS-Corrector beside it, whose strength is the number.",
        COMBINED,
        compare=_against_both(COMBINED),
    ),
    Part(
        "fresh seeds",
        "The careful workflow's settings once more, with training seeds that were named before any was trained.",
        *((NARROW, NARROW_BOTH), FRESH_SEEDS),
        compare=_against_both((NARROW, NARROW_BOTH)),
    ),
    Part(
        *("ten seeds", "The same over both sets of seeds: narrower, and half of it not as untouched.", (NARROW_BOTH,)),
        seeds=(*TEST_SEEDS, *FRESH_SEEDS),
        compare=_against_both((NARROW_BOTH,)),
    ),
    Part(
        "guidance",
        "The preset and the base model at lower guidance: how people are drawn, and what it costs.",
        (BASE, *GUIDED),
        compare=_against(GUIDED[2].name, GUIDED[3:5]) + tuple((arm.name, PRESET.name) for arm in GUIDED[5:]),
    ),
    Part(
        "unnamed place",
        "The same without one place among the prompts that are to stay as they are.",
        *((CAREFUL, NARROW, *UNNAMED), _TWO_SEEDS),
    ),
    Part(
        "corrector",
        "RS-Corrector: the model stays as it is, and a learned preference corrects its images during sampling.",
        *(CORRECTED, TEST_SEEDS, "lean", _against(MPC.name, CORRECTED)),
    ),
    Part(
        "released weights",
        "The weights of the authors' released script: 0.7, 0.3 and 0.05.",
        *((LDM, M, *RELEASED), _TWO_SEEDS),
    ),
    Part(
        "weights",
        "Each weight and the margin alone, lower and higher, and a LoRA on the cross-attention's K and V alone.",
        *(_weights(), _TWO_SEEDS, "lean", _weight_pairs(_weights())),
    ),
    Part(
        "features",
        "The feature layer, and the step of the rollout with the gradient (Figure 7), against layer 5 with the "
        f"{ROLLOUT.gradient_step} step.",
        *(_features(), _TWO_SEEDS, "lean", _against("layer 5", _features())),
    ),
    Part(
        "along training",
        "Memorization and diversity during training (Figure 9).",
        *(_along(), _TWO_SEEDS, "taught"),
        compare=tuple((arm.name, arm.name.replace(" 50", " 300")) for arm in _along() if arm.at == 50),
    ),
    Part(
        "control",
        "Is it C, or just a stronger P? In the middle arm P's gradient is scaled, image by image, to the norm that "
        "C's would have.",
        *((MP, MATCHED, MPC), TEST_SEEDS[:3], "lean", ((MATCHED.name, MPC.name), (MP.name, MATCHED.name))),
    ),
)
PARTS: dict[str, Part] = {part.name: part for part in _PARTS}
"""Arms that two parts share are trained once."""

SHORT_IMAGES = 6
"""Of the community's images, in the short form."""
_FAST = replace(TRAIN, steps=6, batch_size=2)
SHORT = Part(
    "ablation",
    "Two arms and few images, to see that all of it runs: its metrics mean nothing.",
    (
        BASE,
        replace(LDM, train=_FAST),
        replace(MPC, train=_FAST, rollout=RolloutSettings(every=3, steps=2)),
    ),
    seeds=TEST_SEEDS[:1],
    form="short",
)


_TRIED = _careful("C 6, prior 20, 900 steps")
_TRIED_NARROW = tuple(
    _careful(f"C {c:g}, prior {p:g}, 900 steps, K + V alone", weight=c, prior=p, kv=True)
    for c, p in ((6.0, 24.0), (6.0, 36.0), (10.0, 36.0))
)
SEARCH = Part(
    "development",
    "What settings were chosen by: other seeds and kinds of people than those above, and fewer images.",
    (
        BASE,
        _careful("C 4, prior 16, 600 steps", weight=4.0, prior=16.0, steps=600),
        _TRIED,
        *_TRIED_NARROW,
        *(_both(f"{arm.name}, both", arm, strength) for arm in (_TRIED, _TRIED_NARROW[-1]) for strength in (0.5, 1.0)),
        *CORRECTED[:3],
    ),
    DEVELOPMENT_SEEDS[:2],
    "development",
)
"""The candidates that the settings of `careful` and the corrector's strength were last chosen from."""
SEARCH_GUIDANCE = Part(
    "guidance, development",
    "What the guidance was chosen by: the lowest figure error among the scales whose dark skin in nuvia is .90 or more "
    "and whose change in every other place is within .05.",
    (BASE, *GUIDED[:5]),
    DEVELOPMENT_SEEDS[:2],
    "development",
)
ALL = {**PARTS, SEARCH.name: SEARCH, SEARCH_GUIDANCE.name: SEARCH_GUIDANCE}


def jobs(parts: tuple[Part, ...]) -> list[tuple[Part, Arm, int]]:
    """Every job: a part's arm with a seed. Seeds come first, so that whole comparisons are there early."""
    return [(part, arm, seed) for part in parts for seed in part.seeds for arm in part.arms]
