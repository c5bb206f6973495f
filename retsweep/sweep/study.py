"""The study as a queue and a ledger, on top of Optuna's storage.

A trial is one attempt at one run, named by the run's ``spec_hash``. It waits, runs in exactly one
process, and ends complete or failed; Optuna's storage refuses every change to an ended trial, so
**the running trial itself is the claim**: whoever takes a silent worker's work away ends its trial
first, and what that worker does afterwards is refused here (:class:`ClaimLost`). Of several trials of
one run **the oldest that has not failed is the only one that can be taken**: an ended trial never comes
back, so no run is carried out twice at once, even where one was enqueued twice (a server that goes away
in the middle leaves open whether it had heard; a lock goes with it). Rows are kept in the storage before
they are written as files, so the files can always be made again.

A storage that is away is waited for (``patience.py``), except by :meth:`Study.beat`.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from retsweep.sweep.files import intact
from retsweep.sweep.patience import Patience, StorageLost
from retsweep.sweep.processes import identity, is_dead
from retsweep.sweep.storage import open_study, seconds_up

if TYPE_CHECKING:
    import optuna

State = Literal["waiting", "paused", "running", "complete", "failed", "lost"]


class ClaimLost(Exception):
    """This worker was taken for dead and its trial given to another: write nothing."""


@dataclass(frozen=True)
class Entry:
    """A trial as the ledger has it. ``failed`` raised (``error`` says what); ``lost`` means that
    its worker died. ``attempt`` counts from 0. ``steps`` are (done, in all).

    Of a search, which carries them on to a further attempt (``carried``): ``overrides`` compose to the run;
    ``until`` are the optimiser steps after which it stops until it is promoted (None: its end), and
    ``rungs`` its validation perplexity at each such stop (infinite: no number). It is ``paused`` where it
    has got that far.
    """

    trial: int
    hash: str
    state: State
    attempt: int
    steps: tuple[int, int]
    worker: dict[str, Any] | None
    error: str | None
    row: dict[str, Any] | None
    label: str = ""
    overrides: tuple[str, ...] = ()
    until: int | None = None
    rungs: Mapping[int, float] = field(default_factory=dict)

    @property
    def carried(self) -> dict[str, Any]:
        """As :meth:`Study.enqueue` takes it."""
        return {"overrides": self.overrides, "until": self.until, "rungs": self.rungs}

    @property
    def begun(self) -> bool:
        """Whether a worker has signed for it. A lost trial that was not (its worker, or the storage, left
        between taking and signing) is no attempt at the run."""
        return self.worker is not None

    def given_up(self, retries: int) -> bool:
        return self.state == "lost" and self.begun and self.attempt >= retries


class Study:
    """One study in a storage. Safe to use from several threads and processes. Raises StorageLost."""

    def __init__(
        self, url: str, name: str, *, create: bool = False, patience: Patience | None = None
    ) -> None:
        self.patience = patience or Patience(url)
        heartbeat = self.patience.heartbeat
        self._study = self.patience(lambda: open_study(url, name, create=create, heartbeat=heartbeat))
        self._storage = self._study._storage

    @property
    def storage(self) -> optuna.storages.BaseStorage:
        """Where further studies may lie beside this one."""
        return self._storage

    # ---- reading -----------------------------------------------------------------------------
    def entries(self) -> list[Entry]:
        """Every trial, oldest first."""
        study = self._study._study_id
        try:
            trials = self.patience(lambda: self._storage.get_all_trials(study, deepcopy=False))
            return [_entry(trial) for trial in trials if "spec_hash" in trial.user_attrs]
        except (ValueError, LookupError, TypeError) as error:  # no JSON, no state, no time of day
            said = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise StorageLost(
                f"the records of study {self._study.study_name} are damaged ({said}); "
                "another storage, or none, starts new ones: finished trainings are not repeated"
            ) from error

    def standing(self, hashes: Collection[str]) -> dict[str, Entry]:
        """For each of ``hashes`` that was ever enqueued, the trial that says how it stands: a complete one;
        else the oldest that has not failed, by which :func:`takeable` goes too; else the last that a worker
        has begun; else the last."""
        best: dict[str, Entry] = {}
        for entry in self.entries():
            if entry.hash in hashes:
                known = best.get(entry.hash)
                if known is None or _rank(entry) > _rank(known) or (_rank(entry) == _rank(known) != LIVE):
                    best[entry.hash] = entry
        return best

    def holds(self, trial: int) -> bool:
        """Whether the trial that this process took is still its own. Asks once, as :meth:`beat`."""
        from optuna.trial import TrialState

        found = self._storage.get_trial(trial)
        return bool(found.state == TrialState.RUNNING and found.user_attrs.get("worker") == identity())

    # ---- a worker's side ---------------------------------------------------------------------
    def claim(self, hashes: Collection[str]) -> Entry | None:
        """Takes the first waiting trial among ``hashes``; None if none waits."""
        from optuna.exceptions import UpdateFinishedTrialError

        for entry in takeable(self.entries()):
            try:
                if entry.hash in hashes and self._take(entry.trial):
                    return entry
            except (UpdateFinishedTrialError, ClaimLost):
                continue
        return None

    def _take(self, trial: int) -> bool:
        """Whether the trial is now this process's. (One that was taken when the storage went away, so that
        it is not known by whom, is nobody's: it is never signed, and lost after the grace.)"""
        from optuna.trial import TrialState

        # A heartbeat first: whoever dies between taking the trial and signing it is known to be silent, by
        # the database's clock, and nobody goes by an earlier one's beats.
        self.patience(lambda: self._storage.record_heartbeat(trial))
        taken = self.patience(lambda: self._storage.set_trial_state_values(trial, TrialState.RUNNING))
        if taken:
            self._note(trial, "worker", identity())
        return bool(taken)

    def beat(self, trial: int, steps: tuple[int, int] | None = None) -> None:
        """A sign of life. Raises ClaimLost if the trial was given to another, and what the storage raises
        if it is away: the next beat is soon."""
        if not self.holds(trial):
            raise ClaimLost
        if steps is not None:
            self._put(trial, "steps", list(steps))
        self._storage.record_heartbeat(trial)

    def complete(self, trial: int, row: Mapping[str, Any]) -> None:
        """Ends the trial with its row. Raises ClaimLost if it was given to another."""
        from optuna.trial import TrialState

        self._note(trial, "row", dict(row))
        self._end(trial, TrialState.COMPLETE, [_objective(row)])

    def fail(self, trial: int, row: Mapping[str, Any], error: str) -> None:
        """Ends the trial as failed. Raises ClaimLost if it was given to another.

        A worker that is buried between the last two lines did raise: its trial counts as failed
        all the same, with the row noted first. One line earlier it is lost, and tried again."""
        from optuna.trial import TrialState

        self._note(trial, "row", dict(row))
        self._note(trial, "error", error)
        self._end(trial, TrialState.FAIL)

    def release(self, trial: int) -> None:
        """Puts a trial back to wait: it was stopped, and goes on from its checkpoint."""
        from optuna.trial import TrialState

        self._note(trial, "worker", None)
        self._end(trial, TrialState.WAITING)

    def pause(self, entry: Entry, perplexity: float) -> None:
        """Puts a trial back that has got as far as its ``until``: it waits to be promoted. Raises ClaimLost
        if it was given to another."""
        from optuna.trial import TrialState

        assert entry.until is not None
        self._note(entry.trial, "rungs", _written({**entry.rungs, entry.until: perplexity}))
        self._note(entry.trial, "worker", None)
        self._end(entry.trial, TrialState.WAITING)

    # ---- reconciling: under storage.exclusive ------------------------------------------------
    def promote(self, trial: int, until: int | None) -> None:
        """Lets a paused trial go on: to ``until`` steps, or to its end."""
        self._note(trial, "until", until)

    def enqueue(
        self,
        spec_hash: str,
        label: str,
        attempt: int,
        overrides: Collection[str] = (),
        until: int | None = None,
        rungs: Mapping[int, float] | None = None,
    ) -> None:
        import optuna

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            attributes = {"spec_hash": spec_hash, "label": label, "attempt": attempt}
            if overrides:
                attributes |= {"overrides": list(overrides), "until": until, "rungs": _written(rungs or {})}
            trial = optuna.trial.create_trial(state=optuna.trial.TrialState.WAITING, user_attrs=attributes)
            self.patience(lambda: self._study.add_trial(trial))

    def bury(self) -> None:
        """Ends the trials of the dead (processes gone from this machine, silent ones elsewhere), the
        waiting ones of runs that are complete, and spares: those of runs that an older trial stands for."""
        import optuna
        from optuna.trial import TrialState

        entries = self.entries()
        complete = {entry.hash for entry in entries if entry.state == "complete"}
        dead = {
            entry.trial
            for entry in entries
            if entry.state == "running" and entry.worker is not None and is_dead(entry.worker)
        }
        standing = [entry for entry in entries if entry.state in STANDING and entry.trial not in dead]
        first = {entry.hash: entry.trial for entry in reversed(standing)}
        for entry in entries:
            waits = entry.state in ("waiting", "paused")
            spare = waits and (entry.hash in complete or first[entry.hash] != entry.trial)
            if spare and not self._waits(entry.trial):
                continue  # the older one failed meanwhile, and this one was taken
            if entry.trial in dead or spare:
                with contextlib.suppress(ClaimLost):
                    self._end(entry.trial, TrialState.FAIL)
        if self._silence_counts():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self.patience(lambda: optuna.storages.fail_stale_trials(self._study))

    def _waits(self, trial: int) -> bool:
        return bool(self.patience(lambda: self._storage.get_trial(trial)).state.name == "WAITING")

    def _silence_counts(self) -> bool:
        """Whether every worker that lives can have given a sign of life: not if the storage itself was
        away less than the grace ago, as far as it says or this process has seen."""
        up = self.patience(lambda: seconds_up(self.patience.url))
        return up > self.patience.heartbeat.grace and not self.patience.just_returned

    def _note(self, trial: int, key: str, value: Any) -> None:
        self.patience(lambda: self._put(trial, key, value))

    def _put(self, trial: int, key: str, value: Any) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            self._storage.set_trial_user_attr(trial, key, value)
        except UpdateFinishedTrialError as error:
            raise ClaimLost from error

    def _end(self, trial: int, state: Any, values: list[float] | None = None) -> None:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        def end() -> None:
            self._storage.set_trial_state_values(trial, state, values)

        def unless_ended() -> None:
            """The storage may have heard it the first time, and another may have taken the trial since."""
            found = self._storage.get_trial(trial)
            signed = found.user_attrs.get("worker")
            released = state == TrialState.WAITING and signed is not None
            if found.state != state and not released:
                end()

        try:
            self.patience(end, again=unless_ended)
        except UpdateFinishedTrialError as error:
            raise ClaimLost from error


