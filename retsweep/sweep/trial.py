"""Runs one trial in a worker: from a claim to a row, a failure, or back to the queue."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from retsweep.spec.base import SpecError
from retsweep.spec.configs import as_yaml
from retsweep.spec.secret import hidden
from retsweep.sweep.files import plain, sealed, write_row, write_whole
from retsweep.sweep.patience import StorageLost, say_on_stderr
from retsweep.sweep.plan import Job, Planned
from retsweep.sweep.prefix import Prefix
from retsweep.sweep.rows import costs, describe
from retsweep.sweep.study import ClaimLost, Entry, Study
from retsweep.sweep.tracked import Whole, agent_columns, config_of, live
from retsweep.tasks.base import InterruptedRun, Workspace
from retsweep.tracking import Tracker
from retsweep.train import checkpoint, store
from retsweep.train.atomic import is_full
from retsweep.train.distributed import ALONE, Group

#: What a task leaves in a trial's folder for one that goes on with it, and ``keep=rows`` removes.
CHECKPOINTS = ("last.pt", "best.pt")
#: What it leaves for one that finds these broken; needed by nobody once the row is stored.
SPARES = ("last.old.pt", "best.old.pt")
STATUS_OK, STATUS_FAILED = "ok", "failed"


class DiskFull(Exception):
    """The disk of the study's folder has no space left. What was under way waits in the study's queue, what
    had ended is there with its row; files are whole. Its text is one line for the user."""


class Heart:
    """Signs of life of a trial from a thread of their own, with the steps done so far. A storage that is
    away misses some; a process that has given none for long waits for it in :meth:`check`."""

    def __init__(self, study: Study, trial: int) -> None:
        self._study, self._trial = study, trial
        self._heartbeat = study.patience.heartbeat
        self._over = threading.Event()
        self._lost = threading.Event()
        self._steps: tuple[int, int] | None = None
        self._heard = time.time()
        self._thread = threading.Thread(target=self._beat, name="heart", daemon=True)

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.rest()

    def rest(self) -> None:
        """No more signs: the trial is about to be ended."""
        self._over.set()
        self._thread.join()

    def progress(self, done: int, total: int) -> None:
        self._steps = (done, total)

    def check(self) -> None:
        """Raises ClaimLost if the trial was given to another. A process that slept for long asks
        before it goes on: it may have been taken for dead. (Not time.monotonic(): it stands
        still while a machine is suspended.) Raises StorageLost if nobody is there to answer."""
        if time.time() - self._heard > self._heartbeat.grace / 2:
            self._study.patience(lambda: self._study.beat(self._trial))
            self._heard = time.time()
        if self._lost.is_set():
            raise ClaimLost

    def _beat(self) -> None:
        told: tuple[int, int] | None = None
        missed = False
        while not self._over.wait(self._heartbeat.every):
            steps = self._steps
            try:
                self._study.beat(self._trial, steps if steps != told else None)
            except ClaimLost:
                self._lost.set()
                return
            except Exception as error:  # the database is away: the next beat, or check(), will tell
                if not missed:
                    say_on_stderr(f"no sign of life could be given, the next may: {one_line(error)}")
                missed = True
            else:
                told, self._heard, missed = steps, time.time(), False


def run_trial(
    job: Job, study: Study, entry: Entry, stopping: Callable[[], bool], group: Group = ALONE
) -> None:
    """Carries out a claimed trial and ends it in the study, unless the claim is lost. ``group``: this
    process and those that help it. Raises DiskFull, StorageLost."""
    try:
        with contextlib.suppress(ClaimLost):
            _run_trial(job, study, entry, stopping, group)
    except Exception as error:
        if not is_full(error):
            raise
        with contextlib.suppress(ClaimLost):  # it had ended: its files are made again from its row
            study.release(entry.trial)
        raise DiskFull(f"{job.folder}: no space left on the disk") from error


def _run_trial(job: Job, study: Study, entry: Entry, stopping: Callable[[], bool], group: Group) -> None:
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        heart = stack.enter_context(Heart(study, entry.trial))  # first: to build a run may take a while
        try:
            planned = job.planned(entry)
        except SpecError as error:  # other code, a corpus that is not here: no row without a spec
            heart.rest()
            study.fail(entry.trial, {}, hidden(one_line(error), job.urls))
            return
        folder = job.trial_folder(entry.hash)
        prefix = Prefix(entry.until, folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "config.yaml", as_yaml(config_of(planned, job.urls)))
        tracker = stack.enter_context(_tracker(job, planned, entry.hash))
        try:
            row, failure = _attempt(job, planned, folder, heart, stopping, tracker, prefix, group)
        except InterruptedRun:
            heart.rest()
            if prefix.over:
                checkpoint.remove_old_pair(folder)  # many wait so, most for ever: one good pair is enough
                study.pause(entry, prefix.perplexity())
            else:
                study.release(entry.trial)
            return
        heart.rest()
        row = sealed({**row, "trial_seconds": time.monotonic() - began, **agent_columns()})
        if failure is None:
            study.complete(entry.trial, row)
            for name in ("error.txt", *SPARES, *(CHECKPOINTS if job.keep == "rows" else ())):
                (folder / name).unlink(missing_ok=True)
            if job.keep == "rows":
                store.of_trial(job.checkpoints, entry.hash).clear()
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
    group: Group,
) -> tuple[dict[str, Any], str | None]:
    """The trial's row, and the traceback of what it raised if it did. InterruptedRun, ClaimLost,
    StorageLost and the error of a full disk pass through."""

    def stop() -> bool:
        heart.check()
        return stopping() or prefix.over

    def progress(done: int, total: int) -> None:
        prefix.progress(done)
        heart.progress(done, total)

    def metrics(line: Mapping[str, Any]) -> None:
        prefix.hear(line)
        tracker.metrics(line)

    kept = store.of_trial(job.checkpoints, folder.name)
    workspace = Workspace(
        folder=folder,
        device=job.device,
        cache=job.cache,
        data_hash=planned.data_hash,
        stop=stop,
        progress=progress,
        metrics=metrics,
        saved=lambda path, step: kept.put(path, step, permit=stop),
        group=group,
    )
    row = describe(planned.spec, planned.data_hash, job.device)
    try:
        row = frame(planned, job.device)
        row |= _checked(job, planned)
        kept.fetch(folder)
        try:
            columns = planned.spec.task(planned.spec, workspace)
            if job.feed is not None:
                unheard = dataclasses.replace(workspace, progress=lambda done, total: None)
                columns = {**columns, **job.feed.measure(planned.spec, unheard)}
        except InterruptedRun:
            if prefix.over:
                prefix.perplexity()  # now, where it fails the trial if nothing says it
            raise
        row = plain({**row, "status": STATUS_OK, **columns})
    except (InterruptedRun, ClaimLost, StorageLost):
        raise
    except (Exception, SystemExit) as error:
        if is_full(error):
            raise
        said = hidden(one_line(error), job.urls)
        failed = {**row, "status": STATUS_FAILED, "error": said}
        return plain(failed), hidden("".join(traceback.format_exception(error)), job.urls)
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
    tracker = Whole(job.tracker.open(live(planned, spec_hash, job.study, folder, job.urls)), folder)
    try:
        yield tracker
    finally:
        tracker.close()
