"""The survey's page in a real Chromium: how it looks and is read out, in each language and size; hostile texts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser import DESKTOP, PHONE, open_page
from playwright.sync_api import expect
from survey_pages import LOADED, NEXT, SETTINGS, UNANSWERED, Made, badged, enter, look, made, onward
from survey_toys import image_sets

from comfy_scoft.survey.build import SurveySettings, build, save
from comfy_scoft.survey.languages import language, languages


def first_and_long(names: Iterable[str]) -> list[Any]:
    """The first in the ordinary tier, the others in the long one."""
    return [pytest.param(name, marks=pytest.mark.long if k else ()) for k, name in enumerate(names)]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Three generators, two pages and one of them again, two items."""
    return made(tmp_path_factory.mktemp("small"))


@pytest.mark.long
def test_a_picture_is_enlarged_and_ranked_there(small: Made) -> None:
    with open_page() as page:
        enter(page, small.url)
        page.locator(".enlarge").nth(1).click()
        expect(page.locator("#viewer h2")).to_have_text("Picture B")
        page.wait_for_function(LOADED)
        wide = page.locator("#viewer img").bounding_box()
        card = page.locator(".card img").first.bounding_box()
        assert wide and card and wide["width"] > 1.3 * card["width"]
        page.locator("#viewer .rank").nth(2).click()
        expect(page.locator("#viewer .rank[aria-pressed=true]")).to_have_text(["3"])
        page.locator("#viewer .nav button").nth(1).click()
        expect(page.locator("#viewer h2")).to_have_text("Picture C")
        page.keyboard.press("1")
        page.keyboard.press("Escape")
        badged(page, ["2", "3", "1"])
        expect(page.locator("#viewer")).to_be_hidden()


@pytest.mark.long
def test_changes_are_said_to_screen_readers(small: Made) -> None:
    with open_page() as page:
        enter(page, small.url)
        text = language("en").text
        page.locator(UNANSWERED).nth(1).click()
        said = text["said_placed"].format(letter="B", rank=1, n=3)
        expect(page.locator("#live")).to_have_text(said)
        for name in (
            "Picture B, place 1 of 3",
            "Picture A, no place yet",
            "Place 1: Picture B. Press to enlarge it.",
        ):
            expect(page.get_by_role("button", name=name, exact=True)).to_have_count(1)
        page.locator(UNANSWERED).nth(1).click()
        expect(page.locator("#live")).to_have_text(re.compile(re.escape(text["said_complete"]) + "$"))


@pytest.mark.parametrize("name", first_and_long(languages()))
@pytest.mark.long
def test_every_language_renders_every_screen(name: str, tmp_path: Path) -> None:
    survey = made(tmp_path, sets=2, pages=1, attention_checks=0, language=name, items=SurveySettings().items)
    spoken = language(name)
    with open_page(**PHONE) as page:
        page.goto(survey.url)
        seen = [page.locator("body").inner_text()]
        page.click(".start .main")
        seen.append(page.locator("body").inner_text())
        enter(page, survey.url)
        for item in survey.survey.items:
            expect(page.locator("h1")).to_have_text(item.question.split("\n")[0])
            page.locator("summary").click()
            seen.append(page.locator("body").inner_text())
            page.locator(UNANSWERED).first.click()
            onward(page)
        seen.append(page.locator("body").inner_text())
        onward(page)
        seen.append(page.locator("body").inner_text())
        page.locator(".done .nav").nth(1).locator("button").nth(1).click()
        page.locator("#question h2").wait_for()
        seen.append(page.locator("body").inner_text())
        assert page.evaluate("document.documentElement.lang") == spoken.code
    whole = "\n".join(seen)
    for key in ("lead", "how", "next", "best", "worst", "need_country", "review_heading", "done_intro", "restart_text"):
        assert spoken.text[key].replace("{n}", "2") in whole, key
    assert not re.search(r"\{\w+\}|undefined|null|NaN", whole)


