"""Runs a study's trials in worker processes until none is left, a limit, or Ctrl-C.

The parent trains nothing: it reconciles, starts workers, looks at the study, and draws. It can
be killed at any moment; its workers leave with it, and the next run of the same command goes on.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Console

from retsweep.spec import Settings, SpecError
from retsweep.sweep.files import write_row
from retsweep.sweep.plan import Job
from retsweep.sweep.progress import Screen
from retsweep.sweep.reconcile import open_and_reconcile, reconcile
from retsweep.sweep.storage import GRACE_SECONDS
from retsweep.sweep.study import Entry, Study
from retsweep.sweep.trial import STATUS_FAILED, frame
from retsweep.sweep.workers import Places, Worker

LOOK_SECONDS = 0.5
TICK_SECONDS = 0.05
#: Workers that died without ever taking a trial: after so many it is not bad luck.
BARREN_DEATHS = 3

Ending = Literal["done", "limit", "interrupted", "terminated"]


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended, and its trials by how they stand: labels, in the order asked for."""

    ending: Ending
    finished: tuple[str, ...]
    failed: tuple[str, ...]
    left: tuple[str, ...]


class Engine:
    """One command's work on a study. ``began`` is when the command did (time.monotonic)."""

    def __init__(self, job: Job, settings: Settings, places: Places, console: Console, began: float) -> None:
        self._job, self._settings, self._places = job, settings, places
        self._labels = job.labels
        self._screen = Screen(console, self._labels)
        minutes = settings.limit.minutes
        self._deadline = began + 60 * minutes if minutes is not None else float("inf")
        self._workers: list[Worker] = []
        self._ending: Ending = "done"
        self._kill = False
        self._barren = 0

    def run(self) -> Outcome:
        """Raises SpecError if workers cannot start at all."""
        job = self._job
        study = open_and_reconcile(job.url, job.study, self._labels)
        standing = study.standing(job.runs)
        known = self._screen.already(standing)
        if known:
            self._screen.note(f"{known} of {len(job.runs)} finished before")
        handlers = self._listen()
        try:
            with self._screen:
                standing = self._loop(study)
        finally:
            for worker in self._workers:
                worker.kill()
            reconcile(study, job.url, job.study, self._labels, self._settings.retries)
            for number, handler in handlers.items():
                signal.signal(number, handler)
        self._mirror(standing)
        return self._outcome(standing)

    def _loop(self, study: Study) -> dict[str, Entry]:
        looked, reconciled = float("-inf"), time.monotonic()
        standing: dict[str, Entry] = {}
        while True:
            died, left = self._reap()
            if died or time.monotonic() - reconciled > GRACE_SECONDS / 4:
                self._reconcile(study, standing, died)
                reconciled = time.monotonic()
            if died or left or time.monotonic() - looked > LOOK_SECONDS:
                standing = study.standing(self._job.runs)
                looked = time.monotonic()
                self._screen.update(standing)
                self._staff(standing)
            if not self._workers and (self._ending != "done" or _is_over(standing, self._settings.retries)):
                return standing
            if time.monotonic() > self._deadline:
                self._stop("limit")
            if self._kill:
                for worker in self._workers:
                    worker.kill()
            time.sleep(TICK_SECONDS)

    # ---- workers -----------------------------------------------------------------------------
    def _staff(self, standing: Mapping[str, Entry]) -> None:
        """Starts as many workers as there are places and trials for them."""
        if self._ending != "done":
            return
        pids = {worker.pid for worker in self._workers}
        waiting = sum(entry.state == "waiting" for entry in standing.values())
        busy = sum(
            entry.state == "running" and (entry.worker or {}).get("pid") in pids
            for entry in standing.values()
        )
        for place in range(self._places.count):
            if len(self._workers) >= min(self._places.count, busy + waiting):
                return
            if place not in {worker.place for worker in self._workers}:
                log = self._job.folder / f"worker-{place}.log"
                self._workers.append(Worker(self._job, self._places, place, log))

    def _reap(self) -> tuple[list[Worker], bool]:
        """Workers that died since the last call, and whether any ended at all."""
        ended = [worker for worker in self._workers if worker.ended() is not None]
        for worker in ended:
            worker.close()
            self._workers.remove(worker)
        return [worker for worker in ended if worker.ended() != 0], bool(ended)

    def _reconcile(self, study: Study, before: Mapping[str, Entry], died: list[Worker]) -> None:
        held = {entry.worker["pid"] for entry in study.entries() if entry.worker and entry.state == "running"}
        reconcile(study, self._job.url, self._job.study, self._labels, self._settings.retries)
        for spec_hash, entry in study.standing(self._job.runs).items():
            known = before.get(spec_hash)
            if known is not None and entry.attempt > known.attempt:
                self._screen.note(f"{self._labels[spec_hash]}: its worker died; it is tried again")
            elif entry.state == "lost" and (known is None or known.state != "lost"):
                self._screen.note(f"{self._labels[spec_hash]}: its worker died; it is given up")
        barren = [worker for worker in died if worker.pid not in held]
        self._barren += len(barren)
        unfinished = not _is_over(study.standing(self._job.runs), self._settings.retries)
        if barren and unfinished and self._barren >= BARREN_DEATHS and self._ending == "done":
            raise SpecError(f"workers die before they take a trial; {barren[-1].log} says why")

    # ---- stopping ----------------------------------------------------------------------------
    def _stop(self, ending: Ending) -> None:
        if self._ending == "done":
            self._ending = ending
            for worker in self._workers:
                worker.stop()

    def _listen(self) -> dict[int, Any]:
        """Ctrl-C and SIGTERM stop the sweep cleanly; a second one kills."""

        def hear(number: int, _frame: Any) -> None:
            if self._ending in ("interrupted", "terminated"):
                self._kill = True
                return
            if self._ending == "limit":
                self._ending = "done"  # the workers were told; what counts now is the signal
            self._stop("interrupted" if number == signal.SIGINT else "terminated")
            self._screen.note("stopping: workers save what they have (again to kill them)")

        return {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}

    # ---- the end -----------------------------------------------------------------------------
    def _mirror(self, standing: Mapping[str, Entry]) -> None:
        """Writes the rows that have no file here: of other machines, of workers that were killed
        between the storage and the file, of runs given up."""
        for spec_hash, entry in standing.items():
            row = entry.row if entry.state in ("complete", "failed") else None
            if entry.state == "lost" and entry.attempt >= self._settings.retries:
                error = f"its worker died, {entry.attempt + 1} times in a row"
                row = {**frame(self._job.runs[spec_hash], self._job.device), "status": STATUS_FAILED}
                row["error"] = error
            folder = self._job.trial_folder(spec_hash)
            if row is not None and (entry.state == "lost" or not (folder / "row.json").exists()):
                folder.mkdir(parents=True, exist_ok=True)
                write_row(folder, row)

    def _outcome(self, standing: Mapping[str, Entry]) -> Outcome:
        def names(*states: str) -> tuple[str, ...]:
            missing = "waiting" if "waiting" in states else ""
            return tuple(
                label
                for spec_hash, label in self._labels.items()
                if (standing[spec_hash].state if spec_hash in standing else missing) in states
            )

        dead = ("failed", "lost") if self._ending == "done" else ("failed",)
        left = ("waiting", "running") if self._ending == "done" else ("waiting", "running", "lost")
        return Outcome(self._ending, names("complete"), names(*dead), names(*left))


def _is_over(standing: Mapping[str, Entry], retries: int) -> bool:
    """Whether every run is complete, failed, or given up."""
    return bool(standing) and all(
        entry.state in ("complete", "failed") or (entry.state == "lost" and entry.attempt >= retries)
        for entry in standing.values()
    )
