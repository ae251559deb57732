"""HTML pages from Jinja templates: every value is escaped unless it is marked as safe."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup


def render(template: Path, **values: object) -> str:
    """The template's file with values filled in, escaped; a name of the template without a value is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template.name).render(values)


def safe(text: str) -> Markup:
    """Text that goes into the page as it is: code of the pack's own, or JSON made safe for a script element."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704  (the caller vouches for it)


def data_url(png: bytes) -> str:
    """A PNG as the `src` of an image."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
