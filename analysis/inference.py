"""Which differences between variants the seeds bear out: one linear model for all of them.

The value of a run is its mean negative log-likelihood a token (the logarithm of its perplexity, in
nats), or the logarithm of its tokens per second. It is taken for the sum of what its variant is
worth, what its seed is worth to all variants (seeds are blocks: the same data order, and the same
initial tensors where variants share them), and a residual whose variance is the same for all
variants. Three seeds say little about one variant's spread, but 31 variants of three seeds leave
60 degrees of freedom for the pooled one. A variant of one run adds nothing to it.

statsmodels does the sums. It takes seconds to import, hence only where several seeds ran.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from analysis.aggregate import group_of, has_ended, is_diverged, is_leaky
from analysis.columns import percent as percent
from analysis.rows import Row, TableError
from analysis.statistics import t_quantile

#: The column behind each quantity, of which the logarithm is analysed.
QUANTITIES = {
    "train nll": "train_ppl",
    "valid nll": "valid_ppl",
    "test nll": "test_ppl",
    "best valid nll": "best_valid_ppl",
    "best test nll": "best_test_ppl",
    "tokens_per_second": "tokens_per_second",
}
Leaky = Literal["causal mask", "as trained", "left out"]
LEVEL, POWER = 0.05, 0.80


class NoInference(TableError):
    """The rows do not bear out the difference that was asked for, whatever it is. One line."""


@dataclass(frozen=True)
class Estimate:
    """A difference, left minus right, with its standard error and ``low`` and ``high`` of its 95 %
    interval, all in nats (of a perplexity or of a speed: its logarithm). ``detectable`` is the
    smallest true difference that would have come out with a chance of 80 % in a two-sided test at
    5 %: (t_0.975 + t_0.80) standard errors. As one of several ``tests`` that share the 5 % it is held
    to an equal part of it, the bound of Bonferroni, which is also Holm's for its smallest p. ``p`` and
    the interval are of one test alone."""

    nats: float
    se: float
    low: float
    high: float
    freedom: int
    p: float
    tests: int = 1

    @property
    def detectable(self) -> float:
        return (
            t_quantile(1 - LEVEL / self.tests / 2, self.freedom) + t_quantile(POWER, self.freedom)
        ) * self.se

    @property
    def resolved(self) -> bool:
        """Whether the interval leaves out zero (no correction for other tests)."""
        return self.low > 0 or self.high < 0

    @property
    def percent(self) -> float:
        """The left side's perplexity (speed) above the right's, in % of the right's."""
        return as_percent(self.nats)

    @property
    def percent_low(self) -> float:
        return as_percent(self.low)

    @property
    def percent_high(self) -> float:
        return as_percent(self.high)

    @property
    def detectable_percent(self) -> float:
        return as_percent(self.detectable)

    def size(self, lower: str = "lower", higher: str = "higher") -> str:
        """ "lower by 3.1 % (2.0 to 4.2)": the estimate, and its interval, which may include zero."""
        sign, word = (-1, lower) if self.nats < 0 else (1, higher)
        ends = sorted((sign * self.percent_low, sign * self.percent_high))
        return f"{word} by {percent(sign * self.percent)} % ({percent(ends[0])} to {percent(ends[1])})"

    def words(self, lower: str = "lower", higher: str = "higher") -> str:
        """The difference if the interval leaves out zero, else what could have been resolved."""
        return self.size(lower, higher) if self.resolved else self.not_resolved

    @property
    def not_resolved(self) -> str:
        return f"not resolved: {self.smallest}"

    @property
    def smallest(self) -> str:
        among = f" as one of {self.tests} tests" if self.tests > 1 else ""
        return f"smallest difference these seeds could have shown{among} {percent(self.detectable_percent)} %"


def as_percent(nats: float) -> float:
    return 100 * math.expm1(nats) if nats < 700 else math.inf


@dataclass(frozen=True)
class Observation:
    variant: str
    seed: Any
    value: float


