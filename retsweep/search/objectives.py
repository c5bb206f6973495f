"""What a search minimises, and the hard budgets: columns that the census gives, and validation perplexity."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from retsweep.spec import RunSpec, SpecError

PERPLEXITY = "valid_ppl"
ACCEPTED = "params, macs_train_forward, macs_train_chunkwise_N, macs_decode_N, state_bytes_N (N: tokens)"
#: How keys of ``budget`` begin that mean a cost. The others are what a scale suggests to protocols.
COSTLY = re.compile(r"^(params|macs|state|bytes|decode|flops|latency)")
#: Tokens of a chunk, as in the column macs_train_chunkwise_N of every row.
CHUNK = 64


def cost(spec: RunSpec, column: str) -> int:
    """``column`` of ``spec`` by closed form: nothing is built. Raises SpecError if there is none."""
    return _counted(column)(spec)


def check_objectives(names: Sequence[str]) -> None:
    """Raises SpecError unless ``names`` are two or three different objectives, perplexity among them."""
    if not 2 <= len(names) <= 3 or len(set(names)) < len(names) or PERPLEXITY not in names:
        raise SpecError(
            f"search.objectives=[{','.join(names)}] is not accepted; accepted: {PERPLEXITY} and one or two "
            f"of {ACCEPTED}"
        )
    for name in names:
        if name.startswith("decode_latency"):
            raise SpecError(
                f"search.objectives: {name} is measured by task=decode_bench, on a machine that does nothing "
                "else, and not in a run that trains; accepted in its place: macs_decode_N, state_bytes_N"
            )
        if name != PERPLEXITY:
            check_cost(name, "search.objectives")


def check_cost(name: str, where: str) -> None:
    """Raises SpecError, which says ``where``, unless :func:`cost` knows the column."""
    try:
        _counted(name)
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from error


def budgets(section: Mapping[str, Any]) -> dict[str, float]:
    """The hard budgets in ``budget`` of a config, where a scale's suggestions stand too. Raises SpecError."""
    if not isinstance(section, Mapping):
        raise SpecError(f"budget={section!r} is not accepted; accepted: a mapping of keys to values")
    found: dict[str, float] = {}
    for key, limit in section.items():
        if not COSTLY.match(str(key)):
            continue
        check_cost(key, "budget")
        if limit is None:
            continue
        if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 < limit < math.inf:
            raise SpecError(f"budget.{key}={limit!r} is not accepted; accepted: a number above 0, or null")
        found[key] = limit
    return found


def excess(spec: RunSpec, limits: Mapping[str, float]) -> dict[str, float]:
    """By how much of the limit ``spec`` is above each of ``limits``; 0 or less: it keeps it."""
    return {name: cost(spec, name) / limit - 1 for name, limit in limits.items()}


def _counted(column: str) -> Callable[[RunSpec], int]:
    from retsweep.costs import conventions  # torch comes with it

    fixed = {"params": conventions.parameters, "macs_train_forward": conventions.macs_train_forward}
    if column in fixed:
        return fixed[column]
    name, _, tokens = column.rpartition("_")
    if not re.fullmatch(r"[1-9]\d{0,8}", tokens):
        name = ""
    n = int(tokens) if name else 0
    by_tokens: dict[str, Callable[[RunSpec], int]] = {
        "macs_decode": lambda spec: conventions.macs_decode(spec, n),
        "state_bytes": lambda spec: conventions.state_bytes(spec, n),
        "macs_train_chunkwise": lambda spec: conventions.macs_train_chunkwise(spec, n, CHUNK),
    }
    if name not in by_tokens:
        raise SpecError(f"{column!r} is no cost that the census gives; accepted: {ACCEPTED}")
    return by_tokens[name]
