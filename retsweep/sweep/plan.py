"""From runs that are wanted to trials that can start: data prepared, identities known."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from retsweep.spec import RunSpec
from retsweep.spec.evaluate import Evaluate
from retsweep.spec.identity import spec_hash
from retsweep.spec.settings import Heartbeat
from retsweep.sweep.variants import Run, Wanted
from retsweep.tasks.probes import pinned

if TYPE_CHECKING:
    from rich.console import Console

    from retsweep.data.prepare import TokenisedCorpus
    from retsweep.sweep.progress import Screen
    from retsweep.sweep.study import Entry, Study
    from retsweep.tasks.base import Workspace

#: What stands for the data of a run that reads none.
NO_DATA = ""


@dataclass(frozen=True)
class Planned:
    """A run with the identity of its data. ``said``: what the sweep calls its variant, each time
    that it lists it, with the place in the list."""

    run: Run
    data_hash: str
    said: tuple[tuple[int, Mapping[str, str]], ...] = ()

    @property
    def spec(self) -> RunSpec:
        return self.run.spec


class Feed(Protocol):
    """Where runs come from while a study is worked on: a search. Workers and their parents hold copies of
    one, which share what the storage has."""

    def refill(self, job: Job, study: Study, waiting: int) -> None:
        """Brings the search on as far as what is known allows, so that, if it is not over, at least
        ``waiting`` runs wait for a worker."""

    def take(self, job: Job, study: Study) -> Entry | None:
        """:meth:`refill` and a claim at once; None if nothing waits."""

    def build(self, job: Job, entry: Entry) -> Planned:
        """The run of an entry that another process may have proposed. Raises SpecError."""

    def joined(self, job: Job, study: Study) -> dict[str, Planned]:
        """All runs of the search that the study has by now."""

    def measure(self, spec: RunSpec, workspace: Workspace) -> dict[str, Any]:
        """Columns for the row of a run that is trained, beside its task's. Raises SpecError."""

    def heading(self) -> str:
        """What is searched, in words."""

    def screen(self, console: Console, labels: Mapping[str, str]) -> Screen:
        """What shows it while it runs."""


@dataclass(frozen=True)
class Job:
    """All that a worker process has to know. ``runs`` maps spec_hash to run; ``keep`` and ``heartbeat`` as
    in Settings; ``checkpoints`` is the study's place for those that other machines reach, a URL. ``feed``
    brings further runs while they are worked on."""

    runs: Mapping[str, Planned]
    url: str
    study: str
    folder: Path
    cache: Path
    device: str
    tracker: Any
    keep: Literal["checkpoints", "rows"] = "checkpoints"
    heartbeat: Heartbeat = field(default_factory=Heartbeat)
    feed: Feed | None = None
    checkpoints: str | None = None

    def planned(self, entry: Entry) -> Planned:
        """The run that ``entry`` is of. Raises SpecError."""
        if self.feed is None or entry.hash in self.runs:
            return self.runs[entry.hash]
        return self.feed.build(self, entry)

    @property
    def urls(self) -> tuple[str, ...]:
        """Those that may hold a password."""
        return (self.url,) if self.checkpoints is None else (self.url, self.checkpoints)

    @property
    def labels(self) -> dict[str, str]:
        return {spec_hash: planned.run.label for spec_hash, planned in self.runs.items()}

    def trial_folder(self, spec_hash: str) -> Path:
        return self.folder / "trials" / spec_hash


def cache_folder(cache: str | None) -> Path:
    return Path(cache) if cache else Path.home() / ".cache" / "retsweep"


def plan(wanted: Wanted) -> dict[str, Planned]:
    """Each different run once, by spec_hash, in the order asked for.

    Corpora that tasks will read are prepared here, once for all workers. Raises SpecError.
    """
    return identify(wanted.runs, cache_folder(wanted.settings.cache))


def identify(runs: Iterable[Run], cache: Path) -> dict[str, Planned]:
    """:func:`plan` for given runs."""
    planned: dict[str, Planned] = {}
    for one in with_data(runs, cache):
        key = spec_hash(one.spec, one.data_hash)
        known = planned.get(key)
        if known is None:
            planned[key] = one
            continue
        # A member of the sweep is no mere reference.
        own = dataclasses.replace(known.run, reference=known.run.reference and one.run.reference)
        planned[key] = Planned(own, known.data_hash, (*known.said, *one.said))
    return planned


def with_data(runs: Iterable[Run], cache: Path) -> list[Planned]:
    """Every one of ``runs``, equal ones too, with the identity of its data, which is prepared here."""
    data: dict[tuple[Any, Any, int], TokenisedCorpus] = {}
    content: dict[Evaluate, Evaluate] = {}
    return [
        Planned(_pinned(_with_probes(run, content)), _data_hash(run.spec, cache, data), ((place, run.said),))
        for place, run in enumerate(runs)
    ]


def _with_probes(run: Run, known: dict[Evaluate, Evaluate]) -> Run:
    """``run`` with the hash of whatever its probes read, which is part of its identity."""
    asked = run.spec.evaluate
    if not run.spec.task.reads_data or not asked.probes:
        return run
    if asked not in known:
        known[asked] = pinned(asked)
    return dataclasses.replace(run, spec=dataclasses.replace(run.spec, evaluate=known[asked]))


def _pinned(run: Run) -> Run:
    """``run`` with what its task depends on beside the spec as part of its identity and its row: a
    task of which that is true has ``pinned``, and says it in ``columns``."""
    if not hasattr(run.spec.task, "pinned"):
        return run
    task = run.spec.task.pinned()
    spec = dataclasses.replace(run.spec, task=task)
    return dataclasses.replace(run, spec=spec, extra={**run.extra, **task.columns()})


def _data_hash(spec: RunSpec, cache: Path, known: dict[tuple[Any, Any, int], TokenisedCorpus]) -> str:
    if not spec.task.reads_data:
        return NO_DATA
    from retsweep.data.prepare import prepare, require_chunk

    key = (spec.corpus, spec.tokenizer, spec.scale.vocabulary)
    if key not in known:
        known[key] = prepare(*key, cache)
    require_chunk(known[key], spec.scale.context)
    return known[key].data_hash
