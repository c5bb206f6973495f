"""A study's table: one line a variant, as csv (everything), md, tex and in the terminal.

``python -m analysis.table [STUDY]`` with a folder, a name under runs/, or nothing for the newest.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis import command
from analysis.aggregate import COSTS, DESCRIPTION, MIXED, PROVENANCE, Line, is_quality, lines_of
from analysis.columns import cost_columns, quality_columns
from analysis.macs import convention_notes
from analysis.order import put_in_order, unnamed
from analysis.render import TERMINAL_WIDTH, Section, markdown, needed_width, terminal, tex
from analysis.rows import Row, read_rows, write_atomically

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Table:
    """``lines`` in order, reference lines last; ``sections`` are the same lines as printed."""

    study: str
    lines: tuple[Line, ...]
    sections: tuple[Section, ...]
    notes: tuple[str, ...]

    def frame(self) -> pd.DataFrame:
        """Every column of every line, in full precision; whole numbers stay whole."""
        import pandas as pd

        columns = _column_order(self.lines)
        frame = pd.DataFrame(
            [[line.get(column) for column in columns] for line in self.lines], columns=columns
        )
        for column in columns:
            known = [line[column] for line in self.lines if line.get(column) is not None]
            if known and all(isinstance(value, int) and not isinstance(value, bool) for value in known):
                frame[column] = pd.array([line.get(column) for line in self.lines], dtype="Int64")
        return frame


def write(study: Path) -> Table:
    """Writes ``table.csv``, ``table.md`` and ``table.tex`` into ``study``. Raises TableError."""
    table = build(study.resolve().name, read_rows(study))
    files = {
        "table.csv": table.frame().to_csv(index=False, lineterminator="\n"),
        "table.md": markdown(table.study, table.sections, table.notes),
        "table.tex": tex(table.study, table.sections, table.notes),
    }
    for name, text in files.items():
        write_atomically(study / name, text.encode())
    return table


def show(table: Table) -> None:
    """Prints the table: in blocks as wide as the terminal (120 columns where there is none), and
    wider rather than cropped where one column beside the labels is too much."""
    from rich.console import Console

    console = Console(highlight=False)
    width = console.width if console.is_terminal else TERMINAL_WIDTH
    for printed in terminal(table.study, table.sections, table.notes, width):
        Console(highlight=False, width=max(width, needed_width(printed))).print(printed)


def build(study: str, rows: Sequence[Row]) -> Table:
    """The table of ``rows``. Perplexities on different data stand in different sections."""
    lines = put_in_order(lines_of(rows))
    trained = any(line.get(column) is not None for line in lines for column in line if is_quality(column))
    if not trained and any(line.get("macs_published") is not None for line in lines):
        lines = [line for line in lines if not line.get("reference")]
        return Table(
            study,
            tuple(lines),
            (Section("", cost_columns(lines), tuple(lines), ()),),
            (*convention_notes(lines), *_notes(lines)),
        )
    by_data: dict[Any, list[Line]] = {}
    for line in lines:  # one text may go by two names: its folder's is part of what it is called
        by_data.setdefault(line.get("data_hash"), []).append(line)
    sections = tuple(_section(found, len(by_data) > 1) for found in by_data.values())
    apart = (
        "Sections differ in corpus or tokenizer: their perplexities cannot be compared (bits per byte can)."
    )
    return Table(study, tuple(lines), sections, (*([apart] if len(by_data) > 1 else []), *_notes(lines)))


def _section(lines: Sequence[Line], titled: bool) -> Section:
    corpus, tokenizer, data_hash = (lines[0].get(key) for key in ("corpus", "tokenizer", "data_hash"))
    return Section(
        title=f"{corpus}, {tokenizer}, data {str(data_hash)[:12]}" if titled else "",
        columns=quality_columns(lines),
        lines=tuple(line for line in lines if not line.get("reference")),
        references=(*(line for line in lines if line.get("reference")), *_corpus_lines(lines)),
    )


def _corpus_lines(lines: Sequence[Line]) -> list[Line]:
    """What counting words alone reaches on the same corpus, as lines of their own."""
    found = []
    for order in ("bigram", "unigram"):
        columns = {
            column.removeprefix(f"{order}_"): line[column]
            for line in lines
            for column in line
            if column.startswith(f"{order}_") and line[column] is not None
        }
        if columns:
            found.append({"label": order, "n": 0, "ok": 0, "failed": 0, **columns})
    return found


def _notes(lines: Sequence[Line]) -> list[str]:
    """What a reader must know before comparing two lines."""
    notes = []
    if any(line["n"] > 1 for line in lines):
        notes.append("± is half the 95 % confidence interval of the mean over seeds (Student's t).")
    diverged = [f"{line['label']} ({line['status']})" for line in lines if line["ok"] < line["n"]]
    if diverged:
        notes.append(f"Diverged, hence medians with diverged runs as infinite: {'; '.join(diverged)}.")
    failed = [f"{line['label']} ({line.get('error') or line['status']})" for line in lines if line["failed"]]
    if failed:
        notes.append(f"Failed and without a part in any number: {'; '.join(failed)}.")
    if any(line.get("leaky") for line in lines):
        notes.append("leaky: a position sees later ones, on purpose; such a perplexity is not a likelihood.")
    counts = [line["label"] for line in lines if _costs_differ(line)]
    if counts:
        notes.append(f"Costs differ between commits: {'; '.join(counts)}.")
    notes += [
        f"Not every line has the same {name} ({values}): a label says so only where lines of its "
        "architecture differ; table.csv has every line's."
        for name, values in unnamed(lines).items()
    ]
    if any(line.get("report_gmacs") for line in lines):
        notes.append(
            "report: Agrawal & Hu (2023), at 12 layers of width 768, one seed; its perplexity is of "
            "40 training batches of WikiText-2."
        )
    for column, what in (
        ("git_commit", "commits"),
        ("torch_version", "torch versions"),
        ("device", "devices"),
    ):
        values = _distinct(lines, column)
        if len(values) > 1:
            notes.append(f"Mixed {what}: {', '.join(values)}.")
    return notes


def _costs_differ(line: Line) -> bool:
    """Whether the line's runs were counted differently, so that their values were joined."""
    costs = (line[column] for column in line if column == "params" or column.startswith(COSTS))
    return any(isinstance(value, str) for value in costs)


def _distinct(lines: Sequence[Line], column: str) -> list[str]:
    joined = MIXED.join(str(line[column]) for line in lines if line.get(column) is not None)
    return sorted(set(joined.split(MIXED)) - {""})


def _column_order(lines: Sequence[Line]) -> list[str]:
    """The contract's order: what it is, what it costs, how good it is, where it comes from."""
    present = dict.fromkeys(column for line in lines for column in line)
    first = ["label", *DESCRIPTION, "n", "ok", "failed", "status", "seeds", "error"]
    costs = [column for column in present if column.startswith(("macs_", "state_bytes_"))]
    costs.sort(key=lambda column: column != "macs_fvcore")
    quality = [column for column in present if is_quality(column.removesuffix("_ci95"))]
    wanted: Iterable[str] = (*first, *costs, "report_gmacs", *quality, "report_train_ppl")
    ordered = [column for column in dict.fromkeys(wanted) if column in present]
    rest = [column for column in present if column not in ordered and column not in PROVENANCE]
    return [*ordered, *rest, *(column for column in PROVENANCE if column in present)]


def main(arguments: Sequence[str]) -> int:
    """The command: its exit code."""
    return command.run("analysis.table", arguments, lambda study: show(write(study)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
