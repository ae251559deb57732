"""Fuzzed data gives records or clear sentences: a short run here, a long one on record."""

from __future__ import annotations

import json
from pathlib import Path

import data_fuzz as fuzz
import pytest

RECORD = Path(__file__).resolve().parent / "recorded" / "records" / "data_fuzz.json"


def test_two_thousand_fuzzed_lines_captions_and_pictures_give_records_or_clear_sentences():
    found = fuzz.run(200 * len(fuzz.CASES), seed=7)
    assert found["findings"] == []
    counts = found["counts"]
    assert found["cases"] == 2200 and counts["loaded"] > 400 and counts["left out"] > 1000
    assert len([name for name in counts if name.startswith("inputs of")]) == 6


def test_what_is_opened_outside_and_what_fails_is_a_finding(tmp_path, monkeypatch):
    def curious(rng, folder, tally):
        (folder.parent / "secret.txt").read_text()
        raise RuntimeError("a decoder's own")

    monkeypatch.setattr(fuzz, "CASES", [curious])
    fuzz.watch_the_disk()
    broken, outside = fuzz.run_batch(0, 0, fuzz.Counter())
    assert "a decoder's own" in broken and "secret.txt" in outside
    for text in ("two\nlines.", "no full stop at the end", "short."):
        with pytest.raises(AssertionError):
            fuzz.sentence(text)


def test_a_hundred_thousand_were_read_and_the_record_says_so():
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert record["cases"] >= 100_000 and record["findings"] == []
    assert record["command"].startswith("python tests/recorded/data_fuzz.py --cases 100000")


@pytest.mark.recorded
def test_a_hundred_thousand_fuzzed_inputs_give_records_or_clear_sentences():
    assert fuzz.run(100_000, 1024, RECORD)["findings"] == []
