"""After a kill or a power cut at any file operation, the old or the new is whole and can be loaded."""

from __future__ import annotations

import json
from pathlib import Path

import power_cut_ext4
import pytest
from power_cut import WORKS, cuts, survives

from comfy_scoft.common.files import recovered


@pytest.mark.parametrize("name", WORKS)
def test_a_cut_at_any_operation_leaves_the_old_or_the_new_whole(name: str, tmp_path: Path) -> None:
    found = survives(WORKS[name], tmp_path)
    assert len(found) >= 3 and len(set(found.values())) >= 2


def test_the_harness_sees_a_rename_before_the_bytes_and_a_deletion_before_the_rename(tmp_path: Path) -> None:
    """As every file was written once: it must find the empty file, and the state in which nothing is left."""

    def careless() -> None:
        (tmp_path / "part").write_text("new")
        (tmp_path / "part").rename(tmp_path / "file")

    (tmp_path / "file").write_text("old")
    left = list(cuts(tmp_path, careless).values())
    assert {"file": b"old"} in left and {"file": b""} in left and {"file": b"new"} in left


def test_a_folder_between_its_names_is_found_again_and_a_whole_one_is_left_alone(tmp_path: Path) -> None:
    for name in (".lost.0123abcd.old", "there", ".there.0123abcd.old", ".part.0123abcd.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "of").write_text(name)
    assert recovered(tmp_path) == tmp_path
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".part.0123abcd.part",
        ".there.0123abcd.old",
        "lost",
        "there",
    ]
    assert (tmp_path / "there" / "of").read_text() == "there"


def test_the_record_of_a_real_file_system_says_what_was_done() -> None:
    record = json.loads(power_cut_ext4.RECORD.read_text(encoding="utf-8"))
    assert record["cuts"] >= 500 and record["lost"] == []
    found = record["found after a cut (state: times)"]
    assert {title.rpartition(", ")[0] for title in found} == set(WORKS)
    assert record["cuts"] == sum(sum(states.values()) for states in found.values())
