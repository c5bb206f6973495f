"""What matters, ratio or placement: the importance of features of the layout, as tables."""

from __future__ import annotations

from analysis.figures.source import Source
from analysis.importance import RESAMPLES, Importance, Weight, importance
from analysis.report.blocks import Block, Cell, Grid, GridRow, Head, Words, sort_key

INTRO = (
    "How much of the differences in validation NLL goes with which feature of the layout: Optuna's fANOVA "
    "over the hybrids of a study. It describes these models: where a sweep varies two features together, as "
    "the share of attention and its mean depth in Type A, it cannot tell whose the effect is, and a part may "
    "stand with either. Of a search that halves, only the runs that came through have rows.",
)


def blocks(source: Source, anchor: str) -> list[Block]:
    """Raises MissingError where the rows cannot bear it."""
    found = importance(source)
    return [
        Words((verdict(found),)),
        _features(found, anchor),
        _kinds(found, anchor),
        Words(tuple(_rests_on(found)), quiet=True),
    ]


def verdict(found: Importance) -> str:
    """Ratio against placement, in a sentence."""
    by_kind = {weight.name: weight for weight in found.kinds}
    if found.ahead is None:
        lacking = " and ".join(kind for kind in ("ratio", "placement") if kind not in by_kind)
        return f"Ratio or placement: not to be said here, where the {lacking} does not vary."
    ratio, placement = by_kind["ratio"], by_kind["placement"]
    parts = f"ratio {_part(ratio)} of the variance, placement {_part(placement)}"
    gap = found.ahead
    if gap.low <= 0 <= gap.high:
        return f"Ratio or placement: not resolved ({parts}; other models of the kind might turn it round)."
    more = "the ratio" if gap.part > 0 else "the placement"
    return f"Ratio or placement: {more} matters more ({parts})."


def _features(found: Importance, anchor: str) -> Grid:
    heads = (
        Head("feature"),
        Head("kind"),
        Head("part of the\nvariance", True, "by itself, all other features averaged over"),
        Head("95 %\ninterval", True, "over models drawn again"),
        Head("rank\ncorrelation", True, "Spearman's with the NLL; negative: more of it is better"),
    )
    rows = [
        GridRow(
            (
                Cell(weight.name),
                Cell(weight.kind),
                Cell(_percent(weight.part), weight.part),
                Cell(_interval(weight), weight.low),
                Cell(_signed(found.trends[weight.name]), sort_key(found.trends[weight.name])),
            )
        )
        for weight in found.weights
    ]
    caption = f"{_percent(found.combined)} of the variance is in combinations of features."
    return Grid(f"{anchor}-features", heads, tuple(rows), caption, sortable=True)


def _kinds(found: Importance, anchor: str) -> Grid:
    heads = (
        Head("kind"),
        Head("part of the\nvariance", True, "of its features, summed"),
        Head("95 %\ninterval", True, "over models drawn again"),
        Head("R², it alone", True, "of a forest that knows only these features, on models held out"),
        Head("R², without it", True, "of a forest that knows all others, on models held out"),
    )
    rows = [
        GridRow(
            (
                Cell(weight.name),
                Cell(_percent(weight.part)),
                Cell(_interval(weight)),
                Cell(_fit(found.alone.get(weight.kind))),
                Cell(_fit(found.without.get(weight.kind))),
            )
        )
        for weight in found.kinds
    ]
    caption = f"All features together predict models that were held out with R² {found.fit:.2f}."
    return Grid(f"{anchor}-kinds", heads, tuple(rows), caption)


def _rests_on(found: Importance) -> list[str]:
    said = [f"{found.rows} rows of {found.models} hybrids; intervals over {RESAMPLES} draws of as many."]
    said += [f"Left out: {count} rows ({why})." for why, count in found.left_out.items()]
    return said


def _part(weight: Weight) -> str:
    return f"{_percent(weight.part)} ({_interval(weight)})"


def _interval(weight: Weight) -> str:
    return f"{100 * weight.low:.0f} to {100 * weight.high:.0f} %"


def _percent(part: float) -> str:
    return f"{100 * part:.0f} %"


def _fit(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}".replace("-", "−")


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}".replace("-", "−")
