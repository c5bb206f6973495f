"""What a reader must know before comparing two lines of a table: the notes below it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from analysis.aggregate import ALIKE, COSTS, MIXED, Line, group_of, is_leaky
from analysis.columns import MOST_OOD, number, ood_columns
from analysis.order import unnamed

#: The two models that every study is about, and the reference that sees one token alone.
MODELS = ("Transformer", "RetNet")
LAST_TOKEN = "FFN only"
#: So many columns a note has room for.
FEW = 4
#: ``train_ppl_of``: what a train perplexity is of.
TRAIN_PPL_OF = {
    "slice": "the first tokens of train, as many as valid has",
    "whole": "all chunks that were trained on",
    "first_batches": "the first training batches, as published",
}


def notes_of(lines: Sequence[Line]) -> list[str]:
    """One sentence or two each, in the order of what they spoil most."""
    unlearned = learned(lines)
    return [
        *([unlearned] if unlearned else []),
        *_text(lines),
        *(*_runs(lines), *_leaky(lines), *_train(lines), *_tuned(lines), *_matched(lines)),
        *_differences(lines),
    ]


def learned(lines: Sequence[Line]) -> str | None:
    """A warning where the better of Transformer and RetNet (of leaky weights the perplexity under a
    causal mask) is no better in valid perplexity than "FFN only", which sees the last token alone,
    or than the corpus's bigram. None where there is nothing to warn of, or to compare with.

    Lines of one protocol, scale, width and context are held against each other."""
    groups: dict[tuple[Any, ...], list[Line]] = {}
    for line in lines:
        groups.setdefault(group_of(line), []).append(line)
    found = {group: _unlearned(some) for group, some in groups.items()}
    apart = [place for place in range(len(ALIKE)) if len({group[place] for group in found}) > 1]
    sentences = []
    for group, words in found.items():
        where = ", ".join(f"{ALIKE[place].replace('_', ' ')} {group[place]}" for place in apart)
        if words:
            sentences.append(f"{where}: {words}" if where else words)
    return " ".join(sentences) or None


def _unlearned(lines: Sequence[Line]) -> str | None:
    values = {name: value for name in MODELS if (value := _best(lines, name)) is not None}
    alone = _best(lines, LAST_TOKEN)
    bigrams = [line["bigram_valid_ppl"] for line in lines if _is_number(line.get("bigram_valid_ppl"))]
    bigram: float | None = min(bigrams, default=None)
    if not values or (alone is None and bigram is None):
        return None
    reached = min(values.values())
    best = min(
        [reached, *(value for line in lines if not line.get("reference") and (value := _counts(line)))]
    )
    has = f"the better of {' and '.join(MODELS)} has" if len(values) == 2 else f"{next(iter(values))} has"
    others = [(LAST_TOKEN, alone), ("bigram", bigram)]
    listed = ", ".join(f"{name} {number(value)}" for name, value in others if value is not None)
    figures = f"{has} valid ppl {number(reached)}, {listed}"
    if alone is not None and reached >= alone:
        whose = "No model" if best >= alone else f"Neither {' nor '.join(MODELS)}"
        return f"{whose} learned to use what stands before the last token: {figures}."
    if bigram is None or reached < bigram:
        return None
    whose = "No model" if best >= bigram else f"Neither {' nor '.join(MODELS)}"
    passed = f"{LAST_TOKEN} is passed, the bigram is not" if alone is not None else "the bigram is not passed"
    return f"{whose} learned as much as counting pairs of tokens gives: {figures} ({passed})."


def _best(lines: Sequence[Line], architecture: str) -> float | None:
    """The least valid perplexity that counts of the architecture's lines."""
    values = [_counts(line) for line in lines if line.get("architecture") == architecture]
    return min((value for value in values if value is not None), default=None)


def _counts(line: Line) -> float | None:
    """The line's valid perplexity if it is finite, of leaky weights that under a causal mask."""
    value: Any = line.get("valid_ppl_causal_eval" if is_leaky(line) else "valid_ppl")
    return float(value) if _is_number(value) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


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
    return [*notes, *_partly(lines)]


def _text(lines: Sequence[Line]) -> list[str]:
    """Of which corpora it is the tokenised release that was read."""
    return [f"{name}: not comparable with figures of the raw text." for name in tokenised(lines)]


def tokenised(lines: Sequence[Line]) -> list[str]:
    """ "wikitext2, the tokenised release (<unk>, @-@)" of each corpus of which that was read: to be
    said wherever its perplexities stand."""
    names = (str(line.get("corpus")) for line in lines if line.get("text_form") == "tokenised")
    return [f"{name}, the tokenised release (<unk>, @-@)" for name in dict.fromkeys(names)]


def _partly(lines: Sequence[Line]) -> list[str]:
    """Cells that are empty since only some of a line's runs have what would stand there."""
    groups: dict[str, list[str]] = {}
    for line in lines:
        if line.get("partly"):
            groups.setdefault(str(line["partly"]), []).append(str(line["label"]))
    notes = []
    for words, labels in groups.items():
        columns = words.split(MIXED)
        more = f"; {len(columns) - FEW} other columns (see partly in table.csv)" if len(columns) > FEW else ""
        whose = "every line" if len(labels) == len(lines) else "; ".join(labels)
        notes.append(f"Left empty, {whose}: {MIXED.join(columns[:FEW])}{more}.")
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
            "40 training batches of raw WikiText-2."
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
