"""Which columns a printed table shows, under which heading and in which unit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.aggregate import Line

Format = Callable[[Line], str]
#: Columns of out-of-domain perplexity that a printed table has room for.
MOST_OOD = 6


@dataclass(frozen=True)
class Column:
    """``cell`` turns a line into text, "" where the line has nothing to say."""

    header: str
    cell: Format
    numeric: bool = True


def quality_columns(lines: Sequence[Line]) -> tuple[Column, ...]:
    """Costs, perplexities and the report's figures: the table of a study that trained."""
    decode = _preferred(lines, "macs_decode_", 2048)
    columns = [
        Column("model", lambda line: str(line["label"]), numeric=False),
        Column("params", lambda line: count(line.get("params"))),
        _forward(lines),
        *([scaled(f"decode\nMMACs\nat {decode:,}", f"macs_decode_{decode}", 1e6)] if decode else []),
        plain("train\nppl", "train_ppl"),
        measured("valid\nppl", "valid_ppl"),
        measured("valid ppl,\ncausal mask", "valid_ppl_causal_eval"),
        *_against(lines),
        plain("test\nppl", "test_ppl"),
        *(_best_columns() if _another_step_was_best(lines) else ()),
        plain("valid\nbits/\nbyte", "valid_bits_per_byte"),
        *_few_ood_columns(lines),
        plain("report\nGMACs", "report_gmacs"),
        plain("report\ntrain\nppl", "report_train_ppl"),
        Column("runs", runs),
    ]
    return _filled(columns, lines)


def _against(lines: Sequence[Line]) -> list[Column]:
    """The difference from the line that each is held against: see analysis.baseline."""

    def cell(line: Line) -> str:
        if line.get("against_percent") is None:
            return ""
        if not line["against_resolved"]:
            return f"not resolved ({percent(line['against_percent_detectable'])})"
        low, high = (signed(line[f"against_percent_{end}"]) for end in ("low", "high"))
        return f"{signed(line['against_percent'])} ({low} to {high})"

    what = dict.fromkeys(str(line["against"]) for line in lines if line.get("against"))
    return [Column(f"valid ppl,\n% against\n{name}", cell) for name in what]


def _another_step_was_best(lines: Sequence[Line]) -> bool:
    """Whether validation would have chosen another step than the last in some line."""
    return any(line.get("best_step") not in (None, line.get("steps")) for line in lines)


def _best_columns() -> tuple[Column, ...]:
    return (
        measured("best\nvalid\nppl", "best_valid_ppl"),
        plain("its\ntest\nppl", "best_test_ppl"),
        Column("best\nstep", lambda line: "" if line.get("best_step") is None else str(line["best_step"])),
    )


def ood_columns(lines: Sequence[Line]) -> list[str]:
    """The out-of-domain perplexities: by domain where the texts have domains, else by file."""
    known = dict.fromkeys(column for line in lines for column in line if column.startswith("ood_ppl_"))
    columns = [column for column in known if not column.endswith("_ci95")]
    domains = [column for column in columns if column.startswith("ood_ppl_domain_")]
    return domains or columns


def _few_ood_columns(lines: Sequence[Line]) -> list[Column]:
    columns = ood_columns(lines)
    if len(columns) > MOST_OOD:
        return []
    titles = [column.removeprefix("ood_ppl_domain_").removeprefix("ood_ppl_") for column in columns]
    return [
        plain(f"{title.replace('_', ' ')}\nppl", column)
        for title, column in zip(titles, columns, strict=True)
    ]


def cost_columns(lines: Sequence[Line]) -> tuple[Column, ...]:
    """The conventions side by side: the table of a study that only counted."""
    columns = [
        Column("model", lambda line: str(line["label"]), numeric=False),
        Column("params", lambda line: count(line.get("params"))),
        scaled("fvcore\nGMACs", "macs_fvcore", 1e9),
        scaled("published\nGMACs", "macs_published", 1e9),
        plain("report\nGMACs", "report_gmacs"),
        scaled("full\nGMACs", "macs_train_forward", 1e9),
        *(
            scaled(f"chunkwise\nat {n:,}", f"macs_train_chunkwise_{n}", 1e9)
            for n in contexts(lines, "macs_train_chunkwise_")[:1]
        ),
        *(scaled(f"decode\nat {n:,}", f"macs_decode_{n}", 1e6) for n in contexts(lines, "macs_decode_")),
        *(
            scaled(f"state MB\nat {n:,}", f"state_bytes_{n}", 1e6)
            for n in contexts(lines, "state_bytes_")[-1:]
        ),
    ]
    return _filled(columns, lines)


