"""``tune.learning_rate=[a,b,c]``: the same small budget for every variant, before the runs that count.

Each different variant is tried once for each rate and each tuning seed, in a study of its own
(``STUDY-tune``), so that no table of the study holds a try. Chosen is the rate with the lowest
validation loss, in nats a token, averaged over the tuning seeds: the log of ``valid_ppl``, or of
``valid_ppl_causal_eval`` for a spec that leaks, whose ``valid_ppl`` is no likelihood. A try that
diverged or failed counts as infinite; of rates as good the smallest is chosen. One whose worker died
says nothing of its rate: nothing is chosen until it has been repeated.

Nothing here runs anything: runs in, runs out. ``command.py`` has the tries carried out.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retsweep.spec import RunSpec, SpecError
from retsweep.spec.identity import spec_hash, variant_hash
from retsweep.spec.settings import Tune
from retsweep.sweep.plan import Planned
from retsweep.sweep.study import Entry
from retsweep.sweep.variants import Run, Wanted

SUFFIX = "-tune"
#: What is chosen by (where a row has it, under a causal mask), in rows of this status.
COLUMN, UNDER_MASK, OK = "valid_ppl", "valid_ppl_causal_eval", "ok"
#: How a try stands that says something of its rate.
OVER = ("complete", "failed")
SHOWN_SEEDS = 5


@dataclass(frozen=True)
class Choice:
    """A variant's learning ``rate``, and the mean validation loss (nats a token) of every rate that
    it was tried with, infinite where a try diverged or failed."""

    label: str
    rate: float
    losses: Mapping[float, float]

    @property
    def blind(self) -> bool:
        """Whether no rate was any good, so that nothing tells them apart."""
        return all(math.isinf(loss) for loss in self.losses.values())


@dataclass(frozen=True)
class Tuning:
    """The tries behind some runs.

    ``keys`` has the variant of each of ``wanted.runs``, in their order: its hash, whatever its rate.
    ``labels`` maps such a key to the variant's name, ``tries`` to its tries by spec_hash.
    """

    wanted: Wanted
    keys: tuple[str, ...]
    labels: Mapping[str, str]
    tries: Mapping[str, Mapping[str, Planned]]

    @property
    def planned(self) -> dict[str, Planned]:
        """All tries by spec_hash, a tuning seed after the other, variants in the order asked for."""
        every = {key: one for tries in self.tries.values() for key, one in tries.items()}
        return dict(sorted(every.items(), key=lambda item: item[1].spec.seed))

    @property
    def wanted_tries(self) -> Wanted:
        """The tries as a command could have asked for them."""
        return dataclasses.replace(
            self.wanted,
            runs=tuple(one.run for one in self.planned.values()),
            study=self.wanted.study + SUFFIX,
            sweep=self.wanted.sweep + SUFFIX,
        )

    def open(self, standing: Mapping[str, Entry]) -> dict[str, Planned]:
        """The tries that are not over: never begun, under way, or lost with their worker."""
        return {
            key: one
            for key, one in self.planned.items()
            if key not in standing or standing[key].state not in OVER
        }

    def unsettled(self, standing: Mapping[str, Entry]) -> dict[str, Planned]:
        """The tries of variants whose tuning is not over. One all of whose tries have ended, be it in
        failure, is settled: a try that is repeated could change a rate that runs were made with."""
        not_over = self.open(standing)
        settled = {key for key, tries in self.tries.items() if not_over.keys().isdisjoint(tries)}
        left = {one for key, tries in self.tries.items() if key not in settled for one in tries}
        return {key: one for key, one in self.planned.items() if key in left}

    def choices(self, standing: Mapping[str, Entry]) -> dict[str, Choice]:
        """The choice for each variant, by its key, when no try is :meth:`open`. Raises SpecError if rows
        hold nothing to choose by."""
        found = {}
        for key, tries in self.tries.items():
            losses: dict[float, list[float]] = {}
            for one, planned in tries.items():
                rate = planned.spec.protocol.learning_rate
                losses.setdefault(rate, []).append(_loss(planned.spec, standing[one]))
            means = {rate: sum(each) / len(each) for rate, each in sorted(losses.items())}
            rate = min(means, key=lambda rate: (means[rate], rate))
            found[key] = Choice(self.labels[key], rate, means)
        return found

    def tuned(self, choices: Mapping[str, Choice]) -> Wanted:
        """What was wanted, every run with its variant's chosen rate and the columns that say so."""
        tune = self.wanted.settings.tune
        runs = tuple(
            _tuned(run, choices[key].rate, tune) for run, key in zip(self.wanted.runs, self.keys, strict=True)
        )
        return dataclasses.replace(self.wanted, runs=runs)

    def outcomes(self, planned: Iterable[Planned]) -> dict[str, Planned]:
        """Every run that could come of the tuning, whatever is chosen, by spec_hash; ``planned`` as for
        :func:`tuning_of`."""
        tune = self.wanted.settings.tune
        runs = [
            dataclasses.replace(one, run=_tuned(one.run, rate, tune))
            for one in planned
            for rate in _rates(tune)
        ]
        return {spec_hash(one.spec, one.data_hash): one for one in runs}


def is_asked(wanted: Wanted) -> bool:
    return wanted.settings.tune.learning_rate is not None


