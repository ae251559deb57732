"""The survey's page in a real Chromium: filled in by mouse, finger and keyboard, reloaded, exported, read back."""

from __future__ import annotations

import importlib.resources
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from browser import DESKTOP, PHONE, open_page
from playwright.sync_api import Page, expect
from survey_toys import image_sets

from comfy_scoft.survey.aggregate import aggregate
from comfy_scoft.survey.build import SurveySettings, build, save
from comfy_scoft.survey.languages import FOLDER, language, languages
from comfy_scoft.survey.responses import load_responses
from comfy_scoft.survey.spec import Survey

SETTINGS = SurveySettings(pages=2, attention_checks=1, seed=1, items="Fit | Which fits?\nHurt | Which hurts least?")
UNANSWERED = ".card:not(.ranked) .picture"
NEXT, BACK = ".onward .main", ".onward button:not(.main)"


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


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Three generators, two pages and one of them again, two items."""
    return made(tmp_path_factory.mktemp("small"))


def enter(page: Page, url: str, country: str = "Nuvia") -> None:
    """Open the page, agree, and begin."""
    page.goto(url)
    page.check("#agree")
    page.fill("#country", country)
    page.fill("#years", "12,5")
    page.click(".start .main")


def shown(page: Page) -> list[str]:
    return page.locator(".card").evaluate_all("cards => cards.map(card => card.dataset.image)")


def badges(page: Page) -> list[str]:
    return page.locator(".badge").all_text_contents()


def fill_in(page: Page, made: Made) -> None:
    """Rank every remaining page by clicks, in the order of the generators, and come to the review."""
    while page.locator(".ranking").count():
        images = shown(page)
        order = next(p.images for p in made.survey.pages if set(p.images) == set(images))
        for image in order[:-1]:
            page.click(f'[data-image="{image}"]:not(.ranked) .picture')
        page.click(NEXT)


def exported(page: Page) -> tuple[str, dict[str, Any]]:
    """Press Save on the last screen: the file's name and what is in it."""
    with page.expect_download() as download:
        page.locator(".done .main").click()
    path = download.value.path()
    return download.value.suggested_filename, json.loads(Path(path).read_text(encoding="utf-8"))


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


# --- a whole survey by mouse, by finger, by keyboard


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
            assert badges(page) == ["3", "1", "2"]
            drag(page, '[data-place="0"] button', '[data-place="2"]')  # the picture there takes the place left
            assert badges(page) == ["1", "3", "2"]
            chosen.setdefault(tuple(images), []).append([images[0], images[2], images[1]])
            page.click(NEXT)
        page.click(NEXT)
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
    page.wait_for_timeout(80)  # the click after a drag is swallowed for 50 ms


def test_a_survey_is_filled_in_by_finger_on_a_phone(small: Made) -> None:
    with open_page(**PHONE, accept_downloads=True) as page:
        page.goto(small.url)
        page.locator("label.agree").tap()
        page.locator("#country").tap()
        page.keyboard.insert_text("Nuvia")
        page.locator("#years").tap()
        page.keyboard.insert_text("12.5")
        page.locator(".start .main").tap()
        while page.locator(".ranking").count():
            page.locator(UNANSWERED).nth(2).tap()
            assert badges(page) == ["", "", "1"]
            page.locator(".card .picture").nth(2).tap()
            assert badges(page) == ["", "", ""], "a second tap takes the picture back"
            for _ in range(2):
                page.locator(UNANSWERED).first.tap()
            assert badges(page) == ["1", "2", "3"], "the last picture left takes the last place"
            page.locator('[data-place="0"] button').tap()
            page.locator(".card .picture").nth(2).tap()
            assert badges(page) == ["", "2", ""], "a place that is given free stays free"
            page.locator(".card .picture").nth(2).tap()
            assert badges(page) == ["3", "2", "1"]
            page.locator(NEXT).tap()
        page.locator(NEXT).tap()
        with page.expect_download() as download:
            page.locator(".done .main").tap()
        data = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    require_answers(data, small)
    assert all(order == entry["shown"][::-1] for entry in data["pages"] for order in entry["ranks"].values())


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
        press("Enter")
        while page.locator(".ranking").count():
            tab_to(page, ".card:nth-child(2) .picture")
            press("Enter")
            tab_to(page, ".card:nth-child(3) .picture")
            press("3")
            assert badges(page) == ["", "1", "3"]
            press("Delete")
            assert badges(page) == ["", "1", ""]
            press("1")
            assert badges(page) == ["", "", "1"], "a picture that had no place leaves none to the other"
            press("2")
            tab_to(page, ".card:nth-child(1) .picture", back=True)
            press("1")
            tab_to(page, ".card:nth-child(2) .picture")
            press(" ")
            assert badges(page) == ["1", "3", "2"]
            tab_to(page, '[data-place="0"] button')
            press("ArrowRight")
            assert badges(page) == ["2", "3", "1"] and focused(page, '[data-place="1"] button')
            press("ArrowRight")
            press("ArrowRight")
            assert badges(page) == ["3", "2", "1"] and focused(page, '[data-place="2"] button')
            tab_to(page, NEXT)
            press("Enter")
            assert focused(page, "main h1"), "the next question is what is read next"
        tab_to(page, NEXT)
        press("Enter")
        tab_to(page, ".done .main")
        with page.expect_download() as download:
            press("Enter")
        data = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    require_answers(data, small)
    assert all(order == entry["shown"][::-1] for entry in data["pages"] for order in entry["ranks"].values())


