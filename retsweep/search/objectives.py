"""What a search minimises, and hard budgets: perplexity, columns that the census gives, measured latency."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from retsweep.spec import RunSpec, SpecError

if TYPE_CHECKING:
    from retsweep.tasks.base import Workspace

PERPLEXITY = "valid_ppl"
ACCEPTED = "params, macs_train_forward, macs_train_chunkwise_N, macs_decode_N, state_bytes_N (N: tokens)"
#: A column of task=decode_bench: the latency of a token after N tokens, of B sequences at once.
MEASURED = re.compile(r"decode_latency_ms_([2-9]|[1-9]\d{1,8})_b([1-9]\d{0,4})")
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
            f"of {ACCEPTED}, decode_latency_ms_N_bB (measured, of B sequences)"
        )
    for name in counted(names):
        check_cost(name, "search.objectives")


def counted(names: Sequence[str]) -> list[str]:
    """Those of ``names`` that are known before anything is built."""
    return [name for name in names if name != PERPLEXITY and not MEASURED.fullmatch(name)]


def measured(names: Sequence[str]) -> list[str]:
    """Those of ``names`` that a run measures once it is trained."""
    return [name for name in names if MEASURED.fullmatch(name)]


def measure(spec: RunSpec, names: Sequence[str], workspace: Workspace) -> dict[str, Any]:
    """The columns ``names``, :func:`measured` ones, on the workspace's device; without those for which it has
    no memory, which ``decode_skipped`` tells."""
    from retsweep.tasks.decode_bench import DecodeBench

    found: dict[str, Any] = {}
    for name in names:
        match = MEASURED.fullmatch(name)
        assert match is not None
        bench = DecodeBench(contexts=(int(match[1]),), batches=(int(match[2]),))
        columns = bench.decoding(spec, workspace)
        found |= {key: columns[key] for key in (name, "decode_skipped") if columns.get(key) is not None}
    return found


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
