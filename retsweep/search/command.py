"""The command line's door to searches: a config with a section ``search`` is one, every other is a sweep."""

from __future__ import annotations

import dataclasses
import math
import random
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from retsweep.search import warm
from retsweep.search.driver import Driver
from retsweep.search.front import lines
from retsweep.search.objectives import budgets, check_cost, check_objectives, cost, measured
from retsweep.search.settings import Halving, Search
from retsweep.search.space import HYBRID, PATTERN, Architectures, Builder, check
from retsweep.search.spread import drawn
from retsweep.search.standing import Plan
from retsweep.spec import RunSpec, SpecError
from retsweep.spec.load import RUN_SECTIONS, construct, resolve
from retsweep.spec.secret import hidden
from retsweep.sweep import command
from retsweep.sweep.blocks import key_of
from retsweep.sweep.patience import Patience, StorageLost
from retsweep.sweep.plan import Job
from retsweep.sweep.rows import device_name
from retsweep.sweep.storage import answering, exclusive
from retsweep.sweep.study import Study
from retsweep.sweep.variants import Wanted
from retsweep.sweep.workers import Local, places
from retsweep.tracking import agent_run

SECTION, BUDGET = "search", "budget"
EVERY = "protocol.evaluation.every"
GIGA = 1e9


def run(arguments: Sequence[str], began: float | None = None) -> int:
    """As :func:`retsweep.sweep.command.run`, and a search where one is asked for."""
    began = time.monotonic() if began is None else began
    composed, tree = _read(arguments)
    wanted = command.asked(composed, arguments)
    if SECTION not in tree:
        _refuse_budgets(tree)
        return command.run(arguments, began, wanted=wanted)
    asked = Asked.of(tree, wanted, arguments)
    begun: list[tuple[Job, Driver]] = []

    def feed(job: Job) -> Job:
        driver = asked.driver(job)
        with answering(job.url):
            study = asked.begin(job, driver)
            job = dataclasses.replace(job, feed=driver, runs=driver.joined(job, study))
        begun.append((job, driver))
        return job

    code = command.run(arguments, began, wanted=wanted, feeding=feed)
    if begun and code in (command.EXIT_OK, command.EXIT_FAILED):
        try:
            _tell(*begun[0])
        except StorageLost as error:
            print(f"retsweep: {error}", file=sys.stderr)
            return command.EXIT_FAILED
    return code


def config(arguments: Sequence[str]) -> str:
    """``--cfg``. Raises SpecError if it cannot run."""
    composed, tree = _read(arguments)
    if SECTION in tree:
        Asked.of(tree, command.asked(composed, arguments), arguments)
    else:
        _refuse_budgets(tree)
    return command.config(arguments)


def _read(arguments: Sequence[str]) -> tuple[Any, Mapping[str, Any]]:
    """The composed config, and the same resolved. Raises SpecError."""
    composed = command.read(arguments)
    tree = resolve(composed)
    if SECTION in tree:
        _base(arguments)  # what a search cannot be given is told as such, not by what it breaks
    return composed, tree