@dataclass(frozen=True)
class Model:
    """The fit. ``left_out`` says why a variant (by its variant_hash) has no part in it."""

    quantity: str
    observations: tuple[Observation, ...]
    left_out: Mapping[str, str]

    @cached_property
    def variants(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one.variant for one in self.observations))

    @cached_property
    def seeds(self) -> tuple[Any, ...]:
        return tuple(sorted({one.seed for one in self.observations}))

    @cached_property
    def design(self) -> NDArray[np.float64]:
        """(observations, variants + seeds - 1): a column of ones and zeros for each variant and for
        each seed but the first."""
        columns = [[one.variant == variant for variant in self.variants] for one in self.observations]
        blocks = [[one.seed == seed for seed in self.seeds[1:]] for one in self.observations]
        return np.hstack([np.array(columns, dtype=float), np.array(blocks, dtype=float)])

    @cached_property
    def _fitted(self) -> Any:
        from statsmodels.regression.linear_model import OLS

        with warnings.catch_warnings():  # of variants without a common seed: difference() refuses them
            warnings.filterwarnings("ignore", message="The design matrix is rank-deficient")
            return OLS(np.array([one.value for one in self.observations]), self.design).fit()

    @cached_property
    def _determined(self) -> NDArray[np.float64]:
        """Projects a contrast of the design's columns onto those that the runs determine."""
        return np.linalg.pinv(self.design) @ self.design

    @cached_property
    def freedom(self) -> int:
        """Degrees of freedom of the pooled residual variance."""
        return len(self.observations) - int(np.linalg.matrix_rank(self.design))

    @property
    def residual_sd(self) -> float:
        """Standard deviation of a single run about its variant and seed, in nats."""
        return math.sqrt(float(self._fitted.mse_resid))

    def shares(self) -> dict[str, float]:
        """What part of the residual sum of squares each variant brings; together 1."""
        squares = dict.fromkeys(self.variants, 0.0)
        for one, residual in zip(self.observations, self._fitted.resid, strict=True):
            squares[one.variant] += float(residual) ** 2
        whole = math.fsum(squares.values())
        return {variant: square / whole for variant, square in squares.items()} if whole else {}

    def difference(self, left: str | Mapping[str, float], right: str | Mapping[str, float]) -> Estimate:
        """``left`` minus ``right``: a variant_hash, or several with weights that add up to 1.

        Raises NoInference if a variant is not in the model or no seed links the two sides."""
        contrast = self._weights(left) - self._weights(right)
        if not np.allclose(contrast @ self._determined, contrast, atol=1e-8):
            raise NoInference("the two sides have no seed in common, directly or through others")
        found = self._fitted.t_test(contrast[None, :])
        nats, se = float(found.effect.item()), float(np.asarray(found.sd).item())
        if not se > 1e-12:
            raise NoInference("runs that differ in their seeds alone came out the same: nothing to judge by")
        low, high = (float(end) for end in np.asarray(found.conf_int(alpha=LEVEL)).ravel())
        return Estimate(nats, se, low, high, self.freedom, float(np.asarray(found.pvalue).item()))

    def _weights(self, side: str | Mapping[str, float]) -> NDArray[np.float64]:
        weights = {side: 1.0} if isinstance(side, str) else side
        vector = np.zeros(self.design.shape[1])
        for variant, weight in weights.items():
            if variant not in self.variants:
                raise NoInference(self.left_out.get(variant, "no finished run"))
            vector[self.variants.index(variant)] += weight
        return vector


