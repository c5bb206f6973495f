"""Rows of benches: which measurements a study holds, and where retention begins to be the faster.

Columns end in a context, ``<n>``, or in context and batch, ``<n>_b<b>``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.aggregate import Line
from analysis.columns import Column, contexts, count, measured, number, scaled
from analysis.crossing import cross, cross_measured

LATENCY, THROUGHPUT = "decode_latency_ms_", "decode_tokens_per_second_"
MEMORY, MOVED = "decode_peak_memory_bytes_", "bytes_decode_"
KEPT, MACS = "decode_state_bytes_", "macs_decode_"
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
#: A MAC of the forward is two FLOP, and a training step computes three times as many.
FLOP_A_TRAINED_MAC = 6
#: What is held to decode as fast at the end of a long context as at a short one: latency at the largest
#: context measured up to FAR by that at NEAR, below FLAT for models without attention.
NEAR, FAR, FLAT = 512, 16384, 1.1
TASKS = ("decode_bench", "train_bench")


def is_bench(line: Mapping[str, object]) -> bool:
    """Whether the line is of a task that measures speeds by context, if only to say that none fitted."""
    return line.get("task") in TASKS


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
    """From which context a model decodes ``batch`` sequences in less time than the Transformer
    (``measured``, None: at none; ``how`` says by which rule), and from which on it moves fewer ``bytes``
    and does fewer ``macs``: what a processor that did nothing else would show."""

    architecture: str
    variant_hash: str
    label: str
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
    """Of every model with latencies, at every batch; none where there is no single Transformer."""
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
        variant_hash=str(line.get("variant_hash")),
        label=str(line.get("label") or line.get("architecture")),
        batch=batch,
        measured=measured,
        how=how,
        bytes=_counted(line, base, MOVED, batch),
        macs=_counted(line, base, MACS),
    )


def _counted(line: Line, base: Line, prefix: str, batch: int | None = None) -> float | None:
    own, other = (
        {n: value for n, value in by_context(one, prefix, batch).items() if isinstance(value, int)}
        for one in (line, base)
    )
    return cross(own, other)[0] if len(own) > 1 and len(other) > 1 else None


# ---- whether a long context costs more than a short one -------------------------------------------
@dataclass(frozen=True)
class Flatness:
    """Latency at context ``far`` by that at NEAR, decoding ``batch`` sequences; ``kept`` bytes of states
    by context. ``alone``: the model has no attention, so that both should not grow."""

    label: str
    variant_hash: str
    alone: bool
    batch: int
    far: int
    value: float
    kept: dict[int, float]

    @property
    def ratio(self) -> str:
        return f"{self.value:.2f}"

    @property
    def constant(self) -> bool:
        return len(self.kept) > 1 and len(set(self.kept.values())) == 1

    @property
    def states(self) -> str:
        """What is known of the states' bytes, in words."""
        if not self.kept:
            return "state bytes not measured"
        low, high = (f"{end / 1e6:,.3g} MB" for end in (min(self.kept.values()), max(self.kept.values())))
        if self.constant:
            return f"states constant, {low} from {min(self.kept):,} to {max(self.kept):,}"
        return f"states not constant, {low} to {high}" if len(self.kept) > 1 else f"states {low}"

    @property
    def target(self) -> str:
        """ "held" or "missed"; "" of a model with attention, for which there is none."""
        return ("held" if self.value < FLAT else "missed") if self.alone else ""

    @property
    def words(self) -> str:
        return (
            f"{self.label}, batch {self.batch}: a token at {self.far:,} takes {self.ratio} times as long as "
            f"at {NEAR:,} (target below {FLAT:g}: {self.target}); {self.states}."
        )


def flatness(lines: Sequence[Line]) -> list[Flatness]:
    """Of every model, at every batch, whose latency is known at NEAR and at a larger context up to FAR."""
    found = []
    for line in lines:
        for batch in batches([line]):
            latency = by_context(line, LATENCY, batch)
            far = max((n for n in latency if NEAR < n <= FAR), default=None)
            if far is None or NEAR not in latency:
                continue
            found.append(
                Flatness(
                    label=str(line.get("label") or line.get("architecture")),
                    variant_hash=str(line.get("variant_hash")),
                    alone=line.get("attention_heads") == 0,
                    batch=batch,
                    far=far,
                    value=latency[far] / latency[NEAR],
                    kept=by_context(line, KEPT, batch),
                )
            )
    return found


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
    ends = _ends(found)
    where = f"at {n:,}"
    return [
        *(measured(f"ms a token\n{where},\nbatch {b}", f"{LATENCY}{n}_b{b}") for b in ends),
        *(measured(f"tokens/s\n{where},\nbatch {b}", f"{THROUGHPUT}{n}_b{b}") for b in ends[-1:]),
        *(scaled(f"peak MB\n{where},\nbatch {b}", f"{MEMORY}{n}_b{b}", 1e6) for b in ends[-1:]),
        *(scaled(f"moved MB\n{where},\nbatch {b}", f"{MOVED}{n}_b{b}", 1e6) for b in ends),
        scaled(f"MMACs\na token\n{where}", f"{MACS}{n}", 1e6),
        *(_flat(lines, b) for b in ends),
        *(_faster(lines, b) for b in ends),
        *(
            measured(f"prompt\ntokens/s\nat {m:,}", f"{PREFILL}{m}")
            for m in [_shown(set(contexts(lines, PREFILL)))]
            if m
        ),
    ]


