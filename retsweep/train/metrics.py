"""metrics.jsonl: a line a logged step, each step once, however often the run was resumed."""

from __future__ import annotations

import json
import os
import warnings
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
        kept = _lines_up_to(step, path)
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
    """The lines that are whole; none if there is no such file."""
    if not path.exists():
        return []
    texts = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    return [json.loads(text) for text in texts if _step(text) is not None]


def _lines_up_to(step: int, path: Path) -> list[str]:
    """The lines of steps up to ``step``, without those that are damaged: the last may be, of a process that
    died while it wrote; of any other it is told."""
    if not path.exists():
        return []
    texts = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    steps = [_step(text) for text in texts]
    damaged = [place for place, found in enumerate(steps[:-1], start=1) if found is None]
    if damaged:
        places = ", ".join(map(str, damaged[:5]))
        warnings.warn(f"{path} is damaged in line {places}: its curve lacks what stood there", stacklevel=3)
    known = zip(texts, steps, strict=True)
    return [text.rstrip("\n") for text, found in known if found is not None and found <= step]


def _step(text: str) -> int | None:
    """The step that a line is of; None for one that does not end, or says nothing."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    found = line.get("step") if isinstance(line, dict) and text.endswith("\n") else None
    return found if type(found) is int else None
