"""Which features of an architecture its perplexity hangs on: ratio, placement, form or size.

Optuna's fANOVA (Hutter et al., 2014) over the rows of a study: a random forest predicts the validation NLL
from the features, and the variance of what it predicts over the whole box of their values is split up. A
feature's part is what it changes by itself, all others averaged over; what is left is in combinations. The
intervals are of models drawn again (bootstrap over variants, all seeds of one together), each with a forest
of its own. Everything random has a fixed seed.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.aggregate import has_ended, is_diverged, is_leaky
from analysis.features import FEATURES, Feature, Kind, Value, has_placement
from analysis.figures.source import METRIC, MissingError, Source, is_finite
from analysis.rows import Row, TableError
from analysis.statistics import rank_correlation

#: Models below which nothing is said, and models that each feature needs.
LEAST_MODELS, MODELS_A_FEATURE = 20, 4
#: What must not differ between rows that say it, since no feature of the architecture would tell.
SAME = ("protocol", "context", "steps", "batch", "data_hash")
TREES, TREES_OF_A_FIT, TREES_OF_A_RESAMPLE = 128, 48, 8
RESAMPLES, FOLDS, SEED = 40, 5, 0
NOTHING = "none of it"


@dataclass(frozen=True)
class Weight:
    """A part of the variance, from 0 to 1, with its 95 % interval over models drawn again."""

    name: str
    kind: Kind
    part: float
    low: float
    high: float


@dataclass(frozen=True)
class Importance:
    """``weights`` of the features that vary, the largest first, and of their ``kinds``. ``trends`` are the
    features' rank correlations with the NLL (negative: more of it is better; None for words). ``ahead`` is
    how much more variance the ratio explains than the placement, None where one of them does not vary.
    ``fit`` is the R² of the forest on models that it has not seen, ``alone`` and ``without`` that of one
    which knows only the features of a kind, and all others. ``left_out``: why -> how many rows."""

    weights: tuple[Weight, ...]
    trends: Mapping[str, float | None]
    kinds: tuple[Weight, ...]
    ahead: Weight | None
    fit: float
    alone: Mapping[Kind, float]
    without: Mapping[Kind, float]
    rows: int
    models: int
    left_out: Mapping[str, int]

    @property
    def combined(self) -> float:
        """What no feature explains by itself."""
        return max(0.0, 1 - sum(weight.part for weight in self.weights))


@dataclass(frozen=True)
class _Data:
    """``values`` are a row's features in the order of ``features``; ``nats`` its validation NLL."""

    features: tuple[Feature, ...]
    values: tuple[tuple[Value, ...], ...]
    nats: tuple[float, ...]
    models: tuple[str, ...]

    def of(self, kinds: Collection[Kind]) -> _Data:
        """The same rows, of the features of ``kinds`` alone."""
        places = [place for place, feature in enumerate(self.features) if feature.kind in kinds]
        return _Data(
            tuple(self.features[place] for place in places),
            tuple(tuple(values[place] for place in places) for values in self.values),
            self.nats,
            self.models,
        )

    def drawn(self, places: Sequence[int]) -> _Data:
        return _Data(
            self.features,
            tuple(self.values[place] for place in places),
            tuple(self.nats[place] for place in places),
            tuple(self.models[place] for place in places),
        )


def importance(source: Source) -> Importance:
    """Of the rows of a study. Raises MissingError where they cannot bear it, and says why; TableError
    where scikit-learn is missing."""
    rows, left_out = _usable(source)
    data = _data(rows)
    _check_size(data)
    fit = _fit(data)
    if fit <= 0:
        raise MissingError(
            f"layout does not predict the perplexity of models that were held out (R² {fit:.2f}, "
            f"{len(set(data.models))} models): no importance means anything"
        )
    spaces = _distributions(data)
    whole = _parts(data, spaces, TREES, SEED)
    drawn = [
        _parts(data.drawn(places), spaces, TREES_OF_A_RESAMPLE, SEED + turn)
        for turn, places in enumerate(_resamples(data), start=1)
    ]
    kinds = _kinds(data, whole, drawn)
    known = {one.kind for one in kinds}
    return Importance(
        weights=_ordered(
            _weight(one.name, one.kind, whole[one.name], [parts[one.name] for parts in drawn])
            for one in data.features
        ),
        trends={one.name: _trend(data, place) for place, one in enumerate(data.features)},
        kinds=kinds,
        ahead=_ahead(data.features, whole, drawn),
        fit=fit,
        alone={one.kind: _fit(data.of({one.kind})) for one in kinds},
        without={one.kind: _fit(data.of(known - {one.kind})) for one in kinds if len(kinds) > 1},
        rows=len(rows),
        models=len(set(data.models)),
        left_out=left_out,
    )


