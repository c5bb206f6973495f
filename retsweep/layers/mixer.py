"""What every built mixer offers, and the heads that it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from retsweep.spec.layer import Shape


class RoomError(ValueError):
    """More tokens than a state was given room for. One line that says how many there are of both."""

    def __init__(self, room: int, held: int, more: int) -> None:
        super().__init__(
            f"a state with room for {room} tokens holds {held} and is given {more} more; accepted: "
            f"{room - held} more, or a room of {held + more}"
        )


class Mixer(nn.Module):
    """Maps (batch, time, d_model) to the same, position i reading positions up to i.

    The forms compute one function. A state comes out of ``chunkwise`` or ``recurrent`` and is fed
    back exactly as it came; both may be mixed. States belong to one sequence each of the batch.
    A mixer has parameters and no buffers: fixed tables are ``constants.py``'s.

    There are two kinds of states. Without ``room`` they are values: one may be used twice, and
    gradients flow through it. With ``room`` they are one decode's own: their tensors are written in
    place, so that only the newest of them may be fed back, and there are no gradients.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The form in which the mixer trains."""
        return self.parallel(x)

    def parallel(self, x: Tensor) -> Tensor:
        """(batch, time, d_model) -> the same, all pairs of positions at once."""
        raise NotImplementedError(type(self).__name__)

    def chunkwise(self, x: Tensor, chunk: int, state: Any = None) -> tuple[Tensor, Any]:
        """(batch, time, d_model) -> the same and the state after it; ``state`` None starts anew."""
        raise NotImplementedError(type(self).__name__)

    def recurrent(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One token: (batch, d_model) -> the same and the state after it."""
        raise NotImplementedError(type(self).__name__)

    def naive(self, x: Tensor) -> Tensor:
        """``parallel`` as the paper writes it, position by position: slow, for tests."""
        raise NotImplementedError(type(self).__name__)

    def initial_state(self, batch: int, dtype: torch.dtype | None = None, room: int = 0) -> Any:
        """The state before the first token, where the weights lie; in their dtype unless given another.

        ``room``: tokens for which whatever grows is allocated beforehand; such a state is written in
        place, and what grows raises RoomError beyond it. 0: a value, as long as it has to be.
        """
        raise NotImplementedError(type(self).__name__)

    def stand_in_state(
        self, batch: int, context: int, room: int = 0, dtype: torch.dtype | None = None
    ) -> Any:
        """A state as large, and as dear to go on from, as one after ``context`` tokens: for measuring.

        What it holds is arbitrary, but finite and written: memory that nobody wrote reads faster than
        any cache. Raises RoomError if ``room`` is given and smaller than ``context``.
        """
        raise NotImplementedError(type(self).__name__)


@dataclass(frozen=True)
class Heads:
    """``heads`` heads that read ``d_model`` channels, ``head_dim`` key channels each.

    ``output`` False leaves the heads' results side by side, without a projection back to d_model.
    """

    d_model: int
    heads: int
    head_dim: int
    output: bool = True

    @classmethod
    def of(cls, shape: Shape) -> Heads:
        return cls(shape.d_model, shape.heads, shape.head_dim)

    @property
    def width(self) -> int:
        return self.heads * self.head_dim


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of states, decays and angles: float32, or float64 where the input is."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def fill(tensor: Tensor) -> Tensor:
    """``tensor`` (..., channels), in place, with numbers from -1 to 1: what a stand-in holds."""
    return tensor.copy_(torch.linspace(-1, 1, tensor.shape[-1], device=tensor.device))
