"""torchrun --nproc-per-node=N -m retsweep ...: one run, whose batches N processes share.

torchrun starts the same command N times. The first process, the chief, is the parent and the worker of a
study with one run: it plans, claims, reads and writes. The others wait for the run, train their part, and
leave. When one of them dies, or torchrun does, the chief puts the trial back to wait, and the same command
goes on from its checkpoint, with as many processes as it then has.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retsweep.spec import Settings, SpecError
from retsweep.sweep import command, tune
from retsweep.sweep.patience import Patience
from retsweep.sweep.processes import die_with_parent, identity
from retsweep.sweep.study import Entry, Study
from retsweep.sweep.trial import run_trial
from retsweep.sweep.variants import Wanted
from retsweep.sweep.workers import Local, local_places
from retsweep.tasks.base import InterruptedRun, Workspace
from retsweep.tasks.train import PublishedDefectWarning, Train
from retsweep.train.distributed import LostGroup, Ranks

EXIT_OK, EXIT_LOST = 0, 1


def run(arguments: Sequence[str], began: float) -> int:
    """One of the processes' part of a command: its exit code. Raises SpecError, in the chief alone."""
    die_with_parent()
    here = Here.of_environment()
    if here.rank:
        return _follow(here)
    launcher = Torchrun(here=here)
    try:
        code = command.run(arguments, began, launcher.take)
    except LostGroup as error:
        print(f"retsweep: {error}; the same command goes on", file=sys.stderr)
        return EXIT_LOST
    if code == EXIT_OK:
        launcher.dismiss()
    return code


@dataclass(frozen=True)
class Here:
    """This process among those of torchrun; ``local`` counts those of this machine."""

    rank: int
    world: int
    local_rank: int
    local_world: int

    @classmethod
    def of_environment(cls) -> Here:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        return cls(*(int(os.environ[name]) for name in names))

    def join(self) -> Ranks:
        """Returns when the others have, too."""
        return Ranks(self.world, self.rank)

    def device(self, kind: str) -> str:
        """Its own of this machine, of ``kind`` "cpu" or "cuda"."""
        if kind != "cuda":
            return kind
        import torch

        torch.cuda.set_device(self.local_rank)
        return f"cuda:{self.local_rank}"


@dataclass(frozen=True)
class Torchrun:
    """The launcher of a chief: a :class:`retsweep.sweep.workers.Crew` of one, the process itself."""

    here: Here
    made: list[Chief] = field(default_factory=list)
    count: int = 1
    device: str = "cpu"

    def take(self, wanted: Wanted) -> Wanted:
        """What is ``wanted``, to be done by these processes. Raises SpecError if it cannot be."""
        world, settings = self.here.world, wanted.settings
        if wanted.sweep != "single" or len(wanted.runs) > 1:
            raise SpecError(
                f"torchrun shares one run among {world} processes, and this command lists "
                f"{len(wanted.runs)}; accepted: no sweep, no seeds (a sweep has workers without torchrun)"
            )
        if tune.is_asked(wanted):
            raise SpecError(
                "torchrun shares one run, and tune.learning_rate asks for several; accepted: null"
            )
        if not isinstance(settings.launcher or Local(), Local) or (settings.workers or 1) > 1:
            raise SpecError(
                "torchrun starts processes itself; accepted beside it: launcher=local, workers=null"
            )
        (one,) = wanted.runs
        if not isinstance(one.spec.task, Train):
            raise SpecError(f"torchrun shares a training, and task={one.spec.task.name} is none")
        if one.spec.protocol.batch % world:
            raise SpecError(
                f"protocol.batch={one.spec.protocol.batch} cannot be shared by {world} processes; accepted: "
                f"a multiple of {world}"
            )
        return dataclasses.replace(wanted, settings=dataclasses.replace(settings, launcher=self))

    def places(self, settings: Settings) -> Torchrun:
        """Raises SpecError if there are fewer GPUs than processes that want one."""
        here = local_places(settings)
        if here.gpus and len(here.gpus) < self.here.local_world:
            raise SpecError(
                f"{self.here.local_world} processes on this machine and {len(here.gpus)} GPUs; accepted: "
                f"--nproc-per-node={len(here.gpus)}, device=cpu"
            )
        return dataclasses.replace(self, device="cuda" if here.gpus else "cpu")

    def check_storage(self, url: str) -> None:
        """Only the chief asks it."""

    def start(self, job: Any, places: Sequence[int]) -> Iterator[Chief]:
        """Raises LostGroup where the processes have trained before: some of them are gone by now."""
        if self.made:
            raise LostGroup(f"one of {self.here.world} processes died")
        for place in places:
            self.made.append(Chief(job, self.here, place))
            yield self.made[-1]

    def dismiss(self) -> None:
        """Lets the others leave, if there was nothing to do."""
        if not self.made:
            _dismiss(self.here)


