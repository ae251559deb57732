"""How people are drawn, read from pixels: exact renderings, and damage of a known kind."""

from __future__ import annotations

from dataclasses import astuple
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from comfy_scoft.common.errors import UserError
from comfy_scoft.metrics.fidelity import Drawn, drawn, face_of
from comfy_scoft.mini_world import oracle, world
from comfy_scoft.mini_world.splits import HELD_OUT_KINDS
from comfy_scoft.models.mini import layout
from comfy_scoft.models.single_file import load_base

KINDS, TONES = zip(*product(HELD_OUT_KINDS, world.SKIN), strict=True)


@pytest.fixture(scope="module")
def exact() -> Tensor:
    """One rendering of each held-out kind in each tone, (60, 3, 64, 64) in [-1, 1]."""
    rng, palettes = np.random.default_rng(3), list(world.PALETTES)
    images = [
        world.render(kind, palettes[i % 6], rng, tone, flip=bool(i % 2)).rgb
        for i, (kind, tone) in enumerate(zip(KINDS, TONES, strict=True))
    ]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


@pytest.fixture(scope="module")
def decoded(exact: Tensor) -> Tensor:
    """The same through the autoencoder: the best that the mini model can draw."""
    base = load_base(layout.WEIGHTS / "checkpoints" / layout.CHECKPOINT)
    with torch.no_grad():
        return base.decode(base.encode(exact)[0]).clamp(-1, 1)


def mean(found: list[Drawn], part: str) -> float:
    return sum(float(getattr(one, part)) for one in found) / len(found)


def test_exact_renderings_have_no_error_and_every_feature(exact: Tensor) -> None:
    found = drawn(exact, KINDS)
    assert [one.tone for one in found] == list(TONES)
    assert mean(found, "figure") < 0.5 and mean(found, "face") < 0.5
    assert mean(found, "features") >= 0.98 and mean(found, "overshoot") == 0.0


@pytest.mark.long
def test_the_autoencoder_costs_a_little_and_blur_more(exact: Tensor, decoded: Tensor) -> None:
    through, blurred = drawn(decoded, KINDS), drawn(gaussian_blur(decoded, 9, 2.0), KINDS)
    assert 5.0 < mean(through, "figure") < 9.0 and 3.0 < mean(through, "face") < 7.0  # words.ini says about 7 and 5
    assert mean(through, "features") >= 0.97
    assert mean(blurred, "figure") > 2.0 * mean(through, "figure") and mean(blurred, "features") < 0.7


@pytest.mark.long
def test_erased_eyes_and_mouths_are_missed_where_they_could_be_seen(decoded: Tensor) -> None:
    erased = decoded.clone()
    for image, fitted, kind, tone in zip(erased, oracle.fit(decoded, KINDS), KINDS, TONES, strict=True):
        for feature in face_of(kind)[1]:
            near = torch.nn.functional.max_pool2d(oracle.place(feature, fitted.pose)[None], 5, 1, 2)[0] > 0.1
            image[:, near] = (torch.tensor(world.SKIN[tone]) / 127.5 - 1.0)[:, None]
    found = drawn(erased, KINDS)
    assert {kind for one, kind in zip(found, KINDS, strict=True) if one.features} <= {"hero", "scientist"}  # no eyes
    assert mean(found, "face") > 1.8 * mean(drawn(decoded, KINDS), "face")


@pytest.mark.long
def test_skin_darker_than_the_darkest_tone_is_overshoot(exact: Tensor) -> None:
    darkened = drawn((exact + 1.0) * 0.6 - 1.0, KINDS)
    assert [one.overshoot for one, tone in zip(darkened, TONES, strict=True) if tone == 5] == [True] * 12
    assert not any(one.overshoot for one, tone in zip(darkened, TONES, strict=True) if tone < 3)


def test_neither_company_nor_order_matters(decoded: Tensor) -> None:
    some = [40, 3, 17]
    alone = [drawn(decoded[i : i + 1], [KINDS[i]])[0] for i in some]
    together = drawn(decoded[some], [KINDS[i] for i in some])
    assert [astuple(one) for one in together] == [astuple(one) for one in alone]


def test_every_kind_of_person_has_a_face_with_a_feature() -> None:
    faces = {name: face_of(name) for name, concept in world.concepts().items() if concept.is_person}
    assert all(int(face.sum()) > 200 and features for face, features in faces.values())
    assert all(bool(face[one].all()) for face, features in faces.values() for one in features)
    assert [len(faces[name][1]) for name in ("teacher", "bearded man", "hero")] == [3, 2, 1]


def test_another_size_is_refused() -> None:
    with pytest.raises(UserError, match="64"):
        drawn(torch.zeros(1, 3, 32, 32), ["elf"])
