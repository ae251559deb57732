"""The protocol for the paper's tables: its counts by hand, its draws and splits, its networks, and users' mistakes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ccub import TABLE_3
from PIL import Image
from protocol_inputs import ROOT, arguments, inception_file, write_inputs

from comfy_scoft.__main__ import main as command
from comfy_scoft.cli import paper_tables as cli
from comfy_scoft.data.records import CATEGORIES, CultureRecord, Dataset
from comfy_scoft.experiments.paper_tables import data, human, measure, networks, paper, plan, train
from comfy_scoft.experiments.paper_tables.arms import BASE, FINETUNE, MP, MPC, PAPER, SHORT, M, arms_of
from comfy_scoft.models.noise_schedule import NoiseSchedule

# --- counts, by hand ---


def records(counts: tuple[int, ...], **more: Any) -> list[CultureRecord]:
    """So many records of each of CCUB's categories, each with a caption of its own."""
    return [
        CultureRecord(Path(f"{c}-{i}.png"), f"{c} number {i}", category=c, **more)
        for c, n in zip(CATEGORIES, counts, strict=False)
        for i in range(n)
    ]


def culture(name: str, train_records: list[CultureRecord], test: int) -> data.Culture:
    tests = [replace(record, split="test") for record in records((test,))]
    return data.Culture(name, Dataset(Path(), tuple(train_records), name), Dataset(Path(), tuple(tests), name), False)


@pytest.mark.parametrize(
    ("arm", "passes"),
    [(FINETUNE, 0), (M, 12_000), (MP, 12_000 + 1_200 * 39.62), (MPC, 12_000 + 1_200 * 39.62)],
)
def test_a_training_at_the_papers_settings_by_hand(arm: Any, passes: float) -> None:
    """3000 steps of 4 images: one prediction with gradient each, a generic one for M, a rollout at each tenth."""
    found = plan.training(arm, PAPER)
    assert (found.count, found.trained) == (3000, 12_000) and found.passes == pytest.approx(passes)


def test_the_whole_plan_of_two_cultures_by_hand() -> None:
    bare, full = records((20, 10)), records((30,), generic_captions=("a",), negatives=(Path("n.png"),))
    cultures = [culture("one", bare, 12), culture("two", full, 6)]
    generic = data.Generic(Dataset(Path(), tuple(records((700,))), "coco"), ("a prompt",) * 500)
    works = {w.kind: w for w in plan.works(cultures, arms_of((1, 2, 4)), generic, PAPER, 1024, (1, 2, 4))}
    assert (works[plan.CAPTION].count, works[plan.DEPTH].count) == (30, 30), "the second culture has its own"
    assert (works[plan.NEGATIVE].count, works[plan.NEGATIVE].passes) == (150, 150 * 20 * 2)
    assert works[plan.DISTANCE].count == 30 * 6
    assert works[plan.step(FINETUNE)].count == 2 * 3000 and works[plan.step(FINETUNE)].trained == 2 * 12_000
    own, pairs, prompts = 2 * 4 * 200, 2 * 2 * 10 * 20, 2 * (10 + 6) * 20
    shared = (1 + 2 * 3) * 500
    assert works[plan.IMAGE].count == own + pairs + prompts + shared
    assert works[plan.IMAGE].passes == works[plan.IMAGE].count * 100, "50 steps, caption and empty prompt"
    looks = 2 * own + 3 * pairs + 2 * prompts + shared + (12 + 6) + 700 + 3 * 2 * 10
    assert works[plan.LOOK].count == looks
    two = {w.kind: w.count for w in plan.works(cultures, arms_of((2,)), None, PAPER, 1024, (2,))}
    assert plan.NEGATIVE not in two and plan.step(MP) not in two and two[plan.IMAGE] == pairs + prompts