class Chief:
    """The chief's trial, on a thread of its own: a :class:`retsweep.sweep.workers.Member`."""

    def __init__(self, job: Any, here: Here, place: int) -> None:
        self.place, self.log = place, Path("the output of torchrun")
        self.identity: Mapping[str, str | int] = identity()
        self._job, self._here = job, here
        self._stopping = threading.Event()
        self._code = EXIT_OK
        self._thread = threading.Thread(target=self._run, name="chief", daemon=True)
        self._thread.start()

    def ended(self) -> int | None:
        return None if self._thread.is_alive() else self._code

    def stop(self) -> None:
        self._stopping.set()

    def kill(self) -> None:
        if self._thread.is_alive():
            os._exit(128 + signal.SIGKILL)  # a thread cannot be killed; its process can

    def close(self) -> None: ...

    def _run(self) -> None:
        try:
            warnings.simplefilter("ignore", PublishedDefectWarning)  # it was said before
            self._train(self._here.join())
        except LostGroup as error:
            print(f"retsweep: {error}", file=sys.stderr)
            self._code = EXIT_LOST
        except BaseException:
            traceback.print_exc()
            self._code = EXIT_LOST

    def _train(self, group: Ranks) -> None:
        patience = Patience(self._job.url, self._job.heartbeat)
        study = Study(self._job.url, self._job.study, patience=patience)
        try:
            entry = study.claim(self._job.runs)
            if entry is None:
                group.share(None)
                return
            try:
                kind = self._tell(group, entry)
            except LostGroup:
                study.release(entry.trial)
                raise
            job = dataclasses.replace(self._job, device=self._here.device(kind))
            run_trial(job, study, entry, self._stopping.is_set, group)
            if group.lost:
                self._code = EXIT_LOST
        finally:
            group.leave()

    def _tell(self, group: Ranks, entry: Entry) -> str:
        """Tells the others what to train; returns on what kind of device."""
        planned, kind = self._job.runs[entry.hash], str(self._job.device)
        group.share(pickle.dumps((planned.spec, planned.data_hash, self._job.cache, kind)))
        group.compute_on(kind)
        return kind


def _dismiss(here: Here) -> None:
    group = here.join()
    group.share(None)
    group.leave()


def _follow(here: Here) -> int:
    """What is no chief's: one training's part, without files, storage or tracker."""
    group = here.join()
    # From here on the chief says when to stop: who left by himself would take the others' step with him.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        message: bytes | None = group.share(None)
        if message is None:
            return EXIT_OK
        run_spec, data_hash, cache, kind = pickle.loads(message)
        group.compute_on(kind)
        nowhere = Path(os.devnull)  # nothing can be written below it
        warnings.simplefilter("ignore", PublishedDefectWarning)
        workspace = Workspace(nowhere, here.device(kind), cache, data_hash, group=group)
        run_spec.task(run_spec, workspace)
    except (LostGroup, InterruptedRun) as error:
        if group.lost:
            print(f"retsweep: process {here.rank}: {error}", file=sys.stderr)
            return EXIT_LOST
    finally:
        group.leave()
    return EXIT_OK
