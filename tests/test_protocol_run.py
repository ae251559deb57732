"""Whole runs of the protocol with the mini model: what they do, say and keep, and going on after being stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from protocol_inputs import ROOT, arguments, results, write_inputs
from safetensors.torch import load_file
from survey_crowd import answer_file
from torch.nn import functional as F

from comfy_scoft.__main__ import main as command
from comfy_scoft.cli import paper_tables as cli
from comfy_scoft.data.captions import CaptionFile
from comfy_scoft.data.dataset import load_folder
from comfy_scoft.data.images import read_pixels
from comfy_scoft.experiments.engine import training
from comfy_scoft.experiments.paper_tables import data, measure, page, paper, plan, prepare, train
from comfy_scoft.experiments.paper_tables.arms import SHORT, arms_of
from comfy_scoft.features import load_features
from comfy_scoft.survey.responses import read_key


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def done(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished run, and what was counted while it ran."""
    out = tmp_path_factory.mktemp("done") / "out"
    seen: dict[str, Any] = {"passes": 0, "trained": 0}
    with pytest.MonkeyPatch.context() as patch:

        def counted(module: Any, given: tuple, kept: dict, answer: Any) -> None:
            seen["trained" if torch.is_grad_enabled() else "passes"] += len(given[0] if given else kept["sample"])

        def calibrated(found: plan.Clock, base: Any, *more: Any) -> None:
            plan.calibrate(found, base, *more)
            seen["clock"] = found
            base.unet.register_forward_hook(counted, with_kwargs=True)

        patch.setattr(cli, "calibrate", calibrated)
        assert command(arguments(inputs, out)) == 0
    return out, seen


@pytest.mark.long
def test_a_run_does_what_its_plan_says(done: tuple[Path, dict[str, Any]], inputs: Path) -> None:
    out, seen = done
    assert set(seen["clock"].left.values()) == {0.0}, seen["clock"].left
    cultures = data.load_cultures([inputs / "data"], SHORT, 1024, (1, 2, 4))
    generic = data.load_generic(inputs / "generic", inputs / "captions_val.json", SHORT, 1024)
    works = plan.works(cultures, arms_of((1, 2, 4)), generic, SHORT, 1024, (1, 2, 4))
    assert seen["trained"] == sum(work.trained for work in works)
    assert seen["passes"] == pytest.approx(sum(work.passes for work in works), rel=1e-3)
    assert len(list((out / "pictures").rglob("*.png"))) == next(w.count for w in works if w.kind == plan.IMAGE)
    assert len(list((out / "work" / "negatives").rglob("*.png"))) == 2 * 3 * 2
    loras = {path.parent.name.rsplit("-", 1)[0]: load_file(path) for path in (out / "trained").rglob("*.safetensors")}
    assert set(loras) == {f"{c}-{arm}" for c in ("nuvia", "south_korea") for arm in ("finetune", "m", "mp", "mpc")}
    key = next(name for name in loras["nuvia-m"] if name.endswith("lora_up.weight"))
    assert len({lora[key].numpy().tobytes() for lora in loras.values()}) == 8, "each has learned something of its own"
    assert not list(out.rglob("*.part")) and not list((out / "trained").rglob("run"))


@pytest.mark.long
def test_a_data_set_without_words_gets_generic_captions_and_negatives_of_its_place(
    done: tuple[Path, dict[str, Any]],
) -> None:
    out, _ = done
    (folder,) = (path for path in (out / "data").glob("south_korea-*") if path.is_dir())
    found, _ = load_folder(folder, strict=True)
    assert all(len(r.generic_captions) == 2 and len(r.negatives) == 2 and r.depth for r in found.records)
    assert {record.place for record in found.records} == {"South Korea"}
    made = CaptionFile.all_of(out / "work" / "captions").values()
    assert {r.generic_captions for r in found.records} <= {file.captions for file in made}
    said = [json.loads(path.read_text()) for path in (out / "work" / "negatives").rglob("provenance.json")]
    assert sum(all(prompt.endswith(" in South Korea") for prompt in one["prompts"]) for one in said) == 3