def test_the_costs_in_the_document_are_the_plans() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    cultures = []
    measured = {name: counts for name, counts in TABLE_3.items() if name != "United States"}  # no row in Table 4
    for name, counts in measured.items():
        parts = data.hold_out(Dataset(Path(), tuple(records(counts, generic_captions=("a",))), name), 0.2, 1024)
        cultures.append(data.Culture(name, *parts, held_out=True))
    generic = data.Generic(Dataset(Path(), tuple(records((5000,))), "coco"), ("a prompt",) * 500)
    for tables in ((1, 2, 4), (2,)):
        works = plan.works(cultures, arms_of(tables), generic, PAPER, 1024, tables)
        if 1 in tables:
            for work in works:
                assert f"| {work.kind} | {work.count:,} | {work.passes:,.0f} | {work.trained:,.0f} |" in text
        passes, trained = (sum(getattr(work, name) for work in works) for name in ("passes", "trained"))
        assert f"({passes:,.0f} f + {trained:,.0f} g) / 3600" in text


def test_every_network_of_the_protocol_and_its_file_are_in_the_document() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    for role, name in networks.ROLES.items():
        assert f"`{role}`" in text and networks.FILES[name].split("/")[0] in text


def test_images_are_sampled_as_the_authors_sample_them() -> None:
    """inference.py: DPMSolverMultistep, 50 steps, guidance 4.5; evenly down from 999, and from 20 to the image."""
    assert (train.SAMPLER, PAPER.sampling_steps, PAPER.guidance) == ("DPMSolverMultistep", 50, 4.5)
    for prediction in ("epsilon", "v_prediction"):
        schedule = NoiseSchedule.scaled_linear(prediction=prediction)
        sampler = train.dpm_solver(schedule)
        assert (sampler.config.solver_order, sampler.config.algorithm_type) == (2, "dpmsolver++")
        sampler.set_timesteps(50)
        assert sampler.timesteps.tolist() == [round(999 * (50 - i) / 50) for i in range(50)]
        x_0, z = torch.full((1, 4, 2, 2), 0.3), torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(1))
        for t in sampler.timesteps:  # of a model that always knows the image
            at = schedule.alphas_cumprod[t].float()
            noise = (z - at.sqrt() * x_0) / (1 - at).sqrt()
            answer = noise if prediction == "epsilon" else at.sqrt() * noise - (1 - at).sqrt() * x_0
            z = sampler.step(answer, t, z).prev_sample
        assert torch.allclose(z, x_0, atol=1e-3)


def test_the_full_method_is_the_sum_of_all_four_losses() -> None:
    """Eq. 1 to 4 at the released weights; L_P beside L_C as in the authors' example, with its own network."""
    assert [(name, options["weight"]) for name, options in MPC.specs] == [
        ("diffusion", 0.7),
        ("memorization", 0.3),
        ("perceptual", 0.01),
        ("contrastive", 0.05),
    ]
    assert MPC.roles == ["perceptual", "training"] and MP.roles == ["training"] and M.roles == []
    assert networks.ROLES["perceptual"] == "VGG16 (as released)"


def test_table_2_needs_two_trainings_and_tables_1_and_4_three_more_models() -> None:
    assert arms_of((2,)) == (FINETUNE, M)
    assert arms_of((1,)) == arms_of((4,)) == (BASE, M, MP, MPC)
    assert arms_of((1, 2, 4)) == (BASE, FINETUNE, M, MP, MPC)


def test_an_estimate_takes_measured_seconds_and_else_those_of_the_unets_passes(tmp_path: Path) -> None:
    said: list[str] = []
    one = plan.Clock(tmp_path / "times.json", said.append)
    works = [plan.Work("drawn", 10, passes=1000), plan.Work("step", 6, passes=12, trained=24), plan.Work("look", 5)]
    one.plan(works)
    assert [one.each(work) for work in works] == [None] * 3
    assert one.estimate() == "at least 0.0 min"
    one.did(plan.FORWARD, 4, 2.0)
    one.did(plan.TRAINING, 1, 3.0)
    assert one.each(works[0]) == 50.0 and one.each(works[1]) == pytest.approx(1.0 + 12.0) and one.each(works[2]) is None
    assert one.estimate() == f"at least {(500 + 78) / 60:.1f} min"
    one.did("drawn", 2, 14.0)
    one.found("drawn", 3)
    one.did("look", 1, 60.0)
    assert one.estimate() == f"about {(5 * 7 + 78 + 4 * 60) / 60:.1f} min"
    one.tell()
    assert said == [f"  about {353 / 60:.1f} min left"]
    again = plan.Clock(tmp_path / "times.json", said.append)
    assert again.each(works[0]) == 7.0, "the seconds are kept for the next start"
    (tmp_path / "times.json").write_text("[")
    assert plan.Clock(tmp_path / "times.json", said.append).seconds == {}