def focused(page: Page, selector: str) -> bool:
    return page.evaluate("selector => document.activeElement === document.querySelector(selector)", selector)


def tab_to(page: Page, selector: str, back: bool = False) -> None:
    for _ in range(60):
        if focused(page, selector):
            return
        page.keyboard.press("Shift+Tab" if back else "Tab")
    raise AssertionError(f"Tab never comes to {selector}")


def test_exported_files_run_through_the_aggregation(tmp_path: Path) -> None:
    survey = made(tmp_path)
    orders = []
    for person in range(3):
        with open_page(accept_downloads=True) as page:
            enter(page, survey.url, country=" Nuvia " if person % 2 else "nuvia")
            fill_in(page, survey)
            page.click(NEXT)
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


# --- nothing is lost


def test_a_reload_in_the_middle_loses_nothing(small: Made) -> None:
    with open_page(accept_downloads=True) as page:
        enter(page, small.url)
        page.locator(UNANSWERED).nth(1).click()
        images = shown(page)
        page.reload()
        assert badges(page) == ["", "1", ""] and shown(page) == images
        page.locator(UNANSWERED).first.click()
        page.click(NEXT)
        question = page.locator("h1").text_content()
        page.reload()
        assert page.locator("h1").text_content() == question == "Which hurts least?"
        page.go_back()
        assert badges(page) == ["2", "1", "3"], "the browser's own Back goes one question back"
        page.go_forward()
        fill_in(page, small)
        page.reload()
        page.click(NEXT)
        page.reload()
        _, data = exported(page)
    require_answers(data, small)
    assert data["pages"][0]["ranks"]["item1"] == [images[1], images[0], images[2]]


def test_unfinished_rankings_cannot_be_left_forwards_and_back_is_free(small: Made) -> None:
    with open_page() as page:
        enter(page, small.url)
        page.locator(UNANSWERED).nth(1).click()
        page.click(NEXT)
        assert page.locator("#fault").text_content() == language("en").text["need_all"].format(letters="A, C")
        assert page.locator("h1").text_content() == "Which fits?"
        page.locator(UNANSWERED).first.click()
        assert page.locator("#fault").text_content() == ""
        page.click(NEXT)
        page.click(BACK)
        assert badges(page) == ["2", "1", "3"]
        page.click(BACK)
        assert page.input_value("#country") == "Nuvia" and page.is_checked("#agree")
        page.evaluate("history.pushState({at: 99}, '')")
        page.reload()
        assert page.locator(".start").count() == 1


def test_it_works_without_storage_and_says_so(small: Made) -> None:
    deny = "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } })"
    with open_page(accept_downloads=True) as page:
        page.add_init_script(deny)
        enter(page, small.url)
        assert page.locator("#warning").text_content() == language("en").text["storage_warning"]
        fill_in(page, small)
        page.click(NEXT)
        _, data = exported(page)
    require_answers(data, small)
    with open_page() as page:
        enter(page, small.url)
        assert page.locator("#warning").is_hidden()


def test_consent_and_affiliation_come_first(small: Made) -> None:
    with open_page() as page:
        page.goto(small.url + "#3")
        page.click(".start .main")
        text = language("en").text
        assert page.locator("#agree-fault").text_content() == text["need_consent"] and focused(page, "#agree")
        assert page.locator("#country-fault").text_content() == text["need_country"]
        page.check("#agree")
        page.fill("#country", "  ")
        for wrong in ("121", "-1", "x"):
            page.fill("#years", wrong)
            page.click(".start .main")
            assert page.locator("#years-fault").text_content() == text["need_years"]
        page.fill("#country", "Nuvia")
        page.fill("#years", "")
        page.click(".start .main")
        assert page.locator(".ranking").count() == 1


