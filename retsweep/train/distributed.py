"""One training in several processes, each with all weights and a part of every batch (Li et al., 2020,
PyTorch Distributed: DistributedDataParallel).

    loss of a step = mean over the processes of the mean over each one's part     parts are of one size

so that losses and gradients are those of one process with the whole batch, but for the order of sums. (With
dropout another mask is drawn: each process has one of its own.) Every process goes through the same states
and draws the same conclusions; the first one, the chief, alone reads and writes files, and says when to stop.

Torch is imported where it is used: who asks for a group need not have it loaded.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor, nn

Content = TypeVar("Content")

#: How long a step may wait for a process that is alive and says nothing. (One that died is noticed at once.)
STEP_TIMEOUT = timedelta(minutes=10)
#: How long the others wait for what the chief does alone: checks of the model, writing checkpoints; and,
#: before they meet, preparing a corpus.
CHIEF_TIMEOUT, MEETING_TIMEOUT = timedelta(minutes=30), timedelta(hours=6)
GO_ON, STOP, LEAVE = 0, 1, 2


class LostGroup(Exception):
    """Another process of the group is gone, or silent for too long. What was saved can be gone on from."""


class Group:
    """The processes of one training: here this one alone, for which every method is the trivial one."""

    rank = 0
    world = 1

    @property
    def chief(self) -> bool:
        return self.rank == 0

    # ---- what a step needs ----
    def part(self, batch: Tensor) -> Tensor:
        """This process's rows of a batch (rows, ...)."""
        return batch

    def adopt(self, model: nn.Module) -> None:
        """From now on losses are those of ``model``, whose weights are the chief's everywhere."""

    def loss(self, function: Callable[..., Tensor], model: nn.Module, *arguments: Any) -> Tensor:
        """``function(model, *arguments)``, of whose gradients every process will have the mean."""
        return function(model, *arguments)

    def syncing(self, now: bool) -> AbstractContextManager[object]:
        """Whether gradients are brought together ``now``, or with those of a later micro-batch."""
        return contextlib.nullcontext()

    def mean(self, values: Tensor) -> Tensor:
        """Of each of ``values`` over the processes."""
        return values

    def sums(self, values: Sequence[float]) -> list[float]:
        """Of each of ``values`` over the processes, in float64."""
        return list(values)

    # ---- what the chief says ----
    def asked(self, stop: Callable[[], bool]) -> bool:
        """The chief's ``stop()``; what it raises ends the others' part, too."""
        return stop()

    def share(self, content: Content) -> Content:
        """The chief's ``content``: plain values and tensors on the CPU, in dicts and lists."""
        return content


ALONE = Group()


