"""Files that are either whole or absent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retsweep.train.atomic import write_atomically


def write_whole(path: Path, text: str) -> None:
    """Writes ``path`` so that a reader (or a crash) sees the old content or the new, never half."""
    write_atomically(path, lambda file: file.write(text.encode()))


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """``row`` as JSON holds it: scalars of numpy and torch become Python's."""
    return dict(json.loads(json.dumps(dict(row), default=_scalar)))


def write_row(folder: Path, row: Mapping[str, Any]) -> None:
    write_whole(folder / "row.json", _row_text(row))


def holds_row(folder: Path, row: Mapping[str, Any]) -> bool:
    """Whether ``row`` is what row.json says. (As text: a NaN equals itself there.)"""
    try:
        return (folder / "row.json").read_text(encoding="utf-8") == _row_text(row)
    except (FileNotFoundError, UnicodeDecodeError):
        return False


def _row_text(row: Mapping[str, Any]) -> str:
    return json.dumps(row, indent=1) + "\n"


def _scalar(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"a row's column cannot be a {type(value).__name__}")
