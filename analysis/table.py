"""A study's table: one line a variant, as csv (everything), md, tex and in the terminal.

``python -m analysis.table [STUDY ...]`` with folders, names under runs/, or nothing for the newest.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from analysis import command
from analysis.aggregate import DESCRIPTION, PROVENANCE, Line, is_quality, lines_of, refuse_mixed_data
from analysis.bench import bench_columns, bench_notes, is_bench
from analysis.columns import cost_columns, preflight_columns, quality_columns
from analysis.macs import convention_notes
from analysis.notes import notes_of, tokenised
from analysis.order import put_in_order
from analysis.plan import PLAN, Plan, read_plan
from analysis.render import TERMINAL_WIDTH, Section, markdown, needed_width, terminal, tex
from analysis.rows import Row, read_rows, write_atomically
from analysis.verdicts import Judgement, judge

if TYPE_CHECKING:
    import pandas as pd

#: The task of rows that say what was found before any training, and their column of the code.
CHECK, CODE = "preflight", "preflight_code"

#: Of a study that trained: without its sweep nobody knows what was named before its runs.
NO_PLAN = f"No contrasts: no {PLAN}, which names the sweep; the command of the study, run again, writes it."


@dataclass(frozen=True)
class Table:
    """``lines`` in order, reference lines last; ``sections`` are the same lines as printed,
    one for all since rows of different data share no table. ``judgement`` is what
    :func:`analysis.verdicts.judge` says of the study's contrasts; :func:`write` adds it."""

    study: str
    lines: tuple[Line, ...]
    sections: tuple[Section, ...]
    notes: tuple[str, ...]
    judgement: Judgement | None = None

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
    """Writes ``table.csv``, ``table.md`` and ``table.tex`` into ``study``, and ``contrasts.csv``
    where its sweep has contrasts. Raises TableError."""
    from analysis.baseline import with_differences  # which builds on this module

    rows, plan = read_rows(study), read_plan(study)
    table = build(study.resolve().name, rows, plan)
    table = with_differences(table, rows, plan)
    if plan is None and any(row.get("train_ppl") is not None for row in rows):
        table = replace(table, notes=(*table.notes, NO_PLAN))
    table = replace(table, judgement=judge(rows, plan))
    files = {
        "table.csv": table.frame().to_csv(index=False, lineterminator="\n"),
        "table.md": markdown(table.study, table.sections, table.notes),
        "table.tex": tex(table.study, table.sections, table.notes),
    }
    if table.judgement:
        title, section, notes = "Contrasts", table.judgement.section(), table.judgement.notes
        files["table.md"] += "\n" + markdown(title, [section], notes, level=2)
        files["table.tex"] += tex(f"{table.study}: contrasts", [section], notes)
        files["contrasts.csv"] = table.judgement.csv()
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
    if table.judgement:
        section, notes = table.judgement.section(), table.judgement.notes
        for printed in terminal("Contrasts", [section], notes, width):
            Console(highlight=False, width=max(width, needed_width(printed))).print(printed)


def build(study: str, rows: Sequence[Row], plan: Plan | None = None) -> Table:
    """The table of ``rows``; ``plan`` says what the sweep calls them. Raises TableError for rows
    that were trained on different data."""
    refuse_mixed_data(rows, study)
    lines = put_in_order(_of_latest_code(lines_of(rows), plan), plan)
    trained = any(line.get(column) is not None for line in lines for column in line if is_quality(column))
    if lines and all(line.get("task") == CHECK for line in lines):
        lines = [{name: line[name] for name in line if not name.startswith("report_")} for line in lines]
        return Table(study, tuple(lines), (_checked(lines),), (*_check_notes(lines), *notes_of(lines)))
    if not trained and any(map(is_bench, lines)):
        lines = [{name: line[name] for name in line if not name.startswith("report_")} for line in lines]
        section = Section("", bench_columns(lines), tuple(lines), ())
        return Table(study, tuple(lines), (section,), (*bench_notes(lines), *notes_of(lines)))
    if not trained and any(line.get("macs_published") is not None for line in lines):
        lines = [line for line in lines if not line.get("reference")]
        return Table(
            study,
            tuple(lines),
            (Section("", cost_columns(lines), tuple(lines), ()),),
            (*convention_notes(lines), *notes_of(lines)),
        )
    return Table(study, tuple(lines), (section_of(lines),), tuple(notes_of(lines)))


def section_of(lines: Sequence[Line]) -> Section:
    """The lines of a study that trained as they are printed, reference lines below. The title says
    where their text is not what others measure on."""
    return Section(
        title="; ".join(tokenised(lines)),
        columns=quality_columns(lines),
        lines=tuple(line for line in lines if not line.get("reference")),
        references=(*(line for line in lines if line.get("reference")), *_corpus_lines(lines)),
    )


def _checked(lines: Sequence[Line]) -> Section:
    """The lines of a study that only checked, as they are printed."""
    return Section(
        title="",
        columns=preflight_columns(lines),
        lines=tuple(line for line in lines if not line.get("reference")),
        references=tuple(line for line in lines if line.get("reference")),
    )


def _check_notes(lines: Sequence[Line]) -> list[str]:
    notes = [
        "pre-flight: causality, equal forms, counts, gradients and one step, before any training.",
        "forms error: the largest difference of a logit between two forms, relative to the largest logit "
        "(float64).",
    ]
    if any(line.get("leak_mass") is not None for line in lines):
        notes.append("leak mass: the share of attention on later positions, of a leak that is on purpose.")
    return notes


def _of_latest_code(lines: Sequence[Line], plan: Plan | None) -> list[Line]:
    """``lines`` less the pre-flights of other code than the last command's, whose members stand first
    in the plan: what was found of code that is no more says nothing of a model."""
    codes = {str(line.get("variant_hash")): line.get(CODE) for line in lines if line.get("task") == CHECK}
    members = (member.variant_hash for member in (plan.members if plan else ()))
    latest = next((codes[variant] for variant in members if codes.get(variant)), None)
    return [line for line in lines if line.get("task") != CHECK or latest in (None, line.get(CODE))]


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


def _column_order(lines: Sequence[Line]) -> list[str]:
    """The contract's order: what it is, what it costs, how good it is, where it comes from."""
    present = dict.fromkeys(column for line in lines for column in line)
    first = ["label", *DESCRIPTION, "n", "ok", "failed", "status", "seeds", "error"]
    costs = [column for column in present if column.startswith(("macs_", "state_bytes_", "bytes_decode_"))]
    costs.sort(key=lambda column: column != "macs_fvcore")
    quality = [column for column in present if is_quality(column.removesuffix("_ci95"))]
    wanted: Iterable[str] = (*first, *costs, "report_gmacs", *quality, "report_train_ppl")
    ordered = [column for column in dict.fromkeys(wanted) if column in present]
    rest = [column for column in present if column not in ordered and column not in PROVENANCE]
    return [*ordered, *rest, *(column for column in PROVENANCE if column in present)]


def main(arguments: Sequence[str]) -> int:
    """The command: its exit code."""
    return command.run_each("analysis.table", arguments, lambda study: show(write(study)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
