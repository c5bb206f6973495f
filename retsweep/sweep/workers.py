"""The parent's side of its workers: how many, on which device, started and stopped; here those that are
processes of this machine. Others are in ``launch``."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from retsweep.spec import Settings, SpecError
from retsweep.spec.base import spec
from retsweep.sweep.processes import cores, identity
from retsweep.sweep.worker import STOP, send_job

#: The environment of every worker. One thread each: two that share a core slow each other down twentyfold.
ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
}


#: Where a launcher starts no further worker (a limit of the queue): seconds until it is asked again, and how
#: often in a row that is done with no worker left.
REFUSED_SECONDS, REFUSED_TRIES = 30.0, 20


class Refused(SpecError):
    """No worker is started, or not now: its text says why, in one line. The first time a mistake, as any
    SpecError; later nobody's, perhaps."""


class Member(Protocol):
    """A worker as its parent sees it, wherever it runs; ``place`` is its number among them, ``log`` where
    it says what goes wrong."""

    place: int
    log: Path

    @property
    def identity(self) -> Mapping[str, str | int]:
        """What is known of it that its claims carry."""

    def ended(self) -> int | None:
        """None while it is under way; 0 where it left as it should, whatever else where it died."""

    def stop(self) -> None:
        """Asks it to save and release its trial."""

    def kill(self) -> None:
        """Ends it, whatever it does."""

    def close(self) -> None:
        """Lets go of what is kept for it: it has ended."""


class Crew(Protocol):
    """What a launcher makes of the settings: ``count`` places for workers, on ``device`` for torch."""

    @property
    def device(self) -> str: ...

    @property
    def count(self) -> int: ...

    def check_storage(self, url: str) -> None:
        """Raises SpecError if workers would not reach the storage at ``url``."""

    def start(self, job: Any, places: Sequence[int]) -> Iterable[Member]:
        """A worker for each of ``places``, as they are started. Raises Refused."""


@dataclass(frozen=True)
class Places:
    """Where workers of this machine run: ``gpus`` as CUDA names them."""

    device: str
    count: int
    gpus: tuple[str, ...] = ()

    def environment(self, place: int) -> dict[str, str]:
        gpu = {"CUDA_VISIBLE_DEVICES": self.gpus[place % len(self.gpus)]} if self.gpus else {}
        return {**os.environ, **ENVIRONMENT, **gpu}

    def check_storage(self, url: str) -> None:
        """Whatever this process reaches, its workers do."""

    def start(self, job: Any, places: Sequence[int]) -> Iterator[Member]:
        for place in places:
            yield Worker(job, self, place, job.folder / f"worker-{place}.log")


@spec
class Local:
    """launcher=local: processes of this machine."""

    def places(self, settings: Settings) -> Places:
        return local_places(settings)


def places(settings: Settings) -> Crew:
    """Those of ``settings.launcher``. Raises SpecError if workers cannot be started so."""
    return cast(Crew, (settings.launcher or Local()).places(settings))


def local_places(settings: Settings) -> Places:
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
