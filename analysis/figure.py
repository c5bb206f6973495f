"""Perplexity against cost, by layout: ``python -m analysis.figure [STUDY]`` draws two panels,
training and decoding, into ``figure.png`` and ``figure.svg`` of the study.

matplotlib is the extra ``figures``.
"""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from analysis import command
from analysis.aggregate import Line
from analysis.columns import contexts
from analysis.rows import TableError, read_rows, write_atomically
from analysis.table import Table, build

METRIC = "valid_ppl"
#: Okabe & Ito's colours, told apart by any eye; the markers differ too.
STYLES = {
    "Transformer": ("#000000", "*"),
    "RetNet": ("#D55E00", "P"),
    "Type A": ("#0072B2", "o"),
    "Type B": ("#009E73", "s"),
    "Type C": ("#CC79A7", "^"),
    "others": ("#E69F00", "D"),
}


def write(study: Path) -> list[Path]:
    """Draws the study; returns the files. Raises TableError if there is nothing to draw."""
    table = build(study.resolve().name, read_rows(study))
    if len(table.sections) > 1:
        raise TableError(f"{study} mixes corpora or tokenizers: their perplexities do not share an axis")
    figure = draw(table)
    files = []
    for suffix in ("png", "svg"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, dpi=160)
        files.append(study / f"figure.{suffix}")
        write_atomically(files[-1], buffer.getvalue())
    return files


def draw(table: Table) -> Any:
    """The matplotlib Figure of a table with one section."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise TableError("figures need matplotlib: pip install 'retsweep[figures]'") from error
    lines = [line for line in table.sections[0].lines if _finite(line.get(METRIC))]
    if not lines:
        raise TableError(f"{table.study} has no line with a finite {METRIC} to draw")
    panels = _panels(lines)
    figure = Figure(figsize=(5 * len(panels), 4), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (column, label, unit) in zip(axes, panels, strict=True):
        _panel(axis, lines, column, unit)
        axis.set_xlabel(label)
        for reference in table.sections[0].references:
            _reference(axis, reference)
    axes[0].set_ylabel("validation perplexity")
    axes[0].set_yscale("log" if _spread(lines, table.sections[0].references) > 3 else "linear")
    named: dict[str, Any] = {}  # over all panels: a line whose costs cannot be drawn in one is in the other
    for axis in axes:
        handles, names = axis.get_legend_handles_labels()
        named |= dict(zip(names, handles, strict=True))
    if named:
        legend = {"loc": "outside upper center", "ncols": len(named), "frameon": False}
        figure.legend(list(named.values()), list(named), **legend)
    return figure


def _panels(lines: Sequence[Line]) -> list[tuple[str, str, float]]:
    """Column, label and unit of each panel: training, and decoding where the study counted it."""
    panels = [("macs_train_forward", "training forward, GMACs a sequence", 1e9)]
    decode = contexts(lines, "macs_decode_")
    if decode:
        n = 2048 if 2048 in decode else decode[-1]
        panels.append((f"macs_decode_{n}", f"decoding at context {n:,}, MMACs a token", 1e6))
    forward = [line["macs_train_forward"] for line in lines if _finite(line.get("macs_train_forward"))]
    if forward and forward[0] < 1e9:
        panels[0] = ("macs_train_forward", "training forward, MMACs a sequence", 1e6)
    return panels


def _panel(axis: Any, lines: Sequence[Line], column: str, unit: float) -> None:
    for family, (colour, marker) in STYLES.items():
        members = [line for line in lines if _family(line) == family and _finite(line.get(column))]
        if not members:
            continue
        errors = [line.get(f"{METRIC}_ci95") or 0.0 for line in members]
        axis.errorbar(
            [line[column] / unit for line in members],
            [line[METRIC] for line in members],
            yerr=errors if any(errors) else None,
            color=colour,
            marker=marker,
            markersize=9 if marker in "*P" else 5,
            linestyle="-" if family.startswith("Type") else "none",
            linewidth=0.8,
            elinewidth=0.8,
            capsize=2,
            label=family,
        )
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25, linewidth=0.5)


def _reference(axis: Any, line: Line) -> None:
    value = line.get(METRIC)
    if not _finite(value) or line["label"] == "unigram":  # far above everything: it would rule the axis
        return
    axis.axhline(value, color="0.5", linewidth=0.8, linestyle=":")
    axis.annotate(
        line["label"],
        (1, value),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="bottom",
        fontsize="small",
        color="0.35",
    )


def _family(line: Line) -> str:
    architecture = str(line.get("architecture"))
    family = architecture[:6] if architecture.startswith("Type ") else architecture
    return family if family in STYLES else "others"


def _spread(lines: Sequence[Line], references: Iterable[Line]) -> float:
    values = [
        line[METRIC]
        for line in (*lines, *references)
        if _finite(line.get(METRIC)) and line["label"] != "unigram"
    ]
    return float(max(values) / min(values))


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def main(arguments: Sequence[str]) -> int:
    """The command: its exit code."""
    return command.run("analysis.figure", arguments, lambda study: print(*write(study), sep="\n"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
