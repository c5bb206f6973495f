"""Brings a search on: tells proposals their rows, promotes paused runs, proposes architectures.

Every process of a search holds a :class:`Driver`: workers call :meth:`Driver.take` for their next run, the
parent :meth:`Driver.refill` for places without a worker. Under the ledger's lock each of them does whatever
is due, so that a search needs no process in particular, and one worker with one seed does the same things
in the same order each time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from retsweep.search import warm
from retsweep.search.halving import promotions
from retsweep.search.objectives import PERPLEXITY, cost, counted, excess, measure, measured
from retsweep.search.progress import SearchScreen
from retsweep.search.proposals import Proposal, Proposals
from retsweep.search.space import Builder, Params
from retsweep.search.spread import furthest
from retsweep.search.standing import Plan, Standing, dull
from retsweep.spec import RunSpec, SpecError
from retsweep.sweep.plan import Job, Planned, identify
from retsweep.sweep.rows import device_name
from retsweep.sweep.storage import exclusive
from retsweep.sweep.study import ClaimLost, Entry, Study
from retsweep.sweep.variants import wanted

if TYPE_CHECKING:
    from rich.console import Console

    from retsweep.sweep.progress import Screen
    from retsweep.tasks.base import Workspace

Result = TypeVar("Result")

#: How often a look at the search is begun anew that another process has overtaken.
TRIES = 5
#: So many proposals in a row that cost nothing: the sampler repeats itself, and chance has a try ...
DULL = 10
#: ... and after so many the space has nothing else that the budgets allow.
EXHAUSTED = 200
OK = "ok"


class Driver:
    """One process's hold on a search; see ``Feed`` in retsweep/sweep/plan.py for its methods."""

    def __init__(self, plan: Plan, builder: Builder) -> None:
        self.plan, self.builder = plan, builder
        self._known: dict[str, Planned] = {}
        self._proposals: Proposals | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_proposals": None, "_known": {}}

    def proposals(self, job: Job, study: Study) -> Proposals:
        if self._proposals is None:
            self._proposals = Proposals(study.storage, job.study, self.plan.search.objectives)
        return self._proposals

    # ---- what processes ask for --------------------------------------------------------------
    def refill(self, job: Job, study: Study, waiting: int) -> None:
        """Brings the search on, so that ``waiting`` runs wait for a worker, if it has as many."""

        def advance() -> None:
            with exclusive(job.url, job.study, study.patience):
                self._advance(job, study, waiting)

        if waiting > 0:
            _again(lambda: study.patience(advance))

    def take(self, job: Job, study: Study) -> Entry | None:
        """The next run, claimed; of those that go on, first one whose checkpoint is on this machine."""

        def advance() -> Entry | None:
            with exclusive(job.url, job.study, study.patience):
                standing = self._advance(job, study, 1)
                entries = standing.entries
                self._know(standing)
                here = [
                    key
                    for key, entry in entries.items()
                    if not entry.rungs or (job.trial_folder(key) / "last.pt").exists()
                ]
                return study.claim(here) or study.claim(entries)

        return _again(lambda: study.patience(advance))

    def build(self, job: Job, entry: Entry) -> Planned:
        """From the ledger alone, unless this process proposed it. Raises SpecError if it would run something
        else here."""
        if entry.hash in self._known:
            return self._known[entry.hash]
        (planned,) = identify(wanted(entry.overrides).runs, job.cache).items()
        if planned[0] != entry.hash:
            raise SpecError(
                f"{' '.join(entry.overrides)} is run {planned[0]} here, not {entry.hash}; accepted: "
                "the same version of retsweep and the same corpus on every machine"
            )
        return planned[1]

    def measure(self, spec: RunSpec, workspace: Workspace) -> dict[str, Any]:
        """What the search wants to know of a run that is trained, beside what its task tells: columns for its
        row. Raises SpecError on other hardware than the search's."""
        names = measured(self.plan.search.objectives)
        if not names:
            return {}
        here = device_name(workspace.device)
        if here != self.plan.measured_on:
            raise SpecError(
                f"{', '.join(names)}: the search measures on {self.plan.measured_on}, this is {here}; "
                "accepted: the same hardware on every machine"
            )
        return measure(spec, names, workspace)

    def joined(self, job: Job, study: Study) -> dict[str, Planned]:
        standing = self._look(job, study)
        self._know(standing, all_of_them=True)
        return {key: self._known[key] for key in standing.entries}

    def _know(self, standing: Standing, *, all_of_them: bool = False) -> None:
        """Builds the runs that the ledger does not say how to build: those that a grid enqueued."""
        params = {one.hash: one.params for one in standing.proposals if one.counts and one.hash}
        for key, entry in standing.entries.items():
            if key not in self._known and (all_of_them or not entry.overrides):
                planned = self.builder.planned(self.plan.space, params[key])
                if self.builder.hash(planned.spec) != key:
                    raise SpecError(
                        f"{planned.run.label} is run {self.builder.hash(planned.spec)} here, not {key}; "
                        "accepted: the same version of retsweep on every machine"
                    )
                self._known[key] = planned

    def over(self, job: Job, study: Study) -> bool:
        """Whether nothing is left to do, by this or any other process."""
        standing = self._look(job, study)
        return not standing.under_way() and not self._has_room(standing)

    def heading(self) -> str:
        search = self.plan.search
        ends = [f"{search.trials} architectures"] * bool(search.trials)
        ends += [f"{search.steps} steps in all"] * bool(search.steps)
        return f"a search for {' against '.join(search.objectives)} ({search.sampler}), {' or '.join(ends)}"

    def screen(self, console: Console, labels: Mapping[str, str]) -> Screen:
        return SearchScreen(console, labels, self.plan.search.trials, self.plan.search.steps, self.trained)

    # ---- bringing it on: under the lock ------------------------------------------------------
    def _look(self, job: Job, study: Study) -> Standing:
        found = self.proposals(job, study).all()
        hashes = {one.hash for one in found if one.counts and one.hash}
        return Standing(found, study.standing(hashes), self.plan.retries)

    def _advance(self, job: Job, study: Study, waiting: int) -> Standing:
        standing = self._look(job, study)
        for due in (self._mend, self._tell, self._tell_late, self._promote):
            if due(job, study, standing):
                standing = self._look(job, study)
        while standing.waiting() < waiting and self._has_room(standing):
            self._propose(job, study, standing)
            standing = self._look(job, study)
        if not standing.under_way() and not self._has_room(standing):
            self._close(job, study, standing)
            standing = self._look(job, study)
        return standing

    def _mend(self, job: Job, study: Study, standing: Standing) -> bool:
        """Finishes what a killed process left of a proposal. Whether there was any."""
        mended = False
        for one in standing.proposals:
            if one.state != "open":
                continue
            if one.infeasible is not None:
                self.proposals(job, study).drop(one)
            elif set(one.params) != set(self.plan.space.choices):
                self.proposals(job, study).drop(one, failed=True)
            elif one.hash is None or (one.hash not in standing.entries and not one.known):
                self._settle(job, study, standing, one)
            else:
                continue
            mended = True
        return mended

    def _tell(self, job: Job, study: Study, standing: Standing) -> bool:
        """Tells every proposal whose run is over, in their order. Whether there were any."""
        told = False
        for one in standing.proposals:
            entry = standing.entries.get(one.hash or "")
            if entry is None or not one.counts:
                continue
            over = entry.state in ("complete", "failed")
            if one.state == "open" and (over or entry.given_up(self.plan.retries)):
                self._answer(job, study, one, entry)
                told = True
        return told

    def _answer(self, job: Job, study: Study, one: Proposal, entry: Entry) -> None:
        """Ends a proposal with what its run, which is over, has given."""
        values = self._values(entry, one.costs)
        if values is not None:
            self.proposals(job, study).tell(one, values)
        else:
            self.proposals(job, study).drop(one, failed=entry.state != "complete")

    def _tell_late(self, job: Job, study: Study, standing: Standing) -> bool:
        """A run that was promoted, or tried again, after its proposal had ended is told by another."""
        added = False
        answered = {one.hash for one in standing.proposals if one.state != "dropped"}
        for one in standing.proposals:
            entry = standing.entries.get(one.hash or "")
            if entry is None or not one.counts or one.hash in answered or entry.state != "complete":
                continue
            values = self._values(entry, one.costs)
            if values is not None:
                self._add(job, study, one, values)
                answered.add(one.hash)
                added = True
        return added

    def _add(self, job: Job, study: Study, one: Proposal, values: list[float]) -> None:
        attributes = {"spec_hash": one.hash, "macs": dict(one.costs), "bucket": one.bucket, "known": True}
        proposals, distributions = self.proposals(job, study), self.plan.space.distributions
        proposals.add(one.params, distributions, values, attributes, like=one)

    def _values(self, entry: Entry, costs: Mapping[str, float]) -> list[float] | None:
        """The objectives of a run that is over; None if it gave no perplexity, or no latency (a run that was
        trained before the search measures none)."""
        row = entry.row or {}
        if entry.state != "complete" or not _is_number(row.get(PERPLEXITY)) or row.get("status", OK) != OK:
            return None
        names = measured(self.plan.search.objectives)
        if not all(_is_number(row.get(name)) for name in names):
            return None
        found = {**costs, **{name: row[name] for name in (*names, PERPLEXITY)}}
        return [float(found[name]) for name in self.plan.search.objectives]

    def tell_known(self, job: Job, study: Study, one: warm.Known, source: str) -> None:
        """Adds what an earlier study knows."""
        names = dict.fromkeys([*self.plan.search.objectives, *self.plan.limits])
        attributes = warm.attributes(one, source, list(names))
        values = [
            one.perplexity if name == PERPLEXITY else float(attributes["macs"][name])
            for name in self.plan.search.objectives
        ]
        self.proposals(job, study).add(one.params, self.plan.space.distributions, values, attributes)

    # ---- proposing ---------------------------------------------------------------------------
    def _propose(self, job: Job, study: Study, standing: Standing) -> None:
        proposals, search, space = self.proposals(job, study), self.plan.search, self.plan.space
        at_random = dull(standing.proposals) >= DULL
        own = [
            one for one in standing.proposals if one.source is None and set(one.params) == set(space.choices)
        ]
        ends = [end for end in space.ends if not any(end.items() <= one.params.items() for one in own)]
        fixed: Params | None = None
        if search.ends and ends:
            fixed = ends[0]
        elif search.spread and len(own) < search.startup and not at_random:
            fixed = furthest(space, self.builder, self.plan, own)
        asked = proposals.ask(search, space.distributions, at_random=at_random, fixed=fixed)
        self._settle(job, study, standing, asked)

    def _settle(self, job: Job, study: Study, standing: Standing, asked: Proposal) -> None:
        """Builds the spec of a proposal and finds its run: refused, known, or enqueued."""
        plan, proposals = self.plan, self.proposals(job, study)
        overrides = [*plan.base, *plan.space.overrides(asked.params)]
        try:
            planned = self.builder.planned(plan.space, asked.params)
        except SpecError as error:
            proposals.note(asked, overrides=overrides)
            proposals.refuse(asked, str(error), {})
            return
        spec, key = planned.spec, self.builder.hash(planned.spec)
        self._known[key] = planned
        named = dict.fromkeys([*counted(plan.search.objectives), *plan.limits])
        costs = {name: cost(spec, name) for name in named}
        bucket = plan.bucket(cost(spec, plan.search.halving.macs))
        above = excess(spec, plan.limits)
        if any(share > 0 for share in above.values()):
            proposals.note(asked, spec_hash=key, overrides=overrides, macs=costs, bucket=bucket)
            reason = ", ".join(
                f"{name} {costs[name]} above {plan.limits[name]:g}" for name in above if above[name] > 0
            )
            proposals.refuse(asked, reason, above)
            return
        alike = [one for one in standing.proposals if one.hash == key and one.number < asked.number]
        told = next((one for one in alike if one.state == "told"), None)
        entry = study.standing([key]).get(key)
        known = bool(alike) or (entry is not None and entry.state == "complete")
        # The hash last: until it is there the proposal is unfinished, and the next process does this again.
        asked = proposals.note(
            asked, overrides=overrides, macs=costs, bucket=bucket, known=known, spec_hash=key
        )
        if told is not None and told.values is not None:
            if told.source is not None:
                proposals.note(asked, **{"from": told.source})
            proposals.tell(asked, told.values)
        elif entry is not None and entry.state == "complete":
            self._answer(job, study, asked, entry)
        elif entry is None or not entry.overrides:
            study.enqueue(key, planned.run.label, 0, overrides, self._first_stop(standing, asked))

    def _first_stop(self, standing: Standing, asked: Proposal) -> int | None:
        """The first rung. An end of the front has none: nothing else in its bucket is so cheap, or dear, that
        it had to be better to be on the front."""
        plan = self.plan
        whole = plan.search.ends and plan.space.is_end(asked.params)
        return None if whole and self._affords(standing, plan.steps) else plan.after(0)

    def _has_room(self, standing: Standing) -> bool:
        """Whether one more architecture may be proposed."""
        search = self.plan.search
        if search.trials is not None and standing.spent() >= search.trials:
            return False
        seen = {tuple(sorted(one.params.items())) for one in standing.proposals}
        if len(seen) >= self.plan.space.size or dull(standing.proposals) >= EXHAUSTED:
            return False
        return self._affords(standing, self.plan.after(0) or self.plan.steps)

    # ---- halving -----------------------------------------------------------------------------
    def _promote(self, job: Job, study: Study, standing: Standing, *, closing: bool = False) -> bool:
        """Lets paused runs go on that are among the best of their rung and bucket. Whether there were any."""
        if not self.plan.rungs:
            return False
        buckets = {one.hash: one.bucket for one in standing.proposals if one.counts and one.hash}
        results = {key: found for key, entry in standing.entries.items() if (found := self._results(entry))}
        promoted = False
        for key in promotions(
            results, buckets, self.plan.rungs, self.plan.search.halving.eta, closing=closing
        ):
            entry = standing.entries[key]
            if entry.state != "paused" or entry.until is None:
                continue  # it is on its way already
            target = self.plan.after(entry.until)
            if self._affords(standing, (target or self.plan.steps) - entry.until):
                study.promote(entry.trial, target)
                standing.entries = study.standing(standing.entries)
                promoted = True
        return promoted

    def _results(self, entry: Entry) -> dict[int, float]:
        """Perplexities by steps; of a run that diverged infinite where it did not get."""
        found = dict(entry.rungs)
        if entry.state == "complete":
            row = entry.row or {}
            if _is_number(row.get(PERPLEXITY)):
                found[self.plan.steps] = float(row[PERPLEXITY])
            elif missing := self.plan.after(max(found, default=0)):
                found[missing] = math.inf
        return found

    def _close(self, job: Job, study: Study, standing: Standing) -> None:
        """Nothing more is proposed and nothing runs: the best of every bucket goes on to its end, and if
        that is done too, what is still paused stays so."""
        if self._promote(job, study, standing, closing=True):
            return
        proposals = self.proposals(job, study)
        for one in standing.proposals:
            if one.state == "open":
                proposals.drop(one)

    # ---- what it costs -----------------------------------------------------------------------
    def trained(self, entries: Mapping[str, Entry]) -> int:
        """Optimiser steps that runs of this search have taken or been promised."""
        return sum(self._promised(entry) for entry in entries.values())

    def _promised(self, entry: Entry) -> int:
        if not entry.overrides:
            return 0  # the row was there before
        if entry.state == "complete":
            return int((entry.row or {}).get("steps") or self.plan.steps)
        if entry.state == "failed":
            return entry.steps[0]
        return entry.until or self.plan.steps

    def _affords(self, standing: Standing, steps: int) -> bool:
        limit = self.plan.search.steps
        return limit is None or self.trained(standing.entries) + steps <= limit


def _again(action: Callable[[], Result]) -> Result:
    """``action``, once more where another process ended meanwhile what it had in hand: its lock may have been
    taken from it while it was stopped, or with its connection. What was left half done is mended then."""
    from optuna.exceptions import UpdateFinishedTrialError

    for _ in range(TRIES - 1):
        try:
            return action()
        except (UpdateFinishedTrialError, ClaimLost):
            continue
    return action()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