def _faster(lines: Sequence[Line], batch: int) -> Column:
    said = {one.variant_hash: one.said for one in crossings(lines) if one.batch == batch}
    header = f"faster than\nTransformer\nfrom, batch {batch}"
    return Column(header, lambda line: said.get(str(line.get("variant_hash")), ""), numeric=False)


def _flat(lines: Sequence[Line], batch: int) -> Column:
    found = {one.variant_hash: one for one in flatness(lines) if one.batch == batch}
    far = max((one.far for one in found.values()), default=FAR)
    header = f"ms at {far:,}\nby ms at {NEAR:,},\nbatch {batch}"

    def cell(line: Line) -> str:
        one = found.get(str(line.get("variant_hash")))
        return "" if one is None else one.ratio if one.far == far else f"{one.ratio} ({one.far:,})"

    return Column(header, cell)


def _train_macs(line: Line, n: int) -> float | None:
    """Multiply-accumulates of a token's training forward, in the form in which it trained: what its share
    of the device's arithmetic was reckoned from."""
    names = f"{TRAIN_MFU}{n}", "gemm_flops_per_second", f"{TRAINED}{n}"
    values = [line.get(name) for name in names]
    numbers = [float(value) for value in values if isinstance(value, (int, float))]
    if len(numbers) < 3:
        return None
    return numbers[0] * numbers[1] / numbers[2] / FLOP_A_TRAINED_MAC


def _train_columns(lines: Sequence[Line]) -> list[Column]:
    n = _shown(set(contexts(lines, TRAINED)))
    if not n:
        return []
    return [
        measured(f"training\ntokens/s\nat {n:,}", f"{TRAINED}{n}"),
        measured(f"mfu\nat {n:,}", f"{TRAIN_MFU}{n}"),
        Column(f"MMACs\na token\nat {n:,}", lambda line: number(_millions(_train_macs(line, n)))),
        scaled(f"training\npeak MB\nat {n:,}", f"{TRAIN_MEMORY}{n}", 1e6),
        Column(f"form\nat {n:,}", lambda line: str(line.get(f"train_form_{n}") or ""), numeric=False),
    ]


def _millions(value: float | None) -> float | None:
    return None if value is None else value / 1e6


def _shown(found: set[int]) -> int:
    return 0 if not found else SHOWN_CONTEXT if SHOWN_CONTEXT in found else max(found)


def bench_notes(lines: Sequence[Line]) -> list[str]:
    """How the numbers were come by, where counts say that retention should begin to be the faster, and
    what was left out."""
    notes = []
    device, precision, threads = (
        _distinct(lines, column) for column in ("device", "precision", "decode_threads")
    )
    if device:
        on = f"{device}, {threads} thread{'s' if threads != '1' else ''}" if threads else device
        notes.append(f"measured on {on}{f', products in {precision}' if precision else ''}.")
    if any(name.startswith(MOVED) for line in lines for name in line):
        wide = dtypes(lines)
        notes.append(f"moved MB: counted, one step's{f', of {wide}' if wide else ''}.")
    if any(name.startswith(TRAIN_MFU) for line in lines for name in line):
        notes.append("mfu and MMACs of training: attention by the full square, causality ignored.")
    notes += [one.words for one in flatness(lines) if one.alone and one.batch in _ends(batches(lines))]
    for one in crossings(lines):
        if one.architecture == RETNET:
            counted = [f"fewer {name} from {context:,.0f}" for name, context in one.counted]
            said = "; ".join([one.said, *counted])
            what = f"context from which {one.label} decodes faster than the Transformer"
            notes.append(f"{what}, batch {one.batch}: {said}.")
    return [*notes, *(note for column in SKIPPED for note in _skipped(lines, column))]


def dtypes(lines: Sequence[Line]) -> str:
    """ "weights float32, cache float32, states float32" as the rows state them; "" where none does."""
    found = [
        (name, _distinct(lines, f"decode_{column}_dtype"))
        for name, column in (("weights", "weight"), ("cache", "cache"), ("states", "state"))
    ]
    return ", ".join(f"{name} {said}" for name, said in found if said)


def _distinct(lines: Sequence[Line], column: str) -> str:
    return ", ".join(dict.fromkeys(str(line[column]) for line in lines if line.get(column) is not None))


def _ends(found: Sequence[int]) -> list[int]:
    return list(dict.fromkeys((found[0], found[-1])))


def _skipped(lines: Sequence[Line], column: str) -> list[str]:
    """A note a model, or where they are many how many: the csv has them all."""
    said = [
        f"{line['label']}, {column.replace('_', ' ')}: {line[column]}." for line in lines if line.get(column)
    ]
    if len(said) <= FEW:
        return said
    return [*said[:FEW], f"{column.replace('_', ' ')} in {len(said) - FEW} further models: see table.csv."]
