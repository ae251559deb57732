"""Widgets made from the settings' own declarations, and nodes that check their numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ..common.settings import Choice, check_number, declaration
from .compat import io


def widget(
    owner: type,
    name: str,
    *,
    id: str = "",
    tooltip: str = "",
    optional: bool = False,
    rounded: bool = False,
    multiline: bool = False,
) -> Any:
    """The widget of a setting; its kind follows the default: a combo, a switch, a text or a number.

    id, tooltip: in place of the field's name and declared help. rounded: a float is rounded to its step.
    """
    value, own = declaration(owner, name)
    common = {"id": id or name, "default": value, "tooltip": tooltip or own.help, "optional": optional}
    if isinstance(value, Choice):
        return io.Combo.Input(**(common | {"default": str(value)}), options=[str(each) for each in type(value)])
    if isinstance(value, bool):
        return io.Boolean.Input(**common)
    if isinstance(value, str):
        return io.String.Input(**common, multiline=multiline)
    limits = {key: getattr(own, key) for key in ("min", "max", "step") if getattr(own, key) is not None}
    if isinstance(value, int):
        # ComfyUI would otherwise draw a new seed after each run, and the old one would be lost
        fixed = {"control_after_generate": False} if name == "seed" else {}
        return io.Int.Input(**common, **limits, **fixed)
    # ComfyUI would otherwise round typed values to the step, and 1e-4 to 0
    return io.Float.Input(**common, **limits, **({} if rounded else {"round": False}))


def widgets(owner: type, *names: str, optional: bool = False) -> list[Any]:
    """The widgets of several settings."""
    return [widget(owner, name, optional=optional) for name in names]


class Node(io.ComfyNode):
    """A node whose numbers are checked before it runs: ComfyUI's own check does not cover values from a link or NaN."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = vars(cls).get("execute")
        if isinstance(own, classmethod) and not hasattr(own.__func__, "__wrapped__"):
            cls.execute = classmethod(_with_checked_numbers(own.__func__))


def _with_checked_numbers(execute: Callable[..., Any]) -> Callable[..., Any]:
    names = execute.__code__.co_varnames[1 : execute.__code__.co_argcount]
    limits: dict[str, tuple[bool, Any, Any]] = {}

    @functools.wraps(execute)
    def checked(cls: type[Node], *args: Any, **kwargs: Any) -> Any:
        if not limits:
            numbers = [each for each in cls.define_schema().inputs if isinstance(each, io.Int.Input | io.Float.Input)]
            limits.update({each.id: (isinstance(each, io.Int.Input), each.min, each.max) for each in numbers})
        for name, value in (dict(zip(names, args, strict=False)) | kwargs).items():
            for number in value if isinstance(value, list | tuple) else [value]:
                if name in limits and number is not None:
                    whole, least, most = limits[name]
                    check_number(name, number, whole=whole, min=least, max=most)
        return execute(cls, *args, **kwargs)

    return checked
