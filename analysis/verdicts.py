"""What a study says of the contrasts that were named before its runs, with Holm over them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from analysis.aggregate import Line, has_ended, is_leaky, lines_of
from analysis.columns import Column, percent
from analysis.contrast import FOLDER, Absent, Contrast, file_of, read_contrasts, select, weights
from analysis.inference import LEVEL, QUANTITIES, Estimate, Model, NoInference, as_percent, fit, observe
from analysis.order import put_in_order
from analysis.plan import Plan
from analysis.render import Section
from analysis.rows import Row
from analysis.statistics import mean

#: What less and more of a quantity are called.
WORDS = {"tokens_per_second": ("slower", "faster")}
LIKELIHOOD = ("lower", "higher")
LIKELIHOODS = [quantity for quantity, column in QUANTITIES.items() if column.endswith("_ppl")]
#: Of so many variants it is no chance that one brings half of the residual variance.
MANY = 10
#: So many labels a sentence has room for.
FEW = 4


@dataclass(frozen=True)
class Verdict:
    """``nats`` is left minus right (of perplexity or speed the logarithm; at one seed without an
    ``estimate``); ``ratio`` left over right of an exact cost. ``p_holm`` is adjusted for every
    contrast of the file, and ``resolved`` what it says at 5 %; None where nothing was tested."""

    name: str
    quantity: str
    left: str
    right: str
    words: str
    nats: float | None = None
    estimate: Estimate | None = None
    ratio: float | None = None
    p_holm: float | None = None
    resolved: bool | None = None
    remark: str = ""

    @property
    def percent(self) -> float | None:
        """The left side above the right, in % of the right: perplexity, speed or cost."""
        if self.ratio is not None:
            return 100 * (self.ratio - 1)
        return None if self.nats is None else as_percent(self.nats)


@dataclass(frozen=True)
class Judgement:
    """The verdicts in the order of their file, and what must be known to read them."""

    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]

    def section(self) -> Section:
        """The verdicts as a printed table."""
        lines = tuple({"label": one.name, "verdict": one} for one in self.verdicts)
        return Section("", _columns(), lines, ())

    def csv(self) -> str:
        """Every number of every verdict, in full precision."""
        import pandas as pd

        text = pd.DataFrame([_record(one) for one in self.verdicts]).to_csv(index=False, lineterminator="\n")
        return str(text)


def judge(rows: Sequence[Row], plan: Plan | None) -> Judgement | None:
    """The verdicts on the contrasts of the study's sweep; None if it has none, has no plan
    that says which sweep it was, or did not train.

    Raises TableError if their file is damaged."""
    path = file_of(plan)
    lines = put_in_order(lines_of(rows), plan)
    if path is None or all(line.get("train_ppl") is None for line in lines):
        return None
    bench = _Bench(rows, lines, plan, {})
    found = _with_holm([bench.verdict(contrast) for contrast in read_contrasts(path)])
    notes = [_method(found, f"{FOLDER.parent.name}/{FOLDER.name}/{path.name}"), *bench.notes()]
    return Judgement(tuple(found), tuple(notes))


@dataclass(frozen=True)
class _Bench:
    """A study's rows and the models fitted to them so far: one a quantity and choice of rows."""

    rows: Sequence[Row]
    lines: Sequence[Line]
    plan: Plan | None
    models: dict[tuple[str, str], Model | NoInference]

    def verdict(self, contrast: Contrast) -> Verdict:
        blank = Verdict(contrast.name, contrast.quantity, contrast.left.called, contrast.right.called, "")
        try:
            left, right = (weights(side, self.lines, self.plan) for side in (contrast.left, contrast.right))
            if contrast.exact:
                return self.cost(blank, left, right)
            model = self.model(contrast)
        except Absent as absent:
            return replace(blank, words=f"absent: {absent}")
        if isinstance(model, NoInference):
            return self.without_error(blank, left, right, model)
        gone = self.gone((*left, *right), model.left_out)
        if gone:
            return replace(blank, words=f"absent: {gone}")
        try:
            estimate = model.difference(left, right)
        except NoInference as none:
            return replace(blank, words=f"no inference: {none}")
        return replace(
            blank,
            estimate=estimate,
            nats=estimate.nats,
            remark=self.leaky(contrast.quantity, (*left, *right)),
        )

    def model(self, contrast: Contrast) -> Model | NoInference:
        key = (contrast.quantity, contrast.among)
        if key not in self.models:
            variants = select(contrast.within, self.lines, self.plan, contrast.without)
            rows = [row for row in self.rows if row["variant_hash"] in variants]
            self.models[key] = _fit(rows, contrast.quantity)
        return self.models[key]

    def cost(self, blank: Verdict, left: Mapping[str, float], right: Mapping[str, float]) -> Verdict:
        """Costs are counted: their ratio is exact, of the means where a side is several variants."""
        sums = []
        for side in (left, right):
            values = {variant: self.line(variant).get(blank.quantity) for variant in side}
            if not all(isinstance(value, int) for value in values.values()):
                raise Absent(f"no single {blank.quantity} of {' and '.join(map(self.label, side))}")
            sums.append(math.fsum(weight * (values[variant] or 0) for variant, weight in side.items()))
        ratio = sums[0] / sums[1]
        more = f"{percent(100 * abs(ratio - 1))} % {'more' if ratio > 1 else 'less'}"
        amounts = f"{sums[0]:,.0f} against {sums[1]:,.0f}"
        words = f"exact: {blank.left} costs {more if ratio != 1 else 'the same'} ({amounts})"
        return replace(blank, ratio=ratio, words=words)

    def without_error(
        self, blank: Verdict, left: Mapping[str, float], right: Mapping[str, float], why: NoInference
    ) -> Verdict:
        """No test, but the difference of the runs' means where each variant has some, and which has
        none."""
        values: dict[str, list[float]] = {}
        observations, left_out = observe(self.rows, blank.quantity)
        for one in observations:
            values.setdefault(one.variant, []).append(one.value)
        gone = self.gone((*left, *right), left_out)
        if gone:
            return replace(blank, words=f"absent: {gone}")
        levels = [math.fsum(w * mean(values[v]) for v, w in side.items()) for side in (left, right)]
        nats = levels[0] - levels[1]
        word = WORDS.get(blank.quantity, LIKELIHOOD)[nats >= 0]
        size = f"{blank.left} is {word} by {percent(abs(as_percent(nats)))} %"
        remark = self.leaky(blank.quantity, (*left, *right))
        words = f"no inference: {why}; {size}, without an error bar{f'; {remark}' if remark else ''}"
        return replace(blank, nats=nats, words=words, remark=remark)

    def gone(self, variants: Sequence[str], left_out: Mapping[str, str]) -> str:
        """Which of the variants take no part, and why; "" where all do."""
        some = [variant for variant in dict.fromkeys(variants) if variant in left_out]
        return "; ".join(f"{self.label(variant)} {left_out[variant]}" for variant in some)

    def leaky(self, quantity: str, variants: Sequence[str]) -> str:
        """What of the variants' weights were trained with a leak, where that is not what is read."""
        if quantity not in LIKELIHOODS:
            return ""
        labels = [self.label(variant) for variant in dict.fromkeys(variants) if is_leaky(self.line(variant))]
        if len(labels) > FEW:
            return f"leaky weights of {len(labels)} variants under a causal mask"
        return f"leaky weights under a causal mask: {', '.join(labels)}" if labels else ""

    def line(self, variant: str) -> Line:
        return next(line for line in self.lines if line["variant_hash"] == variant)

    def label(self, variant: str) -> str:
        return str(self.line(variant)["label"])

    def notes(self) -> list[str]:
        """What each model stands on, and who is not in it."""
        found = []
        for (quantity, within), model in self.models.items():
            if isinstance(model, NoInference):
                continue
            quantity = f"{quantity} ({within})" if within else quantity
            found.append(
                f"{quantity}: a run scatters by {model.residual_sd:.4f} nats about its variant and seed "
                f"({model.freedom} degrees of freedom, {len(model.variants)} variants)."
            )
            shares = model.shares()
            worst = max(shares, key=lambda variant: shares[variant])
            if shares[worst] >= 0.5 and len(shares) >= MANY:
                share = f"{100 * shares[worst]:.0f} %"
                found.append(
                    f"{self.label(worst)} alone brings {share} of that variance: the spread is uneven."
                )
            gone = [f"{self.label(variant)} ({why})" for variant, why in model.left_out.items()]
            if gone:
                found.append(f"Not in the model of {quantity}: {'; '.join(gone)}.")
        return list(dict.fromkeys(found))