# --- draws, splits, figures ---


def test_what_is_held_out_is_a_fifth_of_each_category_and_the_seeds_own() -> None:
    whole = Dataset(Path(), tuple(records((34, 22, 5, 2))), "korea")
    train_part, test_part = data.hold_out(whole, 0.2, 1024)
    assert Counter(r.category for r in test_part.records) == dict(zip(CATEGORIES, (7, 4, 1), strict=False))
    assert {r.caption for r in train_part.records} | {r.caption for r in test_part.records} == {
        r.caption for r in whole.records
    }
    assert len(train_part) + len(test_part) == len(whole)
    assert {r.split for r in train_part.records} == {"train"} and {r.split for r in test_part.records} == {"test"}
    assert data.hold_out(whole, 0.2, 1024)[1] == test_part and data.hold_out(whole, 0.2, 1)[1] != test_part
    assert len(data.hold_out(Dataset(Path(), tuple(records((1, 1, 1))), "few"), 0.2, 1024)[1]) == 2


def test_pairs_have_different_captions_and_come_again_from_the_same_seed() -> None:
    many = [replace(r, caption=r.caption.split(" number")[0]) if i % 2 else r for i, r in enumerate(records((20, 20)))]
    first = data.chosen(many, 10, 1024)
    assert first == data.chosen(many, 10, 1024) != data.chosen(many, 10, 7)
    assert len({record.caption for record in first}) == 10
    assert len(data.chosen(many, 100, 1024)) == 20 + 2, "a caption that many images share counts once"


def test_every_model_draws_the_same_prompts_from_the_same_seeds() -> None:
    own = culture("china", records((12,)), 3)
    small = replace(PAPER, images=7)
    sets = [data.image_specs(arm, own, None, small, 1024, (1, 2)) for arm in (BASE, M, MPC)]
    assert [one[0] for one in sets] == [sets[0][0]] * 3
    captions = [record.caption for record in own.test.records]
    assert list(sets[0][0].prompts) == [*captions, *captions, captions[0]] and list(sets[0][0].seeds) == list(range(7))
    trained = next(one for one in sets[1] if one.name == data.TRAINED)
    assert Counter(trained.prompts) == {r.caption: 20 for r in own.pairs(small, 1024)} and len(sets[0]) == 1


def test_the_published_tables_are_consistent_with_one_another() -> None:
    """Table 1 is the mean of Table 4's columns: a slip in either would show."""
    for metric in paper.AUTOMATIC:
        for name, row in paper.TABLE_4[metric].items():
            assert sum(row.values()) / 5 == pytest.approx(paper.TABLE_1[name][metric], abs=1.1e-3), (metric, name)
    for item in paper.ITEMS:
        assert sum(row[item] for row in paper.TABLE_1.values()) == pytest.approx(10, abs=0.5), "ranks 1 to 4"
    assert [paper.code(name) for name in ("China", " south  KOREA", "mx", "Ruritania")] == ["CN", "KR", "MX", ""]


def test_a_mean_over_cultures_has_the_interval_of_independent_figures() -> None:
    def of(value: float, low: float | None, high: float | None) -> dict[str, Any]:
        return {"value": value, "low": low, "high": high, "n": 200}

    found = measure.mean([of(1.0, 0.7, 1.8), of(3.0, 2.6, 3.6)])
    assert found == {"value": 2.0, "low": pytest.approx(1.75), "high": pytest.approx(2.5), "n": 400}
    assert measure.mean([of(4.0, 3.0, 5.0)] * 3) == of(4.0, 3.0, 5.0), "one figure that all share stays itself"
    assert measure.mean([of(1.0, None, None), of(2.0, 1.0, 3.0)])["low"] is None


