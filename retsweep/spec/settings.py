"""How runs are carried out: where, by how many, for how long. ``match`` and ``tune`` change runs
before they have an identity; nothing else here changes a number."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from retsweep.spec.base import SpecError, spec
from retsweep.spec.trust import check_name

#: As many as anybody waits for: a slip beyond it would take the memory before it is told.
MOST_SEEDS = 100_000


@spec
class Limit:
    """``minutes`` after which a sweep stops cleanly; the next one goes on."""

    minutes: PositiveFloat | None = None


@spec
class Heartbeat:
    """How processes that share a study know of one another, through its storage; whole seconds, the same
    on every machine. ``every``: between two signs of life of a running trial. ``grace``: the silence after
    which another machine takes a trial's worker for dead (on its own machine a dead process is noticed at
    once). ``patience``: how long a storage that is away, as a server that is restarted, is waited for."""

    every: PositiveInt = 2
    grace: PositiveInt = 60
    patience: NonNegativeInt = 300

    def __post_init__(self) -> None:
        if self.grace < 2 * self.every:
            raise SpecError(
                f"heartbeat.grace={self.grace} would bury the living; accepted beside "
                f"heartbeat.every={self.every}: {2 * self.every} or more"
            )


@spec
class Checkpoint:
    """``dir``: a folder, or a URL of fsspec, that other machines reach too; None leaves checkpoints in the
    trial's folder alone."""

    dir: str | None = None


@spec
class Tune:
    """``learning_rate``: the rates that every variant is tried with before the runs that count, once
    for each of ``seeds`` seeds counted up from ``first_seed``; None tries nothing. ``steps`` a try
    takes; None: as many as the runs that count."""

    learning_rate: tuple[PositiveFloat, ...] | None = None
    seeds: Annotated[PositiveInt, Field(le=MOST_SEEDS)] = 1
    first_seed: Annotated[int, Field(ge=0, lt=2**31)] = 1000
    steps: PositiveInt | None = None

    def __post_init__(self) -> None:
        rates = self.learning_rate
        if rates is not None and (len(rates) < 2 or len(set(rates)) < len(rates)):
            raise SpecError(
                f"tune.learning_rate=[{','.join(map(repr, rates))}] is not accepted; "
                "accepted: two or more different rates, or null"
            )
        if self.first_seed + self.seeds > 2**31:
            raise SpecError(
                f"tune.first_seed={self.first_seed} leaves no room for tune.seeds={self.seeds}; "
                "accepted: seeds below 2^31"
            )


@spec
class Settings:
    """``study`` and ``storage`` None mean: derived from what is run."""

    tracker: Any
    launcher: Any = None
    """What starts workers; None for processes of this machine."""
    study: str | None = None
    storage: str | None = None
    runs: str = "runs"
    cache: str | None = None
    """Folder of tokenised corpora; None for ~/.cache/retsweep."""
    workers: PositiveInt | None = None
    """How many; None for one a core, or one a GPU, where they are processes of this machine."""
    seeds: Annotated[PositiveInt, Field(le=MOST_SEEDS)] | None = None
    """How many seeds a variant gets, counted up from ``seed``; None: as the sweep says, else one."""
    retries: NonNegativeInt = 1
    """How often a trial whose worker died is tried again."""
    checkpoint: Checkpoint = dataclasses.field(default_factory=Checkpoint)
    keep: Literal["checkpoints", "rows"] = "checkpoints"
    """What stays on disk of a run that has its row: ``rows`` removes the weights, twice those of a model
    a run, with which it could be read again. A run that is stopped or fails keeps them in any case."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    prompt: str | None = None
    """What ``task=generate`` goes on from; "" is the beginning of a text."""
    prompt_file: str | None = None
    """A file that holds it, for text that Hydra's grammar has no place for. Read as it is, UTF-8."""
    limit: Limit = dataclasses.field(default_factory=Limit)
    heartbeat: Heartbeat = dataclasses.field(default_factory=Heartbeat)
    match: Literal["none", "params", "macs"] = "none"
    """What the FFN width is solved for, so that every variant has as much of it as the Transformer."""
    tune: Tune = dataclasses.field(default_factory=Tune)

    def __post_init__(self) -> None:
        if self.study is not None:
            check_name(self.study, "study")
        if self.prompt is not None and self.prompt_file is not None:
            raise SpecError("prompt and prompt_file are two prompts; accepted: one of them")
