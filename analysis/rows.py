"""Reads a study's rows: one JSON object a trial, as the tasks wrote it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

Row = dict[str, Any]
RUNS = Path("runs")


class TableError(ValueError):
    """There is nothing to draw, or it must not be drawn. Its text is one line for the user."""


def find_study(name: str | None) -> Path:
    """The folder of a study: a path, a name under runs/, or None for the newest under runs/."""
    if name:
        folder = Path(name) if Path(name).is_dir() else RUNS / name
        if not folder.is_dir():
            known = ", ".join(sorted(path.parent.name for path in RUNS.glob("*/trials"))) or "none"
            raise TableError(f"no study {name!r}; studies under {RUNS}/: {known}")
        return folder
    trials = list(RUNS.glob("*/trials"))
    if not trials:
        raise TableError(f"no study under {RUNS}/: run one first, for instance with make demo")
    return max(trials, key=_last_touched).parent


def _last_touched(trials: Path) -> float:
    """When its latest row was written (seconds since 1970): a study that went on gets rows in
    folders it has, so the age of ``trials`` itself counts only before the first row."""
    rows = [path.stat().st_mtime for path in trials.glob("*/row.json")]
    return max(rows, default=trials.stat().st_mtime)


def read_rows(study: Path) -> list[Row]:
    """Every ``trials/*/row.json`` of ``study``. Raises TableError if there is none."""
    if not study.is_dir():
        raise TableError(f"no study in {study}")
    rows = [_read(path) for path in sorted(study.glob("trials/*/row.json"))]
    if not rows:
        raise TableError(f"{study} holds no finished trial yet (trials/*/row.json)")
    return rows


def _read(path: Path) -> Row:
    try:
        row = json.loads(path.read_text())
    except ValueError as error:
        raise TableError(f"{path} is damaged ({error}); delete it and run the sweep again") from error
    if not isinstance(row, dict) or "variant_hash" not in row:
        raise TableError(f"{path} is no row: it has no variant_hash; delete it and run the sweep again")
    return row


def write_atomically(path: Path, content: bytes) -> None:
    """``content`` under ``path``, whole or not at all, whoever else writes it at the same time."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
