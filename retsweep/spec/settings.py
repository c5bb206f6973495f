"""How a run is carried out: where, by how many, for how long. Nothing here changes a number."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from retsweep.spec.base import SpecError, spec


@spec
class Limit:
    """``minutes`` after which a sweep stops cleanly; the next one goes on."""

    minutes: PositiveFloat | None = None


@spec
class Settings:
    """``study`` and ``storage`` None mean: derived from what is run."""

    tracker: Any
    study: str | None = None
    storage: str | None = None
    runs: str = "runs"
    cache: str | None = None
    """Folder of tokenised corpora; None for ~/.cache/retsweep."""
    workers: PositiveInt | None = None
    """Local worker processes; None for one a core, or one a GPU."""
    seeds: PositiveInt | None = None
    """How many seeds a variant gets, counted up from ``seed``; None: as the sweep says, else one."""
    retries: NonNegativeInt = 1
    """How often a trial whose worker died is tried again."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    limit: Limit = dataclasses.field(default_factory=Limit)

    def __post_init__(self) -> None:
        if self.study is not None and (not self.study or set(self.study) & set("/\\ ")):
            raise SpecError(f"study={self.study!r} is a folder name: no slashes or spaces")
