"""The rules by which counts speak to a claim of the report; each states its own."""

from __future__ import annotations

from analysis.aggregate import Line
from analysis.columns import contexts
from analysis.crossing import cross
from analysis.figures.source import OTHERS, family, is_finite
from analysis.report.blocks import Said
from analysis.report.studies import Study
from analysis.statistics import rank_correlation

BASE = "Transformer"
#: From here on a count is said to save a third, to keep an order, and to reverse it.
THIRD, SAME, REVERSED = 0.30, 0.9, -0.5
#: Decoding is judged at contexts at which a cache is worth having.
LONG = 1024


def cost_of_best(study: Study) -> Said | None:
    """What A 10:2 costs of the Transformer: no verdict, since the claim is of quality."""
    return _compared(study, "Type A 10:2", BASE)


def cost_of_type_c(study: Study) -> Said | None:
    """Type C against Type A, both with half of the heads: what two more projections cost."""
    return _compared(study, "Type C 4:4", "Type A 6:6")


def _compared(study: Study, name: str, other: str) -> Said | None:
    pair = _pair(study, name, other)
    ratios = _ratios(study, pair) if pair else []
    return Said(f"{name} against {other}", f"{', '.join(ratios)} ({_sized(study)})") if ratios else None


def saves(study: Study) -> Said | None:
    """RetNet against the Transformer: holds if the training forward in full saves about a third, in
    part if it saves less, does not if it saves nothing."""
    pair = _pair(study, "RetNet", BASE)
    full = _ratio(pair, "macs_train_forward") if pair else None
    if pair is None or full is None:
        return None
    verdict = "holds" if 1 - full >= THIRD else "in part" if full < 1 else "does not hold in training"
    words = [f"RetNet against {BASE}: {', '.join(_ratios(study, pair))} ({_sized(study)})"]
    values = [
        {n: line[f"macs_decode_{n}"] for n in contexts([line], "macs_decode_") if line[f"macs_decode_{n}"]}
        for line in pair
    ]
    if all(len(counted) > 1 for counted in values):
        crossing, how = cross(*values)
        words.append(f"cheaper in decoding from a context of {crossing:,.4g} on" if crossing else how)
    return Said(verdict, "; ".join(words))


def order(study: Study) -> Said | None:
    """Spearman's rank correlation of the report's convention with the full count, which decides, and
    with decoding, over the report's kinds of models."""
    if not _of_one_size(study) or study.sweep == "placement":
        return None
    lines = {str(line.get("architecture")): line for line in reversed(study.lines) if family(line) != OTHERS}
    found: dict[str, float] = {}
    counts = 0
    for name, column in list(_conventions(study).items())[1:]:
        counted = [line for line in lines.values() if _both(line, "macs_published", column)]
        sides = [[line[each] for line in counted] for each in ("macs_published", column)]
        if len(counted) > 2 and all(len(set(values)) > 1 for values in sides):
            found[name] = rank_correlation(*sides)
            counts = max(counts, len(counted))
    full = found.get("training forward in full")
    if full is None:
        return None
    verdict = "holds" if full >= SAME else "reversed" if full <= REVERSED else "in part"
    words = ", ".join(f"{name} {rho:+.2f}" for name, rho in found.items())
    return Said(verdict, f"rank correlation over {counts} models with {words} ({_sized(study)})")


def _both(line: Line, *columns: str) -> bool:
    return all(is_finite(line.get(column)) for column in columns)


def _of_one_size(study: Study) -> bool:
    return all(len(study.values(column)) < 2 for column in ("d_model", "context"))


def _pair(study: Study, name: str, other: str) -> tuple[Line, Line] | None:
    """The first line of each; protocols count the same, sizes do not."""
    named = {str(line.get("architecture")): line for line in reversed(study.lines)}
    if not _of_one_size(study) or name not in named or other not in named:
        return None
    return named[name], named[other]


def _ratio(pair: tuple[Line, Line], column: str) -> float | None:
    left, right = (line.get(column) for line in pair)
    return left / right if is_finite(left) and is_finite(right) and right else None


def _conventions(study: Study) -> dict[str, str]:
    """Words of every convention by which the models of ``study`` are compared -> its column."""
    return {
        "as the report counted": "macs_published",
        "training forward in full": "macs_train_forward",
        **{
            f"decoding at {n:,}": f"macs_decode_{n}"
            for n in contexts(study.lines, "macs_decode_")
            if n >= LONG
        },
    }


def _ratios(study: Study, pair: tuple[Line, Line]) -> list[str]:
    known = {words: _ratio(pair, column) for words, column in _conventions(study).items()}
    return [f"{words} {ratio:.2f}x" for words, ratio in known.items() if ratio is not None]


def _sized(study: Study) -> str:
    width, context = (", ".join(map(str, study.values(column))) for column in ("d_model", "context"))
    return f"width {width}, context {context}"
