"""Warm start: finished rows of earlier studies as proposals that are told from the beginning.

A row is known to be of an architecture of the space by its own ``spec_hash``: the architecture's spec, under
the layout's name, the seed and the validations that the row was made with, must have that very hash. So only
what was trained as the search trains is told: the same protocol, the same data, the same everything else.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from retsweep.search.objectives import PERPLEXITY, cost, excess
from retsweep.search.space import Architectures, Builder
from retsweep.spec import RunSpec, SpecError
from retsweep.spec.settings import Heartbeat
from retsweep.sweep.patience import Patience, StorageLost
from retsweep.sweep.storage import check_reachable, exists, storage_url
from retsweep.sweep.study import Study

#: Columns of a row that say what was chosen, by parameter. Other choices are found by trying them.
COLUMNS = {"heads": "heads", "ffn": "ffn", "form": "hybrid_form", "decay": "decay"}
OK = "ok"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Known:
    """An architecture of which an earlier study has rows: its own hash in this search, its parameters, its
    ``spec``, and the mean perplexity over the seeds of those rows."""

    hash: str
    params: Mapping[str, Any]
    spec: RunSpec
    perplexity: float
    rows: int


def known(
    rows: Sequence[Row], space: Architectures, builder: Builder, limits: Mapping[str, float]
) -> list[Known]:
    """The architectures within ``limits`` that ``rows`` are of, in their order."""
    found: dict[str, list[tuple[Mapping[str, Any], RunSpec, float]]] = {}
    for row in rows:
        perplexity = row.get(PERPLEXITY)
        if row.get("status", OK) != OK or not isinstance(perplexity, (int, float)):
            continue
        match = matching(row, space, builder)
        if match is not None and all(share <= 0 for share in excess(match[1], limits).values()):
            found.setdefault(builder.hash(match[1]), []).append((*match, float(perplexity)))
    return [
        Known(key, each[0][0], each[0][1], statistics.fmean(value for *_, value in each), len(each))
        for key, each in found.items()
    ]


def matching(row: Row, space: Architectures, builder: Builder) -> tuple[Mapping[str, Any], RunSpec] | None:
    """The parameters and the spec of the space's architecture that ``row`` is of; None if there is none."""
    tried: set[str] = set()
    for params in _candidates(row, space):
        shown = str(space.values(params))
        if shown in tried:
            continue  # what differs has no effect
        tried.add(shown)
        try:
            spec, _ = builder.spec(space.values(params))
        except SpecError:
            continue
        if any(builder.hash(one) == row.get("spec_hash") for one in _as_made(spec, row)):
            return params, spec
    return None


def rows_of(study: str, storage: str | None, runs: str) -> list[Row]:
    """The finished rows of ``study``. Raises SpecError if there is no such study."""
    folder = Path(runs) / study
    url = storage_url(storage, folder)
    place = runs if storage is None else "the storage"
    missing = SpecError(f"search.warm_start: there is no study {study!r} in {place}")
    if not exists(url):
        raise missing
    check_reachable(url)
    try:
        entries = Study(
            url, study, patience=Patience(url, Heartbeat(patience=0), say=lambda _: None)
        ).entries()
    except KeyError as error:
        raise missing from error
    except StorageLost as error:
        raise SpecError(f"search.warm_start: study {study!r} in {place} cannot be read: {error}") from error
    return [entry.row for entry in entries if entry.state == "complete" and entry.row is not None]


def _candidates(row: Row, space: Architectures) -> Iterator[Mapping[str, Any]]:
    """Parameters that ``row`` may be of, as far as its columns tell."""
    pattern = str(row.get("pattern"))
    period = space.period
    if len(pattern) != row.get("layers") or pattern != (pattern[:period] * len(pattern))[: len(pattern)]:
        return
    given = {f"letter_{at:02}": letter for at, letter in enumerate(pattern[:period])}
    for name, column in COLUMNS.items():
        if name in space.choices and row.get(column) is not None:
            given[name] = row[column]
    if any(value not in space.choices[name] for name, value in given.items()):
        return
    lists = [(given[name],) if name in given else choices for name, choices in space.choices.items()]
    for values in product(*lists):
        yield dict(zip(space.choices, values, strict=True))


@dataclass(frozen=True)
class _Named:
    """All that an identity has of a layout: its name."""

    kind: str


def _as_made(spec: RunSpec, row: Row) -> Iterator[RunSpec]:
    """``spec`` as the study of ``row`` may have written it down: the same layers, data and training."""
    every = dict.fromkeys([spec.protocol.evaluation.every, 0])
    for steps in every:  # validations change no weight
        evaluation = dataclasses.replace(spec.protocol.evaluation, every=steps)
        protocol = dataclasses.replace(spec.protocol, evaluation=evaluation)
        layout: Any = _Named(str(row.get("layout")))
        yield dataclasses.replace(spec, protocol=protocol, layout=layout, seed=int(row.get("seed", 0)))


def attributes(one: Known, source: str, names: Sequence[str]) -> dict[str, Any]:
    """What stands beside a proposal that was told from rows of ``source``."""
    costs = {name: cost(one.spec, name) for name in names if name != PERPLEXITY}
    return {"spec_hash": one.hash, "from": source, "rows": one.rows, "macs": costs}
