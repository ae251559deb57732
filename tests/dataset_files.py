"""Files of a dataset's folder, as tests need them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def image(path: Path, words: str | None = None, ending: str = ".txt") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (10, 20, 30)).save(path)
    if words is not None:
        path.with_suffix(ending).write_text(words, encoding="utf-8")
    return path


def write_csv(path: Path, head: str, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