@pytest.mark.long
def test_the_figures_are_those_of_the_pictures_on_disk(done: tuple[Path, dict[str, Any]], inputs: Path) -> None:
    """Table 2's CLIP-I and the CLIPScore of Tables 1 and 4, from the PNG files with the network alone."""
    out, _ = done
    found = results(out)
    own = next(c for c in data.load_cultures([inputs / "data"], SHORT, 1024, (1, 2, 4)) if c.name == "nuvia")
    clip = load_features("mini CLIP (layer 5)")
    about = {path.parent: json.loads(path.read_text()) for path in (out / "pictures").rglob("about.json")}

    def vectors(paths: list[Path]) -> torch.Tensor:
        return F.normalize(clip.embedding(torch.stack([read_pixels(path) for path in paths])), dim=1)

    def drawn(model: str, name: str, prompts: list[str]) -> tuple[torch.Tensor, list[str]]:
        """The set of that name whose prompts are these."""
        (folder,) = (f for f, a in about.items() if (a["model"], a["set"]) == (model, name) and a["prompts"] == prompts)
        return vectors(sorted(folder.glob("*.png"))), prompts

    pairs = own.pairs(SHORT, 1024)
    x, _ = drawn("Finetune", data.TRAINED, [r.caption for r in pairs for _ in range(2)])
    y = vectors([record.image for record in pairs for _ in range(2)])
    expected = float((x * y).sum(1).mean())
    assert found["figures"]["nuvia"]["Finetune"]["CLIP-I"]["value"] == pytest.approx(expected, abs=1e-5)
    captions = [record.caption for record in own.test.records]
    x, prompts = drawn("SCoFT+MPC", data.OWN, [captions[i % len(captions)] for i in range(4)])
    words = F.normalize(clip.text_embedding(prompts), dim=1)
    expected = float((2.5 * (x * words).sum(1).clamp(min=0)).mean())
    assert found["figures"]["nuvia"]["SCoFT+MPC"]["CLIPScore"]["value"] == pytest.approx(expected, abs=1e-5)
    assert found["cultures"][1]["training pairs"] == [[r.image.name, r.caption] for r in pairs]


@pytest.mark.long
def test_the_page_has_every_table_with_the_papers_figures_beside(done: tuple[Path, dict[str, Any]]) -> None:
    out, _ = done
    found, text = results(out), (out / "page" / "page.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| S")]
    assert ["SCoFT+MPC (the paper)", "19.621", "4.819", "0.799", "1.83", "1.84", "1.91", "1.78"] in rows
    assert ["SCoFT+M (the paper)", "0.897", "0.808", "0.550", "0.356", "0.379", "0.814"] in rows
    assert ["SCoFT+MP (the paper)", "23.007", "–"] in rows, "South Korea is the paper's KR, nuvia is not there"
    mean = found["means"]["SCoFT+M"]["KID-CCUB"]
    both = [found["figures"][name]["SCoFT+M"]["KID-CCUB"]["value"] for name in ("South Korea", "nuvia")]
    assert mean["value"] == pytest.approx(np.mean(both))
    assert ["SCoFT+M", page.shown(mean, "KID-CCUB")] in [row[:2] for row in rows]
    base = [found["figures"][name]["Stable Diffusion"]["KID-COCO"] for name in ("South Korea", "nuvia")]
    assert base[0] == base[1] == found["means"]["Stable Diffusion"]["KID-COCO"], "generated once for all cultures"
    assert "its metrics mean nothing" in text and "does not measure cultural competence" in text
    assert any("South Korea: 20% of each category" in choice for choice in found["choices"])
    html = (out / "page" / "page.html").read_text(encoding="utf-8")
    assert html.count("<table>") == 5 and "data:image/png" in html and "Nobody has ranked" in html


class Stopped(KeyboardInterrupt):
    pass