def fit(rows: Sequence[Row], quantity: str = "valid nll", leaky: Leaky = "causal mask") -> Model:
    """The model over every variant of ``rows`` that ended and did not diverge.

    ``leaky`` says what of rows whose positions see later ones: their perplexity under a causal
    mask (valid_ppl_causal_eval; only "valid nll" has it), their perplexity as it is, or nothing.
    Raises NoInference where no variant has two runs that share seeds with others.
    """
    observations, left_out = observe(rows, quantity, leaky)
    model = Model(quantity, tuple(observations), left_out)
    if not observations:
        why = "; ".join(dict.fromkeys(left_out.values())) or "no finished run"
        raise NoInference(f"nothing to compare in {quantity}: {why}")
    if len(observations) == len(model.variants):
        raise NoInference("one run a variant: no difference has an error bar (seeds=3 gives them one)")
    if model.freedom < 1:
        raise NoInference("too few runs to tell the spread between seeds from the variants' differences")
    return model


def together(rows: Sequence[Row], variants: Collection[str]) -> list[Row]:
    """The rows that a model of ``variants`` (by hash) is fitted to: theirs, and those of the study's
    reference models of the same protocol, scale, width and context, whose runs tell as much of the
    spread between seeds. So contrasts, tables and pages pool the same variance."""
    groups = {group_of(row) for row in rows if row["variant_hash"] in variants}
    return [
        row
        for row in rows
        if row["variant_hash"] in variants or (row.get("reference") and group_of(row) in groups)
    ]


def observe(
    rows: Sequence[Row], quantity: str, leaky: Leaky = "causal mask"
) -> tuple[list[Observation], dict[str, str]]:
    """The values of the runs that take part, and why other variants (by hash) do not."""
    if quantity not in QUANTITIES:
        raise TableError(f"unknown quantity {quantity!r}; known: {', '.join(QUANTITIES)}")
    left_out = {
        row["variant_hash"]: row["status"].replace("@", " at step ") for row in rows if is_diverged(row)
    }
    silent: dict[str, str] = {}
    found: dict[tuple[str, Any], Observation] = {}
    for row in rows:
        variant, seed = row["variant_hash"], row["seed"]
        if variant in left_out:
            continue
        value = likelihood(row, quantity, leaky)
        if value is None:
            silent[variant] = _silence(row, quantity, leaky)
        elif (variant, seed) in found:
            raise TableError(f"{row['architecture']} has two rows of variant {variant} and seed {seed}")
        else:
            found[variant, seed] = Observation(variant, seed, value)
    seen = {one.variant for one in found.values()}
    return list(found.values()), left_out | {v: why for v, why in silent.items() if v not in seen}


def likelihood(row: Row, quantity: str, leaky: Leaky = "causal mask") -> float | None:
    """The logarithm of the row's ``quantity`` (nats); None if it has none, or none that counts."""
    column = QUANTITIES[quantity]
    if is_leaky(row) and column.endswith("_ppl"):
        if leaky == "left out":
            return None
        column = f"{column}_causal_eval" if leaky == "causal mask" else column
    value = row.get(column)
    if not has_ended(row) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        return None
    return math.log(value)


def _silence(row: Row, quantity: str, leaky: Leaky) -> str:
    if not has_ended(row):
        return "failed"
    if is_leaky(row) and leaky != "as trained" and QUANTITIES[quantity].endswith("_ppl"):
        none = ", and it has none under a causal mask" if leaky == "causal mask" else ""
        return f"leaks: its perplexity is no likelihood{none}"
    return f"no finite {QUANTITIES[quantity]}"


def differences(
    rows: Sequence[Row], base: str, quantity: str = "valid nll", leaky: Leaky = "causal mask"
) -> dict[str, Estimate | str]:
    """Every other variant minus ``base`` (a variant_hash), by its variant_hash; words where the
    rows give no estimate."""
    others = [variant for variant in dict.fromkeys(row["variant_hash"] for row in rows) if variant != base]
    try:
        model = fit(rows, quantity, leaky)
    except NoInference as none:
        return dict.fromkeys(others, str(none))
    found: dict[str, Estimate | str] = {}
    for variant in others:
        try:
            found[variant] = model.difference(variant, base)
        except NoInference as none:
            found[variant] = f"the base: {none}" if base not in model.variants else str(none)
    return found
