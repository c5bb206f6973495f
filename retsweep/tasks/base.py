"""What a task is: one run in, one row's columns out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from retsweep.spec.run import RunSpec
from retsweep.train.distributed import ALONE, Group


class InterruptedRun(Exception):
    """The run was asked to stop; what it needs to go on from here is on disk."""


@dataclass(frozen=True)
class Workspace:
    """Where a task works and whom it tells.

    ``folder`` is the trial's own (it exists); ``device`` a torch device; ``cache`` holds tokenised
    corpora. ``data_hash`` is that of the corpus the run was planned with: a task that reads another
    raises SpecError (None: any will do). ``stop`` is asked between steps: when it answers True the
    task saves its state and raises InterruptedRun. An exception from it means that the folder is
    somebody else's by now, and goes through; so it is asked before anything is put there too, where
    its answer does not count. ``progress`` hears (steps done, steps in all); ``metrics`` hears every
    line that is written to metrics.jsonl; ``saved`` of every file of a checkpoint, and of which step it is.

    ``group``: the processes that share the training. All of them do the task; those that are not its chief
    give no columns, and neither read nor write in ``folder``.
    """

    folder: Path
    device: str
    cache: Path
    data_hash: str | None = None
    stop: Callable[[], bool] = lambda: False
    progress: Callable[[int, int], None] = lambda done, total: None
    metrics: Callable[[Mapping[str, Any]], None] = lambda line: None
    saved: Callable[[Path, int], None] = lambda path, step: None
    group: Group = ALONE


class Task(Protocol):
    """``conf/task/<name>.yaml`` names the class; its fields are the task's options.

    ``name`` is that of the YAML; ``reads_data`` says whether the run's identity covers a corpus,
    ``trains`` whether it covers the form in which layers train, ``computes`` whether the model runs on the
    device in ``protocol.precision``. A task that trains at lengths of its own instead of ``scale.context``
    names them as ``trained_contexts``. A task whose outcome depends on something else too
    (``preflight.py``: on the code) may have two methods more: ``pinned()`` gives the task that names it,
    ``columns()`` what a row says of it.
    """

    name: ClassVar[str]
    reads_data: ClassVar[bool]
    trains: ClassVar[bool]
    computes: ClassVar[bool]

    def __call__(self, spec: RunSpec, workspace: Workspace) -> dict[str, Any]: ...
