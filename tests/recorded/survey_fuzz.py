"""Forged, damaged and foreign answer files against the reader: each is refused in one clear sentence, or it is sound.

    python tests/recorded/survey_fuzz.py                # 50 000 files
    python tests/recorded/survey_fuzz.py --files 1000   # what CI runs

Writes records/survey_fuzz.json: how many files of each kind there were, and how many of them were refused.
Raises at the first file that makes the reader raise, that gives an unclear report, or that is counted though it is
forged. The folder in which the files are made is a temporary one.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    sys.path += [str(Path(__file__).resolve().parents[n]) for n in (2, 1)]

from survey_crowd import Crowd, answer_file, simulated_ranks, simulated_survey  # noqa: E402

from comfy_scoft.common.files import write_atomically  # noqa: E402
from comfy_scoft.survey.responses import load_responses  # noqa: E402
from comfy_scoft.survey.spec import Survey  # noqa: E402

RECORD = Path(__file__).parent / "records" / "survey_fuzz.json"
BATCH = 500
NASTY = [
    None, True, False, 0, -1, 10**400, 1e308, "", " ", "\0", "\ud800", "../../etc/passwd", "C:\\Windows", "..\\..\\x",
    "<script>alert(1)</script>", "__import__('os').system('true')", "{{7*7}}", "%s%n", "\u202e gnp.exe", "\r\nSet: x",
    "https://example.com/x", "file:///etc/passwd", "x" * 5000, [], {}, [[]], {"$ref": "#/"}, [None] * 50, "NaN", 1.5,
]  # fmt: skip

Answers = dict[str, Any]
Change = Callable[[Answers, random.Random], "Answers | bytes"]


def survey_and_answers() -> tuple[Survey, Answers]:
    """A survey of four generators and four items, and one sound answer file to it."""
    survey = simulated_survey(("base", "SCoFT+M", "SCoFT+MP", "SCoFT+MPC"), 4, 1, 7, "fuzzed")
    generator = np.random.default_rng(7)
    crowd = Crowd(np.arange(4.0), np.ones(1))
    ranks, _ = simulated_ranks(crowd, np.array([len(survey.pages)]), len(survey.items), generator)
    return survey, answer_file(survey, ranks, "nuvia", 12.0, generator)


def _page(data: Answers, drawn: random.Random) -> Answers:
    return drawn.choice(data["pages"])


def _order(data: Answers, drawn: random.Random) -> list[str]:
    ranks = _page(data, drawn)["ranks"]
    return ranks[drawn.choice(sorted(ranks))]


def _unknown_image(data: Answers, drawn: random.Random) -> Answers:
    order = _order(data, drawn)
    order[drawn.randrange(len(order))] = drawn.choice(["deadbeef00", "", "../x", order[0] + "0"])
    return data


def _image_of_another_page(data: Answers, drawn: random.Random) -> Answers:
    one, other = drawn.sample(data["pages"], 2)
    one["ranks"][drawn.choice(sorted(one["ranks"]))][0] = other["shown"][0]
    return data


def _repeated_image(data: Answers, drawn: random.Random) -> Answers:
    order = _order(data, drawn)
    order[1 + drawn.randrange(len(order) - 1)] = order[0]
    return data


def _tie(data: Answers, drawn: random.Random) -> Answers:
    order = _order(data, drawn)
    order[0] = [order[0], order[1]]  # type: ignore[call-overload]
    return data


def _unknown_page(data: Answers, drawn: random.Random) -> Answers:
    _page(data, drawn)["page"] = drawn.choice(["p999", "", "../p001", "p001 "])
    return data


def _page_twice(data: Answers, drawn: random.Random) -> Answers:
    data["pages"].append(copy.deepcopy(_page(data, drawn)))
    return data


def _unknown_item(data: Answers, drawn: random.Random) -> Answers:
    page = _page(data, drawn)
    page["ranks"][drawn.choice(["beauty", "", "__proto__"])] = list(page["shown"])
    return data


def _wrong_shown(data: Answers, drawn: random.Random) -> Answers:
    shown = _page(data, drawn)["shown"]
    shown[0] = drawn.choice([shown[1], "deadbeef00"])
    return data


def _wrong_hash(data: Answers, drawn: random.Random) -> Answers:
    data["survey_hash"] = drawn.choice(["", "0" * 64, data["survey_hash"][:-1], data["survey_hash"].upper() + " "])
    return data


def _another_survey(data: Answers, drawn: random.Random) -> Answers:
    data["survey"] = drawn.choice(["", "another", data["survey"] + "x"])
    return data


def _impossible_times(data: Answers, drawn: random.Random) -> Answers:
    data["finished"] = drawn.choice(["1999-01-01T00:00:00Z", "yesterday", "2025-13-01T00:00:00Z", "0", "9" * 60])
    return data


def _no_consent(data: Answers, drawn: random.Random) -> Answers:
    data["consented"] = drawn.choice([False, "yes", 1, None])
    return data


def _bad_token(data: Answers, drawn: random.Random) -> Answers:
    data["participant"] = drawn.choice(["", "../../x", "a b", "<b>", "x" * 200, "é", "-"])
    return data


def _nasty_part(data: Answers, drawn: random.Random) -> Answers:
    """Something nasty in place of a part that the reader needs."""
    value = drawn.choice([v for v in NASTY if v not in ("", None)])
    place = drawn.choice(["format", "survey", "survey_hash", "participant", "affiliation", "pages", "page", "shown"])
    target = _page(data, drawn) if place in ("page", "shown") else data
    if place == "participant":
        value = drawn.choice([v for v in NASTY if not isinstance(v, str) or len(v) > 64 or not v.isascii()])
    if place == "affiliation":  # whose parts may all be missing
        value = drawn.choice([v for v in NASTY if not isinstance(v, dict)])
    target[place] = value
    return data


def _missing_part(data: Answers, drawn: random.Random) -> Answers:
    del data[drawn.choice(["format", "version", "survey", "survey_hash", "participant", "consented", "pages"])]
    return data


def _cut_off(data: Answers, drawn: random.Random) -> bytes:
    text = json.dumps(data).encode()
    return text[: drawn.randrange(len(text) - 1)]


def _bytes_changed(data: Answers, drawn: random.Random) -> bytes:
    text = bytearray(json.dumps(data).encode())
    for _ in range(drawn.randint(1, 8)):
        text[drawn.randrange(len(text))] = drawn.randrange(256)
    return bytes(text)


def _noise(data: Answers, drawn: random.Random) -> bytes:
    return drawn.randbytes(drawn.randrange(400))


def _deep(data: Answers, drawn: random.Random) -> bytes:
    depth = drawn.choice([200, 5000, 100_000])
    return drawn.choice([b"[" * depth, b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth])


def _huge_number(data: Answers, drawn: random.Random) -> bytes:
    return json.dumps(data).replace('"version": 1', '"version": ' + "1" * drawn.choice([30, 5000, 200_000])).encode()


def _not_a_number(data: Answers, drawn: random.Random) -> bytes:
    return json.dumps(data).replace("12.0", drawn.choice(["NaN", "Infinity", "1e999", "-Infinity"])).encode()


def _said_twice(data: Answers, drawn: random.Random) -> bytes:
    text = json.dumps(data)
    return (text[:-1] + ', "pages": []}').encode()


def _other_encoding(data: Answers, drawn: random.Random) -> bytes:
    return json.dumps(data).encode(drawn.choice(["utf-16", "utf-32", "utf-16-be"]))


def _too_large(data: Answers, drawn: random.Random) -> bytes:
    return json.dumps(data).encode() + b" " * (4 * 1024 * 1024 + 1)


def _odd_country(data: Answers, drawn: random.Random) -> Answers:
    data["affiliation"] = {"country": drawn.choice([v for v in NASTY if isinstance(v, str)])[:900], "years": 3}
    return data


def _odd_years(data: Answers, drawn: random.Random) -> Answers:
    data["affiliation"]["years"] = drawn.choice([None, 0, 500, -3, 1990, 2.5])
    return data


def _unknown_keys(data: Answers, drawn: random.Random) -> Answers:
    data[drawn.choice(["comment", "__class__", "constructor"])] = drawn.choice(NASTY[4:])
    return data if 10**400 not in data.values() else {k: v for k, v in data.items() if v != 10**400}


def _unfinished(data: Answers, drawn: random.Random) -> Answers:
    page = drawn.choice(data["pages"])
    item = drawn.choice(sorted(page["ranks"]))
    page["ranks"][item] = page["ranks"][item][: drawn.randrange(4)]
    return data


def _other_layout(data: Answers, drawn: random.Random) -> bytes:
    text = json.dumps(data, indent=drawn.choice([None, 1, "\t"]), ensure_ascii=drawn.random() < 0.5)
    return (b"\xef\xbb\xbf" if drawn.random() < 0.5 else b"") + text.encode() + b"\n" * drawn.randrange(3)


FORGED: tuple[Change, ...] = (
    *(_unknown_image, _image_of_another_page, _repeated_image, _tie, _unknown_page, _page_twice, _unknown_item),
    *(_wrong_shown, _wrong_hash, _another_survey, _impossible_times, _no_consent, _bad_token, _nasty_part),
    *(_missing_part, _cut_off, _noise, _deep, _huge_number, _not_a_number, _said_twice),
)
"""None of these may be counted."""
SOUND: tuple[Change, ...] = (_odd_country, _odd_years, _unknown_keys, _other_layout)
"""All of these are counted, with the answers unchanged."""
PARTIAL: tuple[Change, ...] = (_unfinished,)
"""Counted without the page that is not whole."""
OPEN: tuple[Change, ...] = (_bytes_changed, _other_encoding)
"""Random bytes may hit what matters or not, and not every encoding is told; what is counted must be able to be."""
RARE: tuple[Change, ...] = (_too_large,)
"""Large files, made now and then."""


def check_clear(report: str, files: int) -> None:
    """A head line, then one plain printable sentence of bounded length for each thing said."""
    head, *lines = report.split("\n")
    assert head.startswith(f"{files} answer file") and head.endswith("."), head
    for line in lines:
        assert line.endswith((".", ").")) and 10 < len(line) < 400, line
        assert not any(unicodedata.category(c)[0] == "C" for c in line), repr(line)


def check_response(survey: Survey, response: Any, sound: Any, kind: Change) -> None:
    """A counted file holds only what the survey's page could have written."""
    assert kind not in FORGED and kind not in RARE, (kind.__name__, response.file)
    pages, items = {page.id for page in survey.pages}, [item.id for item in survey.items]
    for ranking in response.rankings:
        assert ranking.page in pages and ranking.item in items
        assert sorted(ranking.order) == list(range(len(survey.generators)))
    assert not any(unicodedata.category(c)[0] == "C" for c in response.country) and len(response.country) <= 80
    if kind in SOUND:
        assert response.rankings == sound.rankings, kind.__name__
    if kind in PARTIAL:
        assert len(response.rankings) == len(sound.rankings) - len(items)


