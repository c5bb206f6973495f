"""How weights begin: every tensor from (seed, its dotted name), so that variants share what they
have in common, whatever else they hold and wherever they are built."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from retsweep.layers.norm import HeadNorm

Draw = Callable[[torch.Size, torch.Generator], Tensor]
Start = Literal["fan_in", "torch"]


def initialise(model: nn.Module, seed: int, start: Start) -> None:
    """Fills every parameter of ``model`` in place.

    A module may have ``starts() -> {name below it: Draw}``, which comes before ``start``. Values
    are drawn on the CPU in float32 and then cast and moved.
    """
    own: dict[str, Draw] = {}
    for path, module in model.named_modules():
        if hasattr(module, "starts"):
            own |= {_join(path, name): draw for name, draw in module.starts().items()}
    with torch.no_grad():
        for path, module in model.named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                dotted = _join(path, name)
                draw = own.get(dotted) or _default(module, name, start)
                parameter.copy_(draw(parameter.shape, generator(seed, dotted)))


def generator(seed: int, name: str) -> torch.Generator:
    """A stream of its own for each (seed, name)."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator(device="cpu").manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def normal(std: float | None = None) -> Draw:
    """N(0, std^2); std None: 1 / sqrt(fan_in), the last axis being the inputs."""

    def draw(shape: torch.Size, stream: torch.Generator) -> Tensor:
        scale = shape[-1] ** -0.5 if std is None else std
        return torch.randn(shape, generator=stream, dtype=torch.float32, device="cpu") * scale

    return draw


def uniform(bound: float) -> Draw:
    """U(-bound, bound)."""

    def draw(shape: torch.Size, stream: torch.Generator) -> Tensor:
        unit = torch.rand(shape, generator=stream, dtype=torch.float32, device="cpu")
        return (2 * unit - 1) * bound

    return draw


def constant(value: float) -> Draw:
    return lambda shape, stream: torch.full(shape, value, dtype=torch.float32, device="cpu")


def _default(module: nn.Module, name: str, start: Start) -> Draw:
    """``fan_in``: linears N(0, 1/fan_in), biases zero, embeddings N(0, 1). ``torch``: linears and
    their biases U(+-1/sqrt(fan_in)), embeddings N(0, 1). Norms: ones and zeros.

    Raises TypeError for any other module: a new one says itself how it starts (``starts``).
    """
    if isinstance(module, nn.Linear):
        if start == "torch":
            return uniform(module.in_features**-0.5)
        return normal() if name == "weight" else constant(0)
    if isinstance(module, nn.Embedding):
        return normal(1)
    if isinstance(module, (nn.LayerNorm, HeadNorm)):
        return constant(1 if name == "weight" else 0)
    raise TypeError(f"{type(module).__name__}.{name} has no start: give a module above it starts()")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
