"""What figures are drawn from: a study's rows, its table and its plan, and points made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from analysis.aggregate import Line, is_leaky
from analysis.plan import Plan, read_plan
from analysis.rows import Row, read_rows
from analysis.table import Table, build

METRIC = "valid_ppl"
#: What a leaky model is worth as a likelihood: the same weights under a causal mask.
CAUSAL_METRIC = "valid_ppl_causal_eval"
FAMILIES = ("Transformer", "RetNet", "Type A", "Type B", "Type C")
#: What every hybrid stands between.
ENDS = FAMILIES[:2]
OTHERS = "others"


class MissingError(ValueError):
    """The study lacks what a figure needs. Its text says what, in a few words."""


@dataclass(frozen=True)
class Source:
    """A study as figures see it: one corpus, one tokenizer, ``plan`` None in older studies."""

    folder: Path
    rows: tuple[Row, ...]
    table: Table
    plan: Plan | None

    @property
    def name(self) -> str:
        return self.table.study

    @property
    def lines(self) -> tuple[Line, ...]:
        """The models, in the table's order. A Transformer or RetNet that a sweep brings along as a
        reference is a model too: every hybrid stands between these two."""
        return tuple(line for line in self.table.lines if _is_model(line))

    @property
    def references(self) -> tuple[Line, ...]:
        """Models without a mixer, and what counting words reaches on the same text."""
        known = [line for section in self.table.sections for line in section.references]
        return tuple(line for line in known if "variant_hash" not in line or not _is_model(line))

    @property
    def text(self) -> str:
        """What the perplexities are of: corpus and tokenizer."""
        named = [self.lines[0].get(key) for key in ("corpus", "tokenizer")] if self.lines else []
        return ", ".join(str(name) for name in named if name)

    def trained(self) -> list[Line]:
        """The lines that have a validation perplexity, diverged ones (infinite) included.

        Raises MissingError if there is none: the study only counted, or nothing has ended.
        """
        lines = [line for line in self.lines if is_number(line.get(METRIC))]
        if not lines:
            raise MissingError(f"no line has a {METRIC}")
        return lines


def open_source(folder: Path) -> Source:
    """Reads a study (``runs/<study>`` or a published folder). Raises TableError."""
    rows, plan = read_rows(folder), read_plan(folder)
    return Source(folder, tuple(rows), build(folder.resolve().name, rows, plan), plan)


@dataclass(frozen=True)
class Point:
    """One line of the table in a figure. ``y`` is a perplexity, infinite where most runs diverged;
    ``half`` is half the width of its 95 % interval over seeds, None with one seed; ``causal`` what a
    leaky line's weights reach under a causal mask."""

    label: str
    architecture: str
    family: str
    share: float | None
    variant_hash: str
    x: float
    y: float
    half: float | None
    n: int
    ok: int
    leaky: bool
    causal: float | None
    front: bool = False

    @property
    def diverged(self) -> bool:
        """Whether any of its runs diverged."""
        return self.ok < self.n

    @property
    def ranked(self) -> bool:
        """Whether it may be compared: a likelihood, of runs that all came through."""
        return not self.leaky and not self.diverged and math.isfinite(self.y)


def point(line: Line, x: float) -> Point:
    """The point of ``line`` at ``x``, with its validation perplexity."""
    half, causal = line.get(f"{METRIC}_ci95"), line.get(CAUSAL_METRIC)
    return Point(
        label=str(line["label"]),
        architecture=str(line.get("architecture")),
        family=family(line),
        share=share(line),
        variant_hash=str(line.get("variant_hash")),
        x=x,
        y=float(line[METRIC]),
        half=half if is_number(half) else None,
        n=line["n"],
        ok=line["ok"],
        leaky=is_leaky(line),
        causal=causal if is_leaky(line) and is_finite(causal) else None,
    )


@dataclass(frozen=True)
class Reference:
    """A horizontal line: a model without a mixer, or a table of word counts."""

    label: str
    y: float
    half: float | None


def references(source: Source) -> tuple[Reference, ...]:
    """The reference lines that have a finite validation perplexity."""
    return tuple(
        Reference(str(line["label"]), float(line[METRIC]), line.get(f"{METRIC}_ci95"))
        for line in source.references
        if is_finite(line.get(METRIC))
    )


def family(line: Line) -> str:
    """Transformer, RetNet, Type A, Type B, Type C or others."""
    architecture = str(line.get("architecture"))
    name = architecture[:6] if architecture.startswith("Type ") else architecture
    return name if name in FAMILIES else OTHERS


def _is_model(line: Line) -> bool:
    return not line.get("reference") or family(line) in ENDS


def share(line: Line) -> float | None:
    """Attention heads by all heads, over the network; None where nothing mixes."""
    attention, retention = line.get("attention_heads"), line.get("retention_heads")
    if not isinstance(attention, int) or not isinstance(retention, int) or not attention + retention:
        return None
    return attention / (attention + retention)


NAMESAKES = "models of one layout and ratio differ in more than these"


def repeated(lines: Sequence[Line]) -> bool:
    """Whether two lines are the same architecture, so that neither layout nor ratio tells them apart."""
    known = [line.get("architecture") for line in lines if family(line) != OTHERS]
    return len(set(known)) < len(known)


def common(lines: Sequence[Line], column: str) -> Any:
    """The one value that all ``lines`` have in ``column``; None if they differ or lack it."""
    values = {line.get(column) for line in lines}
    return values.pop() if len(values) == 1 else None


def is_number(value: Any) -> TypeGuard[float]:
    """A number, infinity included: a column that two commits counted differently holds text."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def is_finite(value: Any) -> TypeGuard[float]:
    return is_number(value) and math.isfinite(value)
