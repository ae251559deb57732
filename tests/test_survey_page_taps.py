"""Whatever is tapped or pressed on the survey's page, in a real Chromium: no answer is lost or turned round."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from browser import DESKTOP, PHONE, open_page
from playwright.sync_api import Page, expect
from survey_pages import BACK, NEXT, Made, badged, enter, exported, made, onward, shown

from comfy_scoft.survey.languages import language

UNDO, CARD, SLOT = ".undo", ".card .picture", ".order li button"
LONG_PRESS = 700  # milliseconds; a finger's context menu comes after 500
WAYS = {"mouse": DESKTOP, "touch": PHONE, "keyboard": DESKTOP}


def one_question(folder: Path, sets: int, **changes: Any) -> Made:
    return made(folder, sets=sets, pages=1, attention_checks=0, items="Fit | Which fits?", **changes)


@dataclass
class Order:
    """What the page must hold: the images in places, the best first, by their number on the screen; None is free."""

    count: int
    places: list[int | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.places = self.places or [None] * self.count

    @property
    def ranks(self) -> list[str]:
        return [str(self.places.index(k) + 1) if k in self.places else "" for k in range(self.count)]

    @property
    def complete(self) -> bool:
        return None not in self.places

    def tap(self, image: int) -> None:
        if image not in self.places:
            self.put(image, self.places.index(None))

    def put(self, image: int, place: int) -> None:
        """Two images change places; one that had none sends the other to the nearest free place, the worse first."""
        other, free = self.places[place], [k for k, there in enumerate(self.places) if there is None]
        if image in self.places:
            self.places[self.places.index(image)] = other
        elif other is not None:
            self.places[min((k for k in free if k > place), default=max(free, default=place))] = other
        self.places[place] = image
        if self.places.count(None) == 1:
            self.places[self.places.index(None)] = next(k for k in range(self.count) if k not in self.places)

    def undo(self) -> None:
        filled = [k for k, there in enumerate(self.places) if there is not None]
        last = filled[-2 if self.complete else -1] if filled else 0
        self.places[last:] = [None] * (self.count - last)


class Hand:
    """One person's way of doing things on the page: a mouse, a finger or a keyboard."""

    def __init__(self, page: Page, way: str) -> None:
        self.page, self.way = page, way

    def tap(self, selector: str, number: int = 0) -> None:
        found = self.page.locator(selector).nth(number)
        force = selector == UNDO and found.get_attribute("aria-disabled") == "true"  # people tap what is gray, too
        if self.way == "touch":
            found.tap(force=force)
        elif self.way == "mouse":
            found.click(force=force)
        else:
            found.press(random.choice(["Enter", "Space"]))  # noqa: S311

    def twice(self, selector: str, number: int) -> None:
        if self.way == "mouse":
            self.page.locator(selector).nth(number).dblclick()
        else:
            self.tap(selector, number)
            self.tap(selector, number)

    def hold(self, selector: str, number: int) -> None:
        """A long press, let go in the same place."""
        found = self.page.locator(selector).nth(number)
        if self.way == "touch":
            found.scroll_into_view_if_needed()
            box = found.bounding_box()
            assert box is not None
            point = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
            session = self.page.context.new_cdp_session(self.page)
            session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
            self.page.wait_for_timeout(LONG_PRESS)
            session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
            session.detach()
        elif self.way == "mouse":
            found.click(delay=LONG_PRESS)
        else:
            for _ in range(3):  # a held key repeats
                found.press("Enter")


DOINGS = {"tap": 4, "twice": 3, "undo": 2, "number": 2, "enlarge": 1, "place": 1, "arrow": 1, "leave": 1, "reload": 1}
DOINGS["hold"] = 1
"""What is done at random, and how often."""


def walk(page: Page, hand: Hand, order: Order, chance: random.Random, steps: int, *, rtl: bool) -> None:
    """Random doings, each followed by a look at all ranks and at the row of places."""
    for doing in chance.choices(list(DOINGS), list(DOINGS.values()), k=steps):
        image, place = chance.randrange(order.count), chance.randrange(order.count)
        if doing in ("tap", "twice", "hold"):
            touch(page, hand, order, doing, image)
        elif doing == "undo":
            order.undo()
            hand.tap(UNDO)
        elif doing == "number":
            order.put(image, place)
            page.locator(CARD).nth(image).press(str(place + 1))
        elif doing == "enlarge":
            order.put(image, place)
            hand.tap(".enlarge", image)
            hand.tap("#viewer .rank", place)
            page.keyboard.press("Escape")
        elif doing == "place" and order.places[place] is not None:
            hand.tap(SLOT, place)
            page.keyboard.press("Escape")
        elif doing == "arrow" and order.places[place] is not None:
            arrow(page, order, place, chance.choice([-1, 1]), rtl=rtl)
        elif doing == "leave":
            leave_and_come_back(page, hand, order)
        elif doing == "reload":
            page.reload()
        badged(page, order.ranks, doing)
        expect(page.locator(SLOT + ":enabled")).to_have_count(sum(there is not None for there in order.places))


def touch(page: Page, hand: Hand, order: Order, doing: str, image: int) -> None:
    """A tap, two of them, or a long press, of which a browser may make a tap or a menu of its own."""
    before = order.ranks
    order.tap(image)
    if doing != "hold":
        return (hand.tap if doing == "tap" else hand.twice)(CARD, image)
    hand.hold(CARD, image)
    if hand.way == "touch" and page.locator(".badge").all_inner_texts() == before != order.ranks:
        hand.tap(CARD, image)
    return None


