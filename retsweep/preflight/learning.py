"""Learning: one step of the protocol's optimiser lowers the loss, and a gradient reaches everything."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from retsweep.preflight.error import PreflightError
from retsweep.preflight.shrink import built, tokens
from retsweep.spec.run import RunSpec
from retsweep.train.gradients import accumulate_gradients
from retsweep.train.optimiser import adamw

CHECK = "learning"
BATCH, TIME = 8, 24
#: Small enough that the gradient is still right at the end of the step, whatever the spec's own is.
RATE = 1e-3


def check_learning(spec: RunSpec) -> None:
    """One step on one batch, in float32, from the spec's own start. Raises PreflightError.

    A tensor whose gradient is zero throughout may stand behind one that starts at zero, so it is
    looked at once more after the step.
    """
    model = built(spec, torch.float32, moved=False).train()
    optimiser = adamw(model, dataclasses.replace(spec.protocol, learning_rate=RATE))
    text = tokens(BATCH, TIME + 1)
    batch = [(text[:, :-1], text[:, 1:])]
    before = _loss(model, batch)
    _check_gradients(model)
    silent = _without_gradient(model)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    after = _loss(model, batch)
    if not after < before:
        raise PreflightError(
            CHECK,
            f"a step at learning rate {RATE:g} to lower the loss of {before:.6f} nats on its own batch",
            f"{after:.6f} after it",
        )
    still = [name for name in _without_gradient(model) if name in silent]
    if still:
        more = f" and {len(still) - 1} others" if len(still) > 1 else ""
        raise PreflightError(CHECK, "a gradient for every parameter", f"zeros only for {still[0]}{more}")


def _loss(model: nn.Module, batch: list[tuple[Tensor, Tensor]]) -> float:
    """In nats; leaves the gradients in the model."""
    return float(accumulate_gradients(model, batch, nullcontext()))


def _check_gradients(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            raise PreflightError(CHECK, "a gradient for every parameter", f"none for {name}")
        if not parameter.grad.isfinite().all():
            raise PreflightError(CHECK, "finite gradients", f"others for {name}")


def _without_gradient(model: nn.Module) -> list[str]:
    return [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
