"""The parent's side of its worker processes: how many, on which device, started and stopped."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retsweep.spec import Settings, SpecError
from retsweep.sweep.processes import cores, identity
from retsweep.sweep.worker import STOP, send_job


@dataclass(frozen=True)
class Places:
    """Where workers run: ``device`` for torch, ``count`` of them, ``gpus`` as CUDA names them."""

    device: str
    count: int
    gpus: tuple[str, ...] = ()

    def environment(self, place: int) -> dict[str, str]:
        """One thread a worker: two that share a core slow each other down twentyfold."""
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        chosen = {**threads, "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
        if self.gpus:
            chosen["CUDA_VISIBLE_DEVICES"] = self.gpus[place % len(self.gpus)]
        return {**os.environ, **chosen}


def places(settings: Settings) -> Places:
    """A worker for each GPU, or else for each core. Raises SpecError if CUDA is asked for and absent."""
    gpus = () if settings.device == "cpu" else _gpus()
    if settings.device == "cuda" and not gpus:
        raise SpecError("device=cuda, but torch finds no GPU; accepted here: auto, cpu")
    if gpus:
        return Places("cuda", settings.workers or len(gpus), gpus)
    return Places("cpu", settings.workers or cores())


def _gpus() -> tuple[str, ...]:
    import torch

    if not torch.cuda.is_available():
        return ()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip())
    return tuple(str(index) for index in range(torch.cuda.device_count()))


class Worker:
    """One worker process of this machine."""

    def __init__(self, job: Any, places: Places, place: int, log: Path) -> None:
        self.place, self.log = place, log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "retsweep.sweep.worker"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=places.environment(place),
                process_group=0,  # the terminal's Ctrl-C is for the parent, which passes it on
            )
        self.identity = identity(self._process.pid)
        """As its claims carry it: another machine's process may have the same id."""
        with contextlib.suppress(BrokenPipeError):
            assert self._process.stdin
            send_job(self._process.stdin, job)

    def ended(self) -> int | None:
        """The exit code once the process is gone (negative: the signal that killed it)."""
        return self._process.poll()

    def stop(self) -> None:
        """Asks it to save and release its trial."""
        with contextlib.suppress(BrokenPipeError):
            assert self._process.stdin
            self._process.stdin.write(STOP)
            self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self.close()

    def close(self) -> None:
        """Lets go of the pipe of a process that has ended, and of its log if that is empty."""
        with contextlib.suppress(BrokenPipeError):
            assert self._process.stdin
            self._process.stdin.close()
        if self.log.exists() and not self.log.stat().st_size:
            self.log.unlink()
