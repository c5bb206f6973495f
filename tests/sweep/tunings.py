"""Tunings of the tiny scale, and rows of their tries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retsweep.sweep.plan import Planned
from retsweep.sweep.study import Entry
from retsweep.sweep.tune import Tuning, check, tuning_of
from retsweep.sweep.variants import wanted

DATA = "0123456789abcdef"
BASE = ("scale=tiny", "tracker=none", "device=cpu")
RATES = (0.1, 0.01, 0.001)
ASKED = "tune.learning_rate=[0.1,0.01,0.001]"


def tuning(*overrides: str) -> Tuning:
    found = wanted([*BASE, ASKED, *overrides])
    check(found)
    return tuning_of(found, [Planned(run, DATA) for run in found.runs])


def entry(spec_hash: str, row: Mapping[str, Any] | None, state: Any = "complete") -> Entry:
    row = None if row is None else dict(row)
    return Entry(0, spec_hash, state, 0, (0, 0), None, None, row)


def rows(found: Tuning, perplexities: Mapping[float, Any]) -> dict[str, Entry]:
    """Every try complete, with the perplexity of its rate (a list: one a seed), or its status."""
    standing = {}
    for key, one in found.planned.items():
        said = perplexities[one.spec.protocol.learning_rate]
        said = said[one.spec.seed - 1000] if isinstance(said, list) else said
        row = {"status": said} if isinstance(said, str) else {"status": "ok", "valid_ppl": said}
        standing[key] = entry(key, row)
    return standing


def chosen(found: Tuning, perplexities: Mapping[float, Any]) -> list[float]:
    return [choice.rate for choice in found.choices(rows(found, perplexities)).values()]
