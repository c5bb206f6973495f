"""What an architecture is, as numbers and words that a regression can take: features of rows.

Depth is counted from 0, next to the embedding, to 1, next to the head. A layer has attention if its letter
is A (all of its heads) or H (the same share of heads in every H); every other letter has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from analysis.figures.source import share

Kind = Literal["ratio", "placement", "form", "size", "training"]
Value = float | str
ATTENTION, HYBRID = "A", "H"


@dataclass(frozen=True)
class Feature:
    """``of`` a row is a number or a word; None where the row does not say, or has nothing of the kind."""

    name: str
    kind: Kind
    of: Callable[[Mapping[str, Any]], Value | None]


def depths(row: Mapping[str, Any]) -> dict[int, float]:
    """Layer from 0 -> its attention heads, of the layers that have any. Empty where the pattern is not
    known or does not fit the row's heads."""
    pattern, heads, attention = str(row.get("pattern") or ""), row.get("heads"), row.get("attention_heads")
    whole = [place for place, letter in enumerate(pattern) if letter == ATTENTION]
    split = [place for place, letter in enumerate(pattern) if letter == HYBRID]
    if not isinstance(attention, int) or not whole + split:
        return {}
    a_layer = heads if isinstance(heads, int) else (attention / len(whole) if not split else None)
    if a_layer is None:
        return {}
    rest = attention - a_layer * len(whole)
    found = {place: float(a_layer) for place in whole} | {place: rest / len(split) for place in split}
    return {place: found[place] for place in sorted(found)} if all(v > 0 for v in found.values()) else {}


def has_placement(row: Mapping[str, Any]) -> bool:
    """Whether there was anything to place: some heads of attention, not all, and known layers."""
    of_all = share(dict(row))
    return of_all is not None and 0 < of_all < 1 and bool(depths(row))


def first_depth(row: Mapping[str, Any]) -> float | None:
    found = depths(row)
    return _depth(min(found), row) if found else None


def mean_depth(row: Mapping[str, Any]) -> float | None:
    """The mean depth of a head of attention."""
    found = depths(row)
    if not found:
        return None
    return sum(_depth(place, row) * heads for place, heads in found.items()) / sum(found.values())


def spacing(row: Mapping[str, Any]) -> float | None:
    """Layers from one with attention to the next, on average; of a single one the depth of the model."""
    found = list(depths(row))
    if not found:
        return None
    return (found[-1] - found[0]) / (len(found) - 1) if len(found) > 1 else float(_layers(row))


def split_share(row: Mapping[str, Any]) -> float | None:
    """Of the heads of attention, those that share their layer with another mixer."""
    found, pattern = depths(row), str(row.get("pattern") or "")
    if not found:
        return None
    return sum(n for place, n in found.items() if pattern[place] == HYBRID) / sum(found.values())


def _layers(row: Mapping[str, Any]) -> int:
    return len(str(row.get("pattern") or ""))


def _depth(place: int, row: Mapping[str, Any]) -> float:
    return place / max(1, _layers(row) - 1)


def _number(column: str) -> Callable[[Mapping[str, Any]], Value | None]:
    def of(row: Mapping[str, Any]) -> float | None:
        value = row.get(column)
        known = isinstance(value, (int, float)) and not isinstance(value, bool)
        return float(value) if known and value is not None else None

    return of


def _word(column: str) -> Callable[[Mapping[str, Any]], Value | None]:
    return lambda row: None if row.get(column) is None else str(row[column])


FEATURES = (
    Feature("share of attention", "ratio", lambda row: share(dict(row))),
    Feature("depth of first attention", "placement", first_depth),
    Feature("mean depth of attention", "placement", mean_depth),
    Feature("spacing of attention layers", "placement", spacing),
    Feature("attention in split layers", "form", split_share),
    Feature("form of split layers", "form", _word("hybrid_form")),
    Feature("decay schedule", "form", _word("decay")),
    Feature("value expansion", "form", _number("value_expansion")),
    Feature("heads a layer", "size", _number("heads")),
    Feature("FFN width", "size", _number("ffn")),
    Feature("layers", "size", _number("layers")),
    Feature("width", "size", _number("d_model")),
    Feature("learning rate", "training", _number("learning_rate")),
)
