"""Widgets made from the core's settings: defaults and choices are read from the dataclasses, declared there once."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args, get_type_hints

from .compat import io


def default(owner: type, name: str) -> Any:
    """The default of a dataclass's field; AssertionError for one that has none."""
    (found,) = (field for field in dataclasses.fields(owner) if field.name == name)
    assert found.default is not dataclasses.MISSING, f"{owner.__name__}.{name} has no default"
    return found.default


def choices(owner: type, name: str) -> list[str]:
    """The values of a field that is a Literal, in its order."""
    hints = get_type_hints(owner, localns={"FeatureNetwork": object})
    found = list(get_args(hints[name]))
    assert found, f"{owner.__name__}.{name} is not a Literal"
    return found


def number(owner: type, name: str, low: float, high: float, step: float, tooltip: str, optional: bool = False) -> Any:
    """An INT or FLOAT widget for a field, by the type of its default. low, high and step are the widget's own range."""
    value = default(owner, name)
    if isinstance(value, int):
        # ComfyUI would else draw a new seed after each run, and what was made with the old one would be lost
        fixed = {"control_after_generate": False} if name == "seed" else {}
        span = {"min": int(low), "max": int(high), "step": int(step)}
        return io.Int.Input(name, default=value, tooltip=tooltip, optional=optional, **span, **fixed)
    # round=False: ComfyUI would else round typed values to the step, and 1e-4 to 0
    return io.Float.Input(
        name, default=value, min=low, max=high, step=step, round=False, tooltip=tooltip, optional=optional
    )


def choice(owner: type, name: str, tooltip: str, optional: bool = False) -> Any:
    """A combo of a Literal field's values."""
    return io.Combo.Input(
        name, options=choices(owner, name), default=default(owner, name), tooltip=tooltip, optional=optional
    )
