"""The page itself: template, style, script and data joined into one HTML file that asks nothing of any network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence

from ..common.html import render as render_template
from ..common.html import safe
from .languages import PAGE, Language
from .spec import ANSWER_FORMAT, ANSWER_VERSION, Survey

SCRIPTS = ("model.js", "elements.js", "dragging.js", "ranking.js", "screens.js", "app.js")
STYLES = ("base.css", "screens.css", "ranking.css", "sizes.css")
"""Joined in this order into one script and one style."""


def render(
    survey: Survey, spoken: Language, consent: Sequence[str], images: Mapping[str, bytes], size: tuple[int, int]
) -> bytes:
    """The page as UTF-8. images: JPEG bytes by image id; size: (width, height) of all of them.

    Generators are not in it: image ids stand in alphabetical order everywhere, and they are random. A content security
    policy allows this one script, this one style and images made from the page's own bytes, and nothing else.
    """
    style, script = "".join(map(_read, STYLES)), "(() => {\n" + "\n".join(map(_read, SCRIPTS)) + "})();\n"
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    return render_template(
        PAGE / "survey.html",
        language=spoken.code,
        direction=spoken.direction,
        policy=safe(policy),
        title=survey.title,
        noscript=spoken.text["noscript"],
        style=safe(style),
        script=safe(script),
        data=safe(in_script(_data(survey, spoken, consent, images, size))),
    ).encode("utf-8")


def in_script(data: object) -> str:
    """JSON that can stand inside a script element: ASCII only, and no character that means anything to HTML."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return re.sub(r"[<>&]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _data(
    survey: Survey, spoken: Language, consent: Sequence[str], images: Mapping[str, bytes], size: tuple[int, int]
) -> dict[str, object]:
    """What the script reads. An image that is shown twice, as in a repeated page, is kept once."""
    numbers: dict[bytes, int] = {}
    for image in sorted(images):
        numbers.setdefault(images[image], len(numbers))
    return {
        "id": survey.id,
        "hash": survey.hash,
        "answer_format": ANSWER_FORMAT,
        "answer_version": ANSWER_VERSION,
        "language": survey.language,
        "title": survey.title,
        "consent": list(consent),
        "text": dict(spoken.text),
        "items": [{"id": item.id, "title": item.title, "question": item.question} for item in survey.items],
        "pages": [
            {"id": page.id, "prompt": page.prompt, "images": sorted(page.images), "repeats": page.repeats}
            for page in survey.pages
        ],
        "size": list(size),
        "pictures": {image: numbers[images[image]] for image in sorted(images)},
        "data": [base64.b64encode(picture).decode("ascii") for picture in numbers],
    }


def _read(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
