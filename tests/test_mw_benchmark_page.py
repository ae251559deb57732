"""The mini-world benchmark's page, the same in all its forms, and the choices of its command."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

import pytest
from benchmark_units import PART, four_arms

from comfy_scoft.cli.benchmark import chosen, main
from comfy_scoft.experiments.mini_world import page, tables
from comfy_scoft.experiments.mini_world.arms import MPC, PARTS
from comfy_scoft.experiments.mini_world.job import job_file
from comfy_scoft.experiments.mini_world.training import World


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    return four_arms(tmp_path)


# --- the page ---


def test_the_page_says_the_same_in_all_forms(made_up: Path, tmp_path: Path) -> None:
    extra = made_up / "added" / "corrector.json"
    extra.parent.mkdir()
    part = {"title": "Corrector <x>", "about": "A&B.", "columns": ["", "a"], "rows": [["one", "1"]], "reading": ["So."]}
    extra.write_text(json.dumps(part), encoding="utf-8")
    job_file(made_up, (PART, MPC, 102)).unlink()
    files = page.write(World(made_up), tmp_path / "page", (PART,))
    assert {path.name for path in files} >= {"results.json", "page.md", "page.html", "page.png"}
    text, html = ((tmp_path / "page" / name).read_text(encoding="utf-8") for name in ("page.md", "page.html"))
    content = json.loads((tmp_path / "page" / "results.json").read_text(encoding="utf-8"))
    ablation = content["parts"][0]
    assert ablation["arms"]["LDM"]["figures"][tables.leakage("dark skin", "caldia")]["value"] == 0.5
    for said in (
        "Not there yet: +MPC, seed 102.",
        "python -m comfy_scoft benchmark",
        "python 3",
        "Training seeds 101, 102",
        "LDM → +M",
        "So.",
    ):
        assert said in text and escape(said) in html
    assert "| LDM | 0.50 [0.28, 0.72] | ✓ |" in text
    assert '<td>0.50 [0.28, 0.72]</td><td class="better">✓</td>' in html
    assert "| LDM | +0.50 [+0.21, +0.72] | ✗ |" in text and '<td class="worse">✗</td>' in html, "the leak into caldia"
    assert "Corrector &lt;x&gt;" in html and "A&amp;B." in html and "Corrector <x>" in text
    assert "NaN" not in json.dumps(content) and "nan" not in html.split("</style>")[1].split("base64")[0]
    assert "http" not in html and "<script" not in html and 'name="viewport"' in html
    assert "prefers-color-scheme: dark" in html


def test_an_added_part_of_another_form_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"title": "x"}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"^The added part x.json cannot be read: give it title[^.]*\.$"):
        page.added_parts(tmp_path)


def test_a_page_without_any_result_says_what_is_missing(tmp_path: Path) -> None:
    page.write(World(tmp_path), tmp_path / "page", (PART,))
    text = (tmp_path / "page" / "page.md").read_text(encoding="utf-8")
    assert "Not there yet: base, seed 101, base, seed 102" in text and "and 2 more" in text


# --- the command ---


@pytest.mark.parametrize(
    "given, said",
    [
        (["--part", "ablaton"], "There is no part named 'ablaton'; choose from: ablation, careful"),
        (["--seeds", "-1"], "--seeds is -1"),
        (["--jobs", "-1"], "--jobs is -1"),
    ],
)
def test_a_wrong_choice_is_one_sentence(
    given: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*given, "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not any(tmp_path.iterdir())


def test_parts_and_seeds_can_be_chosen() -> None:
    assert [part.name for part in chosen(["control", "ablation", "control"])] == ["control", "ablation"]
    assert [part.seeds for part in chosen(["ablation"], seeds=2)] == [(101, 102)]
    assert len(chosen([])) == len(PARTS) and len(chosen([])[0].seeds) == 5
