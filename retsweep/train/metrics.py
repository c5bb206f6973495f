"""metrics.jsonl: a line a logged step, each step once, however often the run was resumed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retsweep.train.atomic import write_atomically

#: About as many lines as a curve needs.
LINES = 200


def log_every(steps: int) -> int:
    """Optimiser steps between two lines of a run of ``steps``; the last step always gets one."""
    return max(1, steps // LINES)


class MetricsFile:
    """Appends lines as they come; opened after ``step``, it forgets what a lost process wrote later."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept = [text for text in _complete_lines(path) if json.loads(text)["step"] <= step]
        write_atomically(path, lambda file: file.writelines(f"{text}\n".encode() for text in kept))
        self._file = path.open("a", buffering=1, encoding="utf-8")

    def write(self, line: Mapping[str, Any]) -> None:
        """``line`` holds ``step`` and finite numbers; it is handed to the system at once."""
        self._file.write(json.dumps(line, allow_nan=False) + "\n")

    def sync(self) -> None:
        """Puts what was written on the disk: before a checkpoint that counts on it."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines that are whole, up to the first that is not; none if there is no such file."""
    return [json.loads(text) for text in _complete_lines(path)]


def _complete_lines(path: Path) -> list[str]:
    """The lines that end and parse, up to the first that does not (a process died writing it)."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            if not text.endswith("\n") or "step" not in json.loads(text):
                break
        except (json.JSONDecodeError, TypeError):
            break
        lines.append(text.rstrip("\n"))
    return lines
