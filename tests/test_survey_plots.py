"""A survey's figures and its report page: right numbers, names beside them, and nothing that runs or leaks."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import DESKTOP, PHONE, open_page
from playwright.sync_api import expect
from survey_crowd import simulated_survey
from survey_pages import look

from comfy_scoft.reports.plots import survey as plots
from comfy_scoft.reports.plots.canvas import Page
from comfy_scoft.survey import responses
from comfy_scoft.survey.aggregate import Analysis, aggregate
from comfy_scoft.survey.report import report_page
from comfy_scoft.survey.responses import load_responses
from comfy_scoft.survey.spec import Ranking, Response

EXAMPLE = Path(responses.__file__).parent / "example"
FIGURES = (plots.rank_violins, plots.agreement_heatmap, plots.rank_counts, plots.win_matrix)
HOSTILE = "</title><script>alert('$x$')</script>\"'&"
COUNTRIES = [
    "United Kingdom of Great Britain and Northern Ireland",
    "Democratic Republic of the Congo",
    "Saint Vincent and the Grenadines",
    "São Tomé e Príncipe",
    "대한민국",
    "中国",
    "भारत",
    "México",
    "Nigeria",
    "Bosnia and Herzegovina",
]


@pytest.fixture(scope="module")
def example() -> Analysis:
    return aggregate(load_responses(None, EXAMPLE)[0], resamples=200)


def made_up(generators: tuple[str, ...], countries: list[str], people: int, title: str = "t") -> Analysis:
    """A survey of two pages that `people` people answer at random."""
    survey = simulated_survey(generators, 2, 1, 1, title)
    drawn = np.random.default_rng(0)

    def order() -> tuple[int, ...]:
        return tuple(map(int, drawn.permutation(len(generators))))

    found = [
        Response(
            f"token-{k}",
            countries[k % len(countries)],
            None,
            tuple(Ranking(page.id, item.id, order()) for page in survey.pages for item in survey.items),
            f"{k}.json",
        )
        for k in range(people)
    ]
    return aggregate(replace(survey, responses=tuple(found)), resamples=100)


def is_image(image: torch.Tensor) -> bool:
    assert image.dtype == torch.float32 and image.ndim == 3 and image.shape[2] == 3
    assert 0.0 <= float(image.min()) < 0.3 and float(image.max()) == 1.0
    return True


def printed(draw, *args) -> list[str]:
    """The texts that a figure prints."""
    texts: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Page, "text", lambda self, x, y, text, *a, **look: texts.append(text))
        draw(*args)
    return texts


@pytest.mark.parametrize("draw", FIGURES)
@pytest.mark.long
def test_figures_name_generators_and_people_beside_what_they_show(draw, example):
    assert is_image(draw(example))
    texts = printed(draw, example)
    names = example.table.countries if draw is plots.agreement_heatmap else example.survey.generators
    for name in names:
        assert name in texts, name
    assert example.survey.title in texts


@pytest.mark.parametrize("draw", FIGURES)
@pytest.mark.parametrize(
    ("generators", "countries", "people"),
    [
        (("base", "SCoFT"), ["nuvia"], 1),
        (("base", "SCoFT"), [""], 2),
        pytest.param(
            ("Stable Diffusion", "a LoRA with a rather long name of its own", "$c$", "d", "e", "f"),
            COUNTRIES,
            51,
            marks=pytest.mark.long,
        ),
    ],
    ids=["one person", "two people", "six generators, ten countries"],
)
def test_figures_bear_tiny_and_large_surveys(draw, generators, countries, people):
    image = draw(made_up(generators, countries, people, HOSTILE))
    assert is_image(image)
    assert image.shape[0] < 4000 and image.shape[1] < 2000


def test_counts_of_ranks_add_up(example):
    counts = plots._counts(example, "", "stereotypes")
    assert counts.sum(0).tolist() == counts.sum(1).tolist() == [24 * 8] * 4
    chosen = example.table.item == 2
    assert counts[3, 0] == (example.table.ranks[chosen][:, 3] == 1).sum()
    assert plots._counts(example, "borea", "stereotypes").sum() == 7 * 8 * 4


def test_the_win_matrix_prints_every_rate_with_its_interval(example):
    texts = printed(plots.win_matrix, example)
    wins = example.whole.wins
    for a in range(4):
        for b in range(4):
            if a != b:
                assert f"{wins[0, a, b]:.0%}" in texts and f"[{wins[1, a, b]:.0%}, {wins[2, a, b]:.0%}]" in texts
    assert "interval unknown" in printed(plots.win_matrix, made_up(("a", "b"), ["x"], 1))


def test_the_scale_is_told_apart_without_hue():
    """Both ends are dark, the middle light, and the ends differ in blue against red for every kind of eyes."""
    low, middle, high = (np.array(plots._colors()(x)[:3]) for x in (0.0, 0.5, 1.0))
    assert middle.min() > 0.95 and low.mean() < 0.4 and high.mean() < 0.45
    assert high[2] - low[2] > 0.5 and low[0] - high[0] > 0.5


@pytest.mark.long
def test_grey_marks_people_without_a_common_page():
    found = made_up(("a", "b"), ["x"], 4)
    skills = found.whole.consensus.skills
    assert np.isnan(np.diag(skills.agreement)).all() and np.isfinite(skills.agreement).sum() == 12
    gray = torch.tensor([0xC8, 0xC8, 0xC8]) / 255
    assert int(((plots.agreement_heatmap(found) - gray).abs().amax(2) < 0.005).sum()) > 1000


class Seen(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


def test_the_report_page_is_one_file_that_names_no_participant_and_needs_no_network(example):
    pictures = [("Counts", "How often", plots.rank_counts(example))]
    page = report_page(example, pictures)
    seen = Seen(page)
    images = [attributes for tag, attributes in seen.tags if tag == "img"]
    assert len(images) == 1 and images[0]["alt"] == "How often"
    assert (images[0]["src"] or "").startswith("data:image/png;base64,")
    rest = re.sub(r"base64,[^\"]+", "", page)
    assert "http" not in rest.replace("http-equiv", "") and "<script" not in rest
    assert "default-src 'none'" in rest and '<html lang="en">' in rest
    for response in example.survey.responses:
        assert response.participant not in page and response.file not in page
    for text in (
        "24 people answered: 12 from nuvia",
        "Who disagrees",
        "no. 24",
        "borea",
        "can hide an insightful minority",
        "SCoFT+MPC > SCoFT+MP",
    ):
        assert any(text in part for part in seen.texts), text
    assert sum(tag == "h2" for tag, _ in seen.tags) >= 7


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.long
def test_the_first_screen_says_who_answered_and_what_they_prefer_with_a_chart(size, example, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(report_page(example, [("Counts", "How often", plots.rank_counts(example))]), encoding="utf-8")
    with open_page(**{**size, "viewport": {**size["viewport"], "height": 844}}) as page:
        page.goto(path.as_uri())
        for selector in ("h1", ".result", ".chart li:nth-child(3) .bar"):
            box = page.locator(selector).first.bounding_box()
            assert box is not None and box["y"] + box["height"] < 844, selector
        seen = page.locator("body").inner_text()
        assert "24 people answered" in seen and "54 of 100" in seen and "borea, 7 people" in seen
        for word in ("MMSR", "Krippendorff", "Kendall", "Bradley"):
            assert word not in seen, word
        look(page)
        page.locator("summary").click()
        expect(page.get_by_text("noisy Bradley–Terry").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_text_of_others_stays_text_in_the_report():
    found = made_up(("base", HOSTILE), [HOSTILE, "b"], 6, HOSTILE)
    page = report_page(found, [(HOSTILE, HOSTILE, torch.ones(4, 4, 3))])
    seen = Seen(page)
    assert "script" not in {tag for tag, _ in seen.tags}
    assert sum(HOSTILE in text for text in seen.texts) >= 5
    assert {tag for tag, _ in seen.tags} == {tag for tag, _ in Seen(report_page(
        made_up(("base", "x"), ["a", "b"], 6), [("h", "w", torch.ones(4, 4, 3))])).tags}  # fmt: skip
