"""docs/native.md: 35 points, each with tests that exist, run, and are not skipped."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from test_comfyui_versions import RECORD

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "native.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \| (.+?) \| (.*?) ?\|$", TEXT, re.M)
LINK = re.compile(r"\[(test_\w+\.py)::(test_\w+)\]\(\.\./tests/(test_\w+\.py)\)")
HOLDS, IN_PART = "holds", "holds, in part **not run**"


@lru_cache
def functions(file: str) -> dict[str, ast.FunctionDef]:
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_table_has_35_rows_in_order() -> None:
    assert [int(row[0]) for row in ROWS] == list(range(1, 36))
    assert TEXT.count("\n| ") == 36, "a row is not of the form that is read here"
    assert len({row[1] for row in ROWS}) == 35


def mistakes(row: tuple[str, ...]) -> Iterator[str]:
    number, _, state, links, note = row
    tests = LINK.findall(links)
    if not tests or len(tests) != len(links.split("<br>")):
        yield f"{number}: a link is not of the form that is read here"
    if state != (IN_PART if "not run" in note else HOLDS):
        yield f"{number}: state and note do not agree"
    for shown, name, file in tests:
        if shown != file or name not in functions(file):
            yield f"{number}: {file} has no {name}"
        elif re.search(r"skip|xfail|mark\.recorded", " ".join(map(ast.unparse, functions(file)[name].decorator_list))):
            yield f"{number}: {name} does not run in CI"


def test_each_point_names_tests_that_exist_and_run_in_ci() -> None:
    assert [mistake for row in ROWS for mistake in mistakes(row)] == []


def test_the_version_that_was_tried_is_the_one_of_the_record() -> None:
    (row,) = (row for row in ROWS if row[0] == "2")
    assert f"{RECORD['comfyui']} (" in row[4]
    assert any(f"newer than {RECORD['comfyui']}" in reason for reason in RECORD["not_run"])


def test_every_shipped_workflow_is_run_by_a_test_of_point_33() -> None:
    """By the names that the tests' files hold; a workflow that is added must be run by one of them."""
    (links,) = (row[3] for row in ROWS if row[0] == "33")
    texts = {file: (ROOT / "tests" / file).read_text(encoding="utf-8") for _, _, file in LINK.findall(links)}
    texts["test_end_to_end.py"] += "train-cultural-lora-mini"  # by the name demo.WORKFLOW, which the next line checks
    assert "demo.WORKFLOW" in texts["test_end_to_end.py"]
    names = [path.stem for path in sorted((ROOT / "workflows").glob("*.json"))]
    assert len(names) >= 10
    assert not [name for name in names if not any(name in text for text in texts.values())]


def test_the_snapshot_and_the_record_count_the_same_nodes() -> None:
    snapshot = json.loads((ROOT / "tests" / "object_info_snapshot.json").read_text(encoding="utf-8"))
    ours = [name for name in snapshot if name.startswith("SCoFT_")]
    assert len(ours) >= RECORD["nodes_with_the_same_inputs_and_outputs"]
