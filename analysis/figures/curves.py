"""Loss against step, a panel per layout, coloured by the share of attention."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.aggregate import Line
from analysis.curves import PUBLISHED_CURVES, read_metrics
from analysis.figures import style
from analysis.figures.source import FAMILIES, NAMESAKES, OTHERS, MissingError, Source, family, repeated, share
from analysis.rows import TableError

METRICS = "metrics.jsonl"
#: About how many points a curve is drawn with: a step's loss is the noise of its batch.
BLOCKS = 50
LOSSES = {"loss": "training loss", "valid_loss": "validation loss"}
#: step -> value, of one run.
Run = dict[int, float]


@dataclass(frozen=True)
class Curve:
    """One line of the table. Each value is the mean of a block of steps that ends at ``steps``,
    averaged over the runs that reached it; ``low`` and ``high`` are the lowest and highest run."""

    label: str
    family: str
    share: float | None
    variant_hash: str
    steps: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    runs: int


@dataclass(frozen=True)
class Curves:
    """``curves`` by quantity ("loss", "valid_loss": those that were logged), nats a token; ``block``
    is how many steps one value is the mean of (of those that were kept)."""

    curves: dict[str, tuple[Curve, ...]]
    block: dict[str, int]
    text: str


def data(source: Source) -> Curves:
    """The curves of every line of the study. Raises MissingError where none was kept."""
    if repeated(source.lines):
        raise MissingError(NAMESAKES)
    runs = read_runs(source)
    found, blocks = {}, {}
    for quantity in LOSSES:
        kept = [run for of_variant in runs[quantity].values() for run in of_variant]
        blocks[quantity] = _block(kept) if quantity == "loss" else 1
        curves = [
            curve
            for line in source.lines
            if (curve := _curve(line, runs[quantity].get(line["variant_hash"], []), blocks[quantity]))
        ]
        if any(len(curve.steps) > 1 for curve in curves):  # one value, at the end, is no curve
            found[quantity] = tuple(curves)
    if not found:
        raise MissingError(f"no losses were kept ({METRICS} of its trials, or {PUBLISHED_CURVES})")
    return Curves(found, blocks, source.text)


def _block(runs: Sequence[Run]) -> int:
    """Steps a block: so that the longest run has BLOCKS of them, and none of a thinned run is empty
    (published runs keep every k-th step, and not all the same ones)."""
    longest = max((max(run) for run in runs), default=0)
    stride = max((math.ceil(max(run) / len(run)) for run in runs), default=1)
    return max(1, stride, math.ceil(longest / BLOCKS))


def read_runs(source: Source) -> dict[str, dict[str, list[Run]]]:
    """quantity -> variant_hash -> its runs, from the trials or from the published ``curves.csv``."""
    found: dict[str, dict[str, list[Run]]] = {quantity: defaultdict(list) for quantity in LOSSES}
    published = source.folder / PUBLISHED_CURVES
    logs = _trial_logs(source.folder) if not published.is_file() else _published_logs(published)
    for variant_hash, log in logs:
        for quantity, runs in found.items():
            run = {
                int(entry["step"]): float(entry[quantity])
                for entry in log
                if entry.get(quantity) not in (None, "")
            }
            if run:
                runs[variant_hash].append(run)
    return found


def _trial_logs(folder: Path) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    for path in sorted(folder.glob(f"trials/*/{METRICS}")):
        row = path.with_name("row.json")
        if not row.is_file():  # still training: it is in no table either
            continue
        try:
            variant_hash = json.loads(row.read_text())["variant_hash"]
            yield variant_hash, [_checked(entry) for entry in read_metrics(path)]
        except (ValueError, KeyError, TypeError) as error:
            raise TableError(f"{path} is damaged ({error}); delete it to draw without it") from error


def _published_logs(path: Path) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    runs: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for entry in csv.DictReader(file):
                runs[entry["variant_hash"], entry["seed"]].append(_checked(entry))
    except (ValueError, KeyError, TypeError) as error:
        raise TableError(f"{path} is damaged ({error}); write it again with make results") from error
    for (variant_hash, _), log in runs.items():
        yield variant_hash, log


def _checked(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    int(entry["step"])
    for quantity in LOSSES:
        float(entry.get(quantity) or 0)
    return entry


def _curve(line: Line, runs: Sequence[Run], block: int) -> Curve | None:
    blocks: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        for end, value in _blocks(run, block).items():
            blocks[end].append(value)
    finite = {end: values for end, values in sorted(blocks.items()) if all(map(math.isfinite, values))}
    if not finite:
        return None
    return Curve(
        label=str(line["label"]),
        family=family(line),
        share=share(line),
        variant_hash=str(line["variant_hash"]),
        steps=tuple(finite),
        mean=tuple(math.fsum(values) / len(values) for values in finite.values()),
        low=tuple(min(values) for values in finite.values()),
        high=tuple(max(values) for values in finite.values()),
        runs=len(runs),
    )


def _blocks(run: Run, block: int) -> dict[int, float]:
    """The mean of each block of ``block`` steps, by the block's last step; block 1 keeps all."""
    parts: dict[int, list[float]] = defaultdict(list)
    for step, value in run.items():
        parts[math.ceil(step / block) * block].append(value)
    last = max(run)
    return {min(end, last): math.fsum(values) / len(values) for end, values in parts.items()}


