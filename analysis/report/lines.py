"""The sortable table: one row a variant, every cost convention and every perplexity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from analysis.aggregate import Line, is_leaky
from analysis.columns import contexts, count, measured, number, ood_columns, runs
from analysis.figures.source import is_number, share
from analysis.report.blocks import LEAKY, Cell, Grid, GridRow, Head, sort_key
from analysis.table import Table


@dataclass(frozen=True)
class Shown:
    """A column of the page: its heading, what it means, its text and what it is sorted by."""

    header: str
    meaning: str
    text: Callable[[Line], str]
    value: Callable[[Line], Any]
    numeric: bool = True
    leaks: bool = False

    def order(self, line: Line) -> float | int | str:
        """What its cell is sorted by. What looked ahead is no likelihood: it comes after all that is
        one, by its size, and only before what is missing."""
        key = sort_key(self.value(line))
        if self.leaks and is_leaky(line) and isinstance(key, (int, float)) and key < LEAKY:
            return LEAKY * (1 + key / (1 + abs(key)))
        return key


def line_grid(anchor: str, table: Table) -> Grid:
    """The table of one study's lines, its reference lines last, in the written order."""
    section = table.sections[0]
    columns = shown_columns(table.lines)
    return Grid(
        anchor,
        tuple(Head(column.header, column.numeric, column.meaning) for column in columns),
        tuple(
            GridRow(
                tuple(Cell(column.text(line), column.order(line)) for column in columns),
                kind,
            )
            for lines, kind in ((section.lines, ""), (section.references, "reference"))
            for line in lines
        ),
        sortable=True,
    )


def shown_columns(lines: Sequence[Line]) -> list[Shown]:
    """The columns about which at least one line has something to say."""
    columns = [
        Shown("model", "layout and ratio, and what else varies here", _label, _label, numeric=False),
        Shown("attention\nheads", "and their share of all heads, over the network", _share_text, share),
        *_perplexities(),
        _bits("valid\nbits/byte", "valid_bits_per_byte", "bits a byte of validation text, any tokenizer"),
        Shown("seeds", "runs that the line stands on", runs, lambda line: line.get("ok")),
        Shown("marks", "leaky, tuned, matched, diverged: see below", marks, marks, numeric=False),
        Shown("params", "parameters of the model", lambda line: count(line.get("params")), _of("params")),
        *_costs(lines),
        _plain("learning\nrate", "learning_rate", "peak of the schedule"),
        *_outside(lines),
        _plain("report\nGMACs", "report_gmacs", "as the report printed it, at its own scale"),
        _plain("report\ntrain ppl", "report_train_ppl", "as the report printed it, one run, leaking mask"),
    ]
    return [column for column in columns if any(column.text(line) for line in lines)]


def marks(line: Line) -> str:
    """What a reader must know of the line before comparing it: leaky, tuned, matched, diverged."""
    found = []
    if line.get("leaky"):
        found.append("leaky")
    if line.get("tuned_from"):
        found.append(f"tuned ({line['tuned_from']})")
    if line.get("match"):
        found.append(f"matched {line['match']} (ffn {line.get('ffn')})")
    if line.get("n") and line["ok"] < line["n"]:
        found.append(str(line["status"]))
    if line.get("failed"):
        found.append(f"{line['failed']} failed")
    return ", ".join(found)


def _costs(lines: Sequence[Line]) -> list[Shown]:
    forward = [
        ("macs_published", "published", "nn.Linear and LayerNorm only, as the report counted"),
        ("macs_train_forward", "full", "every product of the parallel training forward"),
        ("macs_fvcore", "fvcore", "the same, traced in the built model, norms included"),
    ]
    names = [name for name, _, _ in forward]
    largest = max((line[name] for line in lines for name in names if is_number(line.get(name))), default=0)
    unit, prefix = (1e9, "G") if largest >= 1e9 else (1e6, "M")
    return [
        *(_scaled(f"{title}\n{prefix}MACs", name, unit, meaning) for name, title, meaning in forward),
        *(
            _scaled(f"decode\nMMACs\nat {n:,}", f"macs_decode_{n}", 1e6, f"one token at a context of {n:,}")
            for n in contexts(lines, "macs_decode_")
        ),
        *(
            _scaled(f"state MB\nat {n:,}", f"state_bytes_{n}", 1e6, "kept between two generated tokens")
            for n in contexts(lines, "state_bytes_")[-1:]
        ),
    ]


def _perplexities() -> list[Shown]:
    known = [
        ("valid_ppl", "valid\nppl", "perplexity on the validation split, every target once"),
        ("valid_ppl_causal_eval", "valid ppl,\ncausal mask", "the same weights, evaluated without the leak"),
        ("best_valid_ppl", "best\nvalid ppl", "of the weights at the step that validation chose"),
        ("test_ppl", "test\nppl", "perplexity on the test split, last weights"),
        ("best_test_ppl", "test ppl,\nbest step", "of the weights at the step that validation chose"),
        ("train_ppl", "train\nppl", "perplexity on training text"),
    ]
    return [_measured(header, column, meaning) for column, header, meaning in known]


def _outside(lines: Sequence[Line]) -> list[Shown]:
    """Out of domain: a column a domain where the texts have domains, else a column a file."""
    return [_measured(f"{_title(column)}\nppl", column, "out of domain") for column in ood_columns(lines)]


def _title(column: str) -> str:
    return column.removeprefix("ood_ppl_domain_").removeprefix("ood_ppl_").replace("_", " ")


def _measured(header: str, column: str, meaning: str) -> Shown:
    leaks = not column.endswith("_causal_eval")
    return Shown(header, f"{meaning} ({column})", measured(header, column).cell, _of(column), leaks=leaks)


def _bits(header: str, column: str, meaning: str) -> Shown:
    return replace(_plain(header, column, meaning), leaks=True)


def _plain(header: str, column: str, meaning: str) -> Shown:
    return Shown(header, meaning, lambda line: number(line.get(column)), _of(column))


def _scaled(header: str, column: str, unit: float, meaning: str) -> Shown:
    def text(line: Line) -> str:
        value = line.get(column)
        return number(value / unit if is_number(value) else value)

    return Shown(header, f"{meaning} ({column})", text, _of(column))


def _of(column: str) -> Callable[[Line], Any]:
    return lambda line: line.get(column)


def _label(line: Line) -> str:
    return str(line["label"])


def _share_text(line: Line) -> str:
    of_all = share(line)
    return "" if of_all is None else f"{line['attention_heads']} ({of_all:.0%})"
