"""What the commands of this folder share: studies as arguments, one line for what went wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from analysis.rows import TableError, find_studies


def run_each(module: str, arguments: Sequence[str], act: Callable[[Path], None]) -> int:
    """``python -m MODULE [STUDY ...]``: ``act`` on one study after the other. 0; 1 with one line on
    standard error; 2 for bad arguments."""

    def all_of_them() -> None:
        for study in find_studies(arguments):
            act(study)

    return _run(f"{module} [STUDY ...]", arguments, all_of_them)


def run_together(module: str, arguments: Sequence[str], act: Callable[[list[Path]], None]) -> int:
    """``python -m MODULE [STUDY ...]``: ``act`` on all of the studies at once."""
    return _run(f"{module} [STUDY ...]", arguments, lambda: act(find_studies(arguments)))


def _run(usage: str, arguments: Sequence[str], act: Callable[[], None]) -> int:
    if any(argument.startswith("-") for argument in arguments):
        print(f"usage: python -m {usage}", file=sys.stderr)
        return 2
    try:
        act()
    except TableError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
