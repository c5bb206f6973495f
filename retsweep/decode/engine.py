"""The engine: a model and the states of the sequences that it is in the middle of.

    decoder = Decoder(model, batch=2, room=1024)
    logits = decoder.read(prompts)              # (2, time) -> (2, vocabulary)
    logits = decoder.step(logits.argmax(-1))    # and again, until the room is filled

Attention keeps keys and values of every token in tensors allocated beforehand, retention a state
of one size; both are written in place, and a hybrid has both. Nothing in a step depends on the
position but what attention reads.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from retsweep.layers.mixer import RoomError
from retsweep.layers.precision import Precision, casting, products
from retsweep.model import LanguageModel

#: Tokens of all sequences together that are read in one pass: what a longer prompt needs beside its
#: states does not grow with it.
PASS = 1 << 15


class Decoder:
    """``batch`` sequences of equal length, none of them longer than ``room`` tokens.

    The logits are those of ``model(tokens)`` at the same position. ``model`` is put into eval mode and
    used where it lies. ``chunk``: of the mixers that have a chunkwise form, in ``read``. ``precision``:
    products as in training; under bf16 cache and matrices are bfloat16, the latter in a copy made here
    unless ``model`` went through :func:`halve`: autocast would read them in float32, and write them anew,
    for each token. ``stand_in``: begins as if so many tokens had been read, with arbitrary contents, for
    measuring.

    The room is held to in every model, so that what a decoder accepts does not depend on the layout;
    a state of fixed size costs the same whatever the room.

    Raises ValueError for sizes below 1, RoomError for a ``stand_in`` beyond the room, SpecError if a
    mask leaks: such a model has no incremental form.
    """

    def __init__(
        self,
        model: LanguageModel,
        batch: int,
        room: int,
        chunk: int = 64,
        precision: Precision = "fp32",
        stand_in: int = 0,
    ) -> None:
        if min(batch, room, chunk) < 1:
            raise ValueError(f"batch={batch}, room={room}, chunk={chunk}: accepted are 1 and more")
        if stand_in > room:
            raise RoomError(room, 0, stand_in)
        if precision == "bf16" and model.head.weight.dtype != torch.bfloat16:
            model = halve(copy.deepcopy(model))
        self.model, self.batch, self.room, self.chunk = model.eval(), batch, room, chunk
        self.device = model.embedding.weight.device
        self.position = stand_in
        """Tokens read so far, of each sequence."""
        self._precision: Precision = precision
        dtype = torch.bfloat16 if precision == "bf16" else None
        with torch.inference_mode():
            if stand_in:
                self.states = model.stand_in_states(batch, stand_in, room, dtype=dtype)
            else:
                self.states = model.initial_states(batch, dtype=dtype, room=room)

    def read(self, tokens: Tensor) -> Tensor:
        """A prompt, or more of one: (batch, time) of int64, time 1 or more, behind what was read before
        -> logits of the last position: (batch, vocabulary), float32.

        Raises ValueError for another shape, and RoomError, before anything is read.
        """
        if tokens.ndim != 2 or tokens.shape[0] != self.batch or not tokens.shape[1]:
            raise ValueError(f"tokens {tuple(tokens.shape)}: accepted are ({self.batch}, 1 or more)")
        self._check_room(tokens.shape[1])
        chunks = max(1, PASS // (self.batch * self.chunk))
        with self._computing():
            for part in torch.split(tokens.to(self.device), chunks * self.chunk, dim=1):
                logits, self.states = self.model.chunkwise(part, self.chunk, self.states, last=True)
                self.position += part.shape[1]
        return logits[:, 0].float()

    def step(self, tokens: Tensor) -> Tensor:
        """The next token of each sequence: (batch,) of int64 -> (batch, vocabulary), float32.

        Raises ValueError for another shape, and RoomError, before anything is read.
        """
        if tokens.shape != (self.batch,):
            raise ValueError(f"tokens {tuple(tokens.shape)}: accepted are ({self.batch},)")
        self._check_room(1)
        with self._computing():
            logits, self.states = self.model.recurrent(tokens.to(self.device), self.states)
        self.position += 1
        return logits.float()

    def state_bytes(self) -> int:
        """What the tensors of all states take, the room that is not filled included."""
        return sum(tensor.nbytes for tensor in _tensors(self.states))

    def _check_room(self, more: int) -> None:
        if self.position + more > self.room:
            raise RoomError(self.room, self.position, more)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with torch.inference_mode(), products(self._precision), casting(self._precision, self.device):
            yield


def halve(model: LanguageModel) -> LanguageModel:
    """``model``, its linear maps cast to bfloat16 in place, for good: what autocast multiplies by. The
    embedding, of which a step reads a row a sequence, and norms stay float32."""
    for part in model.modules():
        if isinstance(part, nn.Linear):
            part.to(torch.bfloat16)
    return model


def continuation(
    decoder: Decoder, prompt: Tensor, tokens: int, sampler: Callable[[Tensor], Tensor]
) -> Iterator[Tensor]:
    """Reads ``prompt`` (batch, time) and yields ``tokens`` times (1 or more) the (batch,) tokens that
    ``sampler`` chooses next, on the CPU. Raises as the decoder does: it needs a room of time + tokens - 1."""
    chosen = sampler(decoder.read(prompt))
    yield chosen
    for _ in range(tokens - 1):
        chosen = sampler(decoder.step(chosen))
        yield chosen


def _tensors(part: Any) -> Iterator[Tensor]:
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, tuple):
        for inner in part:
            yield from _tensors(inner)
