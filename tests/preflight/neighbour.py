"""A mixer that is right, and wrong in one way at a time: each check has to find its own."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from retsweep.layers.mixer import Mixer
from retsweep.spec.base import spec
from retsweep.spec.forms import Form, Recurrent
from retsweep.spec.layer import LayerSpec, Operation, Shape

Fault = Literal[
    "none",
    "leaks",
    "leaks across chunks",
    "leaks in float64",
    "through an fft",
    "through an fft, wrapped",
    "says leaky",
    "leaks and says so",
    "leaks and says so, and more",
    "forgets a bias",
    "forgets the state",
    "chunks start anew",
    "no recurrent form",
    "unused parameter",
    "dead parameter",
    "starts at zero",
    "broken gradient",
    "reversed gradient",
    "census of parameters",
    "unlisted parameter",
    "census of operations",
]


@spec
class NeighbourSpec(LayerSpec):
    """y_n = W (x_n + x_(n-1)) / 2 + b."""

    kind: ClassVar[str] = "neighbour"
    letter: str = "X"
    fault: Fault = "none"

    @property
    def leaky(self) -> bool:
        return "say" in self.fault

    @property
    def fft(self) -> bool:
        return "fft" in self.fault

    def causal(self) -> NeighbourSpec:
        if not self.leaky:
            return self
        return NeighbourSpec(fault="leaks" if self.fault.endswith("more") else "none")

    def parameters(self, shape: Shape) -> dict[str, int]:
        d = shape.d_model
        wrong = self.fault == "census of parameters"
        more = {"more": d} if self.fault in ("unused parameter", "dead parameter") else {}
        return {"out.weight": d * d + wrong, "out.bias": d, **more}

    def operations(self, shape: Shape, form: Form) -> tuple[Operation, ...]:
        tokens = 1 if isinstance(form, Recurrent) else form.tokens
        macs = tokens * shape.d_model**2 + (self.fault == "census of operations")
        return (Operation("output", "out", "projection", macs, self.kind),)

    def state_elements(self, shape: Shape, context: int) -> dict[str, int]:
        return {"cache": 0, "state": shape.d_model}

    def build(self, shape: Shape) -> Neighbour:
        return Neighbour(self.fault, shape.d_model)


class Neighbour(Mixer):
    """The state is the token before, (batch, d_model)."""

    def __init__(self, fault: Fault, d_model: int) -> None:
        super().__init__()
        self.fault = fault
        self.out = nn.Linear(d_model, d_model)
        if fault in ("unused parameter", "dead parameter", "unlisted parameter"):
            self.more = nn.Parameter(torch.zeros(d_model))

    def starts(self) -> dict[str, Any]:
        def zeros(shape: torch.Size, _: Any) -> Tensor:
            return torch.zeros(shape)

        found = {"more": zeros} if hasattr(self, "more") else {}
        if self.fault in ("starts at zero", "reversed gradient"):
            found["out.weight"] = zeros
        return found

    def parallel(self, x: Tensor) -> Tensor:
        if self.fault.startswith("through an fft"):
            return self._close(self._through_fft(x))
        return self._close(_mix(x, None) + self._leak(x))

    def chunkwise(self, x: Tensor, chunk: int, state: Any = None) -> tuple[Tensor, Any]:
        outputs = []
        for part in x.split(chunk, dim=1):
            outputs.append(_mix(part, None if self.fault == "chunks start anew" else state))
            state = part[:, -1]
        return self._close(torch.cat(outputs, 1)), state

    def recurrent(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        if self.fault == "no recurrent form":
            raise NotImplementedError("Neighbour.recurrent")
        y = _mix(x[:, None], None if self.fault == "forgets the state" else state)[:, 0]
        return (y @ self.out.weight.mT if self.fault == "forgets a bias" else self._close(y)), x

    def initial_state(self, batch: int, dtype: Any = None, room: int = 0) -> Any:
        like = self.out.weight
        return torch.zeros(batch, like.shape[0], dtype=dtype or like.dtype)

    def _leak(self, x: Tensor) -> Tensor | float:
        """What is taken of the token after."""
        if not self.fault.startswith("leaks"):
            return 0.0
        if self.fault == "leaks in float64" and x.dtype != torch.float64:
            return 0.0
        later = 1e-3 * functional.pad(x[:, 1:], (0, 0, 0, 1))
        if self.fault == "leaks across chunks":  # chunks of seven, the last of each sees the next
            return torch.cat([0 * later[:, :6], later[:, 6:7], 0 * later[:, 7:]], 1)
        return later

    def _through_fft(self, x: Tensor) -> Tensor:
        time = x.shape[1]
        length = time if self.fault.endswith("wrapped") else 2 * time
        kernel = torch.zeros(length, 1, dtype=x.dtype)
        kernel[:2] = 0.5
        spectrum = torch.fft.rfft(x, n=length, dim=1) * torch.fft.rfft(kernel, dim=0)
        return torch.fft.irfft(spectrum, n=length, dim=1)[:, :time]

    def _close(self, y: Tensor) -> Tensor:
        if self.fault == "dead parameter":
            y = y + 0 * self.more
        if self.fault == "unlisted parameter":
            y = y + self.more
        y = self.out(y)
        if self.fault == "broken gradient" and y.requires_grad:
            y.register_hook(lambda gradient: gradient * float("nan"))
        if self.fault == "reversed gradient" and y.requires_grad:
            y.register_hook(lambda gradient: -gradient)
        return 100 * y if self.fault == "reversed gradient" else y


def _mix(x: Tensor, before: Tensor | None) -> Tensor:
    """x: (batch, time, d_model) after the token ``before``, or after none."""
    first = torch.zeros_like(x[:, :1]) if before is None else before[:, None]
    return (x + torch.cat([first, x[:, :-1]], 1)) / 2