def preflight_columns(lines: Sequence[Line]) -> tuple[Column, ...]:
    """What was found before any training: the table of a study that only checked."""

    def verdict(line: Line) -> str:
        return "failed" if line.get("failed") else str(line.get("preflight") or "")

    columns = [
        Column("model", lambda line: str(line["label"]), numeric=False),
        Column("params", lambda line: count(line.get("params"))),
        Column("pre-flight", verdict, numeric=False),
        plain("leak\nmass", "leak_mass"),
        Column("forms\nerror", lambda line: tiny(line.get("preflight_forms_error"))),
        plain("seconds", "preflight_seconds"),
    ]
    return _filled(columns, lines)


def contexts(lines: Sequence[Line], prefix: str) -> list[int]:
    """The n of every column ``<prefix><n>``, rising."""
    names = {name.removeprefix(prefix) for line in lines for name in line if name.startswith(prefix)}
    return sorted(int(name) for name in names if name.isdigit())


def _preferred(lines: Sequence[Line], prefix: str, wanted: int) -> int | None:
    found = contexts(lines, prefix)
    return wanted if wanted in found else (found[-1] if found else None)


def _forward(lines: Sequence[Line]) -> Column:
    """fvcore's count where every line has one, else the census's (which leaves out norms)."""
    if all(line.get("macs_fvcore") is not None for line in lines):
        return scaled("GMACs\n(fvcore)", "macs_fvcore", 1e9)
    return scaled("GMACs\n(forward)", "macs_train_forward", 1e9)


def _filled(columns: Sequence[Column], lines: Sequence[Line]) -> tuple[Column, ...]:
    return tuple(column for column in columns if any(column.cell(line) for line in lines))


# ---- cells -----------------------------------------------------------------------------------
def plain(header: str, name: str) -> Column:
    return Column(header, lambda line: number(line.get(name)))


def scaled(header: str, name: str, unit: float) -> Column:
    def cell(line: Line) -> str:
        value = line.get(name)
        return number(value if value is None or isinstance(value, str) else value / unit)

    return Column(header, cell)


def measured(header: str, name: str) -> Column:
    """The value, and its interval where seeds give one."""

    def cell(line: Line) -> str:
        interval = line.get(f"{name}_ci95")
        value = number(line.get(name))
        return f"{value} ± {_like(interval, value)}" if interval is not None else value

    return Column(header, cell)


def runs(line: Line) -> str:
    """How many runs the line stands on: "3", or "2/3 ok" where one diverged or broke off."""
    ok, all_of_them = line["ok"], line["n"] + line["failed"]
    if not all_of_them:  # a property of the corpus
        return ""
    return str(ok) if ok == all_of_them else f"{ok}/{all_of_them} ok"


def number(value: Any) -> str:
    """Four significant digits, no exponent below a million; "" for None."""
    if value is None:
        return ""
    if isinstance(value, str):  # runs of one line disagree: aggregate joined their values
        return value
    if math.isinf(value):
        return "inf"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    return f"{value:,.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"


def tiny(value: Any) -> str:
    """A rounding error: two digits and an exponent."""
    return f"{value:.1e}" if isinstance(value, (int, float)) else value or ""


def percent(value: float) -> str:
    """One decimal, two below 1 and none from 100 on."""
    size = abs(value)
    return f"{value:.2f}" if size < 0.995 else f"{value:.1f}" if size < 99.95 else f"{value:,.0f}"


def signed(value: float) -> str:
    """:func:`percent` with its sign."""
    return f"+{percent(value)}" if value >= 0 else percent(value)


def _like(interval: float, value: str) -> str:
    """``interval`` to as many decimals as ``value`` is printed with."""
    return f"{interval:.{len(value.partition('.')[2])}f}"


def count(value: Any) -> str:
    """A number of things: in full below a million, then in millions."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,}" if value < 1e6 else f"{value / 1e6:,.1f} M"