def test_inception_is_torch_fidelitys_own_and_other_files_are_refused(tmp_path: Path) -> None:
    path = inception_file(tmp_path)
    network = networks.load_inception(path)
    images = torch.randint(0, 256, (2, 3, 40, 48), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    theirs = network.module(images)[0]
    assert theirs.shape == (2, 2048) and torch.equal(network.embedding(images.float() / 127.5 - 1.0), theirs)
    assert (theirs[0] - theirs[1]).abs().max() > 0
    other = tmp_path / "other.pth"
    torch.save({"x": torch.zeros(1)}, other)
    with pytest.raises(ValueError, match=r"^other\.pth does not hold the weights of Inception v3: give .+\.$"):
        networks.load_inception(other)
    torch.save({"x": Path("a program could be here")}, other)
    with pytest.raises(ValueError, match=r"^other\.pth does not hold the weights of Inception v3"):
        networks.load_inception(other)


# --- mistakes ---


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def test_mistakes_are_one_sentence_before_anything_runs(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.Study, "open", None)
    few = tmp_path / "few" / "train"
    few.mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(few / "a.png")
    (few / "a.txt").write_text("one image")
    (tmp_path / "empty").mkdir()
    (tmp_path / "coco.json").write_text('{"images": []}')

    def fault(*more: str, swap: tuple[str, str] = ("", ""), **changes: str) -> str:
        options = [swap[1] if part == swap[0] else part for part in arguments(inputs, tmp_path / "o", **changes)]
        assert command([*options, *more]) == 1
        sentence = capsys.readouterr().err.strip()
        assert sentence.endswith(".") and "\n" not in sentence and "Traceback" not in sentence
        return sentence

    assert "There is no file" in fault(model=str(tmp_path / "none.safetensors"))
    assert "give a depth ControlNet with --controlnet" in fault(controlnet="")
    assert "give a depth ControlNet (.safetensors)" in fault(controlnet=str(tmp_path / "none.safetensors"))
    assert "holds a dataset: lay each culture's out" in fault(data=str(tmp_path / "empty"))
    assert "does not exist" in fault(data=str(tmp_path / "none"))
    assert "few has 1 test image(s)" in fault(data=str(tmp_path / "few"))
    assert "have no generic captions, which BLIP writes" in fault(networks="")
    kid = "kid=mini CLIP (layer 4)"
    assert "The network Inception v3 (kid) needs its weights" in fault(swap=(kid, "kid=Inception v3"))
    assert "The network DreamSim (kid)" in fault(swap=(kid, "kid=DreamSim=/none"))
    assert "is not understood: write ROLE=NAME" in fault(swap=(kid, "eye=DreamSim"))
    assert "is not a file of captions in COCO's form" in fault(generic_captions=str(tmp_path / "coco.json"))
    assert "has 1 images of different captions, but 2 are needed" in fault(
        generic_captions="", generic=str(tmp_path / "few")
    )
    assert "Negatives need depth maps" in fault(depth="DPT-hybrid (transformers)")
    assert "There is no depth estimator" in fault(depth="eyes")
    assert "There is no folder" in fault(answers=str(tmp_path / "none"))
    assert "must be a multiple of 64" in fault(resolution="100")
    assert "PyTorch has no device 'gpu' here" in fault(device="gpu")
    assert "must be 1 or more" in fault(batch="-1")
    two = [str(inputs / "data"), str(inputs / "data" / "nuvia")]
    options = arguments(inputs, tmp_path / "o")
    options[options.index("--data") + 1 : options.index("--data") + 2] = two
    assert command(options) == 1 and "Two datasets are of the culture 'nuvia'" in capsys.readouterr().err


def test_a_survey_of_models_that_draw_the_same_is_a_sentence_and_no_fault(tmp_path: Path) -> None:
    """After too short a training the images may be the same to the last bit; the tables are written all the same."""
    for i in range(2):
        Image.new("RGB", (64, 64), (i, 9, 9)).save(tmp_path / f"{i}.png")
    same = train.ImageFiles("k", data.ImageSpec("x", ("a", "b")), (tmp_path / "0.png", tmp_path / "1.png"))
    study: Any = SimpleNamespace(scale=SHORT, seed=1, out=tmp_path)
    assert "hold the same images" in human.write_page(study, "nuvia", {"one": same, "other": same})
