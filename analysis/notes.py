"""What a reader must know before comparing two lines of a table: the notes below it."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.aggregate import COSTS, MIXED, Line, is_leaky
from analysis.columns import MOST_OOD, ood_columns
from analysis.order import unnamed

#: ``train_ppl_of``: what a train perplexity is of.
TRAIN_PPL_OF = {
    "slice": "the first tokens of train, as many as valid has",
    "whole": "all chunks that were trained on",
    "first_batches": "the first training batches, as published",
}


def notes_of(lines: Sequence[Line]) -> list[str]:
    """One sentence or two each, in the order of what they spoil most."""
    return [
        *(*_runs(lines), *_leaky(lines), *_train(lines), *_tuned(lines), *_matched(lines)),
        *_differences(lines),
    ]


def _runs(lines: Sequence[Line]) -> list[str]:
    notes = []
    if any(line["n"] > 1 for line in lines):
        notes.append("± is half the 95 % confidence interval of the mean over seeds (Student's t).")
    diverged = [f"{line['label']} ({line['status']})" for line in lines if line["ok"] < line["n"]]
    if diverged:
        notes.append(f"Diverged, hence medians with diverged runs as infinite: {'; '.join(diverged)}.")
    failed = [f"{line['label']} ({line.get('error') or line['status']})" for line in lines if line["failed"]]
    if failed:
        notes.append(f"Failed and without a part in any number: {'; '.join(failed)}.")
    return notes


def _leaky(lines: Sequence[Line]) -> list[str]:
    if not any(is_leaky(line) for line in lines):
        return []
    note = (
        "leaky: a position sees later ones, on purpose; such a perplexity is not a likelihood, and the line "
        "stands on no front and in no ranking."
    )
    if any(line.get("valid_ppl_causal_eval") is not None for line in lines):
        note += " Under a causal mask: the same weights, evaluated without the leak."
    return [note]


def _train(lines: Sequence[Line]) -> list[str]:
    """Which train perplexities are of what, where that is not the same for all that say it."""
    groups: dict[str, list[str]] = {}
    for line in lines:
        if line.get("train_ppl_of") and line.get("train_ppl") is not None:
            groups.setdefault(str(line["train_ppl_of"]), []).append(str(line["label"]))
    if len(groups) < 2:
        return []
    listed = (f"of {TRAIN_PPL_OF.get(kind, kind)} ({'; '.join(some)})" for kind, some in groups.items())
    return [f"Train perplexities are not of the same text: {', '.join(listed)}."]


def _tuned(lines: Sequence[Line]) -> list[str]:
    """Which lines had their learning rate chosen, and from what; nothing where none had."""
    by_rates: dict[str, list[Line]] = {}
    for line in lines:
        if line.get("tuned_from"):
            by_rates.setdefault(str(line["tuned_from"]), []).append(line)
    notes = [
        f"Learning rate chosen on validation, with seeds of its own, of {', '.join(rates.split())}: "
        f"{_listed(lines, tuned, 'learning_rate')}."
        for rates, tuned in by_rates.items()
    ]
    others = [str(line["label"]) for line in lines if not line.get("tuned_from")]
    return [*notes, f"Not tuned: {'; '.join(others)}."] if by_rates and others else notes


def _matched(lines: Sequence[Line]) -> list[str]:
    """Which lines had their FFN solved for, and to what it was matched."""
    what = {"params": "parameters", "macs": "train-forward MACs"}
    groups: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        if line.get("match") not in (None, "", "none"):
            target = line.get("match_target")
            key = (str(line["match"]), f"{target:,}" if isinstance(target, int) else str(target))
            groups.setdefault(key, []).append(line)
    notes = [
        f"FFN width solved for the Transformer's {what.get(match, match)} ({target}): "
        f"{_listed(lines, matched, 'ffn')}."
        for (match, target), matched in groups.items()
    ]
    others = [str(line["label"]) for line in lines if line.get("match") in (None, "", "none")]
    return [*notes, f"Not matched: {'; '.join(others)}."] if groups and others else notes


def _listed(lines: Sequence[Line], some: Sequence[Line], column: str) -> str:
    """``some`` of the ``lines`` by their labels, with what each has in ``column`` (a label may say
    it already)."""
    values = [f"{value:g}" if isinstance(value := line.get(column), float) else str(value) for line in some]
    everyone = len(some) == len(lines)
    if len(set(values)) == 1:
        names = "every line" if everyone else "; ".join(str(line["label"]) for line in some)
        return f"{names} ({values[0]})"
    listed = "; ".join(
        str(line["label"]) if value in str(line["label"]) else f"{line['label']} {value}"
        for line, value in zip(some, values, strict=True)
    )
    return f"every line ({listed})" if everyone else listed


def _differences(lines: Sequence[Line]) -> list[str]:
    """In what the lines differ that their labels do not say."""
    notes = []
    counts = [line["label"] for line in lines if _costs_differ(line)]
    if counts:
        notes.append(f"Costs differ between commits: {'; '.join(counts)}.")
    notes += [
        f"Not every line has the same {name} ({values}): a label says so only where lines of its "
        "architecture differ; table.csv has every line's."
        for name, values in unnamed(lines).items()
    ]
    if len(ood_columns(lines)) > MOST_OOD:
        notes.append(f"Out of domain: table.csv has all {len(ood_columns(lines))} perplexities of each line.")
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
