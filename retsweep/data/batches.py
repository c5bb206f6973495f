"""Token streams cut for models: windows to evaluate, chunks to train on. Stateless and seeded."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retsweep.spec import SpecError
from retsweep.spec.protocol import Protocol

#: (inputs, targets), both (windows, time): views of the token array, nothing is copied.
WindowPair = tuple[NDArray[Any], NDArray[Any]]


def windows(tokens: NDArray[Any], context: int) -> tuple[WindowPair, ...]:
    """Non-overlapping windows over ``tokens`` (n,): each of tokens 1 .. n-1 is a target once.

    One pair of full windows (count, context) and, if something is left, one pair (1, rest).
    Empty for fewer than two tokens.
    """
    full = max(len(tokens) - 1, 0) // context
    pairs = []
    if full:
        end = full * context
        pairs.append((tokens[:end].reshape(full, context), tokens[1 : end + 1].reshape(full, context)))
    rest = tokens[full * context :]
    if len(rest) > 1:
        pairs.append((rest[None, :-1], rest[None, 1:]))
    return tuple(pairs)


class HostRows:
    """Rows of tokens cut from where they lie: a memory map is read where a row asks for it."""

    def __init__(self, tokens: NDArray[Any], length: int) -> None:
        self._tokens, self._offsets = tokens, np.arange(length)

    def __call__(self, starts: NDArray[np.int64]) -> Tensor:
        """(rows, length) int64, row i from token ``starts[i]`` on."""
        return torch.from_numpy(self._tokens[starts[:, None] + self._offsets].astype(np.int64))


class DeviceRows:
    """The same rows of tokens that lie on ``device``: only ``starts`` travel there, and nothing waits.

    Four bytes a token for as long as the object lives: 10 MB for WikiText-2, 0.5 GB for WikiText-103.
    """

    def __init__(self, tokens: NDArray[Any], length: int, device: torch.device) -> None:
        self._device = device
        self._tokens = torch.from_numpy(tokens.astype(np.int32)).to(device)
        self._offsets = torch.arange(length, device=device)

    def __call__(self, starts: NDArray[np.int64]) -> Tensor:
        """As :class:`HostRows` says, on the device."""
        places = torch.from_numpy(np.ascontiguousarray(starts))
        if self._device.type == "cuda":
            places = places.pin_memory()  # else the copy would wait for what the device still does
        return self._tokens[places.to(self._device, non_blocking=True)[:, None] + self._offsets].long()


class TrainBatches:
    """The training batches of a run, each a function of (data, protocol, seed, step) alone.

    ``tokens`` (n,) are cut into chunks of ``context`` inputs and their targets: with
    ``protocol.chunking`` "context" every target occurs once, with "context_plus_one" chunks share
    no token and the joints between them are never targets. What is left over at the end is not
    trained on. Epochs follow each other without a gap: every chunk comes once an epoch, in an
    order drawn from (seed, epoch) under ``protocol.shuffle``, and a batch may straddle two epochs.
    Batches are made on ``device``, where the tokens then lie; they are the same on every device.
    """

    def __init__(
        self,
        tokens: NDArray[Any],
        protocol: Protocol,
        context: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Raises SpecError if there are fewer chunks than one, or than ``protocol.train_chunks``."""
        self.tokens = tokens
        self.context = context
        self.seed = seed
        self.batch = protocol.batch
        self.accumulate = protocol.accumulate
        self.shuffle = protocol.shuffle
        self.stride = context if protocol.chunking == "context" else context + 1
        available = max(len(tokens) - context - 1 + self.stride, 0) // self.stride
        if available < (protocol.train_chunks or 1):
            raise SpecError(
                f"the train split has {available} chunks of {context} tokens and a target; "
                f"protocol.train_chunks={protocol.train_chunks or 1} needs more text, or a smaller number"
            )
        self.chunks = protocol.train_chunks or available
        used = tokens[: self.end]
        place = torch.device(device)
        on_host = place.type == "cpu"
        self._rows = HostRows(used, context + 1) if on_host else DeviceRows(used, context + 1, place)
        self._order = lru_cache(maxsize=2)(self._epoch_order)

    @property
    def end(self) -> int:
        """Tokens of the text from its beginning to the last target of the last chunk."""
        return (self.chunks - 1) * self.stride + self.context + 1

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps until every chunk has come at least once."""
        return -(-self.chunks // (self.batch * self.accumulate))

    @property
    def tokens_per_step(self) -> int:
        return self.batch * self.accumulate * self.context

    def batch_at(self, step: int, micro: int = 0) -> tuple[Tensor, Tensor]:
        """(inputs, targets), both (batch, context) int64 on the device, of micro-batch ``micro`` of
        ``step``."""
        first = (step * self.accumulate + micro) * self.batch
        epochs, places = np.divmod(np.arange(first, first + self.batch), self.chunks)
        if epochs[0] == epochs[-1]:
            chosen = self._order(int(epochs[0]))[places]
        else:
            chosen = np.array([self._order(int(e))[p] for e, p in zip(epochs, places, strict=True)])
        rows = self._rows(chosen * self.stride)
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    def windows(self) -> tuple[WindowPair, ...]:
        """The chunks that are trained on, in the order of the text, as evaluation windows."""
        every = np.lib.stride_tricks.sliding_window_view(self.tokens, self.context + 1)
        rows = every[:: self.stride][: self.chunks]
        return ((rows[:, :-1], rows[:, 1:]),)

    def _epoch_order(self, epoch: int) -> NDArray[np.int64]:
        """(chunks,) the chunk at each place of an epoch.

        Sorted raw draws of Philox, whose stream NumPy keeps stable between versions, which it
        does not promise of ``permutation``.
        """
        if not self.shuffle:
            return np.arange(self.chunks)
        draws = np.random.Philox(key=[self.seed, epoch]).random_raw(self.chunks)
        return np.argsort(draws, kind="stable")
