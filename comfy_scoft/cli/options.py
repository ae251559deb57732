"""Options of the command line made from the settings' own declarations, and help that shows defaults."""

from __future__ import annotations

import argparse

from ..common.settings import Choice, check_number, declaration


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default to the help of every option that does not say itself what holds without it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        said = not action.option_strings or action.nargs == 0 or action.required or "efault:" in (action.help or "")
        return action.help if said else super()._get_help_string(action)


def add_threads(group: argparse._ActionsContainer, same: str) -> None:
    """The option --threads, which `set_threads` uses. same: what the same number gives."""
    help = f"CPU threads; the same number gives the same {same} (default: PyTorch's choice)"
    group.add_argument("--threads", type=int, default=0, help=help)


def set_threads(count: int) -> None:
    """Have PyTorch use so many threads; 0 leaves that to it. Raises UserError for less."""
    check_number("threads", count, whole=True, min=0, max=None)
    if count:
        import torch

        torch.set_num_threads(count)


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
