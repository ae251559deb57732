"""The survey's page in a real Chromium: what people do on it, and what is then to be seen there.

What a page shows after a tap comes a little later than the tap, so all that is looked at is waited for.
"""

from __future__ import annotations

import importlib.resources
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect
from survey_toys import image_sets

from comfy_scoft.survey.build import SurveySettings, build, save
from comfy_scoft.survey.spec import Survey

SETTINGS = SurveySettings(pages=2, attention_checks=1, seed=1, items="Fit | Which fits?\nHurt | Which hurts least?")
UNANSWERED = ".card:not(.ranked) .picture"
NEXT, BACK = ".onward .main", ".onward button:not(.main)"
AXE = (importlib.resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
LOADED = "() => [...document.images].every(image => image.complete && image.naturalWidth > 0)"


@dataclass(frozen=True)
class Made:
    survey: Survey
    path: Path

    @property
    def url(self) -> str:
        return self.path.as_uri()


def made(folder: Path, sets: int = 3, **changes: Any) -> Made:
    survey, page = build(image_sets(sets), replace(SETTINGS, **changes))
    return Made(survey, save(survey, page, folder))


def enter(page: Page, url: str, country: str = "Nuvia") -> None:
    """Open the page, agree, and begin."""
    page.goto(url)
    page.check("#agree")
    page.fill("#country", country)
    page.fill("#years", "12,5")
    onward(page, lambda: page.click(".start .main"))


def onward(page: Page, act: Callable[[], object] | None = None) -> None:
    """Go to the next screen, by a click on Next unless `act` does it, and wait for that screen."""
    before = page.evaluate("location.href")
    (act or (lambda: page.click(NEXT)))()
    page.wait_for_function("before => location.href !== before", arg=before)


def shown(page: Page) -> list[str]:
    return page.locator(".card").evaluate_all("cards => cards.map(card => card.dataset.image)")


def badged(page: Page, ranks: list[str], why: str | None = None) -> None:
    """Wait until the images, in the order shown, have these ranks; "" is none yet."""
    expect(page.locator(".badge"), why).to_have_text(ranks)


def fill_in(page: Page, made: Made) -> None:
    """Rank every remaining page by clicks, in the order of the generators, and come to the review."""
    while page.locator(".ranking").count():
        images = shown(page)
        order = next(p.images for p in made.survey.pages if set(p.images) == set(images))
        for image in order[:-1]:
            page.click(f'[data-image="{image}"]:not(.ranked) .picture')
        onward(page)


def exported(page: Page, act: Callable[[], object] | None = None) -> tuple[str, dict[str, Any]]:
    """Save the answers, by a click on the last screen unless `act` does it: the file's name and what is in it."""
    with page.expect_download() as download:
        (act or page.locator(".done .main").click)()
    return download.value.suggested_filename, json.loads(Path(download.value.path()).read_text(encoding="utf-8"))


def require_answers(data: dict[str, Any], made: Made) -> None:
    """What every whole answer file must hold."""
    survey = made.survey
    assert (data["format"], data["version"]) == ("scoft-survey-answers", 1)
    assert (data["survey"], data["survey_hash"], data["language"]) == (survey.id, survey.hash, survey.language)
    assert data["consented"] is True and re.fullmatch(r"[0-9a-f-]{36}", data["participant"])
    assert data["affiliation"] == {"country": "Nuvia", "years": 12.5} and data["started"] < data["finished"]
    assert sorted(entry["page"] for entry in data["pages"]) == [page.id for page in survey.pages]
    images = {page.id: sorted(page.images) for page in survey.pages}
    for entry in data["pages"]:
        assert sorted(entry["shown"]) == images[entry["page"]]
        assert list(entry["ranks"]) == [item.id for item in survey.items]
        assert all(sorted(order) == images[entry["page"]] for order in entry["ranks"].values())


def focused(page: Page, selector: str) -> bool:
    return page.evaluate("selector => document.activeElement === document.querySelector(selector)", selector)


def look(page: Page) -> None:
    """No scrolling sideways, nothing that touch cannot hit, and no fault of any weight that axe knows."""
    page.wait_for_function(LOADED)
    outside = page.locator("body *:visible").evaluate_all(
        "all => all.filter(e => !e.closest('.unseen')).map(e => [e.outerHTML.slice(0, 90), e.getBoundingClientRect()])"
        ".filter(([_, box]) => box.left < -0.5 || box.right > window.innerWidth + 0.5)"
    )
    assert not outside, outside
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    small = page.locator("button:visible, summary:visible, input:visible").evaluate_all(
        "all => all.map(e => [e.outerHTML.slice(0, 90), e.getBoundingClientRect()])"
        ".filter(([_, box]) => box.width < 24 || box.height < 24)"
    )
    assert not small, small
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    found = page.evaluate("async () => (await axe.run(document, {resultTypes: ['violations']})).violations")
    assert not found, [(f["id"], f["impact"], f["help"], f["nodes"][0]["html"][:200]) for f in found]
