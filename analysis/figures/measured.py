"""Measured against context: what the figures of both benches, and the page's, have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from analysis import bench
from analysis.aggregate import Line
from analysis.figures import style
from analysis.figures.source import MissingError, family, share


@dataclass(frozen=True)
class Quantity:
    """What a panel shows: columns ``prefix``, divided by ``unit``, under ``title`` on an axis of ``axis``."""

    prefix: str
    title: str
    axis: str
    unit: float = 1.0
    rate: bool = False
    """Whether it is of things a second: its reciprocal is what grows evenly with the context."""


@dataclass(frozen=True)
class Curve:
    """One architecture: ``values`` by context, means over seeds, and half the width of their 95 %
    intervals where seeds give one."""

    label: str
    family: str
    share: float | None
    variant_hash: str
    values: dict[int, float]
    halves: dict[int, float]


def curves(lines: Sequence[Line], quantity: Quantity, batch: int | None = None) -> tuple[Curve, ...]:
    """Of every line that was measured so, one a context or more. Raises MissingError where two lines are
    one architecture: a curve each would not say which is which."""
    found: dict[str, Curve] = {}
    for line in lines:
        values = bench.by_context(line, quantity.prefix, batch)
        if not values:
            continue
        name = str(line.get("architecture"))
        if name in found:
            raise MissingError(f"{name} was measured in several lines, as with several widths")
        ending = "" if batch is None else f"_b{batch}"
        halves = {n: line.get(f"{quantity.prefix}{n}{ending}_ci95") for n in values}
        found[name] = Curve(
            label=name,
            family=family(line),
            share=share(line),
            variant_hash=str(line.get("variant_hash")),
            values=values,
            halves={n: half for n, half in halves.items() if half is not None},
        )
    return tuple(found.values())


def device(lines: Sequence[Line]) -> str:
    """What was measured on, every one of them where they differ."""
    return ", ".join(dict.fromkeys(str(line["device"]) for line in lines if line.get("device")))


def look(curve: Curve) -> dict[str, Any]:
    """Colour and marker of a curve, as figures of counts have them."""
    colour, marker = style.colour_and_marker(curve.family, curve.share)
    return {"color": colour, "marker": marker, "markersize": 7 if marker in "*P" else 4.5}


def is_log(found: Sequence[Curve]) -> bool:
    """Whether the values span so much that a linear axis, from zero, would press most of them together."""
    values = [value for curve in found for value in curve.values.values() if value > 0]
    return bool(values) and max(values) > 3 * min(values)


def pieces(curve: Curve, rate: bool = False, steps: int = 24) -> tuple[list[float], list[float]]:
    """Contexts and values along the straight pieces between measurements (of a ``rate``, between their
    reciprocals, times), which a logarithmic axis bends: drawn lines cross where it is said that they do."""
    if rate:
        times = {n: 1 / value for n, value in curve.values.items()}
        along, taken = pieces(replace(curve, values=times), steps=steps)
        return along, [1 / time for time in taken]
    xs, ys = list(curve.values), list(curve.values.values())
    along, values = [float(xs[0])], [ys[0]]
    for (x, next_x), (y, next_y) in zip(pairwise(xs), pairwise(ys), strict=True):
        for step in range(1, steps + 1):
            at = x * (next_x / x) ** (step / steps)
            along.append(at)
            values.append(y + (next_y - y) * (at - x) / (next_x - x))
    return along, values


def panel(axis: Any, found: Sequence[Curve], quantity: Quantity, names: Mapping[str, int]) -> None:
    """``found`` against a logarithmic context; ``names`` gives each its dash, the same in all panels."""
    axis.set_xscale("log")
    for curve in found:
        dash = style.DASHES[names[curve.label] % len(style.DASHES)]
        along, values = pieces(curve, quantity.rate)
        drawn = [value / quantity.unit for value in values]
        axis.plot(along, drawn, linestyle=dash, linewidth=1.2, color=look(curve)["color"])
        axis.errorbar(
            list(curve.values),
            [value / quantity.unit for value in curve.values.values()],
            yerr=[curve.halves.get(n, 0.0) / quantity.unit for n in curve.values] if curve.halves else None,
            linestyle="none",
            elinewidth=0.8,
            **look(curve),
        )
        style.key(axis, curve.label, **(look(curve) | {"linestyle": dash}))
    if is_log(found):
        style.plain_log(axis)
    else:
        high = max((v for curve in found for v in curve.values.values()), default=1.0)
        axis.set_ylim(0, 1.08 * high / quantity.unit)
    ticks = sorted({n for curve in found for n in curve.values})
    drawn_ticks = _apart(ticks)
    axis.set_xticks(drawn_ticks, [_short(n) for n in drawn_ticks])
    axis.set_xticks([], minor=True)
    axis.set_ylabel(quantity.axis)


def _short(n: int) -> str:
    """ "512", "8k": 8,192 and 16,384 in full would touch."""
    return f"{n // 1024}k" if n % 1024 == 0 else style.number(n)


def _apart(ticks: Sequence[int]) -> list[int]:
    """At most six of them, the last among them: more would touch."""
    step = -(-len(ticks) // 6)
    return list(reversed(list(reversed(ticks))[::step]))
