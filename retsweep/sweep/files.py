"""Files that are either whole or absent."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retsweep.spec import SpecError
from retsweep.train.atomic import write_atomically

#: The checksum's place among the columns of a row, and the keys of plan.json.
CHECK = "check"


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


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """``content`` (plain data) with a checksum of the rest of it: a flipped bit within a number is a number
    like any other."""
    rest = {key: value for key, value in content.items() if key != CHECK}
    return {**rest, CHECK: zlib.crc32(json.dumps(rest, sort_keys=True).encode())}


def intact(content: Any) -> bool:
    """Whether ``content`` is what was :func:`sealed`; what is older than seals counts as that."""
    return isinstance(content, dict) and (CHECK not in content or sealed(content)[CHECK] == content[CHECK])


def check_inside(runs: Path, folder: Path) -> None:
    """Raises SpecError if a link in a study's ``folder`` leads out of ``runs``: what is written there would
    be written elsewhere. (``runs`` itself may be a link: the user named it.)"""
    within = runs.resolve()
    for path in (folder, *_entries(folder), *_entries(folder / "trials"), *_entries(folder / "preflight")):
        if path.is_symlink() and not path.resolve().is_relative_to(within):
            raise SpecError(
                f"{path} leads out of {runs}, to {path.resolve()}; accepted: no such links; "
                "runs=FOLDER names another place"
            )


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _row_text(row: Mapping[str, Any]) -> str:
    return json.dumps(row, indent=1) + "\n"


def _scalar(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"a row's column cannot be a {type(value).__name__}")
