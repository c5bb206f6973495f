"""The same models under two protocols: what the report printed, and what was measured here.

Two studies, one under ``protocol=published`` and one under ``protocol=corrected``, are joined by
architecture. Ranks count from the lowest perplexity: the report's as it printed them, the published
protocol's among the lines that may be ranked (a leaky one may not), the corrected one's by
validation. The two columns of one protocol may be compared with each other; perplexities of
different protocols are of different texts or lengths of training and may not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analysis.aggregate import Line, is_leaky, lines_of, may_rank, refuse_mixed_data
from analysis.columns import Column, measured, plain
from analysis.order import put_in_order
from analysis.published import retformers
from analysis.render import Section
from analysis.rows import Row, TableError
from analysis.table import Table

#: The measured columns of each protocol; each has its ``_ci95`` beside it.
OF_PUBLISHED = ("train_ppl", "valid_ppl", "valid_ppl_causal_eval")
OF_CORRECTED = ("train_ppl", "valid_ppl", "test_ppl")
NAME = "published and corrected"


def side_by_side(published: Sequence[Row], corrected: Sequence[Row]) -> Table:
    """A table with one line an architecture that either study has, in the report's order.

    Lines carry ``report_train_ppl``, ``report_rank``, and under ``published_`` and ``corrected_``
    the columns above, ``rank``, ``status``, ``n``, ``ok``, ``leaky`` and ``variant_hash``; None
    where a study has no such model. Raises TableError where a study has an architecture twice, or
    mixes data; reference rows have no part."""
    sides = {"published": _by_architecture("published", published)}
    sides["corrected"] = _by_architecture("corrected", corrected)
    every = {name: line for side in reversed(sides.values()) for name, line in side.items()}
    order = [str(line["architecture"]) for line in put_in_order(list(every.values()))]
    ranks = {
        "published": _ranks([line for line in sides["published"].values() if may_rank(line)]),
        "corrected": _ranks([line for line in sides["corrected"].values() if may_rank(line)]),
    }
    report = _report(order)
    lines = tuple(
        {
            "label": name,
            "architecture": name,
            **report[name],
            **_prefixed("published", sides["published"].get(name), OF_PUBLISHED, ranks["published"]),
            **_prefixed("corrected", sides["corrected"].get(name), OF_CORRECTED, ranks["corrected"]),
        }
        for name in order
    )
    return Table(NAME, lines, (Section("", _columns(lines), lines, ()),), tuple(_notes(lines)))


def _by_architecture(name: str, rows: Sequence[Row]) -> dict[str, Line]:
    refuse_mixed_data(rows)
    found: dict[str, Line] = {}
    for line in put_in_order(lines_of(rows)):
        architecture = str(line["architecture"])
        if line.get("reference"):
            continue
        if architecture in found:
            labels = f"{found[architecture]['label']}, {line['label']}"
            raise TableError(f"the {name} study has {architecture} more than once ({labels}): which one?")
        found[architecture] = line
    return found


def _ranks(lines: Sequence[Line]) -> dict[str, int]:
    """1 for the lowest perplexity; equal ones share the better rank. One alone has none."""
    if len(lines) < 2:
        return {}
    values = sorted(line["valid_ppl"] for line in lines)
    return {str(line["architecture"]): 1 + values.index(line["valid_ppl"]) for line in lines}


def _report(architectures: Sequence[str]) -> dict[str, dict[str, float | int | None]]:
    """What the report printed of each, and its rank among those of them that the report has."""
    known = {model.architecture: model.train_ppl for model in retformers()}
    values = sorted(known[name] for name in architectures if name in known)
    return {
        name: {
            "report_train_ppl": known.get(name),
            "report_rank": 1 + values.index(known[name]) if name in known else None,
        }
        for name in architectures
    }


def _prefixed(side: str, line: Line | None, columns: Sequence[str], ranks: Mapping[str, int]) -> Line:
    own: Line = {column: None for name in columns for column in (name, f"{name}_ci95")}
    own |= dict.fromkeys(("rank", "status", "n", "ok", "leaky", "variant_hash"))
    if line is not None:
        own = {column: line.get(column) for column in own}
        own |= {"rank": ranks.get(str(line["architecture"])), "leaky": is_leaky(line)}
    return {f"{side}_{column}": value for column, value in own.items()}


def _columns(lines: Sequence[Line]) -> tuple[Column, ...]:
    columns = (
        Column("model", lambda line: str(line["label"]), numeric=False),
        plain("report\ntrain\nppl", "report_train_ppl"),
        _rank("report\nrank", "report_rank"),
        measured("published\ntrain\nppl", "published_train_ppl"),
        _leaky_marked("published\nvalid\nppl", "published_valid_ppl"),
        measured("published\nvalid ppl,\ncausal mask", "published_valid_ppl_causal_eval"),
        _rank("published\nrank", "published_rank"),
        measured("corrected\ntrain\nppl", "corrected_train_ppl"),
        measured("corrected\nvalid\nppl", "corrected_valid_ppl"),
        measured("corrected\ntest\nppl", "corrected_test_ppl"),
        _rank("corrected\nrank", "corrected_rank"),
    )
    return tuple(column for column in columns if any(column.cell(line) for line in lines))


def _rank(header: str, name: str) -> Column:
    return Column(header, lambda line: "" if line.get(name) is None else str(line[name]))


def _leaky_marked(header: str, name: str) -> Column:
    value = measured(header, name)

    def cell(line: Line) -> str:
        text = value.cell(line)
        return f"{text} leaky" if text and line["published_leaky"] else text

    return Column(header, cell)


def _notes(lines: Sequence[Line]) -> list[str]:
    notes = [
        "report: Agrawal & Hu (2023), one run, 40 training batches of WikiText-2; its rank is its own, of "
        "the models in this table. Perplexities of the two protocols are not to be compared with each "
        "other; their order is."
    ]
    if any(line[f"{side}_rank"] for line in lines for side in ("published", "corrected")):
        notes.append(
            "Ranks are of means over seeds: neighbours are often not resolved from each other, and their "
            "order is then by chance."
        )
    if any(line["published_leaky"] for line in lines):
        notes.append(
            "leaky: a position sees later ones, as in the report; no likelihood, hence no rank. Under a "
            "causal mask: the same weights, evaluated without the leak. Their train ppl leaks too."
        )
    for side in ("published", "corrected"):
        gone = [
            f"{line['label']} ({line[f'{side}_status']})"
            for line in lines
            if line[f"{side}_status"] not in (None, "ok")
        ]
        if gone:
            notes.append(f"Under the {side} protocol not every run was ok, hence no rank where one diverged: "
                         f"{'; '.join(gone)}.")  # fmt: skip
    if any((line[f"{side}_n"] or 0) > 1 for line in lines for side in ("published", "corrected")):
        notes.append("± is half the 95 % confidence interval of the mean over seeds (Student's t).")
    return notes
