"""Several processes that train together, on this machine: forked from a process in which nothing has run."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Any

from retsweep.train.distributed import LostGroup, Ranks
from retsweep.train.loop import Interrupted

#: A process that gave no answer: it was killed.
SILENT = "silent"
SECONDS = 100
#: DistributedDataParallel imports torch._dynamo when it is made.
PRELOADED = ("torch.nn.parallel", "torch._dynamo", "retsweep.launch.torchrun", "hydra", "optuna", "fvcore.nn")


def together(work: Callable[..., Any], *arguments: Any, world: int = 2) -> list[Any]:
    """What ``work(group, *arguments)``, a function of a module, gives in each of ``world`` processes: its
    value, the name of the exception by which it left, or SILENT."""
    context, port = nursery(), free_port()
    pipes = [context.Pipe(duplex=False) for _ in range(world)]
    processes = [
        context.Process(target=_one, args=(rank, world, port, pipe[1], work, arguments))
        for rank, pipe in enumerate(pipes)
    ]
    for process, (_, sender) in zip(processes, pipes, strict=True):
        process.start()
        sender.close()
    try:
        return [_answer(receiver) for receiver, _ in pipes]
    finally:
        for process in processes:
            process.join(SECONDS)
            process.kill()


def nursery() -> ForkServerContext:
    """Processes from here have loaded what takes long, and run nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *PRELOADED])
    return context


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _answer(receiver: Connection) -> Any:
    assert receiver.poll(SECONDS), "it took too long"
    try:
        return receiver.recv()
    except EOFError:
        return SILENT


def _one(
    rank: int, world: int, port: int, sender: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    group = Ranks(world, rank)
    group.compute_on("cpu")
    try:
        value = work(group, *arguments)
    except (LostGroup, Interrupted, ValueError, KeyError) as error:
        value = type(error).__name__
    sender.send(value)
    group.leave()