def draw(found: Curves) -> Any:
    """A row of panels per quantity, a panel per layout with its ends; the band is the range of runs."""
    layouts = _layouts(found.curves)
    quantities = list(found.curves)
    size = (2.7 * len(layouts) + 1.0, 2.6 * len(quantities) + 0.6)
    figure, grid = style.new(*size, len(quantities), len(layouts), sharex=True, sharey="row")
    for row, quantity in zip(grid, quantities, strict=True):
        for axis, layout in zip(row, layouts, strict=True):
            _panel(axis, _members(found.curves[quantity], layout))
            axis.set_title(layout if quantity == quantities[0] else "")
        block = found.block[quantity]
        blocks = f"\n(means in blocks of {block} steps)" if block > 1 else ""
        row[0].set_ylabel(f"{LOSSES[quantity]}, nats a token{blocks}")
        low, high = _range(found.curves[quantity])
        row[0].set_ylim(low, high)
    for axis in grid[-1]:
        axis.set_xlabel("step")
    style.legend(figure, list(grid.flat))
    style.share_bar(figure, list(grid.flat))
    return figure


def _panel(axis: Any, curves: Iterable[Curve]) -> None:
    for curve in sorted(curves, key=lambda curve: curve.share or 0.0):
        colour = style.share_colour(curve.share)
        ends = {"Transformer": "-", "RetNet": (0, (4, 1.5))}
        axis.plot(
            curve.steps,
            curve.mean,
            color=colour,
            linewidth=1.6 if curve.family in ends else 0.9,
            linestyle=ends.get(curve.family, "-"),
            label=curve.label if curve.family in ends else None,
        )
        if curve.runs > 1:
            axis.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)


def _layouts(curves: Mapping[str, Sequence[Curve]]) -> list[str]:
    families = {curve.family for found in curves.values() for curve in found}
    named = [name for name in (*FAMILIES[2:], OTHERS) if name in families]
    return named or ["without hybrids"]


def _members(curves: Sequence[Curve], layout: str) -> list[Curve]:
    """The layout's curves, and the two that every layout stands between."""
    return [curve for curve in curves if curve.family in (layout, *FAMILIES[:2])]


def _range(curves: Sequence[Curve]) -> tuple[float, float]:
    """All that comes after the first tenth: the fall from the start is the same for all and would
    rule the axis. A run that blew up does not stretch it beyond the first value."""
    low = min(min(curve.low) for curve in curves)
    late = [curve.high[len(curve.high) // 10] for curve in curves]
    first = max(curve.mean[0] for curve in curves)
    high = min(max(late), first)
    return low - 0.05 * (high - low), high + 0.05 * (high - low)