def check(wanted: Wanted) -> None:
    """Raises SpecError if ``wanted`` asks for a tuning that cannot be."""
    if not is_asked(wanted):
        return
    tune = wanted.settings.tune
    for run in wanted.runs:
        if not run.spec.task.reads_data:
            raise SpecError(
                f"task={run.spec.task.name} has no validation loss to choose by; "
                "accepted beside tune.learning_rate: task=train"
            )
    seeds = {run.spec.seed for run in wanted.runs}
    both = sorted(seeds & set(_seeds(tune)))
    if both:
        shown = ", ".join(map(str, both[:SHOWN_SEEDS])) + (", ..." if len(both) > SHOWN_SEEDS else "")
        raise SpecError(
            f"tune.first_seed={tune.first_seed} would tune with seeds of the runs that count ({shown}); "
            f"accepted: tune.first_seed={max(seeds) + 1} or more"
        )


def tuning_of(wanted: Wanted, planned: Sequence[Planned]) -> Tuning:
    """The tries that ``wanted`` asks for; ``planned`` are its runs, each with the hash of its data.

    Raises SpecError if some of the runs differ in nothing but the rate, which is to be chosen.
    """
    tune = wanted.settings.tune
    keys: list[str] = []
    labels: dict[str, str] = {}
    rates: dict[str, float] = {}
    tries: dict[str, dict[str, Planned]] = {}
    for one in planned:
        rate = one.spec.protocol.learning_rate
        key = variant_hash(_with_protocol(one.run, learning_rate=1.0).spec, one.data_hash)
        if rates.setdefault(key, rate) != rate:
            raise SpecError(
                "tune.learning_rate chooses protocol.learning_rate, which this sweep varies; "
                "accepted: one of the two"
            )
        keys.append(key)
        if key not in tries:
            labels[key] = _name(one.run)
            runs = [_try(one.run, rate, seed, tune) for seed in _seeds(tune) for rate in _rates(tune)]
            tries[key] = {
                spec_hash(run.spec, one.data_hash): Planned(run, one.data_hash, one.said) for run in runs
            }
    return Tuning(wanted, tuple(keys), labels, tries)


def lines(choices: Mapping[str, Choice]) -> Iterator[str]:
    """What was chosen, in words: a line a rate, and one for each variant that had no good one."""
    chosen = [choice for choice in choices.values() if not choice.blind]
    for rate in sorted({choice.rate for choice in chosen}):
        names = ", ".join(choice.label for choice in chosen if choice.rate == rate)
        yield f"learning rate {rate!r}, chosen on validation: {names}"
    for choice in choices.values():
        if choice.blind:
            tried = " ".join(map(repr, choice.losses))
            yield f"{choice.label}: every learning rate ({tried}) diverged or failed; the smallest is taken"


def _loss(spec: RunSpec, entry: Entry) -> float:
    """The validation loss of a try that is over, in nats a token."""
    if entry.state not in OVER:
        raise ValueError(f"a try that is {entry.state} has no loss yet")
    row = entry.row if entry.state == "complete" else None
    if row is None or row.get("status") != OK:
        return math.inf
    if COLUMN not in row:
        raise SpecError(
            f"task={spec.task.name} writes no {COLUMN}, so tune.learning_rate has nothing to choose by; "
            "accepted: task=train"
        )
    perplexity = row.get(UNDER_MASK, row[COLUMN])
    usable = isinstance(perplexity, (int, float)) and math.isfinite(perplexity) and perplexity > 0
    return math.log(perplexity) if usable else math.inf


def _try(run: Run, rate: float, seed: int, tune: Tune) -> Run:
    """``run`` with another rate and seed. It is not probed: only its validation loss is read."""
    changes: dict[str, Any] = {"learning_rate": rate}
    if tune.steps is not None:
        changes |= {"steps": tune.steps, "epochs": None}
    tried = _with_protocol(run, **changes)
    return dataclasses.replace(
        tried,
        spec=dataclasses.replace(
            tried.spec.with_seed(seed), evaluate=dataclasses.replace(run.spec.evaluate, probes=())
        ),
        label=f"{_name(run)} rate {rate!r} seed {seed}",
        config={**tried.config, "seed": seed, "evaluate": {**tried.config.get("evaluate", {}), "probes": []}},
    )


def _tuned(run: Run, rate: float, tune: Tune) -> Run:
    """``run`` at the ``rate`` that was chosen, with the columns that say so."""
    columns: dict[str, Any] = {"tuned_from": " ".join(repr(rate) for rate in sorted(_rates(tune)))}
    if tune.steps is not None:
        columns["tuned_steps"] = tune.steps
    return dataclasses.replace(_with_protocol(run, learning_rate=rate), extra={**run.extra, **columns})


def _with_protocol(run: Run, **changes: Any) -> Run:
    """``run`` with other values in its protocol, in the spec as in the config that is kept of it."""
    protocol = dataclasses.replace(run.spec.protocol, **changes)
    config = copy.deepcopy(dict(run.config))
    config["protocol"].update(changes)
    return dataclasses.replace(run, spec=dataclasses.replace(run.spec, protocol=protocol), config=config)


def _name(run: Run) -> str:
    """A run's label less its seed: its variant's."""
    return run.label.removesuffix(f" seed {run.spec.seed}")


def _rates(tune: Tune) -> tuple[float, ...]:
    return tune.learning_rate or ()


def _seeds(tune: Tune) -> range:
    return range(tune.first_seed, tune.first_seed + tune.seeds)
