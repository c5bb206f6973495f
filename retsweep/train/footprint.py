"""What a training step needs in memory, known before anything of it is allocated.

Forward passes keep tensors for their backward passes. Which ones is each kernel's own business, so it
is asked of the built model, run on tensors that have shapes and no contents: ``saved_bytes`` is exact.
What comes and goes beside them is not asked but taken for a share of them: ``step_bytes`` is an estimate.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from retsweep import model
from retsweep.layers.precision import Precision, casting
from retsweep.model import LanguageModel
from retsweep.spec.layer import LayerSpec
from retsweep.spec.run import RunSpec
from retsweep.train.gradients import loss_of

#: Weights, their gradients and AdamW's two moments, float32 each.
BYTES_A_PARAMETER = 16
FLOAT_BYTES = 4
#: Of what is kept for the backward pass: gradients of the largest tensors, copies that products make. A
#: guess.
WORKING_SHARE = 0.5


class Saved:
    """Bytes that autograd keeps for a backward pass: each storage once, the parameters left out."""

    def __init__(self, module: nn.Module) -> None:
        self._own = {_storage(parameter) for parameter in module.parameters()}
        self._kept: dict[int, Tensor] = {}

    @property
    def bytes(self) -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in self._kept.values())

    def keep(self, tensor: Tensor) -> Tensor:
        if _storage(tensor) not in self._own:
            self._kept.setdefault(_storage(tensor), tensor)  # held: no other storage takes its place
        return tensor


@contextmanager
def saving(module: nn.Module) -> Iterator[Saved]:
    """Counts what the forward passes inside keep."""
    saved = Saved(module)
    with torch.autograd.graph.saved_tensors_hooks(saved.keep, lambda tensor: tensor):
        yield saved


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def saved_bytes(spec: RunSpec, tokens: int, batch: int, device: str) -> int:
    """What the forward pass and loss of ``batch`` sequences of ``tokens`` tokens keep on ``device``.

    Blocks of equal layers keep the same: each kind is run once a process, alone and twice.
    """
    found = [_saved_alone(_Stack(spec, layer), tokens, batch, device) for layer in spec.layers]
    one, two = found[0]
    shell = 2 * one - two
    return shell + sum(both - single for single, both in found)


def step_bytes(spec: RunSpec, tokens: int, batch: int, device: str) -> int:
    """About what a whole step takes on ``device``: parameters with gradients and moments, what the
    forward pass keeps, and a share of that for what comes and goes."""
    own = BYTES_A_PARAMETER * sum(model.parameters(spec).values())
    return own + round((1 + WORKING_SHARE) * saved_bytes(spec, tokens, batch, device))


@dataclasses.dataclass(frozen=True)
class _Stack:
    """Networks of ``layer`` alone; ``spec`` is any run that has it, and compares by what matters."""

    spec: RunSpec = dataclasses.field(compare=False)
    layer: LayerSpec
    key: tuple[object, ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        spec = self.spec
        protocol = spec.protocol
        object.__setattr__(self, "key", (spec.scale, spec.model, protocol.precision, protocol.head_tokens))

    def of(self, blocks: int) -> RunSpec:
        scale = dataclasses.replace(self.spec.scale, layers=blocks)
        return dataclasses.replace(self.spec, scale=scale, layers=(self.layer,) * blocks)


@functools.lru_cache(maxsize=256)
def _saved_alone(stack: _Stack, tokens: int, batch: int, device: str) -> tuple[int, int]:
    """What networks of one and of two such blocks keep."""
    protocol = stack.spec.protocol
    precision: Precision = protocol.precision
    counts = []
    for blocks in (1, 2):
        with FakeTensorMode(), torch.device(device):
            built = LanguageModel(stack.of(blocks))
            read = torch.zeros(batch, tokens, dtype=torch.int64)
            with saving(built) as saved:
                loss = loss_of(built, read, read, casting(precision, device), protocol.head_tokens)
            counts.append(saved.bytes + _of_a_chunked_loss(stack.spec, batch * tokens))
            del loss
    return counts[0], counts[1]


def _of_a_chunked_loss(spec: RunSpec, targets: int) -> int:
    """What ``protocol.head_tokens`` keeps beside what autograd sees: the gradient of the hidden states, and
    one chunk's logits. The head's own gradient is a parameter's."""
    chunk = spec.protocol.head_tokens
    if chunk is None:
        return 0
    return FLOAT_BYTES * (targets * spec.scale.d_model + min(chunk, targets) * spec.scale.vocabulary)