# ---- what it rests on ------------------------------------------------------------------------
def _usable(source: Source) -> tuple[list[Row], dict[str, int]]:
    """The rows that count, and why the others do not. Raises MissingError if they differ in more than
    their architecture, or none is left."""
    source.trained()
    kept: list[Row] = []
    left_out: dict[str, int] = {}
    # In an order of their own: the forests are drawn from it, and files may be read in any.
    for row in sorted(source.rows, key=lambda row: (str(row["variant_hash"]), str(row["seed"]))):
        why = _refused(row)
        if why is None:
            kept.append(row)
        else:
            left_out[why] = left_out.get(why, 0) + 1
    if not kept:
        raise MissingError("no row is of a hybrid that came through with a perplexity")
    for column in SAME:
        known = {repr(row[column]) for row in kept if row.get(column) is not None}
        if len(known) > 1:
            raise MissingError(f"its rows differ in {column}, which is no feature of an architecture")
    return kept, left_out


def _refused(row: Row) -> str | None:
    if is_leaky(row):
        return "looks ahead"
    if is_diverged(row):
        return "diverged"
    if not has_ended(row) or not is_finite(row.get(METRIC)) or row[METRIC] <= 0:
        return f"has no {METRIC}"
    if not has_placement(row):
        return "has nothing to place: all heads are of one kind, or the layers are not known"
    return None


def _data(rows: Sequence[Row]) -> _Data:
    """The features that vary. A number that some rows lack is no feature; a word that some lack is, if
    the others differ in it."""
    kept: list[Feature] = []
    columns: list[list[Value]] = []
    for feature in FEATURES:
        values = [feature.of(row) for row in rows]
        known = [value for value in values if value is not None]
        whole = len(known) == len(values) or any(isinstance(value, str) for value in known)
        if whole and len(set(known)) > 1:
            kept.append(feature)
            columns.append([NOTHING if value is None else value for value in values])
    if not kept:
        raise MissingError("its hybrids differ in no feature of their layout")
    return _Data(
        features=tuple(kept),
        values=tuple(zip(*columns, strict=True)),
        nats=tuple(math.log(row[METRIC]) for row in rows),
        models=tuple(str(row["variant_hash"]) for row in rows),
    )


def _check_size(data: _Data) -> None:
    models, needed = len(set(data.models)), max(LEAST_MODELS, MODELS_A_FEATURE * len(data.features))
    if models < needed:
        names = ", ".join(feature.name for feature in data.features)
        raise MissingError(
            f"{models} hybrids, where {needed} are the least for {len(data.features)} features ({names})"
        )
    if len(data.features) < 2:
        raise MissingError(f"its hybrids differ in one feature only: {data.features[0].name}")


# ---- what is computed ------------------------------------------------------------------------
def _distributions(data: _Data) -> dict[str, Any]:
    """The box over which variance is taken: of each feature the values that rows have."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    found: dict[str, Any] = {}
    for feature, column in zip(data.features, zip(*data.values, strict=True), strict=True):
        if any(isinstance(value, str) for value in column):
            found[feature.name] = CategoricalDistribution(sorted({str(value) for value in column}))
        else:
            found[feature.name] = FloatDistribution(min(column), max(column))
    return found


def _parts(data: _Data, spaces: Mapping[str, Any], trees: int, seed: int) -> dict[str, float]:
    """Feature -> its part of the forest's variance."""
    from optuna.importance import FanovaImportanceEvaluator
    from optuna.study import create_study
    from optuna.trial import create_trial

    _forests()
    with _silent():
        study = create_study()
        study.add_trials(
            create_trial(
                params=dict(zip(spaces, values, strict=True)), distributions=dict(spaces), value=nats
            )
            for values, nats in zip(data.values, data.nats, strict=True)
        )
        found = FanovaImportanceEvaluator(n_trees=trees, seed=seed).evaluate(study)
    return {name: float(part) for name, part in found.items()}


