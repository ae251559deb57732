"""What the pack can say to a person: a pattern for each text in its code, for tests of documents that quote it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FEWEST_LETTERS = 15
LONGEST = 500
"""Letters of its own that a sentence of the code must have to be told from others, and the longest one."""


@lru_cache(maxsize=1)
def sentences() -> list[re.Pattern[str]]:
    """A pattern for each text in the pack's code; what is filled in while it runs, {so} too, may be anything."""
    found = []
    for path in sorted((ROOT / "comfy_scoft").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        known = dict(constants(tree))
        for node in ast.walk(tree):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            letters, pattern = "", ""
            for part in parts:
                text = known.get(ast.unparse(part.value)) if isinstance(part, ast.FormattedValue) else None
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    text = part.value
                letters += text or ""
                pattern += ".*" if text is None else re.sub(r"\\\{\w+\\\}", ".*", re.escape(text))
            if len(letters) < LONGEST and sum(map(str.isalpha, letters)) >= FEWEST_LETTERS:
                found.append(re.compile(pattern))
    return found


def constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The texts that a module gives a name."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from ((target.id, node.value.value) for target in node.targets if isinstance(target, ast.Name))
