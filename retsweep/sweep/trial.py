"""Runs one trial in a worker: from a claim to a row, a failure, or back to the queue."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from retsweep.spec.base import SpecError
from retsweep.spec.configs import as_yaml
from retsweep.sweep.dashboard import grouping
from retsweep.sweep.files import plain, write_row, write_whole
from retsweep.sweep.plan import Job, Planned
from retsweep.sweep.prefix import Prefix
from retsweep.sweep.rows import costs, describe
from retsweep.sweep.storage import GRACE_SECONDS, HEARTBEAT_SECONDS
from retsweep.sweep.study import ClaimLost, Entry, Study
from retsweep.tasks.base import InterruptedRun, Workspace
from retsweep.tracking import TrackedRun, Tracker

#: What a task leaves in a trial's folder for one that goes on with it, and ``keep=rows`` removes.
CHECKPOINTS = ("last.pt", "best.pt")
STATUS_OK, STATUS_FAILED = "ok", "failed"


class Heart:
    """Signs of life of a trial from a thread of their own, with the steps done so far."""

    def __init__(self, study: Study, trial: int) -> None:
        self._study, self._trial = study, trial
        self._over = threading.Event()
        self._lost = threading.Event()
        self._steps: tuple[int, int] | None = None
        self._heard = time.time()
        self._thread = threading.Thread(target=self._beat, name="heart", daemon=True)

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def progress(self, done: int, total: int) -> None:
        self._steps = (done, total)

    def check(self) -> None:
        """Raises ClaimLost if the trial was given to another. A process that slept for long asks
        before it goes on: it may have been taken for dead. (Not time.monotonic(): it stands
        still while a machine is suspended.)"""
        if time.time() - self._heard > GRACE_SECONDS / 2:
            self._study.beat(self._trial)
            self._heard = time.time()
        if self._lost.is_set():
            raise ClaimLost

    def _beat(self) -> None:
        told: tuple[int, int] | None = None
        while not self._over.wait(HEARTBEAT_SECONDS):
            steps = self._steps
            try:
                self._study.beat(self._trial, steps if steps != told else None)
            except ClaimLost:
                self._lost.set()
                return
            except Exception:  # the database is away: the next beat, or check(), will tell
                traceback.print_exc()
            else:
                told, self._heard = steps, time.time()


def run_trial(job: Job, study: Study, entry: Entry, stopping: Callable[[], bool]) -> None:
    """Carries out a claimed trial and ends it in the study, unless the claim is lost."""
    began = time.monotonic()
    try:
        planned = job.planned(entry)
    except SpecError as error:  # another version of the code, a corpus that is not here
        said = one_line(error)
        study.fail(entry.trial, {"spec_hash": entry.hash, "status": STATUS_FAILED, "error": said}, said)
        return
    folder = job.trial_folder(entry.hash)
    prefix = Prefix(entry.until, folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "config.yaml", as_yaml(planned.run.config))
    with contextlib.suppress(ClaimLost), _tracker(job, planned, entry.hash) as tracker:
        try:
            with Heart(study, entry.trial) as heart:
                row, failure = _attempt(job, planned, folder, heart, stopping, tracker, prefix)
        except InterruptedRun:
            if prefix.over:
                study.pause(entry, prefix.perplexity())
            else:
                study.release(entry.trial)
            return
        row["trial_seconds"] = time.monotonic() - began
        if failure is None:
            study.complete(entry.trial, row)
            for name in ("error.txt", *(CHECKPOINTS if job.keep == "rows" else ())):
                (folder / name).unlink(missing_ok=True)
        else:
            study.fail(entry.trial, row, row["error"])
            write_whole(folder / "error.txt", failure)
        write_row(folder, row)
        tracker.row(row)
    gc.collect()  # a failed trial's frames may hold a model


def frame(planned: Planned, device: str) -> dict[str, Any]:
    """The columns of a row that do not depend on how the task ends."""
    row = describe(planned.spec, planned.data_hash, device)
    if planned.run.reference:
        row["reference"] = True
    return {**row, **planned.run.extra, **costs(planned.spec)}


def one_line(error: BaseException) -> str:
    """An exception as one line: "ValueError: what it says first"."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


def _attempt(
    job: Job,
    planned: Planned,
    folder: Path,
    heart: Heart,
    stopping: Callable[[], bool],
    tracker: Tracker,
    prefix: Prefix,
) -> tuple[dict[str, Any], str | None]:
    """The trial's row, and the traceback of what it raised if it did. InterruptedRun and ClaimLost
    pass through."""

    def stop() -> bool:
        heart.check()
        return stopping() or prefix.over

    def progress(done: int, total: int) -> None:
        prefix.progress(done)
        heart.progress(done, total)

    def metrics(line: Mapping[str, Any]) -> None:
        prefix.hear(line)
        tracker.metrics(line)

    workspace = Workspace(
        folder=folder,
        device=job.device,
        cache=job.cache,
        data_hash=planned.data_hash,
        stop=stop,
        progress=progress,
        metrics=metrics,
    )
    row = describe(planned.spec, planned.data_hash, job.device)
    try:
        row = frame(planned, job.device)
        row |= _checked(job, planned)
        try:
            columns = planned.spec.task(planned.spec, workspace)
        except InterruptedRun:
            if prefix.over:
                prefix.perplexity()  # now, where it fails the trial if nothing says it
            raise
        row = plain({**row, "status": STATUS_OK, **columns})
    except (InterruptedRun, ClaimLost):
        raise
    except (Exception, SystemExit) as error:
        failed = {**row, "status": STATUS_FAILED, "error": one_line(error)}
        return plain(failed), "".join(traceback.format_exception(error))
    heart.check()
    return row, None


def _checked(job: Job, planned: Planned) -> dict[str, Any]:
    """The columns of the pre-flight of a run that will train, once a variant. Raises PreflightError."""
    if not planned.spec.task.reads_data:
        return {}
    from retsweep.preflight.once import key, once

    return once(planned.spec, job.folder / "preflight", key(planned.spec))


@contextlib.contextmanager
def _tracker(job: Job, planned: Planned, spec_hash: str) -> Iterator[Tracker]:
    folder = job.trial_folder(spec_hash)
    name = f"{planned.run.label} ({spec_hash[:6]})"
    grouped = grouping(planned.spec)
    config = {**planned.run.config, **grouped}
    tracker = job.tracker.open(
        TrackedRun(spec_hash, name, job.study, folder, config, job_type=grouped["family"])
    )
    try:
        yield tracker
    finally:
        tracker.close()