def _fit(rows: Sequence[Row], quantity: str) -> Model | NoInference:
    devices = dict.fromkeys(str(row.get("device")) for row in rows if has_ended(row))
    if quantity == "tokens_per_second" and len(devices) > 1:
        return NoInference(f"timed on several devices: {', '.join(devices)}")
    try:
        return fit(rows, quantity)
    except NoInference as none:
        return none


def _with_holm(found: Sequence[Verdict]) -> list[Verdict]:
    """Adds p_holm and words to what was estimated. A contrast that this study cannot judge counts
    as one more test with p = 1: that runs are missing must not make it easier for the others."""
    if all(one.estimate is None for one in found):
        return list(found)
    from statsmodels.stats.multitest import multipletests

    tested = [index for index, one in enumerate(found) if one.ratio is None]
    raw = [1.0 if (estimate := found[index].estimate) is None else estimate.p for index in tested]
    adjusted = dict(zip(tested, multipletests(raw, alpha=LEVEL, method="holm")[1], strict=True))
    return [
        one
        if one.estimate is None
        else _worded(one, replace(one.estimate, tests=len(tested)), float(adjusted[index]))
        for index, one in enumerate(found)
    ]


def _worded(one: Verdict, estimate: Estimate, p_holm: float) -> Verdict:
    size = f"{one.left} is {estimate.size(*WORDS.get(one.quantity, LIKELIHOOD))}"
    if p_holm < LEVEL:
        words = f"resolved: {size}"
    elif estimate.resolved:
        words = f"not resolved after Holm: {size}; {estimate.smallest}"
    else:
        words = estimate.not_resolved
    words = f"{words}; {one.remark}" if one.remark else words
    return replace(one, estimate=estimate, p_holm=p_holm, resolved=p_holm < LEVEL, words=words)


