"""Contrasts that were named before the runs: the files ``analysis/contrasts/<sweep>.yaml``.

A file is a list. Each entry compares the mean of some variants with that of others::

    - name: A against B at equal ratio
      quantity: valid nll            # one that analysis.inference knows, or an exact cost: macs_..., params
      left: {called: Type A, of: [Type A 1:11, Type A 2:10]}
      right: {called: Type B, of: [Type B 1:11, Type B 2:10]}
      within: {ladder: published}    # optional: which variants the model is fitted to,
      without: {step: all repaired}  # but for these

A list in ``within`` and ``without`` stands for any of its values.

A variant is given by its architecture or by columns and words of the sweep, ``{ladder: published,
step: as it is, architecture: RetNet}``; ``share`` is attention's share of the heads. Each must be
one variant, except with ``all: true``, which stands for the mean of all that fit. A side that is
one variant may be written as it is, ``left: [Transformer]``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.aggregate import DESCRIPTION, Line
from analysis.inference import QUANTITIES
from analysis.plan import Plan
from analysis.rows import TableError

FOLDER = Path(__file__).parent / "contrasts"
EXACT = ("macs_", "state_bytes_", "params")
SAID = ("ladder", "step", "placement")
KNOWN = {*DESCRIPTION, *SAID, "share", "all"}

Selector = Mapping[str, Any]


class Absent(TableError):
    """The study does not have what a contrast compares. Its text says what, in a few words."""


@dataclass(frozen=True)
class Side:
    """The mean of ``of``, each with the same weight, and what a verdict calls it."""

    called: str
    of: tuple[Selector, ...]


@dataclass(frozen=True)
class Contrast:
    name: str
    quantity: str
    left: Side
    right: Side
    within: Selector
    without: Selector = field(default_factory=dict)

    @property
    def among(self) -> str:
        """In words which variants the model is fitted to: "published; not all repaired"."""
        chosen = [_listed(value) for value in self.within.values()]
        return "; ".join([*chosen, *(f"not {_listed(value)}" for value in self.without.values())])

    @property
    def exact(self) -> bool:
        """Whether the quantity is counted, so that there is nothing to test."""
        return self.quantity.startswith(EXACT)


def file_of(plan: Plan | None) -> Path | None:
    """The contrasts of the study's sweep, which only its plan says; None if there are none."""
    if plan is None or plan.sweep is None:
        return None
    path = FOLDER / f"{plan.sweep}.yaml"
    return path if path.is_file() else None


def read_contrasts(path: Path) -> list[Contrast]:
    """Raises TableError, one line, for a file that is not as above."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return [_contrast(entry) for entry in content]
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise TableError(f"{path} is no list of contrasts ({type(error).__name__}: {text})") from error


def _contrast(entry: Mapping[str, Any]) -> Contrast:
    unknown = set(entry) - {"name", "quantity", "left", "right", "within", "without"}
    if unknown:
        raise ValueError(f"unknown {', '.join(sorted(unknown))} in {entry.get('name')!r}")
    quantity = entry["quantity"]
    if quantity not in QUANTITIES and not quantity.startswith(EXACT):
        raise ValueError(f"unknown quantity {quantity!r}; known: {', '.join((*QUANTITIES, *EXACT))}")
    within, without = (_selector(entry.get(key, {})) for key in ("within", "without"))
    return Contrast(entry["name"], quantity, _side(entry["left"]), _side(entry["right"]), within, without)


def _side(content: Any) -> Side:
    if isinstance(content, Mapping):
        return Side(content["called"], tuple(_selector(one) for one in content["of"]))
    (one,) = content
    return Side(one if isinstance(one, str) else " ".join(map(str, one.values())), (_selector(one),))


def _selector(content: Any) -> Selector:
    selector = {"architecture": content} if isinstance(content, str) else dict(content)
    unknown = set(selector) - KNOWN
    if unknown:
        raise ValueError(f"nothing is selected by {', '.join(sorted(unknown))}")
    return selector


def weights(side: Side, lines: Sequence[Line], plan: Plan | None) -> dict[str, float]:
    """The side's variants (by hash) and their weights, which add up to 1. Raises Absent."""
    found: dict[str, float] = {}
    for selector in side.of:
        variants = select(selector, lines, plan)
        if not variants:
            raise Absent(f"no run of {_words(selector)}")
        if len(variants) > 1 and not selector.get("all"):
            labels = [str(line["label"]) for line in lines if line["variant_hash"] in variants]
            raise Absent(f"{_words(selector)} is several variants: {', '.join(labels)}")
        for variant in variants:
            found[variant] = found.get(variant, 0.0) + 1 / len(variants) / len(side.of)
    return found


def select(
    selector: Selector, lines: Sequence[Line], plan: Plan | None, without: Selector | None = None
) -> list[str]:
    """The variants (by hash) that fit in some place of theirs, but for those that fit ``without``
    there; each once."""
    fit = [
        line["variant_hash"]
        for line in lines
        for facts in _facts(line, plan)
        if _fits(facts, selector) and not (without and _fits(facts, without))
    ]
    return list(dict.fromkeys(fit))


def _fits(facts: Mapping[str, Any], selector: Selector) -> bool:
    return all(_equal(facts.get(key), value) for key, value in selector.items() if key != "all")


def _facts(line: Line, plan: Plan | None) -> Iterator[Mapping[str, Any]]:
    """What may be asked of the line, once for each place that its variant has in the sweep."""
    attention, retention = (line.get(f"{kind}_heads") or 0 for kind in ("attention", "retention"))
    share = {"share": attention / (attention + retention)} if attention + retention else {}
    said = [one.said for one in plan.members if one.variant_hash == line["variant_hash"]] if plan else []
    for words in said or [{}]:
        yield {**line, **share, **words}


def _equal(fact: Any, value: Any) -> bool:
    if isinstance(value, list):
        return any(_equal(fact, one) for one in value)
    if isinstance(value, float) and isinstance(fact, (int, float)):
        return abs(fact - value) < 1e-9
    return bool(fact == value)


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _words(selector: Selector) -> str:
    parts = [str(value) if key in ("architecture", *SAID) else f"{key} {value}"
             for key, value in selector.items() if key != "all"]  # fmt: skip
    return ", ".join(parts)
