"""A trial as W&B gets it: from the worker that carries it out, or afterwards from what is kept of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from retsweep.spec.configs import plain_file
from retsweep.spec.secret import hidden_in
from retsweep.sweep.dashboard import grouping, grouping_of
from retsweep.sweep.plan import Planned
from retsweep.sweep.study import Entry
from retsweep.tracking import Sent, TrackedRun, Tracker, agent_run
from retsweep.train.metrics import read_lines

METRICS, CONFIG = "metrics.jsonl", "config.yaml"
#: The column of a row that says which W&B run holds it, where `wandb agent` has named that.
AGENT_COLUMN = "wandb_run"


def config_of(planned: Planned, urls: Sequence[str]) -> dict[str, Any]:
    """The run's config without secrets, those in ``urls`` (of the job) among them: what config.yaml and W&B
    are told."""
    return dict(hidden_in(planned.run.config, urls))


def live(planned: Planned, spec_hash: str, study: str, folder: Path, urls: Sequence[str]) -> TrackedRun:
    """The run of a trial that begins, or goes on, in ``folder``; ``urls`` are the job's."""
    grouped = grouping(planned.spec)
    name = f"{planned.run.label} ({spec_hash[:6]})"
    config = {**config_of(planned, urls), **grouped}
    return TrackedRun(spec_hash, name, study, folder, config, job_type=grouped["family"])


def finished(entry: Entry, study: str, folder: Path) -> TrackedRun:
    """The same run of a trial that has its row. Without a config.yaml (it ran on another machine) the run's
    config is what its row says of the layout."""
    assert entry.row is not None
    path = folder / CONFIG
    grouped = grouping_of(entry.row)
    config = {**(hidden_in(plain_file(path)) if path.is_file() else {}), **grouped}
    name = f"{entry.label} ({entry.hash[:6]})"
    run_id = str(entry.row.get(AGENT_COLUMN, entry.hash))
    return TrackedRun(run_id, name, study, folder, config, job_type=grouped["family"], live=False)


def history(folder: Path) -> list[dict[str, Any]]:
    """The lines of a trial's metrics.jsonl; none if it has no such file here."""
    return read_lines(folder / METRICS)


def agent_columns() -> dict[str, str]:
    """What a row says of the W&B run that holds it, under `wandb agent`: its id is not the trial's."""
    named = agent_run()
    return {AGENT_COLUMN: named} if named else {}


class Whole:
    """Tells ``tracker`` a run from its first step on, wherever this process goes on with it: before the
    first line stands what metrics.jsonl in ``folder`` has kept of earlier ones."""

    def __init__(self, tracker: Tracker, folder: Path) -> None:
        self._tracker, self._folder = tracker, folder
        self._begun = False

    def metrics(self, line: Mapping[str, Any]) -> None:
        self._begin(before=line["step"])
        self._tracker.metrics(line)

    def row(self, row: Mapping[str, Any]) -> None:
        self._begin()
        self._tracker.row(row)

    def panels(self, make: Callable[[], Mapping[str, Any]], digest: str) -> None:
        self._tracker.panels(make, digest)

    def close(self) -> Sent:
        self._begin()
        return self._tracker.close()

    def _begin(self, before: float = float("inf")) -> None:
        if not self._begun:
            self._begun = True
            for line in history(self._folder):
                if line["step"] < before:
                    self._tracker.metrics(line)