def leave_and_come_back(page: Page, hand: Hand, order: Order) -> None:
    """Next, where it lets one, and the way back; without a whole order Next says what is missing."""
    if not order.complete:
        hand.tap(NEXT)
        expect(page.locator("#fault")).not_to_have_text("")
    else:
        onward(page, lambda: hand.tap(NEXT))
        onward(page, lambda: hand.tap(".review " + BACK))


def arrow(page: Page, order: Order, place: int, by: int, *, rtl: bool) -> None:
    """An arrow moves the image one place to the better or the worse, and stops at both ends."""
    if 0 <= place + by < order.count:
        image = order.places[place]
        assert image is not None
        order.put(image, place + by)
    page.locator(SLOT).nth(place).press("ArrowRight" if (by > 0) != rtl else "ArrowLeft")


def answer_of(page: Page, hand: Hand) -> list[str]:
    """Go on to the end and save: the answer to the one question, the best image first."""
    onward(page, lambda: hand.tap(NEXT))
    onward(page, lambda: hand.tap(NEXT))
    _, data = exported(page, lambda: hand.tap(".done .main"))
    (entry,) = data["pages"]
    (ranks,) = entry["ranks"].values()
    return ranks


@pytest.mark.long
@pytest.mark.parametrize("sets", [2, 3, 4, 5, 6])
def test_tapping_in_order_with_every_tap_doubled_answers_in_that_order(sets: int, tmp_path: Path) -> None:
    """What the page asks for, to the letter: every image, the best first, the last one too."""
    survey = one_question(tmp_path, sets)
    with open_page(accept_downloads=True) as page:
        enter(page, survey.url)
        images = shown(page)
        wanted = random.Random(sets).sample(range(sets), sets)  # noqa: S311
        for image in wanted:
            page.locator(CARD).nth(image).dblclick()
        badged(page, [str(wanted.index(k) + 1) for k in range(sets)])
        assert answer_of(page, Hand(page, "mouse")) == [images[k] for k in wanted]


def test_with_two_images_one_tap_answers_and_the_second_confirms(tmp_path: Path) -> None:
    survey = one_question(tmp_path, 2)
    text = language("en").text
    with open_page(accept_downloads=True, **PHONE) as page:
        enter(page, survey.url)
        images, hand = shown(page), Hand(page, "touch")
        hand.tap(CARD, 1)
        badged(page, ["2", "1"])
        hand.tap(CARD, 0)
        badged(page, ["2", "1"], "the tap that the instruction asks for takes nothing away")
        said = text["said_again"].format(letter="A", rank=2, n=2)
        expect(page.locator(".onward .hint")).to_have_text(said)
        expect(page.locator("#live")).to_have_text(said)
        hand.tap(UNDO)
        badged(page, ["", ""])
        expect(page.locator(UNDO)).to_have_attribute("aria-disabled", "true")
        hand.tap(CARD, 0)
        badged(page, ["1", "2"])
        assert answer_of(page, hand) == images


@pytest.mark.long
def test_36_questions_of_two_images_take_72_taps(tmp_path: Path) -> None:
    survey = made(tmp_path, sets=2, pages=4, attention_checks=0, items="\n".join(f"T{k} | Q{k}?" for k in range(9)))
    with open_page() as page:
        enter(page, survey.url)
        taps = page.evaluate(
            """() => {
                let taps = 0;
                const tap = (selector) => (document.querySelector(selector).click(), taps++);
                while (document.querySelector(".ranking")) tap(".card .picture"), tap(".onward .main");
                return taps;
            }"""
        )
        assert taps == 72
        expect(page.locator(".answer")).to_have_count(36)


@pytest.mark.parametrize(
    ("sets", "way", "steps"),
    [
        (2, "mouse", 12),
        *(pytest.param(n, way, 60, marks=pytest.mark.long) for n in (2, 3, 4, 5, 6) for way in WAYS),
    ],
)
def test_random_taps_and_keys_keep_to_the_model_and_the_answer_is_what_is_seen(
    sets: int, way: str, steps: int, tmp_path: Path
) -> None:
    survey, chance = one_question(tmp_path, sets), random.Random(10 * sets + len(way))  # noqa: S311
    rtl = sets in (3, 4)
    if rtl:
        text = survey.path.read_text(encoding="utf-8").replace('dir="ltr">', 'dir="rtl">', 1)
        survey.path.write_text(text, encoding="utf-8")
    with open_page(accept_downloads=True, **WAYS[way]) as page:
        enter(page, survey.url)
        images, hand, order = shown(page), Hand(page, way), Order(sets)
        walk(page, hand, order, chance, steps, rtl=rtl)
        for image in chance.sample(range(sets), sets):  # whatever the state, tapping every image makes it whole
            order.tap(image)
            hand.tap(CARD, image)
        badged(page, order.ranks)
        assert answer_of(page, hand) == [images[k] for k in order.places if k is not None]


@pytest.mark.long
def test_answers_that_an_older_page_kept_with_one_image_left_are_asked_again(tmp_path: Path) -> None:
    """It could keep a worst image without a best one; tapping in order from there would answer the wrong way round."""
    survey = one_question(tmp_path, 2)
    with open_page() as page:
        enter(page, survey.url)
        first, second = shown(page)
        for kept in ([None, first], [second, None], [first, first], ["x", first], [first], first, [None, None]):
            page.evaluate(
                """([kept, survey]) => {
                    const store = Object.keys(localStorage).find((key) => key.includes(survey));
                    const state = JSON.parse(localStorage.getItem(store));
                    state.answers = { p001: { item1: kept } };
                    localStorage.setItem(store, JSON.stringify(state));
                }""",
                [kept, survey.survey.id],
            )
            page.reload()
            badged(page, ["", ""], json.dumps(kept))