@dataclasses.dataclass(frozen=True)
class Asked:
    """A search as it was asked for, and found possible. ``base`` are the overrides of its runs."""

    wanted: Wanted
    search: Search
    limits: Mapping[str, float]
    base: tuple[str, ...]
    space: Architectures
    steps: int
    rungs: tuple[int, ...]
    builder: Builder
    rows: Mapping[str, Sequence[warm.Row]]
    measured_on: str | None

    @staticmethod
    def of(tree: Mapping[str, Any], wanted: Wanted, arguments: Sequence[str]) -> Asked:
        """Raises SpecError, with nothing written yet."""
        if agent_run() is not None:
            raise SpecError(
                "`wandb agent` asks for one run at a time, and this command is a whole search; accepted: the "
                "search without an agent, on as many machines as share its storage"
            )
        search = construct(Search, tree[SECTION], SECTION)
        limits = budgets(tree[BUDGET])
        check_objectives(search.objectives)
        measured_on = _measured_on(search, wanted)
        check_cost(search.halving.macs, "search.halving.macs")
        base = _base(arguments)
        if "sweep" not in tree:
            raise SpecError("search is part of a sweep; accepted: +sweep=pareto")
        first = _check_wanted(wanted)
        steps = first.protocol.steps
        if steps is None:
            raise SpecError("a search counts steps; accepted: protocol.steps=N protocol.epochs=null")
        rungs = _rungs(search.halving, steps, first.protocol.evaluation.every)
        always = {} if not rungs or first.protocol.evaluation.every else {EVERY: math.gcd(*rungs)}
        builder = Builder.of(base, first, always)
        _check_base(wanted, builder)
        hybrid = tree["layer"].get(HYBRID) or {}
        space = Architectures.of(search.space, first, str(hybrid.get("letter")), tree)
        check(space, builder)
        base = (*base, *(f"{key}={value}" for key, value in always.items()))
        settings = wanted.settings
        rows = {name: warm.rows_of(name, settings.storage, settings.runs) for name in search.warm_start}
        return Asked(wanted, search, limits, base, space, steps, rungs, builder, rows, measured_on)

    # ---- beginning, or going on --------------------------------------------------------------
    def driver(self, job: Job) -> Driver:
        """One without edges between buckets yet: see :meth:`begin`."""
        (base,) = job.runs.values()
        plan = Plan(
            search=self.search,
            base=self.base,
            space=self.space,
            steps=self.steps,
            rungs=self.rungs,
            edges=(),
            limits=self.limits,
            retries=self.wanted.settings.retries,
            measured_on=self.measured_on,
        )
        return Driver(plan, self.builder.reading(base.spec, base.data_hash))

    def begin(self, job: Job, driver: Driver) -> Study:
        """Opens the search, or takes it up as it stands, and tells it what earlier studies know. Raises
        SpecError if the study is another search."""
        about = self._about(driver.builder)
        patience = Patience(job.url, job.heartbeat)
        with exclusive(job.url, job.study, patience):
            study = Study(job.url, job.study, create=True, patience=patience)
            proposals = driver.proposals(job, study)
            before = proposals.about()
            if before is None:
                before = {**about, "edges": self._edges(driver.builder)}
                proposals.begin(before)
            for key, value in about.items():
                if before.get(key) != value:
                    raise SpecError(
                        f"study {job.study} is a search with another {key}: {before.get(key)}, not {value}; "
                        "accepted: the same, or another study (study=NAME)"
                    )
            driver.plan = dataclasses.replace(driver.plan, edges=tuple(before["edges"]))
            answered = {one.hash for one in proposals.all() if one.hash is not None}
            for name, found in self.rows.items():
                for one in warm.known(found, self.space, driver.builder, self.limits):
                    if one.hash not in answered:
                        driver.tell_known(job, study, one, name)
                        answered.add(one.hash)
        return study

    def _about(self, builder: Builder) -> dict[str, Any]:
        """What cannot change while a search goes on, as JSON has it."""
        halving = self.search.halving
        buckets = list(halving.buckets) if isinstance(halving.buckets, tuple) else halving.buckets
        first = next(params for _, params in self.space.each_choice())
        measured_on = {"measured_on": self.measured_on} if self.measured_on else {}
        return {
            **measured_on,
            "objectives": list(self.search.objectives),
            "space": {name: list(choices) for name, choices in self.space.choices.items()},
            "budget": dict(self.limits),
            "rungs": list(self.rungs),
            "eta": halving.eta,
            "buckets": buckets,
            "bucket_of": halving.macs,
            "base": builder.hash(builder.spec(self.space.values(first))[0]),
        }

    def _edges(self, builder: Builder) -> list[float]:
        """The MACs between buckets: as given, or quantiles of architectures drawn from the space."""
        halving = self.search.halving
        if not self.rungs:
            return []
        if isinstance(halving.buckets, tuple):
            return [edge * GIGA for edge in halving.buckets]
        if halving.buckets == 1:
            return []
        source = random.Random(self.search.seed)
        costs = [cost(spec, halving.macs) for _, spec in drawn(self.space, builder, self.limits, source)]
        costs.sort()
        places = (len(costs) * at // halving.buckets for at in range(1, halving.buckets))
        return [float(costs[place]) for place in places] if costs else []


# ---- what cannot be asked ----------------------------------------------------------------------
def _check_wanted(wanted: Wanted) -> RunSpec:
    """The run that stands for all of a search. Raises SpecError if it cannot."""
    settings = wanted.settings
    run = wanted.runs[0]
    if len(wanted.runs) > 1:
        raise SpecError("a search trains each architecture once; accepted: seeds=1, one variant")
    if settings.match != "none" or settings.tune.learning_rate is not None:
        raise SpecError("a search chooses architectures; accepted: match=none, tune.learning_rate=null")
    if not run.spec.task.trains or run.spec.task.name in ("preflight", "train_bench"):
        raise SpecError(f"task={run.spec.task.name} gives no valid_ppl to search by; accepted: task=train")
    if run.spec.leaky:
        raise SpecError(
            "a search goes by perplexities, and under a mask that leaks there are none; accepted: "
            "layer.attention.mask=causal"
        )
    return run.spec


def _measured_on(search: Search, wanted: Wanted) -> str | None:
    """The hardware that latencies are measured on, if some are. Raises SpecError where they say nothing."""
    names = measured(search.objectives)
    if not names:
        return None
    if not isinstance(wanted.settings.launcher or Local(), Local):
        raise SpecError(
            f"search.objectives: {', '.join(names)} is measured where the command runs; accepted: "
            "launcher=local"
        )
    crew = places(wanted.settings)
    if crew.count > 1:
        raise SpecError(
            f"search.objectives: {', '.join(names)} is measured where nothing else runs; accepted: workers=1"
        )
    if search.warm_start:
        raise SpecError(
            f"search.warm_start: rows of other studies have no {', '.join(names)}; accepted: "
            "search.warm_start=[]"
        )
    return device_name(crew.device)


def _check_base(wanted: Wanted, builder: Builder) -> None:
    """Raises SpecError if the overrides that runs are made of are not all that makes them."""
    run = wanted.runs[0]
    pattern = set(run.spec.pattern)
    if len(pattern) > 1:
        raise SpecError("what stands for a search is a layout.pattern of one letter; accepted: +sweep=pareto")
    spec, _ = builder.spec({PATTERN: pattern.pop()})
    evaluation = run.spec.protocol.evaluation
    protocol = dataclasses.replace(spec.protocol, evaluation=evaluation)
    if dataclasses.replace(spec, protocol=protocol) != run.spec:
        raise SpecError(
            "the sweep's file changes the runs, which a search has from the command line alone; accepted in "
            "such a file: sweep, search, budget"
        )


def _base(arguments: Sequence[str]) -> tuple[str, ...]:
    """Those of the command line's overrides that the runs are made of. Raises SpecError."""
    kept = []
    for override in arguments:
        key = key_of(override)
        section = key.partition(".")[0]
        if key in ("layout", "layout.pattern"):
            raise SpecError(f"{override}: a search chooses the layout; accepted: search.space.letters=[A,R]")
        if section in (*RUN_SECTIONS, BUDGET, SECTION) and hidden(override) != override:
            # Whoever takes the run composes it from there: without the secret it would be another run.
            raise SpecError(
                f"{key} carries a secret, and a search writes what its runs are made of into the storage; "
                "accepted: the secret in an environment variable that its library reads (as HF_TOKEN), that "
                "of a storage in RETSWEEP_STORAGE"
            )
        if section in RUN_SECTIONS or (section == BUDGET and not _is_limit(key)):
            kept.append(override)
    return tuple(kept)


def _rungs(halving: Halving, steps: int, every: int) -> tuple[int, ...]:
    """The steps at which runs stop. Raises SpecError for those at which no run is validated."""
    if halving.rungs is None:
        third = max(1, steps // 3)
        third = max(every, third - third % every) if every else third
        rungs: tuple[int, ...] = (third,) if third < steps else ()
    else:
        rungs = halving.rungs
    for rung in rungs:
        if rung >= steps:
            raise SpecError(f"search.halving.rungs: {rung} is out of range; accepted: 1 to {steps - 1}")
        if every and rung % every:
            raise SpecError(
                f"search.halving.rungs: no validation after {rung} steps; accepted: multiples of "
                f"protocol.evaluation.every={every}"
            )
    return rungs


def _is_limit(key: str) -> bool:
    from retsweep.search.objectives import COSTLY

    return bool(COSTLY.match(key.partition(".")[2]))


def _refuse_budgets(tree: Mapping[str, Any]) -> None:
    """Raises SpecError for a hard budget where nothing is searched: it would hold for nothing."""
    section = tree.get(BUDGET)
    for key, limit in section.items() if isinstance(section, Mapping) else ():
        if limit is not None and _is_limit(f"{BUDGET}.{key}"):
            raise SpecError(f"budget.{key} is a limit of a search; accepted with +sweep=pareto")


def _tell(job: Job, driver: Driver) -> None:
    """Prints how the search stands."""
    console = Console(highlight=False, soft_wrap=True)
    with answering(job.url):
        study = Study(job.url, job.study, patience=Patience(job.url, job.heartbeat))
        proposals = driver.proposals(job, study)
        shown = list(lines(proposals.all(), proposals.best(), driver.plan))
        if not driver.over(job, study):
            shown.append("the search is not over; the same command goes on")
    for line in shown:
        console.print(line, markup=False)
