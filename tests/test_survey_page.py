"""A whole survey on its page in a real Chromium: filled in by mouse, finger and keyboard, exported, read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from browser import PHONE, open_page
from playwright.sync_api import Page, expect
from survey_pages import (
    NEXT,
    UNANSWERED,
    Made,
    badged,
    enter,
    exported,
    fill_in,
    focused,
    made,
    onward,
    require_answers,
    shown,
)

from comfy_scoft.survey.aggregate import aggregate
from comfy_scoft.survey.languages import FOLDER
from comfy_scoft.survey.responses import load_responses


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Three generators, two pages and one of them again, two items."""
    return made(tmp_path_factory.mktemp("small"))


def test_a_survey_is_filled_in_by_dragging_with_a_mouse(small: Made) -> None:
    asked: list[str] = []
    with open_page(accept_downloads=True) as page:
        page.on("request", lambda request: asked.append(request.url))
        enter(page, small.url)
        chosen: dict[tuple[str, ...], list[list[str]]] = {}
        while page.locator(".ranking").count():
            images = shown(page)
            wanted = [images[1], images[2], images[0]]
            for place in (2, 0, 1):
                drag(page, f'[data-image="{wanted[place]}"] .picture', f'[data-place="{place}"]')
            badged(page, ["3", "1", "2"])
            drag(page, '[data-place="0"] button', '[data-place="2"]')  # the image there takes the place left
            badged(page, ["1", "3", "2"])
            chosen.setdefault(tuple(images), []).append([images[0], images[2], images[1]])
            onward(page)
        onward(page)
        name, data = exported(page)
    require_answers(data, small)
    assert name == f"answers-{small.survey.id}-{data['participant'][:8]}.json"
    for entry in data["pages"]:
        assert list(entry["ranks"].values()) == chosen[tuple(entry["shown"])]
    assert asked and all(url.startswith(("file:", "blob:")) for url in asked), "nothing leaves the device"
    assert [url for url in asked if url.startswith("file:")] == [small.url]


def drag(page: Page, source: str, target: str) -> None:
    for selector, act in ((source, page.mouse.down), (target, page.mouse.up)):
        box = page.locator(selector).bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
        act()
    page.evaluate("() => new Promise(done => setTimeout(done, 60))")  # the click after a drag is swallowed for 50 ms


@pytest.mark.long
def test_a_survey_is_filled_in_by_finger_on_a_phone(small: Made) -> None:
    with open_page(**PHONE, accept_downloads=True) as page:
        page.goto(small.url)
        page.locator("label.agree").tap()
        expect(page.locator("#agree")).to_be_checked()
        for field, words in (("#country", "Nuvia"), ("#years", "12.5")):
            page.locator(field).tap()
            expect(page.locator(field)).to_be_focused()
            page.keyboard.insert_text(words)
        onward(page, page.locator(".start .main").tap)
        while page.locator(".ranking").count():
            page.locator(UNANSWERED).nth(2).tap()
            badged(page, ["", "", "1"])
            page.locator(".card .picture").nth(2).tap()
            badged(page, ["", "", "1"], "a second tap takes nothing back")
            page.locator(UNANSWERED).first.tap()
            badged(page, ["2", "3", "1"], "the last image left takes the last place")
            page.locator(".card .picture").nth(1).tap()
            badged(page, ["2", "3", "1"], "and a tap on it confirms that")
            page.locator(".undo").tap()
            badged(page, ["", "", "1"])
            page.locator('[data-place="0"] button').tap()
            expect(page.locator("#viewer h2")).to_have_text("Picture C")
            page.locator("#viewer .icon").tap()
            page.locator(".card .picture").nth(1).tap()
            badged(page, ["3", "2", "1"])
            onward(page, page.locator(NEXT).tap)
        onward(page, page.locator(NEXT).tap)
        _, data = exported(page, page.locator(".done .main").tap)
    require_answers(data, small)
    assert all(order == entry["shown"][::-1] for entry in data["pages"] for order in entry["ranks"].values())


