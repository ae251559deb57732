"""The denoising gap: what validation measures, per record and with intervals; images known by heart open it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import toy_base, toy_dataset

from comfy_scoft.metrics import denoising_gap
from comfy_scoft.metrics.denoising_gap import GAP, HELD_OUT, TRAINED, DenoisingLosses
from comfy_scoft.metrics.intervals import difference_interval
from comfy_scoft.models.stable_diffusion import BaseModel
from comfy_scoft.training import validation
from comfy_scoft.training.latent_cache import Cache


def test_it_measures_what_validation_measures(tmp_path: Path) -> None:
    base = toy_base()
    caches = [Cache(base, toy_dataset(tmp_path / name, (0,) * 3, seed=k), 64) for k, name in enumerate("ab")]
    expected = validation.measure(caches[0], caches[1], seed=5)
    for cache, key in zip(caches, (validation.TRAINED, validation.HELD_OUT), strict=True):
        found = denoising_gap.losses(base, cache, 5, times=validation.TIMES)
        assert len(found) == 3 and sum(found) / 3 == pytest.approx(expected[key], rel=1e-6)


def test_batches_do_not_matter_and_no_more_records_than_wanted_are_measured(tmp_path: Path) -> None:
    base = toy_base()
    cache = Cache(base, toy_dataset(tmp_path, (0,) * 6), 64)
    checked: list[int] = []
    expected = denoising_gap.losses(base, cache, 1)
    assert denoising_gap.losses(base, cache, 1, lambda: checked.append(1), batch=3) == pytest.approx(expected, rel=1e-5)
    assert len(checked) == 6 * 3, "eight timesteps in calls of three"
    assert denoising_gap.losses(base, cache, 1, most=3) == expected[::2]
    assert denoising_gap.losses(base, cache, 2) != expected, "other noise"


def test_memory_that_runs_out_is_met_by_smaller_calls_and_then_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = toy_base()
    cache = Cache(base, toy_dataset(tmp_path, (0, 0)), 64)
    expected, predict = denoising_gap.losses(base, cache), base.predict

    def small(z, t, captions, most):
        if len(z) > most:
            raise RuntimeError("CUDA out of memory")
        return predict(z, t, captions)

    monkeypatch.setattr(base, "predict", lambda z, t, captions: small(z, t, captions, 1))
    assert denoising_gap.losses(base, cache) == pytest.approx(expected, rel=1e-5)
    monkeypatch.setattr(base, "predict", lambda z, t, captions: small(z, t, captions, 0))
    with pytest.raises(ValueError, match="Memory ran out while images were denoised; close other programs"):
        denoising_gap.losses(base, cache)


def by_heart(base: BaseModel, cache: Cache) -> Any:
    """A `predict` whose answer to the captions of known images is half way to the true one."""
    known = {record.caption: cache.latent((i, False))[0] for i, record in enumerate(cache.dataset.records)}
    predict = base.predict

    def half_right(z_t: Tensor, t: Tensor, captions: list[str]) -> Tensor:
        made = predict(z_t, t, captions)
        for i, caption in enumerate(captions):
            if caption in known:
                a = float(base.schedule.alphas_cumprod[t[i]])
                noise = (z_t[i] - a**0.5 * known[caption]) / (1 - a) ** 0.5
                made[i] = (made[i] + noise) / 2
        return made

    return half_right


def test_pictures_known_by_heart_open_the_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, data = toy_base(), toy_dataset(tmp_path / "a", (0,) * 3, seed=1)
    other = toy_dataset(tmp_path / "b", (0,) * 3, seed=2)
    held_out = other.replace(dataclasses.replace(record, caption="held " + record.caption) for record in other.records)
    caches = [Cache(base, part, 64) for part in (data, held_out)]
    before = DenoisingLosses(*(denoising_gap.losses(base, cache) for cache in caches))
    monkeypatch.setattr(base, "predict", by_heart(base, caches[0]))
    after = DenoisingLosses(*(denoising_gap.losses(base, cache) for cache in caches))
    assert after.trained == pytest.approx([v / 4 for v in before.trained], rel=1e-4), "half the error, squared"
    assert after.held_out == before.held_out
    change = denoising_gap.gap_change(after, before)
    assert change.value == pytest.approx(0.75 * sum(before.trained) / 3, rel=1e-4) and change.low > 0
    rows = {(row.name, row.group): row for row in denoising_gap.gap_scores([("base", before), ("LoRA", after)]).rows}
    assert len(rows) == 9 and (rows[GAP, "change"].value, rows[GAP, "change"].low) == change[:2]
    for group in ("base", "LoRA", "change"):
        gap = rows[HELD_OUT, group].value - rows[TRAINED, group].value
        assert rows[GAP, group].value == pytest.approx(gap) and "harder" in rows[GAP, group].note
    assert rows[TRAINED, "change"].high < 0, "the images that were trained on became easier"


def test_pairs_take_what_the_pictures_share_out_of_the_interval() -> None:
    generator = torch.Generator().manual_seed(0)
    before = DenoisingLosses(*torch.rand(2, 30, generator=generator).tolist())
    after = DenoisingLosses([v - 0.1 for v in before.trained], list(before.held_out))
    change = denoising_gap.gap_change(after, before)
    assert change == pytest.approx((0.1, 0.1, 0.1), abs=1e-9)
    gap = denoising_gap.gap(after)
    assert gap.high - gap.low > 0.1 and gap == difference_interval(after.held_out, after.trained)


def test_what_cannot_be_measured_is_one_sentence() -> None:
    whole = DenoisingLosses([0.1, 0.2], [0.3, 0.4])
    with pytest.raises(ValueError, match="there are only 1 of one kind: connect a larger dataset"):
        denoising_gap.gap_scores([("base", DenoisingLosses([0.1, 0.2], [0.3]))])
    with pytest.raises(ValueError, match="Both models are labeled 'LoRA'"):
        denoising_gap.gap_scores([("LoRA", whole), ("LoRA", whole)])
