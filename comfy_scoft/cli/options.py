"""Options of the command line made from the settings' own declarations, and help that shows defaults."""

from __future__ import annotations

import argparse

from ..common.settings import Choice, declaration


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default to the help of every option that does not say itself what holds without it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        said = not action.option_strings or action.nargs == 0 or action.required or "efault:" in (action.help or "")
        return action.help if said else super()._get_help_string(action)


def add_settings(group: argparse._ActionsContainer, owner: type, *names: str) -> None:
    """An option for each setting: `--per-image` for `per_image`, with its type, default and help."""
    for name in names:
        default, own = declaration(owner, name)
        choices = [str(each) for each in type(default)] if isinstance(default, Choice) else None
        group.add_argument(
            f"--{name.replace('_', '-')}",
            type=str if choices else type(default),
            default=str(default) if choices else default,
            choices=choices,
            help=f"{own.help.replace('%', '%%')} Default: {'empty' if default == '' else '%(default)s'}.",
        )
