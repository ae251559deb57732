"""The survey's page in a real Chromium: nothing is lost or left out, and the next person begins anew."""

from __future__ import annotations

import json

import pytest
from browser import open_page
from playwright.sync_api import expect
from survey_pages import (
    BACK,
    NEXT,
    UNANSWERED,
    Made,
    badged,
    enter,
    exported,
    fill_in,
    made,
    onward,
    require_answers,
    shown,
)

from comfy_scoft.survey.languages import language


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Three generators, two pages and one of them again, two items."""
    return made(tmp_path_factory.mktemp("small"))


def test_a_reload_in_the_middle_loses_nothing(small: Made) -> None:
    with open_page(accept_downloads=True) as page:
        enter(page, small.url)
        page.locator(UNANSWERED).nth(1).click()
        images = shown(page)
        page.reload()
        badged(page, ["", "1", ""])
        assert shown(page) == images
        page.locator(UNANSWERED).first.click()
        onward(page)
        expect(page.locator("h1")).to_have_text("Which hurts least?")
        page.reload()
        expect(page.locator("h1")).to_have_text("Which hurts least?")
        onward(page, page.go_back)
        badged(page, ["2", "1", "3"], "the browser's own Back goes one question back")
        onward(page, page.go_forward)
        expect(page.locator("h1")).to_have_text("Which hurts least?")
        fill_in(page, small)
        page.reload()
        onward(page)
        page.reload()
        _, data = exported(page)
    require_answers(data, small)
    assert data["pages"][0]["ranks"]["item1"] == [images[1], images[0], images[2]]


@pytest.mark.long
def test_the_page_opened_twice_overwrites_no_answer(small: Made) -> None:
    with open_page() as page:
        enter(page, small.url)
        other = page.context.new_page()
        other.goto(small.url)
        for _ in range(2):
            page.locator(UNANSWERED).first.click()
        badged(page, ["1", "2", "3"])
        badged(other, ["1", "2", "3"])
        onward(page)
        expect(other.locator("h1")).to_have_text("Which hurts least?")
        other.locator(UNANSWERED).last.click()
        badged(page, ["", "", "1"])
        other.click(BACK)
        badged(page, ["1", "2", "3"])


@pytest.mark.long
def test_unfinished_rankings_cannot_be_left_forwards_and_back_is_free(small: Made) -> None:
    with open_page() as page:
        enter(page, small.url)
        page.locator(UNANSWERED).nth(1).click()
        page.click(NEXT)
        expect(page.locator("#fault")).to_have_text(language("en").text["need_all"].format(letters="A, C"))
        expect(page.locator("h1")).to_have_text("Which fits?")
        page.locator(UNANSWERED).first.click()
        expect(page.locator("#fault")).to_have_text("")
        onward(page)
        onward(page, lambda: page.click(BACK))
        badged(page, ["2", "1", "3"])
        onward(page, lambda: page.click(BACK))
        expect(page.locator("#country")).to_have_value("Nuvia")
        expect(page.locator("#agree")).to_be_checked()
        page.evaluate("history.pushState({at: 99}, '')")
        page.reload()
        expect(page.locator(".start")).to_have_count(1)


@pytest.mark.long
def test_it_works_without_storage_and_says_so(small: Made) -> None:
    deny = "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } })"
    with open_page(accept_downloads=True) as page:
        page.add_init_script(deny)
        enter(page, small.url)
        expect(page.locator("#warning")).to_have_text(language("en").text["storage_warning"])
        fill_in(page, small)
        onward(page)
        _, data = exported(page)
    require_answers(data, small)
    with open_page() as page:
        enter(page, small.url)
        expect(page.locator("#warning")).to_be_hidden()


@pytest.mark.long
def test_consent_and_affiliation_come_first(small: Made) -> None:
    with open_page() as page:
        page.goto(small.url + "#3")
        page.click(".start .main")
        text = language("en").text
        expect(page.locator("#agree-fault")).to_have_text(text["need_consent"])
        expect(page.locator("#agree")).to_be_focused()
        expect(page.locator("#country-fault")).to_have_text(text["need_country"])
        page.check("#agree")
        page.fill("#country", "  ")
        for wrong in ("121", "-1", "x"):
            page.fill("#years", "1")
            page.click(".start .main")
            expect(page.locator("#years-fault")).to_have_text("")
            page.fill("#years", wrong)
            page.click(".start .main")
            expect(page.locator("#years-fault")).to_have_text(text["need_years"])
        page.fill("#country", "Nuvia")
        page.fill("#years", "")
        page.click(".start .main")
        expect(page.locator(".ranking")).to_have_count(1)


@pytest.mark.parametrize(("typed", "years"), [("१२", 12), ("１２，５", 12.5), ("٣٤", 34), ("۷", 7)])
def test_numbers_may_be_typed_in_the_digits_of_ones_keyboard(small: Made, typed: str, years: float) -> None:
    with open_page() as page:
        page.goto(small.url)
        page.check("#agree")
        page.fill("#country", "Nuvia")
        page.fill("#years", typed)
        onward(page, lambda: page.click(".start .main"))
        assert page.evaluate("JSON.parse(Object.values(localStorage)[0]).years") == years
        for key in ("१", "&"):  # Devanagari; the digits of a French keyboard need Shift
            page.locator(".undo").press("Enter")
            event = "new KeyboardEvent('keydown', {key: KEY, code: 'Digit1', bubbles: true})".replace("KEY", repr(key))
            page.locator(".card .picture").nth(2).evaluate(f"card => card.dispatchEvent({event})")
            badged(page, ["", "", "1"])


@pytest.mark.long
def test_the_next_person_starts_afresh_after_the_answers_were_saved(small: Made) -> None:
    with open_page(accept_downloads=True) as page:
        enter(page, small.url)
        for ranked in (1, 3):
            page.locator(UNANSWERED).first.click()
            expect(page.locator(".card.ranked")).to_have_count(ranked)
        page.click("#restart")
        page.locator("#question button").first.click()
        badged(page, ["1", "2", "3"], "cancelled")
        page.click("#restart")
        _, first = exported(page, page.locator("#question .main").click)
        assert len(first["pages"]) == 1 and list(first["pages"][0]["ranks"]) == ["item1"] and first["finished"] is None
        expect(page.locator("#country")).to_have_value("")
        expect(page.locator("#agree")).not_to_be_checked()
        page.reload()
        enter(page, small.url)
        badged(page, ["", "", ""])
        fill_in(page, small)
        onward(page)
        _, second = exported(page)
    assert second["participant"] != first["participant"]
    require_answers(second, small)


@pytest.mark.long
def test_answers_can_be_reviewed_changed_and_copied(small: Made) -> None:
    with open_page(accept_downloads=True, permissions=["clipboard-read", "clipboard-write"]) as page:
        enter(page, small.url)
        fill_in(page, small)
        expect(page.locator(".reviewed")).to_have_count(3)
        expect(page.locator(".answer")).to_have_count(6)
        onward(page, page.locator(".answer button").nth(3).click)
        page.locator('[data-place="0"] button').press("ArrowRight")
        expect(page.locator(NEXT)).to_have_text(language("en").text["to_review"])
        onward(page)
        onward(page)
        page.locator(".done .column button").nth(1).click()
        expect(page.locator(".told")).to_have_text(language("en").text["copied"])
        copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
        page.click("summary")
        assert json.loads(page.input_value("#answers")) == copied
        _, data = exported(page)
    assert data == copied
    places = {page.id: page.images for page in small.survey.pages}
    orders = [[places[e["page"]].index(i) for i in order] for e in data["pages"] for order in e["ranks"].values()]
    assert orders == [[1, 0, 2] if n == 3 else [0, 1, 2] for n in range(6)]
