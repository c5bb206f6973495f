"""``python -m analysis.report [STUDY ...] [--out FILE]``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis import command
from analysis.report.page import html
from analysis.rows import RUNS, TableError, write_atomically

NAME = "report.html"
USAGE = "usage: python -m analysis.report [STUDY ...] [--out FILE]"


def main(arguments: Sequence[str]) -> int:
    """The command: its exit code. One study's page goes into its folder, that of several into
    runs/, and ``--out`` says otherwise."""
    studies, out = split(arguments)
    if out == "":
        print(USAGE, file=sys.stderr)
        return 2

    def write(folders: list[Path]) -> None:
        target = Path(out) if out else (folders[0] if len(folders) == 1 else RUNS) / NAME
        content = html(folders, shlex.join(["python", "-m", "analysis.report", *arguments])).encode()
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, content)
        except OSError as error:
            raise TableError(f"cannot write {target}: {error.strerror or error}") from error
        print(target)

    return command.run_together("analysis.report", studies, write)


def split(arguments: Sequence[str]) -> tuple[list[str], str | None]:
    """The studies, and what ``--out`` says: None without it, "" where it says nothing."""
    studies: list[str] = []
    out: str | None = None
    rest = iter(arguments)
    for argument in rest:
        if argument == "--out":
            out = next(rest, "")
        elif argument.startswith("--out="):
            out = argument.removeprefix("--out=")
        else:
            studies.append(argument)
    return studies, out


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
