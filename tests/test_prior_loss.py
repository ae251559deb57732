"""The prior loss: by hand, against the networks it names, and what it does to a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toys import Interrupted, learned, toy_base, toy_dataset, toy_features, toy_run

from comfy_scoft import features
from comfy_scoft.data.records import CultureRecord
from comfy_scoft.losses import ContrastiveLoss, DiffusionLoss, LossContext, PriorLoss
from comfy_scoft.models.lora import LoraSettings, attach
from comfy_scoft.training import job
from comfy_scoft.training import run_folder as runs
from comfy_scoft.training.memory import MemoryOptions
from comfy_scoft.training.memory_estimate import need
from comfy_scoft.training.run import Callbacks
from comfy_scoft.training.trainer import train

RECORDS = (
    CultureRecord(Path("a.png"), "our house", ("a house", "a building"), "toy", "Toyland"),
    CultureRecord(Path("b.png"), "our bread", (), "toy", "Toyland"),
)
PROMPTS = "{generic}\n\n  {generic} in peru  "


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_its_texts_are_the_empty_prompt_and_each_line_with_each_generic_caption() -> None:
    loss = PriorLoss(prompts=PROMPTS)
    assert loss.captions(RECORDS[0]) == ("", "", "a house", "a building", "a house in peru", "a building in peru")
    assert loss.captions(RECORDS[1]) == ("", "our bread", "our bread in peru")


@pytest.mark.parametrize("prompts", ["", "  \n ", "a house in peru", "{generic", "{color} {generic}"])
def test_prompts_that_cannot_be_filled_in_are_one_sentence(prompts: str) -> None:
    with pytest.raises(ValueError, match=r"^(The|There) [^.]+\.$"):
        PriorLoss(prompts=prompts)


def test_it_compares_the_network_in_training_with_the_base_on_the_drawn_prompt() -> None:
    base, plain = toy_base(), toy_base()
    parameters = attach(base.unet, LoraSettings(rank=2, alpha=2.0), torch.Generator().manual_seed(0))
    with torch.no_grad():
        for i, p in enumerate(parameters.values()):
            p.copy_(0.3 * noise(*p.shape, seed=i))
    z, t = noise(2, 4, 8, 8, seed=9), torch.tensor([3, 800])
    context = LossContext(
        base, z, t, z, ("a", "b"), ("p", "q"), lambda n: None, lambda n: None, records=RECORDS, loss_rand=(0.7, 0.99)
    )  # 0.7 · 6 = 4.2, the fifth of six; 0.99 · 3 = 2.97, the last of three
    texts = ["a house in peru", "our bread in peru"]
    with torch.no_grad():
        target = plain.predict(z, t, texts)
    expected = (base.predict(z, t, texts) - target).square().mean((1, 2, 3))
    mine = PriorLoss(prompts=PROMPTS)(context)
    assert mine.shape == (2,) and bool((mine > 1e-3).all()) and torch.allclose(mine, expected, rtol=1e-5)
    wanted = torch.autograd.grad(expected.sum(), list(parameters.values()))
    for got, want in zip(torch.autograd.grad(mine.sum(), list(parameters.values())), wanted, strict=True):
        assert torch.allclose(got, want, rtol=1e-3, atol=1e-6)


def test_alone_it_teaches_nothing_and_beside_another_it_holds_back(tmp_path: Path) -> None:
    """The LoRA starts as the base model, so by itself the loss is 0 and stays so."""
    data = toy_dataset(tmp_path / "data")
    alone = train(toy_run(tmp_path, [PriorLoss()], dataset=data, run_folder=tmp_path / "alone"))
    assert [row["prior"] for row in alone.metrics] == [0.0, 0.0, 0.0]

    def drift(*more: PriorLoss) -> float:
        run = toy_run(tmp_path, [DiffusionLoss(), *more], dataset=data, run_folder=tmp_path / str(len(more)), steps=8)
        rows = train(run).metrics
        assert len(more) == sum("prior" in row for row in rows[:1])
        plain, z, t = toy_base(), noise(8, 4, 8, 8, seed=3), torch.arange(60, 1000, 120)
        with torch.no_grad():
            return float((run.base.predict(z, t, ["x in peru"] * 8) - plain.predict(z, t, ["x in peru"] * 8)).norm())

    assert drift(PriorLoss(30.0, "{generic} in peru")) < 0.7 * drift()


@pytest.mark.long
def test_a_run_goes_on_and_a_job_trains_to_the_same_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(features.FEATURES, "toy", lambda path: toy_features())
    losses = [DiffusionLoss(), ContrastiveLoss(toy_features(), weight=0.5), PriorLoss(2.0, PROMPTS)]
    make = {"dataset": toy_dataset(tmp_path / "data"), "batch_size": 2, "accumulation": 2, "checkpoint_every": 1}
    whole = toy_run(tmp_path, losses, run_folder=tmp_path / "whole", **make)
    expected = train(whole).lora

    def stop(step: int, row: dict[str, float]) -> None:
        if step == 2:
            raise Interrupted

    cut = toy_run(tmp_path, losses, run_folder=tmp_path / "cut", **make)
    with pytest.raises(Interrupted):
        train(cut, Callbacks(on_step=stop))
    again = toy_run(tmp_path, losses, run_folder=tmp_path / "cut", resume=True, **make)
    train(again)
    assert torch.equal(learned(again), learned(whole))
    path = job.write_job(toy_run(tmp_path, losses, **make), tmp_path / "jobs" / "toys")
    _, found, _ = job.run_job(job.read_job(path), tmp_path / "elsewhere")
    assert found.lora.keys() == expected.keys() and all(torch.equal(found.lora[k], expected[k]) for k in expected)


def test_micro_batches_change_nothing_but_rounding(tmp_path: Path) -> None:
    data = toy_dataset(tmp_path / "data")
    losses = [DiffusionLoss(), PriorLoss(2.0, PROMPTS)]

    def trained(micro: int) -> torch.Tensor:
        run = toy_run(
            tmp_path, losses, dataset=data, run_folder=tmp_path / str(micro), accumulation=4, micro_batch=micro
        )
        runs.train_and_log(run)
        return learned(run)

    assert torch.allclose(trained(0), trained(1), atol=1e-5)


def test_its_prediction_is_counted_as_a_second_graph(tmp_path: Path) -> None:
    data = toy_dataset(tmp_path / "data")
    without, with_it = (
        need(toy_run(tmp_path, [DiffusionLoss(), *more], dataset=data), MemoryOptions()).unet
        for more in ((), (PriorLoss(),))
    )
    assert with_it == 2 * without