def _resamples(data: _Data) -> Iterator[list[int]]:
    """Places of rows: models drawn with replacement, each with all of its seeds."""
    places: dict[str, list[int]] = {}
    for place, model in enumerate(data.models):
        places.setdefault(model, []).append(place)
    names, draw = sorted(places), random.Random(SEED)
    for _ in range(RESAMPLES):
        yield [place for name in draw.choices(names, k=len(names)) for place in places[name]]


def _fit(data: _Data) -> float:
    """R² over all rows of predictions by forests that saw no run of the row's model."""
    from sklearn.model_selection import GroupKFold, cross_val_predict

    forest = _forests()(n_estimators=TREES_OF_A_FIT, random_state=SEED)
    table = _encoded(data)
    folds = GroupKFold(min(FOLDS, len(set(data.models))))
    predicted = cross_val_predict(forest, table, data.nats, groups=data.models, cv=folds)
    centre = math.fsum(data.nats) / len(data.nats)
    spread = math.fsum((value - centre) ** 2 for value in data.nats)
    missed = math.fsum((value - guess) ** 2 for value, guess in zip(data.nats, predicted, strict=True))
    return 1 - missed / spread if spread else 0.0


def _encoded(data: _Data) -> list[list[float]]:
    """Words as a column a word."""
    columns: list[list[float]] = []
    for column in zip(*data.values, strict=True):
        if any(isinstance(value, str) for value in column):
            words = sorted({str(value) for value in column})
            columns += [[float(value == word) for value in column] for word in words]
        else:
            columns.append([float(value) for value in column])
    return [list(row) for row in zip(*columns, strict=True)]


def _trend(data: _Data, place: int) -> float | None:
    column = [values[place] for values in data.values]
    numbers = [value for value in column if not isinstance(value, str)]
    return rank_correlation(numbers, data.nats) if len(numbers) == len(column) else None


def _by_kind(features: Sequence[Feature], parts: Mapping[str, float]) -> dict[Kind, float]:
    found: dict[Kind, float] = {}
    for feature in features:
        found[feature.kind] = found.get(feature.kind, 0.0) + parts[feature.name]
    return found


def _kinds(
    data: _Data, whole: Mapping[str, float], drawn: Sequence[Mapping[str, float]]
) -> tuple[Weight, ...]:
    sums = [_by_kind(data.features, parts) for parts in drawn]
    return _ordered(
        _weight(kind, kind, part, [each[kind] for each in sums])
        for kind, part in _by_kind(data.features, whole).items()
    )


def _ahead(
    features: Sequence[Feature], whole: Mapping[str, float], drawn: Sequence[Mapping[str, float]]
) -> Weight | None:
    """Ratio less placement."""
    gaps = []
    for parts in (whole, *drawn):
        by_kind = _by_kind(features, parts)
        if not {"ratio", "placement"} <= set(by_kind):
            return None
        gaps.append(by_kind["ratio"] - by_kind["placement"])
    return _weight("ratio less placement", "ratio", gaps[0], gaps[1:])


def _ordered(weights: Iterable[Weight]) -> tuple[Weight, ...]:
    return tuple(sorted(weights, key=lambda one: (-one.part, one.name)))


def _weight(name: str, kind: Kind, part: float, drawn: Sequence[float]) -> Weight:
    """With the 95 % interval of ``drawn`` by its percentiles."""
    ordered = sorted(drawn)
    tail = round(0.025 * len(ordered))
    return Weight(name, kind, part, ordered[tail], ordered[-1 - tail])


def _forests() -> Any:
    try:
        from sklearn.ensemble import RandomForestRegressor
    except ImportError as error:
        raise TableError("importance needs scikit-learn: pip install 'retsweep[report]'") from error
    return RandomForestRegressor


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Optuna tells of every study that it makes."""
    from optuna import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        logging.set_verbosity(before)