def test_the_next_person_starts_afresh_after_the_answers_were_saved(small: Made) -> None:
    with open_page(accept_downloads=True) as page:
        enter(page, small.url)
        page.locator(UNANSWERED).first.click()
        page.locator(UNANSWERED).first.click()
        page.click("#restart")
        page.locator("#question button").first.click()
        assert badges(page) == ["1", "2", "3"], "cancelled"
        page.click("#restart")
        with page.expect_download() as download:
            page.locator("#question .main").click()
        first = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
        assert len(first["pages"]) == 1 and list(first["pages"][0]["ranks"]) == ["item1"] and first["finished"] is None
        assert page.input_value("#country") == "" and not page.is_checked("#agree")
        page.reload()
        enter(page, small.url)
        assert badges(page) == ["", "", ""]
        fill_in(page, small)
        page.click(NEXT)
        _, second = exported(page)
    assert second["participant"] != first["participant"]
    require_answers(second, small)


def test_answers_can_be_reviewed_changed_and_copied(small: Made) -> None:
    with open_page(accept_downloads=True, permissions=["clipboard-read", "clipboard-write"]) as page:
        enter(page, small.url)
        fill_in(page, small)
        assert page.locator(".reviewed").count() == 3 and page.locator(".answer").count() == 6
        page.locator(".answer button").nth(3).click()
        page.locator('[data-place="0"] button').press("ArrowRight")
        assert page.locator(NEXT).text_content() == language("en").text["to_review"]
        page.click(NEXT)
        page.click(NEXT)
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


def test_a_picture_is_enlarged_and_ranked_there(small: Made) -> None:
    with open_page() as page:
        enter(page, small.url)
        page.locator(".enlarge").nth(1).click()
        assert page.locator("#viewer h2").text_content() == "Picture B"
        wide = page.locator("#viewer img").bounding_box()
        card = page.locator(".card img").first.bounding_box()
        assert wide and card and wide["width"] > 1.3 * card["width"]
        page.locator("#viewer .rank").nth(2).click()
        assert page.locator("#viewer .rank[aria-pressed=true]").all_text_contents() == ["3"]
        page.locator("#viewer .nav button").nth(1).click()
        assert page.locator("#viewer h2").text_content() == "Picture C"
        page.keyboard.press("1")
        page.keyboard.press("Escape")
        assert badges(page) == ["", "3", "1"] and page.locator("#viewer").is_hidden()


def test_changes_are_said_to_screen_readers(small: Made) -> None:
    with open_page() as page:
        enter(page, small.url)
        text = language("en").text
        page.locator(UNANSWERED).nth(1).click()
        said = text["said_placed"].format(letter="B", rank=1, n=3)
        expect(page.locator("#live")).to_have_text(said)
        assert page.get_by_role("button", name="Picture B, place 1 of 3", exact=True).count() == 1
        assert page.get_by_role("button", name="Picture A, no place yet", exact=True).count() == 1
        assert page.get_by_role("button", name="Place 1: Picture B. Press to take it back.", exact=True).count() == 1
        page.locator(UNANSWERED).nth(1).click()
        expect(page.locator("#live")).to_have_text(re.compile(re.escape(text["said_complete"]) + "$"))


# --- how it looks and what it lets in


@pytest.mark.parametrize("name", list(languages()))
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
            assert page.locator("h1").text_content() == item.question.split("\n")[0]
            page.locator("summary").click()
            seen.append(page.locator("body").inner_text())
            page.locator(UNANSWERED).first.click()
            page.click(NEXT)
        seen.append(page.locator("body").inner_text())
        page.click(NEXT)
        seen.append(page.locator("body").inner_text())
        page.locator(".done .nav").nth(1).locator("button").nth(1).click()
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
        page.click(NEXT)
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


@pytest.mark.parametrize("size", list(SIZES))
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
        look(page)
        page.locator(".enlarge").first.click()
        look(page)
        page.evaluate("document.documentElement.style.fontSize = '200%'")
        look(page)
        page.keyboard.press("Escape")
        look(page)
        page.evaluate("document.documentElement.style.fontSize = ''")
        for _ in range(4):
            page.locator(UNANSWERED).first.click()
        page.click(NEXT)
        look(page)
        page.click(NEXT)
        page.click("summary")
        look(page)
        page.click("#restart")
        look(page)


def look(page: Page) -> None:
    """No scrolling sideways, nothing that touch cannot hit, and no fault of any weight that axe knows."""
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


AXE = (importlib.resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


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
        assert badges(page) == ["2", "", ""]
        scroll, window = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert scroll <= window
