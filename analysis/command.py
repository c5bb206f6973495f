"""What the commands of this folder share: one study as argument, one line for what went wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from analysis.rows import TableError, find_study


def run(module: str, arguments: Sequence[str], act: Callable[[Path], None]) -> int:
    """``python -m MODULE [STUDY]``: 0, 1 with one line on standard error, 2 for bad arguments."""
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        print(f"usage: python -m {module} [STUDY]", file=sys.stderr)
        return 2
    try:
        act(find_study(arguments[0] if arguments else None))
    except TableError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
