"""What a generated token costs, and what is kept for it, against context; where lines cross.

Both quantities are straight lines in the context n for the layers counted here (a key/value cache
grows by a constant, a state does not grow), so the two outer counts fix the line. It is used only
where every count between lies on it to the unit; then a crossing may also be read below the
smallest count. Any other model crosses where the straight pieces between its counts do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol, TypeVar

from analysis.aggregate import Line
from analysis.columns import contexts
from analysis.crossing import closed_form, cross
from analysis.figures import style
from analysis.figures.source import MissingError, Source, common, family, share

PREFIXES = {"macs": "macs_decode_", "state": "state_bytes_"}
TITLES = {"macs": "decoding, MACs a token", "state": "kept between tokens, bytes a sequence"}
UNITS = {"macs": (1e6, "MMACs"), "state": (1e6, "MB")}
#: About which shares of attention are drawn, beside both ends.
SHOWN_SHARES = (1 / 4, 1 / 2, 5 / 6)


@dataclass(frozen=True)
class Cost:
    """One model: ``values`` by context n; ``linear`` (a, b) if a + b n gives every count exactly;
    ``crossover`` the context from which on it costs less than the Transformer, None if it never
    does within reach; ``how`` says by which rule."""

    label: str
    family: str
    share: float | None
    variant_hash: str
    values: dict[int, int]
    linear: tuple[Fraction, Fraction] | None
    crossover: float | None
    how: str


@dataclass(frozen=True)
class Decode:
    """``costs`` by quantity: "macs" (MACs a token), "state" (bytes a sequence). ``d_model`` is None
    where models differ: a crossover belongs to a width."""

    costs: dict[str, tuple[Cost, ...]]
    d_model: int | None


def data(source: Source) -> Decode:
    """Every architecture counted at two contexts or more. Raises MissingError if none was, or if an
    architecture has several costs."""
    costs = {quantity: _costs(source.lines, prefix) for quantity, prefix in PREFIXES.items()}
    found = {quantity: counted for quantity, counted in costs.items() if counted}
    if "macs" not in found:
        raise MissingError("no line was counted in decoding at two contexts or more")
    return Decode(found, common(source.lines, "d_model"))


def _costs(lines: Sequence[Line], prefix: str) -> tuple[Cost, ...]:
    counted: dict[str, tuple[Line, dict[int, int]]] = {}
    for line in lines:
        values = {n: line.get(f"{prefix}{n}") for n in contexts(lines, prefix)}
        exact = {n: value for n, value in values.items() if isinstance(value, int)}
        name = str(line.get("architecture"))
        if name in counted and counted[name][1] != exact:
            raise MissingError(f"{name} costs different numbers in different lines, as with several widths")
        if len(exact) > 1:
            counted.setdefault(name, (line, exact))
    base = counted["Transformer"][1] if "Transformer" in counted else None
    return tuple(_cost(line, values, base) for line, values in counted.values())


def _cost(line: Line, values: dict[int, int], base: dict[int, int] | None) -> Cost:
    crossover, how = (None, "there is no Transformer") if base is None else cross(values, base)
    return Cost(
        label=str(line["architecture"]),  # what differs in training alone costs the same
        family=family(line),
        share=share(line),
        variant_hash=str(line["variant_hash"]),
        values=values,
        linear=closed_form(values),
        crossover=crossover,
        how=how,
    )


class Curve(Protocol):
    """What :func:`shown` has to know of a model."""

    @property
    def family(self) -> str: ...
    @property
    def share(self) -> float | None: ...
    @property
    def values(self) -> Mapping[int, float]: ...


Shown = TypeVar("Shown", bound=Curve)


def shown(costs: Sequence[Shown]) -> list[Shown]:
    """The ends and a few ratios of Type A (of the layout with most models where there is none);
    models that cost the same to the unit, as Type B at the same ratio, once. One Type C in the middle."""
    ends = [cost for cost in costs if cost.family in ("RetNet", "Transformer")]
    families = [cost.family for cost in costs if cost not in ends]
    if not families:
        return ends
    main = "Type A" if "Type A" in families else max(families, key=families.count)
    chosen = [_nearest(costs, main, part) for part in SHOWN_SHARES]
    if "Type C" in families and main != "Type C":
        chosen.append(_nearest(costs, "Type C", 1 / 2))
    unique: dict[tuple[float, ...], Shown] = {}
    for cost in (*ends, *chosen):
        unique.setdefault(tuple(cost.values.values()), cost)
    return sorted(unique.values(), key=lambda cost: cost.share or 0.0)


def _nearest(costs: Sequence[Shown], name: str, wanted: float) -> Shown:
    return min((c for c in costs if c.family == name), key=lambda c: abs((c.share or 0.0) - wanted))


def draw(found: Decode) -> Any:
    """A panel per quantity, both axes logarithmic, each distinct crossing marked and named."""
    panels = list(found.costs)
    chosen = [cost.variant_hash for cost in shown(found.costs["macs"])]
    figure, grid = style.new(3.9 * len(panels) + 0.4, 3.9, 1, len(panels))
    for axis, quantity in zip(grid[0], panels, strict=True):
        costs = [cost for cost in found.costs[quantity] if cost.variant_hash in chosen]
        costs.sort(key=lambda cost: chosen.index(cost.variant_hash))
        _panel(axis, quantity, costs)
        _mark(axis, costs, found.costs[quantity])
        width = f", d_model {found.d_model:,}" if found.d_model else ""
        axis.set_title(f"{TITLES[quantity]}{width}")
    style.legend(figure, list(grid[0]))
    return figure


def _panel(axis: Any, quantity: str, costs: Sequence[Cost]) -> None:
    scale, name = UNITS[quantity]
    ticks = sorted({n for cost in costs for n in cost.values})
    crossings = sorted({round(cost.crossover, 1) for cost in costs if cost.crossover})
    left = min([*ticks, *(0.7 * crossing for crossing in crossings)])
    axis.set_xscale("log")
    for index, cost in enumerate(costs):
        colour, marker = style.colour_and_marker(cost.family, cost.share)
        xs = ([left] if cost.linear and left < min(cost.values) else []) + list(cost.values)
        axis.plot(
            _dense(xs) if cost.linear else xs,
            [_at(cost, n) / scale for n in (_dense(xs) if cost.linear else xs)],
            color=colour,
            linestyle=style.DASHES[index % len(style.DASHES)],
            linewidth=1.2,
        )
        counted = [value / scale for value in cost.values.values()]
        axis.plot(list(cost.values), counted, marker, color=colour, markersize=7 if marker in "*P" else 4.5)
        axis.plot([], [], color=colour, marker=marker, linestyle=style.DASHES[index % 4], label=cost.label)
    style.plain_log(axis)
    while ticks[0] / 4 >= left:  # below the counts, in their steps
        ticks.insert(0, ticks[0] // 4)
    style.ticks_as_numbers(axis, [float(n) for n in ticks])
    axis.set_xlabel("context, tokens")
    axis.set_ylabel(name)


def _mark(axis: Any, costs: Sequence[Cost], everything: Sequence[Cost]) -> None:
    """Dotted lines where models become cheaper than the Transformer, and which do there."""
    at: dict[float, list[Cost]] = {}
    for cost in costs:
        if cost.crossover is not None:
            at.setdefault(round(cost.crossover, 1), []).append(cost)
    words = []
    for crossing, there in sorted(at.items()):
        axis.axvline(crossing, color="0.5", linewidth=0.8, linestyle=":", zorder=0)
        families = dict.fromkeys(_whole_family(cost, crossing, everything) for cost in there)
        words.append(f"n = {crossing:,g}: {', '.join(families)}")
    if words:
        text = "\n".join(["less than the Transformer from", *words])
        frame = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        axis.text(0.03, 0.98, text, transform=axis.transAxes, va="top", fontsize=7.5, bbox=frame)


def _whole_family(cost: Cost, crossing: float, everything: Sequence[Cost]) -> str:
    """The family's name if all of it, drawn or not, crosses there, else the model's."""
    family = [other for other in everything if other.family == cost.family]
    whole = all(other.crossover and round(other.crossover, 1) == crossing for other in family)
    return cost.family if whole else cost.label


def _at(cost: Cost, n: float) -> float:
    return float(cost.linear[0] + cost.linear[1] * Fraction(n)) if cost.linear else float(cost.values[int(n)])


def _dense(xs: Sequence[float], steps: int = 40) -> list[float]:
    """Points evenly spread on a log axis: a straight line is a curve on it."""
    low, high = min(xs), max(xs)
    return [low * (high / low) ** (step / steps) for step in range(steps + 1)]
