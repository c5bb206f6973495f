"""Rows of benches: which measurements a study holds, and where retention begins to be the faster.

Columns end in a context, ``<n>``, or in context and batch, ``<n>_b<b>``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.aggregate import Line
from analysis.columns import Column, contexts, count, measured, scaled
from analysis.crossing import cross, cross_measured

LATENCY, THROUGHPUT = "decode_latency_ms_", "decode_tokens_per_second_"
MEMORY, MOVED = "decode_peak_memory_bytes_", "bytes_decode_"
PREFILL = "prefill_tokens_per_second_"
TRAINED, TRAIN_MEMORY, TRAIN_MFU = (
    "train_tokens_per_second_",
    "train_peak_memory_bytes_",
    "train_mfu_",
)
#: What was not tried, or did not fit, in words.
SKIPPED = ("decode_skipped", "train_skipped")
BASE, RETNET = "Transformer", "RetNet"
#: So many models a kind of note has room for.
FEW = 4
#: The context and the training length that a printed table shows, where they were measured.
SHOWN_CONTEXT = 2048


def is_bench(line: Mapping[str, object]) -> bool:
    """Whether the line holds speeds by context."""
    return any(name.startswith((LATENCY, TRAINED)) for name in line)


def batches(lines: Sequence[Line], prefix: str = LATENCY) -> list[int]:
    """The b of every column ``<prefix><n>_b<b>``, rising."""
    found = {int(b) for line in lines for name in line for _, b in [_place(name, prefix)] if b}
    return sorted(found)


def by_context(line: Line, prefix: str, batch: int | None = None) -> dict[int, float]:
    """What ``line`` holds by context, at ``batch`` where the columns have one; contexts rising."""
    found = {}
    for name, value in line.items():
        n, b = _place(name, prefix)
        known = isinstance(value, (int, float)) and not isinstance(value, bool)
        if n and known and b == (str(batch) if batch else ""):
            found[int(n)] = value
    return dict(sorted(found.items()))


def _place(name: str, prefix: str) -> tuple[str, str]:
    """("2048", "64") of ``<prefix>2048_b64``, ("2048", "") of ``<prefix>2048``; else two empty texts."""
    match = re.fullmatch(rf"{prefix}(\d+)(?:_b(\d+))?", name)
    return (match[1], match[2] or "") if match else ("", "")


# ---- where retention begins to be faster ---------------------------------------------------------
@dataclass(frozen=True)
class Crossing:
    """From which context ``architecture`` decodes ``batch`` sequences in less time than the Transformer
    (``measured``, None: at none; ``how`` says by which rule), and from which on it moves fewer ``bytes``
    and does fewer ``macs``: what a processor that did nothing else would show."""

    architecture: str
    batch: int
    measured: float | None
    how: str
    bytes: float | None
    macs: float | None

    @property
    def said(self) -> str:
        return f"{self.measured:,.0f} ({self.how})" if self.measured else self.how

    @property
    def counted(self) -> list[tuple[str, float]]:
        """The crossings of counts that there are, by name."""
        both = ("bytes", self.bytes), ("MACs", self.macs)
        return [(name, context) for name, context in both if context]


def crossings(lines: Sequence[Line]) -> list[Crossing]:
    """Of every architecture with latencies, at every batch; none where there is no single Transformer."""
    decoded = [line for line in lines if any(name.startswith(LATENCY) for name in line)]
    bases = [line for line in decoded if line.get("architecture") == BASE]
    if len(bases) != 1:
        return []
    return [
        _crossing(line, bases[0], batch)
        for batch in batches(decoded)
        for line in decoded
        if line is not bases[0] and by_context(line, LATENCY, batch)
    ]


def _crossing(line: Line, base: Line, batch: int) -> Crossing:
    measured, how = cross_measured(by_context(line, LATENCY, batch), by_context(base, LATENCY, batch))
    return Crossing(
        architecture=str(line.get("architecture")),
        batch=batch,
        measured=measured,
        how=how,
        bytes=_counted(line, base, MOVED, batch),
        macs=_counted(line, base, "macs_decode_"),
    )


def _counted(line: Line, base: Line, prefix: str, batch: int | None = None) -> float | None:
    own, other = (
        {n: value for n, value in by_context(one, prefix, batch).items() if isinstance(value, int)}
        for one in (line, base)
    )
    return cross(own, other)[0] if len(own) > 1 and len(other) > 1 else None


# ---- the printed table ---------------------------------------------------------------------------
def bench_columns(lines: Sequence[Line]) -> tuple[Column, ...]:
    """A chosen few of the many: at one context, the smallest batch and the largest. All are in the csv."""
    found = [
        Column("model", lambda line: str(line["label"]), numeric=False),
        Column("params", lambda line: count(line.get("params"))),
        *_decode_columns(lines),
        *_train_columns(lines),
        Column("runs", lambda line: str(line["ok"]) if not line["failed"] else f"{line['ok']} ok"),
    ]
    return tuple(column for column in found if any(column.cell(line) for line in lines))


def _decode_columns(lines: Sequence[Line]) -> list[Column]:
    found = batches(lines)
    if not found:
        return []
    n = _shown({n for line in lines for batch in found for n in by_context(line, LATENCY, batch)})
    ends = list(dict.fromkeys((found[0], found[-1])))
    where = f"at {n:,}"
    return [
        *(measured(f"ms a token\n{where},\nbatch {b}", f"{LATENCY}{n}_b{b}") for b in ends),
        *(measured(f"tokens/s\n{where},\nbatch {b}", f"{THROUGHPUT}{n}_b{b}") for b in ends[-1:]),
        *(scaled(f"peak MB\n{where},\nbatch {b}", f"{MEMORY}{n}_b{b}", 1e6) for b in ends[-1:]),
        *(scaled(f"moved MB\n{where},\nbatch {b}", f"{MOVED}{n}_b{b}", 1e6) for b in ends),
        *(_faster(lines, b) for b in ends),
        *(
            measured(f"prompt\ntokens/s\nat {m:,}", f"{PREFILL}{m}")
            for m in [_shown(set(contexts(lines, PREFILL)))]
            if m
        ),
    ]


def _faster(lines: Sequence[Line], batch: int) -> Column:
    said = {one.architecture: one.said for one in crossings(lines) if one.batch == batch}
    header = f"faster than\nTransformer\nfrom, batch {batch}"
    return Column(header, lambda line: said.get(str(line.get("architecture")), ""), numeric=False)


def _train_columns(lines: Sequence[Line]) -> list[Column]:
    n = _shown(set(contexts(lines, TRAINED)))
    if not n:
        return []
    return [
        measured(f"training\ntokens/s\nat {n:,}", f"{TRAINED}{n}"),
        measured(f"mfu\nat {n:,}", f"{TRAIN_MFU}{n}"),
        scaled(f"training\npeak MB\nat {n:,}", f"{TRAIN_MEMORY}{n}", 1e6),
        Column(f"form\nat {n:,}", lambda line: str(line.get(f"train_form_{n}") or ""), numeric=False),
    ]


def _shown(found: set[int]) -> int:
    return 0 if not found else SHOWN_CONTEXT if SHOWN_CONTEXT in found else max(found)


def bench_notes(lines: Sequence[Line]) -> list[str]:
    """How the numbers were come by, where counts say that retention should begin to be the faster, and
    what was left out."""
    notes = []
    device = ", ".join(dict.fromkeys(str(line["device"]) for line in lines if line.get("device")))
    dtype = ", ".join(dict.fromkeys(str(line["decode_dtype"]) for line in lines if line.get("decode_dtype")))
    if device:
        notes.append(f"measured on {device}{f', decoding in {dtype}' if dtype else ''}.")
    for one in crossings(lines):
        if one.architecture == RETNET:
            counted = [f"fewer {name} from {context:,.0f}" for name, context in one.counted]
            said = "; ".join([one.said, *counted])
            what = "context from which RetNet decodes faster than the Transformer"
            notes.append(f"{what}, batch {one.batch}: {said}.")
    return [*notes, *(note for column in SKIPPED for note in _skipped(lines, column))]


def _skipped(lines: Sequence[Line], column: str) -> list[str]:
    """A note a model, or where they are many how many: the csv has them all."""
    said = [
        f"{line['label']}, {column.replace('_', ' ')}: {line[column]}." for line in lines if line.get(column)
    ]
    if len(said) <= FEW:
        return said
    return [*said[:FEW], f"{column.replace('_', ' ')} in {len(said) - FEW} further models: see table.csv."]
