"""What a run goes on from: the latest pair of checkpoints that is whole and its own.

Everything is checked before the model is touched, since a file may be another program's, or another run's
that was copied here.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import Tensor, nn

from retsweep.train import checkpoint
from retsweep.train.checkpoint import BrokenCheckpoint
from retsweep.train.state import State


@dataclass(frozen=True)
class Found:
    """``weights`` None: the run diverged before its first checkpoint. ``optimiser`` None: it is over."""

    state: State
    weights: Mapping[str, Tensor] | None
    optimiser: Mapping[str, Any] | None


def find(
    folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer, run: Mapping[str, int]
) -> Found | None:
    """The last checkpoint of ``run`` in ``folder`` that is whole; None if there is none. What is broken,
    and what is done about it, is said as a warning in one line.

    One whose best weights are gone is passed over for an older one that has its own; if there is none, it
    is gone on from all the same, and its row will lack ``best_test_ppl``.
    """
    broken: list[str] = []
    lame: tuple[Path, Found] | None = None
    for path in checkpoint.pairs(folder):
        try:
            found = _checked(checkpoint.load(path), model, optimiser, run, path)
        except BrokenCheckpoint as error:
            broken.append(str(error))
            continue
        except FileNotFoundError:
            continue
        try:
            best = _best(folder, found.state)
        except BrokenCheckpoint as error:
            broken.append(str(error))
            lame = lame or (path, found)
            continue
        _tell(broken, f"training goes on from step {found.state.step}")
        checkpoint.restore(folder, path, best)
        return found
    if lame is not None:
        path, found = lame
        _tell(broken, f"training goes on from step {found.state.step}, without the weights of its best step")
        checkpoint.restore(folder, path, None)
        return found
    _tell(broken, "training starts from the beginning")
    return None


def _tell(broken: list[str], then: str) -> None:
    if broken:
        warnings.warn(f"{then}: {'; '.join(broken)}", stacklevel=4)


def _best(folder: Path, state: State) -> Path | None:
    """Where the best weights are that ``state`` speaks of, None if of none. Raises BrokenCheckpoint."""
    if state.best_step is None or state.best_loss is None:
        return None
    path, _ = checkpoint.load_best(folder, state.best_step, state.best_loss)
    return path


def _checked(
    content: Mapping[str, Any],
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    run: Mapping[str, int],
    path: Path,
) -> Found:
    """Raises BrokenCheckpoint unless ``content`` is a checkpoint of this very run."""
    if content.get("run") != dict(run):
        raise BrokenCheckpoint(f"{path}: of a run with other steps or seed")
    state = _state(content.get("state"), run["steps"], path)
    weights = content["weights"]
    if weights is not None:
        checkpoint.check_weights(model, weights, path)
    elif not state.status.startswith("diverged"):
        raise BrokenCheckpoint(f"{path}: it has no weights")
    moments = content.get("optimiser")
    if state.status == "running":
        _check_moments(moments, optimiser, path)
    return Found(state, weights, moments if state.status == "running" else None)


def _state(found: Any, steps: int, path: Path) -> State:
    kinds = get_type_hints(State)
    if not isinstance(found, Mapping) or found.keys() != kinds.keys():
        raise BrokenCheckpoint(f"{path}: its state is not that of a run")
    for name, kind in kinds.items():
        value = found[name]
        number = kind is float and type(value) is int
        if not (number or isinstance(value, kind)) or (isinstance(value, float) and not math.isfinite(value)):
            raise BrokenCheckpoint(f"{path}: its state has {name}={value!r}")
    state = State(**found)
    known = state.status in ("running", "ok") or state.status.startswith("diverged@")
    if not known or not 0 <= state.step <= steps:
        raise BrokenCheckpoint(f"{path}: its state has status={state.status!r} after step {state.step}")
    return state


def _check_moments(found: Any, optimiser: torch.optim.Optimizer, path: Path) -> None:
    """Raises BrokenCheckpoint unless ``found`` are the optimiser's moments after some steps: torch itself
    takes over moments of any shape."""
    wanted = optimiser.state_dict()
    fault = BrokenCheckpoint(f"{path}: its optimiser is not that of this run")
    if not isinstance(found, Mapping) or found.keys() != wanted.keys():
        raise fault
    groups, state = found["param_groups"], found["state"]
    if not isinstance(groups, list) or not all(isinstance(group, Mapping) for group in groups):
        raise fault
    if [{**group, "lr": 0} for group in groups] != [{**group, "lr": 0} for group in wanted["param_groups"]]:
        raise fault
    tensors = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    if not isinstance(state, Mapping) or not state.keys() <= set(range(len(tensors))):
        raise fault
    for index, kept in state.items():
        if not isinstance(kept, Mapping) or kept.keys() != {"step", "exp_avg", "exp_avg_sq"}:
            raise fault
        for name, value in kept.items():
            like = torch.zeros(()) if name == "step" else tensors[index]
            if not isinstance(value, Tensor) or (value.shape, value.dtype) != (like.shape, like.dtype):
                raise fault