HOSTILE = (
    "<b>bold</b></script><script>window.taken = 1</script>",
    "<img src=x onerror='window.taken = 1'> &amp; \u2028 🧕🏽",
)
IMAGE = HOSTILE[1].split("\u2028")[0]


def test_html_in_any_text_stays_text(tmp_path: Path) -> None:
    survey, html = build(
        image_sets(2, HOSTILE),
        replace(
            SETTINGS, title=HOSTILE[0], consent=HOSTILE[1], items=f"{IMAGE} | {HOSTILE[0]} | {IMAGE}\nFit | Which?"
        ),
    )
    path = save(survey, html, tmp_path)
    with open_page() as page:
        page.goto(path.as_uri())
        assert page.locator("h1").text_content() == page.title() == HOSTILE[0]
        enter(page, path.as_uri(), country=HOSTILE[1])
        prompts = [" ".join(prompt.split()) for prompt in HOSTILE]
        assert page.locator(".prompt").text_content() in prompts and page.locator("h1").text_content() == HOSTILE[0]
        assert page.locator("b, main script, img[src='x']").count() == 0
        page.locator(UNANSWERED).first.click()
        onward(page)
        page.reload()
        assert page.evaluate("window.taken") is None
        blocked = page.evaluate(
            """() => new Promise(done => {
                document.addEventListener('securitypolicyviolation', event => done(event.violatedDirective));
                const script = Object.assign(document.createElement('script'), {textContent: 'window.taken = 1'});
                document.head.append(script);
            })"""
        )
        assert blocked.startswith("script-src") and page.evaluate("window.taken") is None


SIZES = {
    "phone": PHONE,
    "narrow": {**PHONE, "viewport": {"width": 320, "height": 568}},
    "desktop": DESKTOP,
    "desktop at 200 %": {"viewport": {"width": 640, "height": 400}, "device_scale_factor": 2},
}


@pytest.mark.parametrize("size", first_and_long(SIZES))
@pytest.mark.long
def test_nothing_is_wider_than_the_window_and_axe_finds_nothing(size: str, tmp_path: Path) -> None:
    survey = made(tmp_path, sets=6, pages=1, attention_checks=0, items="Fit | Which?", title="Donaudampfschiff" * 4)
    with open_page(**SIZES[size]) as page:
        page.goto(survey.url)
        look(page)
        page.click(".start .main")
        look(page)
        enter(page, survey.url, country="Nuvia")
        look(page)
        page.locator(UNANSWERED).first.click()
        page.click(NEXT)
        expect(page.locator("#fault")).not_to_have_text("")
        look(page)
        page.locator(".enlarge").first.click()
        look(page)
        page.evaluate("document.documentElement.style.fontSize = '200%'")
        look(page)
        page.keyboard.press("Escape")
        look(page)
        page.evaluate("document.documentElement.style.fontSize = ''")
        for ranked in (2, 3, 4, 6):
            page.locator(UNANSWERED).first.click()
            expect(page.locator(".card.ranked")).to_have_count(ranked)
        onward(page)
        look(page)
        onward(page)
        page.click("summary")
        look(page)
        page.click("#restart")
        look(page)


@pytest.mark.long
def test_a_script_from_right_to_left_turns_the_page_round(tmp_path: Path) -> None:
    survey = made(tmp_path, sets=3, title="أيّ صورة؟")
    path = survey.path.with_name("rtl.html")
    path.write_text(survey.path.read_text(encoding="utf-8").replace('dir="ltr">', 'dir="rtl">', 1), encoding="utf-8")
    with open_page(**PHONE) as page:
        enter(page, path.as_uri())
        boxes = [page.locator(".order li").nth(i).bounding_box() for i in range(2)]
        assert boxes[0] and boxes[1] and boxes[0]["x"] > boxes[1]["x"], "the best place is on the right"
        page.locator(UNANSWERED).first.click()
        page.locator('[data-place="0"] button').press("ArrowLeft")
        badged(page, ["2", "", ""])
        scroll, window = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert scroll <= window