@pytest.mark.long
def test_a_survey_is_filled_in_with_a_keyboard_alone(small: Made) -> None:
    with open_page(accept_downloads=True) as page:
        page.goto(small.url)
        press = page.keyboard.press
        tab_to(page, "#agree")
        press("Space")
        tab_to(page, "#country")
        page.keyboard.type("Nuvia")
        tab_to(page, "#years")
        page.keyboard.type("12.5")
        onward(page, lambda: press("Enter"))
        while page.locator(".ranking").count():
            tab_to(page, ".card:nth-child(2) .picture")
            press("Enter")
            tab_to(page, ".card:nth-child(3) .picture")
            press("3")
            badged(page, ["2", "1", "3"])
            press("Delete")
            badged(page, ["2", "1", "3"])
            tab_to(page, ".undo")
            press("Enter")
            badged(page, ["", "1", ""])
            tab_to(page, ".card:nth-child(3) .picture", back=True)
            press("1")
            badged(page, ["3", "2", "1"], "the image that was there moves on, and the last one takes what is left")
            tab_to(page, ".card:nth-child(1) .picture", back=True)
            press("1")
            tab_to(page, ".card:nth-child(2) .picture")
            press(" ")
            badged(page, ["1", "2", "3"])
            press("3")
            badged(page, ["1", "3", "2"])
            tab_to(page, '[data-place="0"] button')
            press("ArrowRight")
            badged(page, ["2", "3", "1"])
            expect(page.locator('[data-place="1"] button')).to_be_focused()
            press("ArrowRight")
            press("ArrowRight")
            badged(page, ["3", "2", "1"])
            expect(page.locator('[data-place="2"] button')).to_be_focused()
            tab_to(page, NEXT)
            onward(page, lambda: press("Enter"))
            expect(page.locator("main h1"), "the next question is what is read next").to_be_focused()
        tab_to(page, NEXT)
        onward(page, lambda: press("Enter"))
        tab_to(page, ".done .main")
        _, data = exported(page, lambda: press("Enter"))
    require_answers(data, small)
    assert all(order == entry["shown"][::-1] for entry in data["pages"] for order in entry["ranks"].values())


def tab_to(page: Page, selector: str, back: bool = False) -> None:
    for _ in range(60):
        if focused(page, selector):
            return
        page.keyboard.press("Shift+Tab" if back else "Tab")
    raise AssertionError(f"Tab never comes to {selector}")


@pytest.mark.long
def test_exported_files_run_through_the_aggregation(tmp_path: Path) -> None:
    survey = made(tmp_path)
    orders = []
    for person in range(3):
        with open_page(accept_downloads=True) as page:
            enter(page, survey.url, country=" Nuvia " if person % 2 else "nuvia")
            fill_in(page, survey)
            onward(page)
            name, data = exported(page)
        (tmp_path / name).write_text(json.dumps(data), encoding="utf-8")
        orders.append([(entry["page"], tuple(entry["shown"])) for entry in data["pages"]])
        repeated = next(page for page in survey.survey.pages if page.repeats)
        pages = [entry["page"] for entry in data["pages"]]
        assert pages.index(repeated.id) > pages.index(repeated.repeats)
    assert len(set(map(tuple, orders))) > 1, "every participant has an order of their own"
    loaded, report = load_responses(None, tmp_path)
    assert len(loaded.responses) == 3, report
    assert {ranking.order for response in loaded.responses for ranking in response.rankings} == {(0, 1, 2)}
    assert aggregate(loaded, resamples=20).survey.generators == survey.survey.generators


def test_orders_are_uniform_over_participants() -> None:
    pages = [{"id": f"p{i}", "images": ["a", "b", "c", "d"], "repeats": ""} for i in range(4)]
    pages.append({**pages[0], "id": "p4", "repeats": "p0"})
    data = {"id": "x", "pages": pages, "items": [], "text": {}}
    model = (FOLDER.parent / "model.js").read_text(encoding="utf-8")
    count = """() => {
        const places = Array.from({length: 4}, () => Array(4).fill(0)), starts = Array(5).fill(0);
        let gaps = 0, early = 0;
        for (let i = 0; i < 8000; i++) {
            const token = newToken(), page = survey.pages[1];
            shownImages(token, page).forEach((image, place) => places["abcd".indexOf(image)][place]++);
            const order = shownPages(token).map(page => page.id);
            starts[Number(order[0][1])]++;
            if (order.indexOf("p4") < order.indexOf("p0")) early++;
            gaps += order.indexOf("p4") - order.indexOf("p0");
        }
        return {places, starts, early, gap: gaps / 8000};
    }"""
    with open_page() as page:
        page.set_content(f'<script type="application/json" id="survey">{json.dumps(data)}</script>')
        page.add_script_tag(content=model)
        found = page.evaluate(count)
    for row in found["places"]:  # each 2000 ± 39; five standard deviations
        assert all(abs(n - 2000) < 195 for n in row), found["places"]
    assert found["early"] == 0 and found["gap"] > 3.5 and found["starts"][4] == 0
