"""Reads a study's rows: one JSON object a trial as the tasks wrote it, or one table for all.

A study is a folder of either kind: ``runs/<study>/`` with ``trials/*/row.json``, or a published
one, ``results/<name>/``, with ``rows.csv``. A cell of ``rows.csv`` is the value as JSON, an empty
cell a column that the row does not have, so that rows survive the way there and back.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from analysis.check import unsealed

Row = dict[str, Any]
RUNS = Path("runs")
PUBLISHED_ROWS = "rows.csv"
#: A row without one of these was not written whole, or is none.
NEEDED = ("variant_hash", "architecture", "layout", "pattern", "seed", "protocol", "scale", "status")
#: Columns that end like this hold a number (infinite where a run diverged), or None.
NUMBERS = ("_ppl", "_ppl_causal_eval", "_bits_per_byte", "tokens_per_second")


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


def find_studies(names: Sequence[str]) -> list[Path]:
    """The folders of several studies, each once; without names, the newest under runs/ alone.

    A folder that is no study but holds some (results/, runs/) stands for all of them, by name.
    """
    found: dict[Path, Path] = {}
    for folder in [find_study(name) for name in names] or [find_study(None)]:
        within = [] if is_study(folder) else [path for path in sorted(folder.iterdir()) if is_study(path)]
        for study in within or [folder]:
            found.setdefault(study.resolve(), study)
    return list(found.values())


def is_study(folder: Path) -> bool:
    """Whether ``folder`` holds trials, or the published rows of some."""
    return (folder / "trials").is_dir() or (folder / PUBLISHED_ROWS).is_file()


def _last_touched(trials: Path) -> float:
    """When its latest row was written (seconds since 1970): a study that went on gets rows in
    folders it has, so the age of ``trials`` itself counts only before the first row."""
    rows = [path.stat().st_mtime for path in trials.glob("*/row.json")]
    return max(rows, default=trials.stat().st_mtime)


def read_rows(study: Path) -> list[Row]:
    """Every ``trials/*/row.json`` of ``study``, or its ``rows.csv``. Raises TableError if there is
    none, or if one is damaged."""
    if not study.is_dir():
        raise TableError(f"no study in {study}")
    rows = [_read(path) for path in sorted(study.glob("trials/*/row.json"))]
    if not rows and (study / PUBLISHED_ROWS).is_file():
        rows = _read_csv(study / PUBLISHED_ROWS)
    if not rows:
        raise TableError(f"{study} holds no finished trial yet (trials/*/row.json, or {PUBLISHED_ROWS})")
    return rows


def _read(path: Path) -> Row:
    try:
        row = unsealed(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise TableError(f"{path} is damaged ({error}); delete it and run the sweep again") from error
    return _checked(row, f"{path}", "delete it and run the sweep again")


def _checked(row: Any, where: str, remedy: str) -> Row:
    missing = [column for column in NEEDED if not isinstance(row, dict) or column not in row]
    if missing:
        raise TableError(f"{where} is no row: it has no {', '.join(missing)}; {remedy}")
    assert isinstance(row, dict)
    diverged = str(row["status"]).startswith("diverged")  # its numbers count as infinite, whatever they are
    for column, value in row.items():
        if value is not None and column.endswith(NUMBERS) and not (diverged or _is_number(value)):
            raise TableError(f"{where} is damaged: its {column} is {value!r}, which is no number; {remedy}")
    return row


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def _read_csv(path: Path) -> list[Row]:
    remedy = "write it again with python -m analysis.results"
    rows = []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for cells in reader:
                where = f"{path}, line {reader.line_num},"
                row = {column: _value(cell, column, where) for column, cell in cells.items() if cell != ""}
                rows.append(_checked(row, where, remedy))
        except (csv.Error, UnicodeDecodeError) as error:
            raise TableError(f"{path} is damaged ({error}); {remedy}") from error
    return rows


def _value(cell: Any, column: str | None, where: str) -> Any:
    try:
        if column is None or not isinstance(cell, str):
            raise ValueError("it has more or fewer cells than the first line")
        return json.loads(cell)
    except ValueError as error:
        raise TableError(f"{where} is damaged in {column}: {cell!r} is no JSON value ({error})") from error


def csv_of(rows: Iterable[Row]) -> str:
    """``rows`` as the text of a ``rows.csv`` that :func:`read_rows` reads back as they are. Columns
    stand in the order in which the rows bring them."""
    rows = list(rows)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(
            json.dumps(row[column], ensure_ascii=False) if column in row else "" for column in columns
        )
    return text.getvalue()


def write_atomically(path: Path, content: bytes) -> None:
    """``content`` under ``path``, whole or not at all, whoever else writes it at the same time."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