def _method(found: Sequence[Verdict], path: str) -> str:
    tests = sum(one.ratio is None for one in found)
    level = f"5 % / {tests}" if tests > 1 else "5 %"
    return (
        f"Named in {path}, whose head says when, and what was known then. Value of a run = variant + seed "
        "+ residual, the residual variance pooled over variants; intervals of 95 %, each for itself; p by "
        f"Holm over the file's {tests} tests, those without a result counted; smallest difference: what a "
        "two-sided test at "
        f"{level} (the first step of Holm) finds with a chance of 80 %. nll: mean negative log-likelihood "
        "a token, of which the perplexity's % are drawn; lower is better."
    )


def _columns() -> tuple[Column, ...]:
    def of(cell: Callable[[Verdict], str]) -> Callable[[Line], str]:
        return lambda line: cell(line["verdict"])

    return (
        Column("contrast", of(lambda one: one.name), numeric=False),
        Column("of", of(lambda one: one.quantity), numeric=False),
        Column("nats", of(_nats)),
        Column("%", of(lambda one: "" if one.percent is None else f"{one.percent:+.2f}")),
        Column("95 % interval,\n%", of(_interval)),
        Column("p\n(Holm)", of(_p)),
        Column("verdict", of(lambda one: one.words), numeric=False),
    )


def _p(one: Verdict) -> str:
    if one.p_holm is None:
        return ""
    return f"{one.p_holm:.2g}" if one.p_holm >= 1e-4 else "< 0.0001"


def _nats(one: Verdict) -> str:
    return "" if one.nats is None else f"{one.nats:+.4f}"


def _interval(one: Verdict) -> str:
    if one.estimate is None:
        return ""
    return f"{one.estimate.percent_low:+.2f} to {one.estimate.percent_high:+.2f}"


def _record(one: Verdict) -> dict[str, object]:
    estimate = one.estimate
    names = ("se", "low", "high", "percent_low", "percent_high", "freedom", "p", "detectable")
    numbers = {name: getattr(estimate, name) if estimate else None for name in (*names, "detectable_percent")}
    units = {"se": "se_nats", "low": "low_nats", "high": "high_nats", "detectable": "detectable_nats"}
    return {
        "name": one.name,
        "quantity": one.quantity,
        "left": one.left,
        "right": one.right,
        "difference_nats": one.nats,
        "percent": one.percent,
        **{units.get(name, name): value for name, value in numbers.items()},
        "p_holm": one.p_holm,
        "resolved": one.resolved,
        "ratio": one.ratio,
        "verdict": one.words,
    }
