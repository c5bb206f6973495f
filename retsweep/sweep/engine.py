"""Runs a study's trials in worker processes until none is left, a limit, or Ctrl-C.

The parent trains nothing: it reconciles, starts workers, looks at the study, and draws. It can
be killed at any moment; its workers leave with it, and the next run of the same command goes on.
"""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from retsweep.spec import Settings, SpecError
from retsweep.sweep.mirror import mirror
from retsweep.sweep.patience import Patience, StorageLost
from retsweep.sweep.plan import Job, Planned
from retsweep.sweep.processes import is_of
from retsweep.sweep.progress import Screen
from retsweep.sweep.reconcile import open_and_reconcile, reconcile
from retsweep.sweep.rows import code, code_here
from retsweep.sweep.spent import Spent, spent_by
from retsweep.sweep.storage import answering
from retsweep.sweep.study import Entry, Study
from retsweep.sweep.worker import EXIT_DISK_FULL
from retsweep.sweep.workers import REFUSED_SECONDS, REFUSED_TRIES, Crew, Member, Refused
from retsweep.train.atomic import is_full

LOOK_SECONDS = 0.5
TICK_SECONDS = 0.05
#: Workers that died without ever taking a trial, none between them that took one: after so many it is not
#: bad luck.
BARREN_DEATHS = 3

