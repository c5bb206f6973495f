"""From rows to lines: one line a variant, its seeds averaged, divergence never averaged away."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.published import counterpart, retformers
from analysis.rows import Row, TableError
from analysis.statistics import ci95, mean, median

Line = dict[str, Any]

#: Columns that say what a run is. They are never averaged, number or not.
DESCRIPTION = [
    *("architecture", "layout", "ar_ratio", "pattern", "mixer", "hybrid_form", "position", "start"),
    *("attention_heads", "retention_heads", "layers", "heads", "d_model", "ffn", "vocabulary"),
    *("context", "params", "learning_rate", "precision", "leaky", "reference"),
    *("protocol", "scale", "task", "corpus", "tokenizer", "text_form"),
    *("planned_steps", "epochs", "batch", "accumulate", "dropout", "weight_decay"),
    *("schedule", "warmup", "clip", "beta2", "shuffle", "train_chunks", "chunking"),
    *("weight_decay_of", "decay", "value_expansion", "train_ppl_of"),
    *("mask", "final_norm", "branches", "model_start", "placement", "draw"),
    *("tuned_from", "tuned_steps", "match", "match_target"),
]
#: Columns in which the runs of a line may differ without being different models.
PROVENANCE = [
    *("git_commit", "spec_hash", "variant_hash", "data_hash", "version", "torch_version", "device"),
    "world_size",
]
RUN_COLUMNS = {"seed", "status", "error"}
#: Numbers of the single run of which a mean says nothing.
NO_MEAN = {"best_step"}
COSTS = ("macs_", "state_bytes_", "bytes_decode_")
#: Properties of the corpus, the same for every run on it.
CORPUS_LINES = ("unigram_", "bigram_")
#: What a perplexity is of.
DATA = ("corpus", "tokenizer", "data_hash")
#: Lines may be held against each other that have these in common.
ALIKE = ("protocol", "scale", "d_model", "context")
#: Between the values of a column in which the runs of one line differ.
MIXED = "; "
QUALITY = ("_ppl_", "_bits_per_byte_")


def is_quality(column: str) -> bool:
    """Whether the column says how good the model is, so that divergence makes it infinite."""
    says_so = any(name in f"{column}_" for name in QUALITY)
    return says_so and column not in DESCRIPTION and not column.startswith((*CORPUS_LINES, "report_"))


def is_leaky(line: Mapping[str, Any]) -> bool:
    """Whether positions of the model (a row or a line) see later ones: its perplexity is then no
    likelihood, and the line stands on no front and in no ranking."""
    return bool(line.get("leaky"))


def group_of(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """Protocol, scale, width and context (of a row or a line): what lines that are held against one
    Transformer have in common."""
    return tuple(line.get(column) for column in ALIKE)


def may_rank(line: Mapping[str, Any], column: str = "valid_ppl") -> bool:
    """Whether the line may stand on a front or in a ranking by ``column``: no leaky one, none that
    is only a reference, none of which a run diverged (the median of the others is no rank)."""
    value = line.get(column)
    return (
        not is_leaky(line)
        and not line.get("reference")
        and line.get("ok") == line.get("n")
        and isinstance(value, (int, float))
        and math.isfinite(value)
    )


def refuse_mixed_data(rows: Sequence[Row], study: str = "") -> None:
    """Raises TableError, with the ``study`` and the columns that differ, if perplexities in ``rows``
    are of different text or tokens. One text may go by two names (a folder's is part of what a
    corpus is called)."""
    trained = [row for row in rows if any(row.get(column) is not None for column in DATA)]
    if len({row.get("data_hash") or (row.get("corpus"), row.get("tokenizer")) for row in trained}) < 2:
        return
    differ = []
    for column in DATA:
        values = dict.fromkeys(str(row.get(column)) for row in trained)
        if len(values) > 1:
            differ.append(f"{column} ({', '.join(values)})")
    where = f"{study}: " if study else ""
    raise TableError(
        f"{where}rows of different data share no table: they differ in {', '.join(differ)}; "
        "give each corpus and tokenizer a study of its own (study=NAME)"
    )


def is_measured(column: str, values: Sequence[Any]) -> bool:
    """Whether seeds can differ in the column: a number that is neither description nor cost."""
    if column in {*DESCRIPTION, *PROVENANCE, *RUN_COLUMNS, *NO_MEAN}:
        return False
    if column.startswith((*COSTS, *CORPUS_LINES)):
        return False
    numbers = [value for value in values if value is not None]
    return bool(numbers) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in numbers
    )


def lines_of(rows: Sequence[Row]) -> list[Line]:
    """One line a variant_hash, in the rows' order, with the report's figures beside."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["variant_hash"], []).append(row)
    published = {model.architecture: model for model in retformers()}
    qualities = list(dict.fromkeys(column for row in rows for column in row if is_quality(column)))
    lines = [line_of(sorted(group, key=_seed), qualities) for group in groups.values()]
    for line in lines:
        line["reference"] = bool(line.get("reference"))
        model = counterpart(line, published)
        line["report_gmacs"] = model.gmacs if model else None
        line["report_train_ppl"] = model.train_ppl if model else None
    return lines