class Ranks(Group):
    """The processes that torchrun started. Raises LostGroup from every method."""

    def __init__(self, world: int, rank: int) -> None:
        """Returns when all of them are here. Where they meet is said by torchrun, in the environment."""
        import torch.distributed as dist

        self.rank, self.world = rank, world
        self.lost = False
        self._model: nn.Module | None = None
        self._sharing: Any = None
        with self._together():
            dist.init_process_group("gloo", timeout=MEETING_TIMEOUT, rank=rank, world_size=world)
            self._words = dist.new_group(backend="gloo", timeout=CHIEF_TIMEOUT)

    def compute_on(self, kind: str) -> None:
        """Before anything is trained, in all of them: on "cpu" or "cuda"."""
        import torch.distributed as dist

        with self._together():
            backend = "nccl" if kind == "cuda" else "gloo"
            self._steps = dist.new_group(backend=backend, timeout=STEP_TIMEOUT)

    def leave(self) -> None:
        import torch.distributed as dist

        if dist.is_initialized() and not self.lost:
            dist.destroy_process_group()

    def part(self, batch: Tensor) -> Tensor:
        """Raises ValueError unless the rows can be shared out evenly."""
        rows, rest = divmod(len(batch), self.world)
        if rest:
            raise ValueError(f"{len(batch)} sequences cannot be shared by {self.world} processes")
        return batch[self.rank * rows : (self.rank + 1) * rows]

    def adopt(self, model: nn.Module) -> None:
        from torch.nn.parallel import DistributedDataParallel

        with self._together():
            self._sharing = DistributedDataParallel(_applying(model), process_group=self._steps)
        self._model = model

    def loss(self, function: Callable[..., Tensor], model: nn.Module, *arguments: Any) -> Tensor:
        if model is not self._model:
            raise ValueError("this model was not adopted")
        with self._together():
            loss: Tensor = self._sharing(function, *arguments)
        return loss

    @contextlib.contextmanager
    def syncing(self, now: bool) -> Iterator[None]:
        with self._together(), contextlib.nullcontext() if now else self._sharing.no_sync():
            yield

    def mean(self, values: Tensor) -> Tensor:
        import torch.distributed as dist

        with self._together():
            total = values.clone()
            dist.all_reduce(total, group=self._steps)
            return total / self.world

    def sums(self, values: Sequence[float]) -> list[float]:
        import torch
        import torch.distributed as dist

        total = torch.tensor(values, dtype=torch.float64)
        with self._together():
            dist.all_reduce(total, group=self._words)
        found: list[float] = total.tolist()
        return found

    def asked(self, stop: Callable[[], bool]) -> bool:
        if not self.chief:
            said = self._say(GO_ON)
            if said == LEAVE:
                raise LostGroup("the first process left")
            return said == STOP
        try:
            answer = stop()
        except BaseException:
            with contextlib.suppress(LostGroup):
                self._say(LEAVE)
            raise
        self._say(STOP if answer else GO_ON)
        return answer

    def share(self, content: Content) -> Content:
        import torch
        import torch.distributed as dist

        tensors: list[Tensor] = []
        skeleton = [_taken_apart(content, tensors) if self.chief else None]
        with self._together():
            dist.broadcast_object_list(skeleton, src=0, group=self._words)
            kinds = [[(tuple(one.shape), one.dtype) for one in tensors]]
            dist.broadcast_object_list(kinds, src=0, group=self._words)
            if not self.chief:
                tensors = [torch.empty(shape, dtype=dtype) for shape, dtype in kinds[0]]
            for one in tensors:
                dist.broadcast(one, src=0, group=self._words)
        return content if self.chief else _put_together(skeleton[0], tensors)

    def _say(self, word: int) -> int:
        """The chief's ``word``, heard by all."""
        import torch
        import torch.distributed as dist

        said = torch.tensor([word])
        with self._together():
            dist.broadcast(said, src=0, group=self._words)
        return int(said)

    @contextlib.contextmanager
    def _together(self) -> Iterator[None]:
        """Whatever is raised inside because another process does not answer becomes LostGroup."""
        try:
            yield
        except RuntimeError as error:
            if not _is_of_network(error):
                raise
            self.lost = True
            said = str(error).strip().splitlines()[0].rpartition("] ")[2].partition(". ")[0]
            raise LostGroup(f"another process does not answer: {said}") from error


class _Slot:
    """Stands for a tensor that travels by itself."""

    def __init__(self, place: int) -> None:
        self.place = place


def _taken_apart(content: Any, tensors: list[Tensor]) -> Any:
    """``content`` with a slot for each tensor, which is added to ``tensors``, contiguous and on the CPU."""
    import torch

    if isinstance(content, torch.Tensor):
        tensors.append(content.detach().cpu().contiguous())
        return _Slot(len(tensors) - 1)
    if isinstance(content, dict):
        return {key: _taken_apart(value, tensors) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return type(content)(_taken_apart(value, tensors) for value in content)
    return content


def _put_together(skeleton: Any, tensors: Sequence[Tensor]) -> Any:
    if isinstance(skeleton, _Slot):
        return tensors[skeleton.place]
    if isinstance(skeleton, dict):
        return {key: _put_together(value, tensors) for key, value in skeleton.items()}
    if isinstance(skeleton, (list, tuple)):
        return type(skeleton)(_put_together(value, tensors) for value in skeleton)
    return skeleton


def _applying(model: nn.Module) -> nn.Module:
    """A module that holds ``model`` and calls functions of it: DistributedDataParallel must see every use
    of the weights in one call, and a loss in chunks uses the head outside the model's own forward."""
    from torch import nn

    class Applying(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, function: Callable[..., Any], *arguments: Any) -> Any:
            return function(self.model, *arguments)

    return Applying()


def _is_of_network(error: RuntimeError) -> bool:
    """Whether a collective failed, not what was computed. gloo's own errors are plain RuntimeErrors."""
    import torch.distributed as dist

    words = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe")
    return isinstance(error, dist.DistError) or any(word in str(error) for word in words)


def launched_ranks() -> int:
    """How many processes the torchrun that started this one started; 1 without a torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1