def takeable(entries: Iterable[Entry]) -> list[Entry]:
    """Of ``entries``, oldest first, those that may be taken: of each run the oldest that has not failed, if
    it waits. A younger one is a spare for when that fails."""
    valid: dict[str, Entry] = {}
    complete = set()
    for entry in entries:
        if entry.state in STANDING:
            valid.setdefault(entry.hash, entry)
        if entry.state == "complete":
            complete.add(entry.hash)
    return [entry for entry in valid.values() if entry.state == "waiting" and entry.hash not in complete]


#: Of several trials of one run, which says how it stands.
STANDING = ("waiting", "paused", "running", "complete")
LIVE = 1
_RANK: dict[State, int] = {
    **{"lost": 0, "failed": 0},
    **{"paused": LIVE, "waiting": LIVE, "running": LIVE},
    "complete": 2,
}


def _rank(entry: Entry) -> int:
    """A spare that was ended, which nobody began, says nothing of a run that another trial stood for."""
    return -1 if entry.state == "lost" and not entry.begun else _RANK[entry.state]


def _entry(trial: optuna.trial.FrozenTrial) -> Entry:
    attributes = trial.user_attrs
    until = attributes.get("until")
    rungs = _read(attributes.get("rungs") or {})
    state: State
    match trial.state.name:
        case "WAITING":
            state = "paused" if until in rungs else "waiting"
        case "RUNNING":
            state = "running"
        case "COMPLETE":  # a row that is damaged is as good as none: its run is repeated
            state = "complete" if intact(attributes.get("row")) else "lost"
        case _:
            state = "failed" if attributes.get("error") else "lost"
    done, total = attributes.get("steps") or (0, 0)
    return Entry(
        trial=trial._trial_id,
        hash=attributes["spec_hash"],
        state=state,
        attempt=attributes.get("attempt", 0),
        steps=(done, total),
        worker=attributes.get("worker"),
        error=attributes.get("error"),
        row=attributes.get("row"),
        overrides=tuple(attributes.get("overrides") or ()),
        until=until,
        rungs=rungs,
        label=attributes.get("label", ""),
    )


def _written(rungs: Mapping[int, float]) -> dict[str, float | None]:
    """As JSON has it, which knows neither numbers as keys nor what is no number."""
    return {str(steps): value if math.isfinite(value) else None for steps, value in rungs.items()}


def _read(rungs: Mapping[str, float | None]) -> dict[int, float]:
    return {int(steps): math.inf if value is None else value for steps, value in rungs.items()}


def _objective(row: Mapping[str, Any]) -> float:
    """What Optuna's own tools plot. retsweep reads rows, never this."""
    for column in ("valid_ppl", "macs_train_forward"):
        value = row.get(column)
        if isinstance(value, (int, float)) and value == value:
            return float(value)
    return 0.0
