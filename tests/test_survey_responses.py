"""Answer files: what is sound is counted, and what is not is left out in one sentence, whatever is in it."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import survey_fuzz
from survey_crowd import Crowd, answer_file, simulated_ranks, simulated_survey

from comfy_scoft.survey import answer_file as answer_files
from comfy_scoft.survey import responses
from comfy_scoft.survey.responses import join, load_responses
from comfy_scoft.survey.spec import KEY_ENDING, Survey, to_json

EXAMPLE = Path(responses.__file__).parent / "example"


@pytest.fixture
def survey() -> Survey:
    return simulated_survey(("base", "SCoFT"), 8, 1, 3, "Two generators")


def answers(survey: Survey, seed: int = 0, country: str = "nuvia") -> dict:
    """A sound answer file of one participant."""
    generator = np.random.default_rng(seed)
    crowd = Crowd(np.arange(float(len(survey.generators))), np.ones(1))
    ranks, _ = simulated_ranks(crowd, np.array([len(survey.pages)]), len(survey.items), generator)
    return answer_file(survey, ranks, country, 12.0, generator)


def put(folder: Path, name: str, data: object) -> None:
    text = data if isinstance(data, bytes) else json.dumps(data).encode()
    (folder / name).write_bytes(text)


def lines_about(report: str, name: str) -> list[str]:
    return [line for line in report.splitlines()[1:] if line.startswith(name)]


def test_orders_are_those_of_the_file_in_the_surveys_own_numbers(survey, tmp_path):
    data = answers(survey)
    put(tmp_path, "a.json", data)
    found, report = load_responses(survey, tmp_path)
    assert report == "1 answer file read: 1 participant used, 0 left out."
    (response,) = found.responses
    assert (response.country, response.years, response.file) == ("nuvia", 12.0, "a.json")
    assert len(response.rankings) == 9 * 4
    for ranking in response.rankings:
        page = next(p for p in survey.pages if p.id == ranking.page)
        given = next(p for p in data["pages"] if p["page"] == ranking.page)["ranks"][ranking.item]
        assert [page.images[k] for k in ranking.order] == given
    assert replace(found, responses=()) == survey


def change(data: dict, where: str, value: object) -> dict:
    data = copy.deepcopy(data)
    target = data
    *path, last = where.split(".")
    for part in path:
        target = target[int(part) if part.isdigit() else part]
    target[int(last) if last.isdigit() else last] = value
    return data


REFUSED: list[tuple[str, Callable[[dict], object], str]] = [
    ("foreign", lambda d: change(d, "survey", "another"), "answers another survey"),
    ("hash", lambda d: change(d, "survey_hash", "0" * 64), "names this survey but not its hash"),
    ("version", lambda d: change(d, "version", 2), "has format version 2"),
    ("consent", lambda d: change(d, "consented", False), "did not consent"),
    ("token", lambda d: change(d, "participant", "../../x"), "no proper participant token"),
    ("ended first", lambda d: change(d, "finished", "2025-02-28T10:00:00Z"), "finished before it was started"),
    ("no time", lambda d: change(d, "started", "then"), "an invalid time"),
    ("page", lambda d: change(d, "pages.0.page", "p999"), "a page that the survey does not have"),
    ("page twice", lambda d: change(d, "pages.1", d["pages"][0]), "answers page p001 twice"),
    ("item", lambda d: change(d, "pages.0.ranks.beauty", d["pages"][0]["shown"]), "that was not asked ('beauty')"),
    ("picture", lambda d: change(d, "pages.0.ranks.alignment", ["x", "y"]), "an image that page p001 does not have"),
    (
        "repeated",
        lambda d: change(d, "pages.0.ranks.alignment", [d["pages"][0]["shown"][0]] * 2),
        "ranks one image twice on page p001",
    ),
    ("tie", lambda d: change(d, "pages.0.ranks.alignment", [d["pages"][0]["shown"]]), "is malformed at"),
    ("other images", lambda d: change(d, "pages.0.shown", ["x", "y"]), "shows other images on page p001"),
    ("shape", lambda d: change(d, "pages", "none"), "is malformed at 'pages'"),
    ("cut", lambda d: json.dumps(d).encode()[:-40], "is not JSON, or was cut off on its way"),
    ("no json", lambda d: b"Dear organiser, here are my answers", "is not JSON"),
    ("not ours", lambda d: {"prompt": "a workflow"}, "is JSON, but not an answer file"),
    ("no text", lambda d: b"\xff\xfe\x00", "is not text in UTF-8 or UTF-16"),
    ("deep", lambda d: b"[" * 200_000, "is nested too deeply"),
    ("twice", lambda d: (json.dumps(d)[:-1] + ', "pages": []}').encode(), "has a key twice"),
    ("digits", lambda d: json.dumps(d).replace('"version": 1', '"version": ' + "1" * 9999).encode(), "too many digits"),
    ("nan", lambda d: json.dumps(d).replace("12.0", "NaN").encode(), "holds NaN, which is not JSON"),
    ("large", lambda d: json.dumps(d).encode() + b" " * answer_files.MAX_BYTES, "is larger than 4 MB"),
    ("empty", lambda d: change(d, "pages", []), "has no complete page"),
]


@pytest.mark.parametrize(("make", "said"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_cannot_be_is_left_out_whole_and_named(survey, tmp_path, make, said):
    put(tmp_path, "good.json", answers(survey))
    put(tmp_path, "odd.json", make(answers(survey, 1)))
    found, report = load_responses(survey, tmp_path)
    assert [response.file for response in found.responses] == ["good.json"]
    (line,) = lines_about(report, "odd.json")
    assert said in line and line.endswith(".")
    assert report.startswith("2 answer files read: 1 participant used, 1 left out (1 ")


def test_a_page_that_is_not_whole_is_left_out_and_the_others_count(survey, tmp_path):
    data = answers(survey)
    data["pages"].pop()  # not reached
    del data["pages"][0]["ranks"]["stereotypes"]  # one item missing
    data["pages"][1]["ranks"]["alignment"].pop()  # one image not ranked
    put(tmp_path, "a.json", data)
    found, report = load_responses(survey, tmp_path)
    assert {r.page for r in found.responses[0].rankings} == {f"p{k:03d}" for k in range(3, 9)}
    assert lines_about(report, "a.json") == ["a.json is partial: 6 of 9 pages are complete and used."]


def test_of_one_participants_files_the_fuller_counts_then_the_later(survey, tmp_path):
    whole = answers(survey)
    short = copy.deepcopy(whole)
    short["pages"] = short["pages"][:4]
    later = change(answers(survey, 5), "participant", whole["participant"])
    later["finished"] = "2025-03-01T23:00:00.000Z"
    for name, data in (("a.json", short), ("b.json", whole), ("c.json", later), ("d.json", later)):
        put(tmp_path, name, data)
    found, report = load_responses(survey, tmp_path)
    assert [response.file for response in found.responses] == ["c.json"]
    assert "3 a participant's second file" in report.splitlines()[0]
    assert "c.json is from the same participant with other answers" in lines_about(report, "a.json")[0]
    assert "with the same answers" in lines_about(report, "d.json")[0]


def test_a_copy_under_another_token_is_left_out_but_equal_short_answers_are_not(tmp_path):
    survey = simulated_survey(("a", "b", "c", "d"), 6, 0, 1, "t")
    data = answers(survey)
    put(tmp_path, "a.json", data)
    put(tmp_path, "b.json", change(data, "participant", "somebody-else"))
    found, report = load_responses(survey, tmp_path)
    assert [r.file for r in found.responses] == ["a.json"]
    assert "is a copy of a.json under another participant's token" in lines_about(report, "b.json")[0]
    two = simulated_survey(("a", "b"), 2, 0, 1, "t")  # two people agree and saw the same orders: one case in sixteen
    data = answers(two)
    put(tmp_path, "a.json", data)
    put(tmp_path, "b.json", change(data, "participant", "somebody-else"))
    assert len(load_responses(two, tmp_path)[0].responses) == 2


def test_odd_but_possible_answers_count_with_a_caution(survey, tmp_path):
    data = answers(survey)
    data["finished"] = "2025-03-01T10:00:03Z"
    data["affiliation"]["years"] = 1990
    put(tmp_path, "a.json", data)
    put(tmp_path, "b.json", change(change(answers(survey, 1), "started", "2199-01-01"), "finished", "2199-01-02"))
    found, report = load_responses(survey, tmp_path)
    assert len(found.responses) == 2 and found.responses[0].years is None
    assert "a.json gives 1990 years of experience, which is impossible and left out." in report
    assert "a.json took 3 s for 9 pages, faster than people read." in report
    assert "b.json was finished in the future, so its clock is wrong." in report


def test_text_from_a_file_is_shown_on_one_line_without_control_or_direction_marks(survey, tmp_path):
    data = answers(survey, country=" \u202eko\r\nrea\x00\ud83d <b> ")
    put(tmp_path, "a\u202eb.json", data)
    put(tmp_path, "c.json", change(answers(survey, 1), "survey", "x\n<script>" + "y" * 500))
    found, report = load_responses(survey, tmp_path)
    assert found.responses[0].country == "ko rea ? <b>"
    (line,) = lines_about(report, "c.json")
    assert "x <script>" in line and len(line) < 120 and "\u202e" not in report


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["answers-1.json.txt", "PASTED.TXT", "ANSWERS.JSON"])
def test_answers_count_as_editors_and_messengers_save_them(survey, tmp_path, name, encoding):
    put(tmp_path, name, json.dumps(answers(survey)).encode(encoding))
    found, report = load_responses(survey, tmp_path)
    assert report == "1 answer file read: 1 participant used, 0 left out."
    assert [response.file for response in found.responses] == [name]


def test_answers_pasted_with_the_line_of_a_messenger_or_saved_by_a_spreadsheet_are_named(survey, tmp_path):
    data = json.dumps(answers(survey), indent=1)
    put(tmp_path, "good.json", answers(survey, 1))
    put(tmp_path, "chat.txt", f"[29/11/26, 14:02] Mina: {data}".encode())
    quoted = "\r\n".join('"' + line.replace('"', '""') + '"' for line in data.splitlines())
    put(tmp_path, "excel.json", quoted.encode("utf-16"))
    _, report = load_responses(survey, tmp_path)
    assert report.startswith("3 answer files read: 1 participant used, 2 left out (2 could not be read).")
    assert lines_about(report, "chat.txt") and lines_about(report, "excel.json")


def test_whatever_else_people_put_into_the_folder_is_named(survey, tmp_path):
    put(tmp_path, "a.json", answers(survey))
    (tmp_path / "phone 2").mkdir()
    for name in (
        "answers.zip",
        "photo.jpg",
        "notes.txt",
        "Nuvia-1.report.html",
        "x.survey.json",
        "Thumbs.db",
        ".DS_Store",
    ):
        put(tmp_path, name, b"{}")
    (line,) = load_responses(survey, tmp_path)[1].splitlines()[1:]
    assert line.startswith("Not read: phone 2, answers.zip, notes.txt, photo.jpg. Answers are read from .json and .txt")


def test_links_sub_folders_and_other_files_are_not_read(survey, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    put(elsewhere, "secret.json", answers(survey))
    folder = tmp_path / "answers"
    (folder / "sub").mkdir(parents=True)
    put(folder / "sub", "deep.json", answers(survey, 1))
    put(folder, "notes.txt", b"{}")
    os.symlink(elsewhere / "secret.json", folder / "link.json")
    with pytest.raises(ValueError, match="'answers' holds no answer file"):
        load_responses(survey, folder)
    put(folder, "a.json", answers(survey, 2))
    assert load_responses(survey, folder)[1].startswith("1 answer file read: 1 participant used")


def test_too_many_files_are_refused_before_any_is_read(survey, tmp_path, monkeypatch):
    monkeypatch.setattr(responses, "MAX_FILES", 2)
    for k in range(3):
        put(tmp_path, f"{k}.json", answers(survey, k))
    with pytest.raises(ValueError, match="holds 3 .json and .txt files and at most 2 are read"):
        load_responses(survey, tmp_path)


def test_a_long_report_is_counted_not_listed(survey, tmp_path):
    for k in range(responses.LISTED + 7):
        put(tmp_path, f"{k:03d}.json", b"no")
    put(tmp_path, "good.json", answers(survey))
    report = load_responses(survey, tmp_path)[1].splitlines()
    assert len(report) == 1 + responses.LISTED + 1 and report[-1].startswith("… and 7 more of that kind")


def test_without_a_survey_the_key_in_the_folder_or_where_it_was_written_is_used(survey, tmp_path):
    folder, written = tmp_path / "answers", tmp_path / "surveys"
    folder.mkdir()
    written.mkdir()
    put(folder, "a.json", answers(survey))
    with pytest.raises(ValueError, match="No key file fits the answers"):
        load_responses(None, folder, written)
    put(written, f"other{KEY_ENDING}", to_json(simulated_survey(("a", "b"), 3, 0, 9, "other")))
    put(written, f"mine{KEY_ENDING}", to_json(survey))
    assert len(load_responses(None, folder, written)[0].responses) == 1
    put(folder, f"mine{KEY_ENDING}", to_json(survey))
    assert load_responses(None, folder)[0].id == survey.id
    put(folder, f"mine{KEY_ENDING}", b"not json")
    with pytest.raises(ValueError, match="The key file .* cannot be read"):
        load_responses(None, folder)


def test_surveys_of_several_countries_are_joined_page_by_page(tmp_path):
    surveys = [simulated_survey(("base", "SCoFT"), 8, 1, seed, f"survey {seed}") for seed in (1, 2)]
    token = answers(surveys[0])["participant"]
    for k, survey in enumerate(surveys):
        put(tmp_path, f"{k}{KEY_ENDING}", to_json(survey))
        put(tmp_path, f"{k}.json", change(answers(survey, k, f"country {k}"), "participant", token))
    found, report = load_responses(None, tmp_path)
    assert "2 participants used, 0 left out" in report
    assert len(found.pages) == 18 and len({page.id for page in found.pages}) == 18
    assert all(r.page in {p.id for p in found.pages} for response in found.responses for r in response.rankings)
    assert [page.repeats for page in found.pages if page.repeats][1].startswith(f"{surveys[1].id}/p0")
    other = simulated_survey(("base", "another"), 8, 1, 3, "t")
    with pytest.raises(ValueError, match="do not compare the same generators"):
        join([surveys[0], other])


def test_the_shipped_example_is_sound_small_and_says_that_nobody_answered_it():
    found, report = load_responses(None, EXAMPLE)
    assert report == "24 answer files read: 24 participants used, 0 left out."
    assert "Synthetic" in found.title and "no person" in found.title
    assert sum(path.stat().st_size for path in EXAMPLE.iterdir()) < 150_000


def test_the_shipped_example_is_what_its_script_writes(tmp_path):
    import build_survey_example

    build_survey_example.build(tmp_path)
    for path in sorted(EXAMPLE.iterdir()):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_a_thousand_forged_and_damaged_files_give_clear_reports_and_nothing_false_counts():
    result = survey_fuzz.fuzz(1000, seed=1)
    assert result["files"] == 1000
    for kind in (*survey_fuzz.FORGED, *survey_fuzz.RARE):
        counts = result["by kind"][kind.__name__.strip("_")]
        assert counts["files"] == counts["refused"] > 0


def test_the_recorded_fifty_thousand_were_all_clear():
    record = json.loads(survey_fuzz.RECORD.read_text(encoding="utf-8"))
    assert record["files"] >= 50_000
    kinds = record["by kind"]
    for kind in (*survey_fuzz.FORGED, *survey_fuzz.RARE):
        counts = kinds[kind.__name__.strip("_")]
        assert counts["refused"] == counts["files"] > 0
    for kind in (*survey_fuzz.SOUND, *survey_fuzz.PARTIAL):
        assert kinds[kind.__name__.strip("_")]["refused"] == 0


@pytest.mark.recorded
def test_fifty_thousand_forged_and_damaged_files(tmp_path):
    survey_fuzz.main(["--record", str(tmp_path / "record.json")])