def fuzz(files: int, seed: int = 0) -> dict[str, Any]:
    """Makes and reads the files; returns counts by kind. Raises AssertionError where the reader does wrong."""
    drawn = random.Random(seed)  # noqa: S311 - files to try, not secrets
    survey, sound_data = survey_and_answers()
    kinds = (*FORGED, *SOUND, *PARTIAL, *OPEN)
    made, counted = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "sound.json").write_text(json.dumps(sound_data), encoding="utf-8")
        sound = load_responses(survey, folder)[0].responses[0]
        (folder / "sound.json").unlink()
        while made.total() < files:
            batch: dict[str, Change] = {}
            for _ in range(min(BATCH, files - made.total())):
                kind = RARE[0] if made.total() % 1000 == 999 else kinds[made.total() % len(kinds)]
                name = f"{made.total():06d}.json"
                (folder / name).write_bytes(mutated(kind, sound_data, name, drawn))
                batch[name] = kind
                made[kind.__name__.strip("_")] += 1
            counted += check_batch(survey, folder, batch, replace(sound, file=""))
            for name in batch:
                (folder / name).unlink()
    return {
        "files": made.total(),
        "refused": made.total() - counted.total(),
        "by kind": {kind: {"files": n, "refused": n - counted[kind]} for kind, n in sorted(made.items())},
    }