def line_of(rows: Sequence[Row], qualities: Sequence[str] = ()) -> Line:
    """One variant's runs as one line.

    Measured columns hold the mean, and ``<name>_ci95`` half the width of its 95 % interval. If any
    run diverged they hold the median instead, qualities of diverged runs being infinite, and no
    interval. ``n`` counts the runs that came to an end, ``ok`` those of them that did not diverge,
    ``failed`` those that broke off, which have no part in any number. ``qualities`` are columns
    that other variants have: a diverged run is infinite in them even where its row is silent. A
    measured column that only some of the runs have that did not diverge is None, since ``n`` would
    say more than it stands on; ``partly`` then says in words how many have it.
    """
    ended = [row for row in rows if has_ended(row)]
    counted = ended or rows
    line: Line = {
        "n": len(ended),
        "ok": sum(row["status"] == "ok" for row in ended),
        "failed": len(rows) - len(ended),
        "status": _status(rows),
        "seeds": " ".join(str(row["seed"]) for row in rows if "seed" in row),
        "error": next((row["error"] for row in rows if row.get("error")), None),
    }
    own = [name for row in counted for name in row if name not in RUN_COLUMNS]
    partly = []
    for column in dict.fromkeys([*own, *qualities]):
        values = [row.get(column) for row in counted]
        if is_measured(column, values) or is_quality(column):
            line[column], line[f"{column}_ci95"] = _measured(column, counted) if ended else (None, None)
            told = [row.get(column) is not None for row in ended if not is_diverged(row)]
            if any(told) and not all(told):
                line[column], line[f"{column}_ci95"] = None, None
                partly.append(f"{column.replace('_', ' ')}: {sum(told)} of {len(told)} runs")
        else:
            line[column] = _shared(values)
    return line | ({"partly": MIXED.join(partly)} if partly else {})


def _measured(column: str, rows: Sequence[Row]) -> tuple[float | int | None, float | None]:
    diverged = any(is_diverged(row) for row in rows)
    values = [
        math.inf if is_diverged(row) and is_quality(column) else row.get(column)
        for row in rows
        if row.get(column) is not None or (is_diverged(row) and is_quality(column))
    ]
    numbers = [float(value) for value in values if value is not None]
    if not numbers:
        return None, None
    if all(isinstance(value, int) for value in values) and len(set(values)) == 1:
        return values[0], None  # steps, tokens: the same by construction
    if diverged or not all(map(math.isfinite, numbers)):
        return median(numbers), None
    return mean(numbers), ci95(numbers)


def _shared(values: Sequence[Any]) -> Any:
    """The one value, or all that there are, "; " between them: a line may mix commits."""
    known = [value for value in values if value is not None]
    distinct = list({repr(value): value for value in known}.values())
    if len(distinct) <= 1:
        return distinct[0] if distinct else None
    return MIXED.join(str(value) for value in distinct)


def has_ended(row: Row) -> bool:
    return row.get("status") == "ok" or is_diverged(row)


def is_diverged(row: Row) -> bool:
    return str(row.get("status")).startswith("diverged")


def _status(rows: Sequence[Row]) -> str:
    others = dict.fromkeys(str(row.get("status")) for row in rows if row.get("status") != "ok")
    ok = sum(row.get("status") == "ok" for row in rows)
    if not others:
        return "ok"
    return ", ".join(others) if len(rows) == 1 else f"{ok}/{len(rows)} ok, {', '.join(others)}"


def _seed(row: Row) -> Any:
    return row.get("seed", 0)