Ending = Literal["done", "limit", "full", "interrupted", "terminated"]


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended (``full``: the disk), and its trials by how they stand: labels, in the order
    asked for."""

    ending: Ending
    finished: tuple[str, ...]
    failed: tuple[str, ...]
    left: tuple[str, ...]
    spent: Spent | None = None
    """None where this command finished no run, or none that trained, and where a trial of its own has no
    row that says how long it took: one that was stopped, or whose worker died."""


class Engine:
    """One command's work on a study. ``began`` is when the command did (time.monotonic), ``since`` what it
    did for this study, if that was later."""

    def __init__(
        self,
        job: Job,
        settings: Settings,
        places: Crew,
        console: Console,
        began: float,
        since: float | None = None,
    ) -> None:
        self._job, self._settings, self._places = job, settings, places
        self._labels = job.labels
        screen = Screen if job.feed is None else job.feed.screen
        self._screen = screen(console, self._labels)
        minutes = settings.limit.minutes
        self._deadline = began + 60 * minutes if minutes is not None else float("inf")
        self._workers: list[Member] = []
        self._ending: Ending = "done"
        self._heard: list[int] = []
        self._killed = False
        self._barren = 0
        self._known: set[str] = set()
        self._own: list[Mapping[str, str | int]] = []
        self._deaths = 0
        self._refused, self._vain, self._ask_at = False, 0, float("-inf")
        self._since = began if since is None else since
        self._patience = Patience(job.url, job.heartbeat, self._screen.note, self._while_away)

    @property
    def runs(self) -> Mapping[str, Planned]:
        """All that there are by now: a feed brings more."""
        return self._job.runs

    def run(self) -> Outcome:
        """Raises SpecError if workers cannot start at all, StorageLost if the storage fails on the
        way, or is away for longer than it is waited for. No worker outlives it."""
        logs = self._logs()
        with answering(self._job.url):
            standing = self._sweep()
        seconds = time.monotonic() - self._since
        self._mirror(standing)
        said = [str(log) for log, size in self._logs().items() if size > logs.get(log, 0)]
        if said:
            self._screen.note(f"workers had something to say: {', '.join(said)}")
        return self._outcome(standing, seconds)

    def _sweep(self) -> dict[str, Entry]:
        job = self._job
        study = open_and_reconcile(job.url, job.study, self._labels, self._patience, whole=job.feed is None)
        standing = self._standing(study)
        self._known = {key for key, entry in standing.items() if entry.state == "complete"}
        self._tell_known(standing)
        handlers = self._listen()
        lost = False
        try:
            with self._screen:
                return self._loop(study)
        except StorageLost:
            lost = True
            raise
        finally:
            self._kill_workers()
            for number, handler in handlers.items():
                signal.signal(number, handler)
            if not lost:
                self._bring_together(study)

    def _while_away(self) -> None:
        """Between two tries to reach the storage: a second signal ends the waiting."""
        self._obey()
        if self._killed:
            raise StorageLost("killed while the storage was away; the same command goes on")

    def _mirror(self, standing: Mapping[str, Entry]) -> None:
        """Makes the files of what has ended; a full disk leaves that to the next command."""
        try:
            mirror(self._job, standing, self._settings.retries)
        except OSError as error:
            if not is_full(error):
                raise
            self._ending = "full" if self._ending == "done" else self._ending
            self._screen.note("no space left for the rows' files: the storage has the rows")

    def _loop(self, study: Study) -> dict[str, Entry]:
        looked, reconciled = float("-inf"), time.monotonic()
        standing: dict[str, Entry] = {}
        while True:
            self._obey()
            died, left = self._reap()
            if died or time.monotonic() - reconciled > self._job.heartbeat.grace / 4:
                self._reconcile(study, standing, died)
                reconciled = time.monotonic()
            if died or left or time.monotonic() - looked > LOOK_SECONDS:
                standing = self._standing(study)
                looked = time.monotonic()
                self._screen.update(standing)
                self._staff(standing)
            if not self._workers and (self._ending != "done" or self._is_over(standing)):
                return standing
            if time.monotonic() > self._deadline:
                self._stop("limit")
            time.sleep(TICK_SECONDS)

    # ---- runs --------------------------------------------------------------------------------
    def _standing(self, study: Study) -> dict[str, Entry]:
        """How every run stands. Where a feed brings runs, it is asked for as many as there are places
        without a worker, and what it has brought by now is taken up."""
        job = self._job
        if job.feed is not None:
            if self._ending == "done":
                job.feed.refill(job, study, self._places.count - len(self._workers))
            joined = job.feed.joined(job, study)
            self._job = job = dataclasses.replace(job, runs=joined)
            self._labels.update(job.labels)
        return study.standing(job.runs)

    def _is_over(self, standing: Mapping[str, Entry]) -> bool:
        """A feed that was asked for runs, and left none to wait for, has none."""
        return _is_over(standing, self._settings.retries) or (self._job.feed is not None and not standing)

    # ---- workers -----------------------------------------------------------------------------
    def _staff(self, standing: Mapping[str, Entry]) -> None:
        """Starts as many workers as there are places and trials for them."""
        if self._ending != "done":
            return
        own = [worker.identity for worker in self._workers]
        waiting = sum(entry.state == "waiting" for entry in standing.values())
        busy = sum(
            entry.state == "running" and any(is_of(entry.worker, one) for one in own)
            for entry in standing.values()
        )
        taken = {worker.place for worker in self._workers}
        free = [place for place in range(self._places.count) if place not in taken]
        missing = min(self._places.count, busy + waiting) - len(self._workers)
        if missing > 0 and time.monotonic() >= self._ask_at:
            self._start(free[:missing])

    def _start(self, places: list[int]) -> None:
        """A worker for each of ``places``. Where the launcher refuses, for now perhaps, the sweep goes on
        with those that it has. Raises Refused if it has had none, or none for too long."""
        try:
            for worker in self._places.start(self._job, places):
                self._workers.append(worker)
                self._own.append(worker.identity)
        except Refused as error:
            self._vain = 0 if self._workers else self._vain + 1
            if not self._own:
                raise
            if self._vain >= REFUSED_TRIES:
                raise Refused(f"{error}; given up after {self._vain} tries with no worker left") from error
            if not self._refused:
                self._screen.note(f"{error}; asked again every {REFUSED_SECONDS:g} s")
            self._refused, self._ask_at = True, time.monotonic() + REFUSED_SECONDS
        else:
            self._refused, self._vain = False, 0

    def _reap(self) -> tuple[list[Member], bool]:
        """Workers that died since the last call, and whether any ended at all."""
        ended = [worker for worker in self._workers if worker.ended() is not None]
        for worker in ended:
            worker.close()
            self._workers.remove(worker)
        died = [worker for worker in ended if worker.ended() != 0]
        self._deaths += len(died)
        if any(worker.ended() == EXIT_DISK_FULL for worker in died) and self._ending == "done":
            self._screen.note(f"{self._job.folder}: no space left on the disk; workers save what they can")
            self._stop("full")
        return died, bool(ended)

    def _reconcile(self, study: Study, before: Mapping[str, Entry], died: list[Member]) -> None:
        held = [entry.worker for entry in study.entries() if entry.state == "running"]
        self._bring_together(study)
        if not self._killed:  # by us: that is no news, and nothing is tried again now
            self._tell_deaths(before, study.standing(self._job.runs))
        barren = [worker for worker in died if not any(is_of(one, worker.identity) for one in held)]
        living = [*died, *self._workers]
        fruitful = any(is_of(one, worker.identity) for one in held for worker in living)
        self._barren = 0 if fruitful else self._barren + len(barren)
        unfinished = not self._is_over(study.standing(self._job.runs))
        if barren and unfinished and self._barren >= BARREN_DEATHS and self._ending == "done":
            raise SpecError(f"workers die before they take a trial; {barren[-1].log} says why")

    # ---- stopping ----------------------------------------------------------------------------
    def _stop(self, ending: Ending) -> None:
        if self._ending == "done":
            self._ending = ending
            for worker in self._workers:
                worker.stop()

    def _kill_workers(self) -> None:
        for worker in self._workers:
            worker.kill()

    def _listen(self) -> dict[int, Any]:
        """Ctrl-C and SIGTERM are only written down: a handler runs between any two instructions,
        in the middle of starting a worker or of printing. :meth:`_obey` does what they ask for."""

        def hear(number: int, _frame: Any) -> None:
            self._heard.append(number)

        return {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}

    def _obey(self) -> None:
        """The first signal stops the sweep cleanly; a second one kills."""
        while self._heard:
            number = self._heard.pop(0)
            if self._ending in ("interrupted", "terminated"):
                self._killed = True
                self._kill_workers()
                continue
            if self._ending in ("limit", "full"):
                self._ending = "done"  # the workers were told; what counts now is the signal
            self._stop("interrupted" if number == signal.SIGINT else "terminated")
            self._screen.note("stopping: workers save what they have (again to kill them)")

    # ---- what is told ------------------------------------------------------------------------
    def _tell_known(self, standing: Mapping[str, Entry]) -> None:
        """How many rows there are already, and whether other code than this wrote them."""
        known = self._screen.already(standing)
        if not known:
            return
        rows = [entry.row for entry in standing.values() if entry.state == "complete" and entry.row]
        others = sorted({code(row) for row in rows} - {code_here()})
        by = f", some or all by {', '.join(others)}; this is {code_here()}" if others else ""
        self._screen.note(f"{known} of {len(self._job.runs)} finished before{by}")

    def _bring_together(self, study: Study) -> None:
        job, retries = self._job, self._settings.retries
        reconcile(study, job.url, job.study, self._labels, retries, whole=job.feed is None)

    def _tell_deaths(self, before: Mapping[str, Entry], standing: Mapping[str, Entry]) -> None:
        for spec_hash, entry in standing.items():
            known = before.get(spec_hash)
            if known is not None and entry.attempt > known.attempt:
                self._screen.note(f"{self._labels[spec_hash]}: its worker died; it is tried again")
            elif entry.state == "lost" and (known is None or known.state != "lost"):
                self._screen.note(f"{self._labels[spec_hash]}: its worker died; it is given up")

    def _logs(self) -> dict[Path, int]:
        """The workers' logs and their bytes."""
        return {log: log.stat().st_size for log in sorted(self._job.folder.glob("worker-*.log"))}

    # ---- the end -----------------------------------------------------------------------------
    def _outcome(self, standing: Mapping[str, Entry], seconds: float) -> Outcome:
        def names(*states: str) -> tuple[str, ...]:
            missing = "waiting" if "waiting" in states else ""
            return tuple(
                label
                for spec_hash, label in self._labels.items()
                if (standing[spec_hash].state if spec_hash in standing else missing) in states
            )

        dead = ("failed", "lost") if self._ending == "done" else ("failed",)
        left = ("waiting", "running") if self._ending == "done" else ("waiting", "running", "lost")
        if self._job.feed is None:  # by a search in the same study, meanwhile
            left = (*left, "paused")
        return Outcome(
            self._ending, names("complete"), names(*dead), names(*left), self._spent(standing, seconds)
        )

    def _spent(self, standing: Mapping[str, Entry], seconds: float) -> Spent | None:
        if self._ending != "done" or self._deaths or self._job.feed is not None:
            return None  # what was stopped, or died, or is paused, has written no seconds
        own = [
            entry.row
            for key, entry in standing.items()
            if entry.row and key not in self._known and any(is_of(entry.worker, one) for one in self._own)
        ]
        return spent_by(own, seconds, min(self._places.count, len(self._labels)))


def _is_over(standing: Mapping[str, Entry], retries: int) -> bool:
    """Whether every run is complete, failed, given up, or paused with nobody to promote it."""
    return bool(standing) and all(
        entry.state in ("complete", "failed", "paused") or entry.given_up(retries)
        for entry in standing.values()
    )
