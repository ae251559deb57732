"""Build Survey: which pages, which ids, what the file holds and above all what it does not, and the key beside it."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from survey_toys import LABELS, data_of, image_bytes, image_sets, pixels

from comfy_scoft.metrics.image_set import ImageSet
from comfy_scoft.survey.build import SurveySettings, build, file_name, save
from comfy_scoft.survey.items import default_items, read_items
from comfy_scoft.survey.languages import FOLDER, language, languages
from comfy_scoft.survey.render import in_script
from comfy_scoft.survey.spec import Survey, from_json, to_json

SETTINGS = SurveySettings(pages=3, attention_checks=1, seed=4, culture="Nuvia")
PAPERS_IDS = ["alignment", "representation", "stereotypes", "offensiveness"]


@pytest.fixture(scope="module")
def built() -> tuple[Survey, bytes]:
    return build(image_sets(), SETTINGS)


# --- pages


def test_the_same_sets_and_settings_give_the_same_bytes_and_a_seed_other_ids(built) -> None:
    again = build(image_sets(), SETTINGS)
    assert again == built
    other, _ = build(image_sets(), replace(SETTINGS, seed=5))
    images = [{image for page in survey.pages for image in page.images} for survey in (built[0], other)]
    assert not images[0] & images[1] and other.id != built[0].id


def test_each_picture_of_a_page_is_the_one_that_its_generator_drew(built) -> None:
    survey, page = built
    sets, data = image_sets(), data_of(page)
    assert survey.generators == tuple(found.label for found in sets) and len(survey.pages) == 4
    for entry in survey.pages:
        i = list(zip(sets[0].prompts, sets[0].seeds, strict=True)).index((entry.prompt, entry.seed))
        for k, found in enumerate(sets):
            shown = pixels(image_bytes(data, entry.images[k]))
            errors = [float(np.abs(shown - np.kron(s.images[i].numpy(), np.ones((10, 10, 1)))).mean()) for s in sets]
            assert errors[k] == min(errors) < 0.02, found.label


def test_prompts_come_before_second_seeds_of_a_prompt() -> None:
    sets = image_sets(2, seeds=3)
    for pages in (2, 4, 6, 12):
        survey, _ = build(sets, replace(SETTINGS, pages=pages, attention_checks=0))
        counts = [[page.prompt for page in survey.pages].count(p) for p in dict.fromkeys(sets[0].prompts)]
        assert sum(counts) == pages and max(counts) - min(counts) <= 1
        assert len({(page.prompt, page.seed) for page in survey.pages}) == pages


def test_an_attention_check_shows_the_same_pictures_under_new_ids(built) -> None:
    survey, page = built
    data, (again,) = data_of(page), [page for page in survey.pages if page.repeats]
    first = next(page for page in survey.pages if page.id == again.repeats)
    assert (again.prompt, again.seed) == (first.prompt, first.seed) and not set(again.images) & set(first.images)
    assert [image_bytes(data, i) for i in again.images] == [image_bytes(data, i) for i in first.images]
    assert len(data["data"]) == 3 * 3, "a repeated page needs no second copy of its images"
    none, _ = build(image_sets(), replace(SETTINGS, attention_checks=0))
    assert not any(page.repeats for page in none.pages)


# --- what the file does not hold


def test_nothing_in_the_page_names_a_generator_or_orders_by_it(built) -> None:
    survey, page = built
    text = page.decode("utf-8").casefold()
    for label in LABELS:
        for form in (label, label.encode().hex(), hashlib.sha256(label.encode()).hexdigest()):
            assert form not in text
    assert not any(
        label.encode() in image_bytes(data_of(page), image) for label in LABELS for image in survey.pages[0].images
    )
    sets = image_sets(2, [f"prompt {i}" for i in range(120)])
    many, html = build(sets, SurveySettings(pages=120, image_size=64))
    data = data_of(html)
    assert [page["images"] for page in data["pages"]] == [sorted(page.images) for page in many.pages]
    first = [sorted(page.images).index(page.images[0]) for page in many.pages]
    places = [data["pictures"][page.images[0]] < data["pictures"][page.images[1]] for page in many.pages]
    for share in (np.mean(first), np.mean(places)):
        assert abs(share - 0.5) < 4 * 0.5 / 120**0.5, "an order tells the generators apart"


def test_pictures_have_one_size_one_encoder_and_no_metadata(built) -> None:
    survey, page = built
    data, tables = data_of(page), set()
    for image in data["pictures"]:
        jpeg = image_bytes(data, image)
        assert pixels(jpeg).shape == (640, 640, 3) and data["size"] == [640, 640]
        markers, at = [], 2
        while jpeg[at + 1] != 0xDA:  # up to the start of the scan
            length = int.from_bytes(jpeg[at + 2 : at + 4], "big")
            markers.append(jpeg[at + 1])
            if jpeg[at + 1] in (0xDB, 0xC0):
                tables.add((jpeg[at + 1], jpeg[at + 4 : at + 2 + length]))
            at += 2 + length
        assert set(markers) <= {0xE0, 0xDB, 0xC0, 0xC4}, "only JFIF, tables and the frame: no EXIF, no comment"
    assert len(tables) == 3, "two quantisation tables and one frame for all images"


def test_sets_of_different_sizes_are_shown_in_one_size(built) -> None:
    small, large = image_sets(2)
    large = replace(large, images=large.images.repeat_interleave(9, 1).repeat_interleave(9, 2))
    _, page = build([small, large], SETTINGS)
    assert {pixels(image_bytes(data_of(page), image)).shape for image in data_of(page)["pictures"]} == {(640, 640, 3)}
    _, page = build([large, replace(small, images=large.images * 0.9)], replace(SETTINGS, image_size=400))
    assert data_of(page)["size"] == [400, 400]


def test_the_page_can_ask_nothing_of_a_network_and_run_nothing_but_its_own_script(built) -> None:
    text = built[1].decode("utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None and policy.start() < text.index("<style>") < text.index("<script")
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert rules.pop("default-src") == "'none'" and rules.pop("img-src") == "blob:"
    assert rules.pop("base-uri") == rules.pop("form-action") == "'none'"
    assert set(rules) == {"script-src", "style-src"}
    assert all(re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", rule) for rule in rules.values())
    addresses = set(re.findall(r"https?:[^\"'\s]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}, "the name of a language, not an address"
    assert not re.search(r"<(?:link|iframe|object|embed|audio|video|source)\b|@import|url\(", text)


HOSTILE = [
    "</script><script>document.title='taken'</script>",
    "<img src=x onerror=alert(1)> & \"quotes\" 'too'",
    "line\u2028separator \u2029 and <!-- comment -->",
    "emoji 👩🏿‍🌾 and עברית and العربية",
    "{{data}} {{script}} \\u003c \\",
]


def test_text_with_html_in_it_stays_text() -> None:
    settings = replace(SETTINGS, pages=5, title=HOSTILE[0], consent=HOSTILE[1], items=f"{HOSTILE[1]} | {HOSTILE[0]}?")
    survey, page = build(image_sets(2, HOSTILE), settings)
    text, data = page.decode("utf-8"), data_of(page)
    plain = [" ".join(prompt.split()) for prompt in HOSTILE]
    assert sorted({page["prompt"] for page in data["pages"]}) == sorted(plain)
    assert data["title"] == HOSTILE[0] and data["consent"] == [HOSTILE[1]] and data["items"][0]["title"] == HOSTILE[1]
    assert len(re.findall("<script", text)) == len(re.findall("</script", text)) == 2 and "<img" not in text
    assert "\u2028" not in in_script("\u2028") and json.loads(in_script(HOSTILE)) == HOSTILE
    half = replace(SETTINGS, title="half \ud83d of an emoji\0")
    assert build(image_sets(), half)[0].title == "half of an emoji"


# --- the key


def test_the_key_comes_back_as_it_was_and_never_takes_in_answers(built) -> None:
    survey = built[0]
    assert from_json(json.loads(json.dumps(to_json(survey)))) == survey
    assert "responses" not in to_json(survey)


def test_the_hash_changes_with_anything_that_matters(built) -> None:
    sets = image_sets()
    brighter = replace(sets[0], images=(sets[0].images + 1e-4).clamp(0, 1))
    swapped = [replace(sets[0], label=LABELS[1]), replace(sets[1], label=LABELS[0]), sets[2]]
    others = [
        build([brighter, *sets[1:]], SETTINGS),
        build(swapped, SETTINGS),
        *(build(sets, replace(SETTINGS, **change)) for change in ({"title": "other"}, {"culture": "x"}, {"seed": 9})),
    ]
    hashes = [survey.hash for survey, _ in [built, *others]]
    assert len(set(hashes)) == len(hashes) and all(re.fullmatch("[0-9a-f]{64}", found) for found in hashes)
    assert built[0].id == built[0].hash[:12]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "something else"}, "not a survey's key file"),
        ({"version": 99}, "version 99"),
        ({"pages": []}, "has no pages"),
        ({"items": [{"id": "a", "title": "b"}]}, "one of its items lacks a part"),
        ({"generators": ["one", "one", "two"]}, "generator is in it twice"),
        ({"generators": ["one"]}, "one image for each"),
        ({"title": 3}, "is not a text"),
        ({"seed": "3"}, "not a whole number"),
    ],
)
def test_a_damaged_key_is_refused_in_one_sentence(built, change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        from_json({**to_json(built[0]), **change})
    assert str(caught.value).count(". ") == 0
    damaged = copy.deepcopy(to_json(built[0]))
    damaged["pages"][-1]["repeats"] = "p999"
    with pytest.raises(ValueError, match="not an original page"):
        from_json(damaged)


# --- files


def test_files_are_never_overwritten_and_the_same_survey_is_not_written_twice(built, tmp_path: Path) -> None:
    survey, page = built
    first = save(survey, page, tmp_path / "surveys")
    assert first.name == "how-do-these-pictures-show-your-culture.html" and first.read_bytes() == page
    key = first.with_name(first.stem + ".survey.json")
    assert from_json(json.loads(key.read_text(encoding="utf-8"))) == survey
    assert save(survey, page, tmp_path / "surveys") == first
    other, html = build(image_sets(), replace(SETTINGS, seed=8))
    second = save(other, html, tmp_path / "surveys")
    assert second.stem == first.stem + "-2" and first.read_bytes() == page
    key.unlink()
    assert save(survey, page, tmp_path / "surveys").stem == first.stem + "-3"
    assert not [path.name for path in (tmp_path / "surveys").iterdir() if path.name.endswith(".part")]


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("../../etc/passwd", "etc-passwd"),
        ("这些图片 如何？", "这些图片-如何"),
        ("???", "survey"),
        ("CON", "survey"),
        ("a/b\\c:d*e|f.html", "a-b-c-d-e-f-html"),
    ],
)
def test_a_title_makes_a_safe_name(title: str, name: str) -> None:
    assert file_name(title) == name
    assert len(file_name("漢" * 300).encode()) <= 80


# --- items and languages


@pytest.mark.parametrize("name", list(languages()))
def test_a_language_is_complete(name: str) -> None:
    first, other = language("en"), language(name)
    braces = re.compile(r"\{\w*\}")
    assert other.direction in ("ltr", "rtl") and other.culture and all(other.consent)
    assert list(other.text) == list(first.text), "the same sentences in the same order as in English"
    for key, sentence in first.text.items():
        assert other.text[key].strip(), key
        assert set(braces.findall(other.text[key])) == set(braces.findall(sentence)), key
    assert [item.id for item in other.items] == PAPERS_IDS
    for item, english in zip(other.items, first.items, strict=True):
        assert set(braces.findall(item.question)) == set(braces.findall(english.question)), item.id
        assert "|" not in item.title + item.question
    if other is not first:
        same = {key for key in first.text if other.text[key] == first.text[key]}
        assert not same, f"not translated: {same}"


def test_the_languages_are_those_of_the_files_with_english_first() -> None:
    assert list(languages())[0] == "English" and {"中文", "한국어", "español", "हिन्दी"} < set(languages())
    assert len(languages()) == len(list(FOLDER.glob("*.json")))
    assert language("中文") is language("zh")


def test_the_papers_items_are_asked_in_the_surveys_language_and_name_the_culture() -> None:
    survey, page = build(image_sets(), replace(SETTINGS, language="español", culture=""))
    assert [item.id for item in survey.items] == PAPERS_IDS
    assert survey.items[1].question.startswith("¿Qué imagen representa mejor su cultura?")
    assert "hasta 3, la peor" in survey.items[1].question and survey.language == "es"
    assert b'<html lang="es" dir="ltr">' in page
    english = build(image_sets(), SETTINGS)[0].items[1].question
    assert english.startswith("Which picture represents Nuvia best?") and "distorted faces, hands" in english


def test_items_can_be_edited() -> None:
    kept = default_items().splitlines()[2]
    found = read_items(
        f"\n  Dress | Whose dress is right in {{place}}? | 1 to {{n}} | {{odd}} \n{kept}\n", language("ko"), "X", 4
    )
    assert [(item.id, item.title) for item in found] == [("item1", "Dress"), ("stereotypes", "Stereotypes")]
    assert found[0].question == "Whose dress is right in X?\n1 to 4\n{odd}"


# --- mistakes


def changed(**changes) -> list[ImageSet]:
    one, *others = image_sets()
    return [replace(one, **changes), *others]


@pytest.mark.parametrize(
    ("sets", "settings", "said"),
    [
        (image_sets(1), {}, "compares 2 to 6 image sets, not 1"),
        ([*image_sets(4), *image_sets(3)], {}, "compares 2 to 6 image sets, not 7"),
        (changed(prompts=("a", "b", "c", "d")), {}, "not made with the same prompts and seeds"),
        (changed(seeds=(1, 2, 3, 4)), {}, "not made with the same prompts and seeds"),
        (changed(label=LABELS[1]), {}, "Two sets are labeled 'generator-beta'"),
        (changed(images=image_sets()[1].images), {}, "hold the same images"),
        (changed(images=torch.rand(4, 64, 96, 3)), {}, "same proportions"),
        (image_sets(), {"pages": 0}, "pages is 0, but it must be a whole number from 1 to 500"),
        (image_sets(), {"pages": 5}, "asks for 5 pages, but the sets hold 4"),
        (image_sets(), {"attention_checks": 4}, "cannot repeat 3 pages"),
        (image_sets(), {"language": "Klingon"}, "no language 'Klingon': choose one of English"),
        (image_sets(), {"title": " \n"}, "has no title"),
        (image_sets(), {"items": " \n\n"}, "has no items"),
        (image_sets(), {"items": "Only a title"}, "'Only a title' has no question"),
        (image_sets(), {"items": "Dress | a?\ndress | b?"}, "is there twice"),
        (image_sets(), {"items": "Stereotypes | a?\nEstereotipos | b?", "language": "es"}, "is there twice"),
        (image_sets(), {"quality": 0}, "quality is 0, but it must be a whole number from 1 to 95"),
    ],
)
def test_a_mistake_is_said_in_one_sentence(sets: list[ImageSet], settings: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        build(sets, replace(SETTINGS, **settings))
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
