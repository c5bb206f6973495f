"""The proposals of a search: a second Optuna study, NAME-search, beside the ledger NAME.

A proposal is a trial with the architecture as its parameters and the objectives as its values: what a
sampler learns from, and what optuna-dashboard draws. It runs nothing. Its run, named by ``spec_hash``, is a
trial of the ledger; whoever sees that run's row tells the proposal. All writing happens under the ledger's
lock (:func:`retsweep.sweep.storage.exclusive`), by whichever process is there: a proposal that a killed one
left half done is finished, or given up, by the next.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from retsweep.search.settings import Search
from retsweep.spec import SpecError

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

SUFFIX = "-search"
#: Where the study keeps what it is a search of.
ABOUT = "search"
#: Optuna's own name of a trial's generation, so that what was told from rows is one of a generation too.
GENERATION = "NSGAIISampler:generation"

State = Literal["open", "told", "dropped"]


@dataclass(frozen=True)
class Proposal:
    """``open`` until its run has a row; ``told`` with values; ``dropped`` without any: infeasible, failed,
    diverged, or never promoted. ``hash`` is None where its process died before it was known.

    ``infeasible`` says why nothing was built; ``source`` is the study of the row it was told from; ``known``
    marks one that was answered at once, because its run was known.
    """

    trial: int
    number: int
    params: Mapping[str, Any]
    state: State
    values: tuple[float, ...] | None
    hash: str | None
    costs: Mapping[str, float]
    bucket: int
    infeasible: str | None
    source: str | None
    known: bool

    @property
    def counts(self) -> bool:
        """Whether it may have cost a run of this search."""
        return self.hash is not None and self.infeasible is None and self.source is None


class Proposals:
    """Those of one search, in ``storage``. Opening a new one needs the ledger's lock."""

    def __init__(self, storage: optuna.storages.BaseStorage, study: str, objectives: Sequence[str]) -> None:
        import optuna

        self._storage, self._name, self._objectives = storage, study + SUFFIX, tuple(objectives)
        with quiet():
            try:
                self._study = optuna.create_study(
                    storage=storage,
                    study_name=self._name,
                    directions=["minimize"] * len(objectives),
                    load_if_exists=True,
                )
            except ValueError as error:  # not so many of them
                raise _other_objectives(self._name) from error
            named = self._study.metric_names
            if named is None:
                self._study.set_metric_names(list(objectives))
            elif named != list(objectives):
                raise _other_objectives(self._name)

    # ---- what it is a search of --------------------------------------------------------------
    def about(self) -> dict[str, Any] | None:
        """What the search was begun with; None before that."""
        found = self._study.user_attrs.get(ABOUT)
        return None if found is None else dict(found)

    def begin(self, about: Mapping[str, Any]) -> None:
        self._study.set_user_attr(ABOUT, dict(about))

    # ---- reading -----------------------------------------------------------------------------
    def all(self) -> list[Proposal]:
        """Every proposal, oldest first."""
        with quiet():
            return [_proposal(trial) for trial in self._study.get_trials(deepcopy=False)]

    def best(self) -> list[Proposal]:
        """The Pareto front of what has been told."""
        with quiet():
            return [_proposal(trial) for trial in self._study.best_trials]

    # ---- proposing ---------------------------------------------------------------------------
    def ask(
        self,
        search: Search,
        distributions: Mapping[str, BaseDistribution],
        *,
        at_random: bool,
        fixed: Mapping[str, Any] | None = None,
    ) -> Proposal:
        """A new one, with the parameters that are ``fixed``. What it draws by chance comes from the search's
        seed and its own number, so that a search that was killed goes on as if it had not been."""
        import optuna

        with quiet():
            sampler = _sampler(search, len(self._study.get_trials(deepcopy=False)), at_random)
            if fixed:
                sampler = optuna.samplers.PartialFixedSampler(dict(fixed), sampler)
            self._study.sampler = sampler
            trial = self._study.ask(dict(distributions))
        return self._read(trial._trial_id)

    def note(self, proposal: Proposal, **attributes: Any) -> Proposal:
        """``proposal`` with user attributes written: ``spec_hash``, ``overrides``, ``macs`` ..."""
        for key, value in attributes.items():
            self._storage.set_trial_user_attr(proposal.trial, key, value)
        return self._read(proposal.trial)

    def refuse(self, proposal: Proposal, reason: str, excess: Mapping[str, float]) -> None:
        """Ends it as infeasible; ``excess``: by what share it is above each budget."""
        import optuna

        self.note(proposal, infeasible=reason)
        with quiet():
            trial = optuna.trial.Trial(self._study, proposal.trial)
            for name, value in (excess or {"spec": 1.0}).items():
                trial.set_constraint(name, value)
        self.drop(proposal)

    # ---- telling -----------------------------------------------------------------------------
    def tell(self, proposal: Proposal, values: Sequence[float]) -> None:
        with quiet():
            self._study.tell(proposal.number, list(values), skip_if_finished=True)

    def drop(self, proposal: Proposal, *, failed: bool = False) -> None:
        """Ends it without values."""
        from optuna.trial import TrialState

        with quiet():
            state = TrialState.FAIL if failed else TrialState.PRUNED
            self._study.tell(proposal.number, state=state, skip_if_finished=True)

    def add(
        self,
        params: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
        values: Sequence[float],
        attributes: Mapping[str, Any],
        like: Proposal | None = None,
    ) -> None:
        """One that is told from the beginning: from a row of another study, or of this one where its own
        proposal (``like``) was ended before the row came."""
        import optuna

        generation = 0
        if like is not None:
            generation = self._storage.get_trial(like.trial).system_attrs.get(GENERATION, 0)
        with quiet():
            trial = optuna.trial.create_trial(
                params=dict(params),
                distributions=dict(distributions),
                values=list(values),
                user_attrs=dict(attributes),
                system_attrs={GENERATION: generation},
            )
            self._study.add_trial(trial)

    def _read(self, trial: int) -> Proposal:
        return _proposal(self._storage.get_trial(trial))


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna warns that heartbeats are for ``optimize`` (proposals have none), and of experiments."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _other_objectives(study: str) -> SpecError:
    return SpecError(f"study {study} has other objectives; accepted: the same, or study=NAME")


def _proposal(trial: optuna.trial.FrozenTrial) -> Proposal:
    attributes = trial.user_attrs
    state: State = "dropped"
    if trial.state.name in ("RUNNING", "WAITING"):
        state = "open"
    elif trial.state.name == "COMPLETE":
        state = "told"
    return Proposal(
        trial=trial._trial_id,
        number=trial.number,
        params=trial.params,
        state=state,
        values=tuple(trial.values) if trial.values is not None else None,
        hash=attributes.get("spec_hash"),
        costs=attributes.get("macs") or {},
        bucket=attributes.get("bucket", 0),
        infeasible=attributes.get("infeasible"),
        source=attributes.get("from"),
        known=bool(attributes.get("known")),
    )


def _sampler(search: Search, number: int, at_random: bool) -> optuna.samplers.BaseSampler:
    """The sampler of one proposal, the ``number``-th."""
    import optuna

    seed = int.from_bytes(hashlib.sha256(f"{search.seed} {number}".encode()).digest()[:4])
    if at_random:
        return optuna.samplers.RandomSampler(seed=seed)
    if search.sampler == "nsga2":
        return optuna.samplers.NSGAIISampler(population_size=search.population, seed=seed)
    return optuna.samplers.TPESampler(n_startup_trials=search.startup, seed=seed)
