"""Pre-flight: what must hold of a spec before compute is spent on it, in about a second on a CPU.

All but the census is asked of a shrunken copy (``shrink.py``) with the same layers and heads.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from retsweep.preflight.causality import check_causality, leak
from retsweep.preflight.census import check_census
from retsweep.preflight.error import PreflightError
from retsweep.preflight.forms import check_forms
from retsweep.preflight.learning import check_learning
from retsweep.preflight.shrink import shrunken, without_leak
from retsweep.spec.run import RunSpec

__all__ = ["PreflightError", "preflight"]

Found = TypeVar("Found")


def preflight(spec: RunSpec) -> dict[str, Any]:
    """Row columns: ``preflight`` ("ok"), ``preflight_seconds``, ``preflight_forms_error`` (the largest
    difference between two forms, relative to the largest logit, float64) and, of a leaky spec,
    ``leak_logit_change`` and ``leak_mass`` (see causality.leak).

    A leaky spec has one form; causality and forms are asked of it with its leaks closed, which is how
    its other layers are seen. Raises PreflightError.
    """
    began = time.perf_counter()
    with _one_thread():
        columns = _columns(spec)
    return {"preflight": "ok", **columns, "preflight_seconds": time.perf_counter() - began}


def _columns(spec: RunSpec) -> dict[str, float]:
    check_census(spec)
    copy = shrunken(spec)
    found = leak(copy) if spec.leaky else {}
    closed = without_leak(copy)
    _blaming(check_causality, closed)
    found["preflight_forms_error"] = _blaming(check_forms, closed)
    check_learning(copy)
    return found


@contextmanager
def _one_thread() -> Iterator[None]:
    """The copy is too small to share: threads would only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _blaming(check: Callable[[RunSpec], Found], spec: RunSpec) -> Found:
    """``check(spec)``; the PreflightError that it raises names the layers that fail alone too."""
    try:
        return check(spec)
    except PreflightError as error:
        kinds = {layer.kind: layer for layer in spec.layers}
        guilty = [kind for kind, layer in kinds.items() if _fails(check, _alone(spec, layer))]
        alone = f"{', '.join(guilty)} alone does so too" if guilty else "no layer alone does so"
        raise PreflightError(error.check, error.expected, f"{error.seen} ({alone})") from error


def _alone(spec: RunSpec, layer: Any) -> RunSpec:
    """A network of this one layer."""
    return dataclasses.replace(spec, scale=dataclasses.replace(spec.scale, layers=1), layers=(layer,))


def _fails(check: Callable[[RunSpec], object], spec: RunSpec) -> bool:
    try:
        check(spec)
    except PreflightError:
        return True
    return False