def stop_at(patch: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> None:
    """The `call`-th call of a function of the run raises, as Ctrl-C there would."""
    whole, calls = getattr(owner, name), Counter[str]()

    def stopping(*given: Any, **more: Any) -> Any:
        calls["all"] += 1
        if calls["all"] == call:
            raise Stopped
        return whole(*given, **more)

    patch.setattr(owner, name, stopping)


def stop_after_a_step(patch: pytest.MonkeyPatch, arm: str) -> None:
    """The first optimizer step of an arm's training is its last."""
    whole = plan.Clock.did

    def did(self: plan.Clock, kind: str, count: float, seconds: float) -> None:
        if kind == f"optimizer step of {arm}":
            raise Stopped
        whole(self, kind, count, seconds)

    patch.setattr(plan.Clock, "did", did)


@pytest.mark.long
def test_stopped_anywhere_and_gone_on_with_it_gives_the_same_results(
    done: tuple[Path, dict[str, Any]], inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """While negatives are drawn, in the middle of a training (its rollout's), of a set of images, of measuring."""
    places = [(prepare.PipelineSampler, "__call__", 2), (prepare, "filter_negatives", 1), (train, "write_png", 5)]
    places += [("step", "SCoFT+MPC", 2), (measure, "embeddings", 9), (page, "write", 2)]
    for owner, name, call in places:
        with pytest.MonkeyPatch.context() as patch:
            if owner == "step":
                stop_after_a_step(patch, name)
            else:
                stop_at(patch, owner, name, call)
            assert command(arguments(inputs, tmp_path)) == 130, name
        assert "Stopped. What is done is kept" in capsys.readouterr().err
    assert command(arguments(inputs, tmp_path)) == 0
    assert results(tmp_path) == results(done[0])


@pytest.mark.long
def test_a_finished_run_draws_and_trains_nothing_again(
    done: tuple[Path, dict[str, Any]], inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = results(done[0])
    work = ((training, "train"), (train, "_generated"), (measure, "embeddings"), (prepare, "make_negatives"))
    for owner, name in work:
        monkeypatch.setattr(owner, name, None)
    assert command(arguments(inputs, done[0])) == 0 and results(done[0]) == before


@pytest.mark.long
def test_answers_to_the_survey_pages_become_the_ranks_of_table_1(
    done: tuple[Path, dict[str, Any]], inputs: Path, tmp_path: Path
) -> None:
    out, _ = done
    generator, expected = np.random.default_rng(1), []
    pages = sorted((out / "survey").glob("*.html"))
    assert len(pages) == 2 and not any(b"SCoFT" in path.read_bytes() for path in pages), "the page names no model"
    for n, path in enumerate(pages):
        survey = read_key(path.with_suffix(".survey.json"))
        assert survey.generators == ("Stable Diffusion", "SCoFT+M", "SCoFT+MP", "SCoFT+MPC")
        for k in range(2):
            ranks = np.argsort(generator.random((len(survey.pages), 4, 4)), axis=-1) + 1
            own = [r for page, r in zip(survey.pages, ranks, strict=True) if not page.repeats]
            expected.append(np.stack(own))
            content = answer_file(survey, ranks, f"country {n}", 9.0, generator)
            (tmp_path / f"{n}-{k}.json").write_text(json.dumps(content))
    before = (out / "page" / "results.json").read_bytes()
    try:
        assert command(arguments(inputs, out, answers=str(tmp_path))) == 0
        ranked = results(out)["human"]
        text = (out / "page" / "page.md").read_text(encoding="utf-8")
    finally:
        (out / "page" / "results.json").write_bytes(before)
    whole = np.concatenate(expected).mean(0)  # (items, generators)
    assert ranked["people"] == 4 and "Ranks of 4 people." in text
    for k, item in enumerate(paper.ITEMS):
        assert ranked["ranks"]["SCoFT+MP"][item]["value"] == pytest.approx(whole[k, 2])


@pytest.mark.long
def test_in_half_precision_every_table_is_whole(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Negatives, rollouts and all losses too."""
    half = ("--dtype", "bfloat16", "--precision", "bf16")
    assert command(arguments(inputs, tmp_path, *half)) == 0, capsys.readouterr().err
    found = results(tmp_path)
    assert (found["settings"]["number type"], found["settings"]["tables"]) == ("bfloat16", [1, 2, 4])
    assert all(np.isfinite(figure["value"]) for arm in found["means"].values() for figure in arm.values())
    loras = [load_file(path) for path in (tmp_path / "trained").rglob("lora.safetensors")]
    key = next(name for name in loras[0] if name.endswith("lora_up.weight"))
    assert len({lora[key].numpy().tobytes() for lora in loras}) == 8, "each has learned something of its own"


@pytest.mark.long
def test_in_half_precision_table_2_alone_needs_neither_negatives_nor_their_network(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = ("--tables", "2", "--dtype", "bfloat16", "--precision", "bf16")
    options = arguments(inputs, tmp_path, *half, controlnet="", data=str(inputs / "data" / "nuvia"))
    options[options.index("filter=mini CLIP (layer 4)")] = "filter=DreamSim"
    assert command(options) == 0, capsys.readouterr().err
    found = results(tmp_path)
    assert found["settings"]["tables"] == [2] and found["surveys"] == {} and not (tmp_path / "work/negatives").exists()
    assert set(found["means"]) == {"Finetune", "SCoFT+M"} and set(found["means"]["SCoFT+M"]) > {"DIV test", "DINO"}
    text = (tmp_path / "page/page.md").read_text(encoding="utf-8")
    assert "## Table 2" in text and "## Table 1" not in text and "samples.png" in text


def test_the_plan_names_counts_and_a_time_and_trains_nothing(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(arguments(inputs, tmp_path / "out", "--plan")) == 0
    said = capsys.readouterr().out
    assert "8 trainings" in said and "In all at least" in said
    assert next(line for line in said.splitlines() if line.startswith("generated image")).split()[2] == "78"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"times.json", ".lock"}


@pytest.mark.long
def test_killed_at_any_moment_and_gone_on_with_it_gives_the_same(
    done: tuple[Path, dict[str, Any]], inputs: Path, tmp_path: Path
) -> None:
    """SIGKILL, at what each of the stages writes first."""
    line = [sys.executable, "-m", "comfy_scoft", *arguments(inputs, tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for wanted in ("work/negatives/*/1.png", "trained/*/run/checkpoint-*", "pictures/*/00001.png", "embedded/*"):
        killed = subprocess.Popen(line, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 500
        while not list(tmp_path.glob(wanted)) and time.monotonic() < end and killed.poll() is None:
            time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL, f"it ended before there was {wanted}"
    finished = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert results(tmp_path) == results(done[0])
