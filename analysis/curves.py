"""Loss curves of a study's runs, thinned to what a figure can show: ``curves.csv``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.rows import Row, TableError

PUBLISHED_CURVES = "curves.csv"
COLUMNS = ("variant_hash", "seed", "step", "loss", "valid_loss")
#: Points a curve keeps, give or take the ends.
POINTS = 40

Curve = list[Mapping[str, Any]]
"""Lines of metrics.jsonl: ``step``, ``loss`` (nats a token of that step's batch), ``valid_loss``."""


def read_metrics(path: Path) -> Curve:
    """The lines of a metrics.jsonl; an unfinished last one (the writer was killed) is left out.
    Raises TableError for any other that is no JSON object with a step."""
    try:
        texts = path.read_text(encoding="utf-8").splitlines(keepends=True)
        lines = [json.loads(text) for text in texts if text.endswith("\n")]
    except ValueError as error:
        raise TableError(f"{path} is damaged ({error}); without it the run has no curve") from error
    for number, line in enumerate(lines, 1):
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            raise TableError(f"{path}, line {number}, is no line of metrics: it has no step")
    return lines


def thinned(curve: Sequence[Mapping[str, Any]], points: int = POINTS) -> Curve:
    """At most about ``points`` lines: the first, the last, every k-th, and those with a validation
    loss, thinned likewise where they are many. ``loss`` becomes the mean since the line before: that
    of a single step is the noise of its batch."""
    validated = [index for index, line in enumerate(curve) if line.get("valid_loss") is not None]
    kept = set(_every(validated, points // 2))
    kept |= set(_every(range(len(curve)), points - len(kept)))
    places = sorted(kept)
    return [
        {**curve[place], "loss": _mean_loss(curve[before + 1 : place + 1])}
        for before, place in zip([-1, *places], places, strict=False)
    ]


def _mean_loss(lines: Sequence[Mapping[str, Any]]) -> float | None:
    losses = [line["loss"] for line in lines if line.get("loss") is not None]
    return sum(losses) / len(losses) if losses else None


def _every(items: Sequence[int], count: int) -> list[int]:
    """``count`` of ``items``, evenly spread, both ends among them; all if they are no more."""
    if len(items) <= count:
        return list(items)
    return [items[round(place * (len(items) - 1) / (count - 1))] for place in range(count)]


def csv_of_curves(curves: Iterable[tuple[Row, Sequence[Mapping[str, Any]]]]) -> str:
    """Runs and their curves as the text of a ``curves.csv``: losses in nats to five digits, ``loss`` the
    mean of the steps since the run's line before, an empty cell where a step was not validated."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row, curve in curves:
        for line in thinned(curve):
            losses = [_digits(line.get(column)) for column in ("loss", "valid_loss")]
            writer.writerow([row["variant_hash"], row["seed"], line["step"], *losses])
    return text.getvalue()


def _digits(loss: Any) -> str:
    return "" if loss is None else f"{loss:.5g}"