def mutated(kind: Change, sound: Answers, name: str, drawn: random.Random) -> bytes:
    """One file of a kind. Each participant has a token and image orders of their own, so that none is a duplicate."""
    data = copy.deepcopy(sound)
    data["participant"] = f"token-{name[:-5]}"
    for page in data["pages"]:
        drawn.shuffle(page["shown"])
    changed = kind(data, drawn)
    return changed if isinstance(changed, bytes) else json.dumps(changed).encode()


def check_batch(survey: Survey, folder: Path, batch: dict[str, Change], sound: Any) -> Counter[str]:
    """Reads one folder; returns how many files of each kind were counted."""
    found, report = load_responses(survey, folder)
    check_clear(report, len(batch))
    for response in found.responses:
        check_response(survey, response, sound, batch[response.file])
    used = {response.file for response in found.responses}
    lost = [kind.__name__ for name, kind in batch.items() if kind in (*SOUND, *PARTIAL) and name not in used]
    assert not lost, f"sound files were refused: {lost[:5]}\n{report}"
    return Counter(batch[name].__name__.strip("_") for name in used)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, default=RECORD)
    given = parser.parse_args(arguments)
    result = {
        "command": f"python tests/recorded/survey_fuzz.py --files {given.files} --seed {given.seed}",
        **fuzz(given.files, given.seed),
    }
    write_atomically(given.record, (json.dumps(result, indent=1) + "\n").encode())
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
