"""The finished runs of a study as what a search could have proposed, with their recorded curves."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.aggregate import has_ended, is_diverged, is_leaky, refuse_mixed_data
from analysis.curves import PUBLISHED_CURVES, read_metrics
from analysis.figures.source import ENDS, METRIC, family, is_number
from analysis.front import COST, COSTS
from analysis.hypervolume import Point, is_measurable
from analysis.rows import Row, TableError, read_rows

METRICS = "metrics.jsonl"
#: Columns that begin like this are counted: they are known before a step is trained.
KNOWN = ("macs_", "state_bytes_")
#: Runs that differ in one of these did not train on the same, or not as much in a step.
SAME = ("protocol", "context", "batch", "accumulate", "data_hash")


@dataclass(frozen=True)
class Candidate:
    """One run. ``values`` of the objectives, None where it diverged; ``costs`` by column, known before it
    is trained; ``macs`` of a training forward; ``steps`` that it was trained for; ``curve``: step ->
    validation NLL in nats, infinite where it was no number, the last step's among them."""

    key: str
    variant: str
    values: Point | None
    costs: Mapping[str, float]
    macs: float
    steps: int
    curve: Mapping[int, float]


def objectives(rows: Sequence[Row]) -> tuple[str, ...]:
    """Perplexity and the costs that all ``rows`` have, unless columns are named."""
    costs = [column for column in COSTS if all(is_number(row.get(column)) for row in rows)]
    return (METRIC, *costs)


def rows_of(rows: Sequence[Row], where: str) -> list[Row]:
    """Those that a front is made of: models that mix, ended, not leaky. Raises TableError if none is, or
    if they cannot be compared."""
    kept = [
        row
        for row in rows
        if has_ended(row) and not is_leaky(row) and (not row.get("reference") or family(row) in ENDS)
    ]
    if not kept:
        raise TableError(f"{where} has no run that ended, mixes tokens and does not look ahead")
    refuse_mixed_data(kept, where)
    for column in SAME:
        known = {repr(row[column]) for row in kept if row.get(column) is not None}
        if len(known) > 1:
            raise TableError(f"{where}: its runs differ in {column}: {', '.join(sorted(known))}")
    return kept


def values_of(row: Row, columns: Sequence[str]) -> Point | None:
    """None for a run that diverged. Raises TableError where one that did not lacks a column."""
    if is_diverged(row):
        return None
    missing = [column for column in columns if not is_number(row.get(column))]
    if missing:
        raise TableError(
            f"a run of {row['architecture']} has no {' and no '.join(missing)}; --by= names other columns"
        )
    found = tuple(float(row[column]) for column in columns)
    return found if is_measurable(found) else None


def candidates(folder: Path, columns: Sequence[str] = ()) -> tuple[tuple[str, ...], list[Candidate]]:
    """The objectives (``columns``, or what there is) and the runs of a study: ``runs/<study>`` or a
    published folder. Raises TableError, also where no curves were recorded."""
    rows = rows_of(read_rows(folder), folder.name)
    by = tuple(columns) or objectives(rows)
    curves = _curves(folder, rows)
    found = []
    for row, curve in zip(rows, curves, strict=True):
        missing = [column for column in (COST, "steps") if not is_number(row.get(column))]
        if missing:
            raise TableError(
                f"{folder.name}: a run of {row['architecture']} has no {' and no '.join(missing)}"
            )
        found.append(
            Candidate(
                key=f"{row['variant_hash']} {row['seed']}",
                variant=row["variant_hash"],
                values=values_of(row, by),
                costs={
                    column: float(row[column])
                    for column in row
                    if column.startswith(KNOWN) and is_number(row[column])
                },
                macs=float(row[COST]),
                steps=row["steps"],
                curve=curve,
            )
        )
    lengths = sorted({one.steps for one in found if one.values is not None})
    if len(lengths) != 1:
        raise TableError(
            f"{folder.name}: whole runs of one length are needed, and it has {lengths or 'none'}"
        )
    return by, found


def recorded(found: Sequence[Candidate], name: str) -> list[int]:
    """The steps before the last at which every whole run was validated. Raises TableError without any."""
    whole = [one for one in found if one.values is not None]
    steps = set.intersection(*(set(one.curve) for one in whole)) - {one.steps for one in whole}
    if not steps:
        bare = sum(len(one.curve) < 2 for one in whole)
        raise TableError(
            f"{name} has no learning curves: {bare} of {len(whole)} whole runs were validated at their end "
            "alone; a study run with budget.validate_every=STEPS records them"
        )
    return sorted(steps)


def _curves(folder: Path, rows: Sequence[Row]) -> list[dict[int, float]]:
    published = folder / PUBLISHED_CURVES
    if published.is_file():
        logs = _published(published)
        return [_curve(logs.get((row["variant_hash"], str(row["seed"])), ()), row) for row in rows]
    found = []
    for row in rows:
        path = folder / "trials" / str(row.get("spec_hash")) / METRICS
        found.append(_curve(read_metrics(path) if path.is_file() else (), row))
    return found


def _curve(log: Sequence[Mapping[str, Any]], row: Row) -> dict[int, float]:
    """A validation is named in its line even where its loss was no number; the row's own stands for the
    last step."""
    found = {}
    for line in log:
        if line.get("valid_loss", "") != "":
            loss = line["valid_loss"]
            found[int(line["step"])] = math.inf if loss is None else float(loss)
    if not is_diverged(row) and is_number(row.get(METRIC)):
        found[int(row["steps"])] = math.log(row[METRIC])
    return found


def _published(path: Path) -> dict[tuple[str, str], list[dict[str, str]]]:
    logs: dict[tuple[str, str], list[dict[str, str]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            try:
                int(line["step"]), float(line["valid_loss"] or 0)
                logs.setdefault((line["variant_hash"], line["seed"]), []).append(line)
            except (KeyError, TypeError, ValueError) as error:
                raise TableError(f"{path} is damaged ({error}); write it again with make results") from error
    return logs
