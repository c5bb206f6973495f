"""Training as it was measured, against context: speed, share of the device's arithmetic, memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from analysis import bench
from analysis.figures import style
from analysis.figures.decode import shown
from analysis.figures.measured import Curve, Quantity, curves, device, panel
from analysis.figures.source import MissingError, Source

QUANTITIES = {
    "throughput": Quantity(bench.TRAINED, "training, tokens a second", "tokens / s", rate=True),
    "mfu": Quantity(bench.TRAIN_MFU, "model FLOPs of those possible (full square)", "%", 0.01),
    "memory": Quantity(bench.TRAIN_MEMORY, "peak memory of a step", "MB", 1e6),
}


@dataclass(frozen=True)
class TrainBench:
    """``curves`` by quantity."""

    curves: dict[str, tuple[Curve, ...]]
    device: str


def data(source: Source) -> TrainBench:
    """Raises MissingError if nothing was measured, or one architecture in several lines."""
    found = {name: curves(source.lines, quantity) for name, quantity in QUANTITIES.items()}
    if not found["throughput"]:
        raise MissingError("no training was measured (task=train_bench)")
    return TrainBench({name: those for name, those in found.items() if those}, device(source.lines))


def draw(found: TrainBench) -> Any:
    """A panel a quantity."""
    figure, grid = style.new(3.4 * len(found.curves) + 0.4, 3.4, 1, len(found.curves))
    names = {curve.label: index for index, curve in enumerate(shown(found.curves["throughput"]))}
    for axis, (name, those) in zip(grid[0], found.curves.items(), strict=True):
        drawn = sorted((c for c in those if c.label in names), key=lambda curve: names[curve.label])
        panel(axis, drawn, QUANTITIES[name], names)
        axis.set_title(QUANTITIES[name].title)
        axis.set_xlabel("training context, tokens")
    style.legend(figure, list(grid[0]))
    return figure
