"""What is tracked, and what hears it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Mode = Literal["offline", "online"]
#: Where a run has arrived, whole; "nowhere" if any of it was given up.
Sent = Literal["online", "offline", "nowhere"]


@dataclass(frozen=True)
class Resolution:
    """Whether and how a run is tracked, and why so: "wandb, offline: no key"."""

    mode: Mode | Literal["none"]
    reason: str

    def __str__(self) -> str:
        return f"{'none' if self.mode == 'none' else f'wandb, {self.mode}'}: {self.reason}"


@dataclass(frozen=True)
class TrackedRun:
    """``id`` is the spec hash (a resumed trial goes on in the same W&B run), ``group`` the study.

    ``folder`` is the trial's own; offline runs lie in ``folder/wandb`` until ``wandb sync``.
    ``job_type`` is what W&B groups by within a group: the family of layouts. ``live`` runs are carried
    out by this process, whose machine W&B watches beside them.
    """

    id: str
    name: str
    group: str
    folder: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    job_type: str | None = None
    live: bool = True


class Tracker(Protocol):
    """Hears a run, whole and in order; what W&B has of it already is not sent twice. No method raises;
    none but ``close`` waits for anything."""

    def metrics(self, line: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl; it holds ``step``."""

    def row(self, row: Mapping[str, Any]) -> None:
        """The run's finished row."""

    def panels(self, make: Callable[[], Mapping[str, Any]], digest: str) -> None:
        """Tables and charts by name, of wandb's types: ``make`` is called where wandb may be imported,
        unless the run shows those of the same ``digest`` already."""

    def close(self) -> Sent:
        """The run is over, or stops here."""


class Silence:
    """The tracker that does nothing."""

    def metrics(self, line: Mapping[str, Any]) -> None: ...

    def row(self, row: Mapping[str, Any]) -> None: ...

    def panels(self, make: Callable[[], Mapping[str, Any]], digest: str) -> None: ...

    def close(self) -> Sent:
        return "nowhere"
