"""The parser of the command line, and of each command."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from functools import partial
from typing import Any

_BUILDING = partial(argparse.HelpFormatter, width=80)
_PRINTING = argparse.RawDescriptionHelpFormatter


class Parser(argparse.ArgumentParser):
    """Takes options by their whole names, and help as its lines are written.

    What a command does not know is answered with the usage of that command, not of all.
    """

    def __init__(self, **settings: Any) -> None:
        # Each argument that is added makes a formatter. Those look how wide the terminal is, by a module that imports
        # all compression.
        super().__init__(**settings, formatter_class=_BUILDING, allow_abbrev=False)

    def format_usage(self) -> str:
        """Return the usage, as wide as the terminal."""
        self.formatter_class = _PRINTING
        return super().format_usage()

    def format_help(self) -> str:
        """Return the help, as wide as the terminal."""
        self.formatter_class = _PRINTING
        return super().format_help()

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse, and end with what is wrong where something is not known: `argparse` would leave that to its caller."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._guess(unknown[0])}")
        return found, unknown

    def _guess(self, unknown: str) -> str:
        from difflib import get_close_matches  # here, since it is seldom needed

        close = get_close_matches(unknown.partition("=")[0], self._option_string_actions, 1)
        return f"; did you mean {close[0]}?" if close and unknown.startswith("-") else ""
