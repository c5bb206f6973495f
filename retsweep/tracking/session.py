"""A W&B run that has begun. Imports wandb; all of it runs on a mirror's thread.

A resumed trial tells its run again from the beginning (metrics.jsonl holds it), and nothing of it may be
doubled. Online the server says how far it has come. Offline nobody does: every process leaves a folder
of its own, and `wandb sync` puts what is in one behind whatever the server has of the run (wandb 0.31; and
one that a killed worker left empty keeps it from sending any of those that it was called with). So a folder
holds all that W&B has not seen, and takes the place of those before it that were not sent.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from retsweep.tracking.base import Mode, TrackedRun
from retsweep.tracking.log import last_step

DEFAULT_SERVER = "https://api.wandb.ai"
#: Seconds for a first sign of life from the server.
PROBE_SECONDS = 3.0
#: wandb's own deadlines, in seconds; its defaults are minutes.
INIT_SECONDS = 15
FINISH_SECONDS = 30
#: In wandb's log: no more lines of a run are sent.
FATAL = "filestream: fatal error"
#: The file in a run's folder that says what the run was told to its end; and the key of a run's summary
#: that says what its panels show.
TOLD, SHOWN = "retsweep.sha256", "panels_sha256"


class Digest:
    """Of all that a run is told, in order."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._sum = hashlib.sha256()
        self.add("config", dict(config))

    def add(self, kind: str, said: Any) -> None:
        self._sum.update(json.dumps([kind, said], sort_keys=True, default=str).encode() + b"\n")

    def text(self) -> str:
        return self._sum.hexdigest()


class Session:
    """``run`` is wandb's, begun for ``tracked``. What it holds already is not sent again: steps that the
    server has, a row and panels that are the same."""

    def __init__(self, run: Any, tracked: TrackedRun, mode: Mode) -> None:
        self._run, self._tracked, self._mode = run, tracked, mode
        self._folder = Path(run.settings.sync_dir)
        before = [path for path in folders(tracked) if path != self._folder]
        self._unsent = [path for path in before if not was_sent(path)]
        if mode == "online":
            self._first = run.starting_step if run.resumed else 0
        else:
            self._first = 1 + max((last_step(path) for path in before if was_sent(path)), default=-1)
        self._told = Digest(tracked.config)

    def line(self, line: Mapping[str, Any]) -> None:
        self._told.add("line", dict(line))
        values = {key: value for key, value in line.items() if key != "step"}
        if line["step"] >= self._first:
            # At once: a line that waited for the next would come after the row, and overwrite what both name.
            self._run.log(values, step=line["step"], commit=True)

    def row(self, row: Mapping[str, Any]) -> None:
        self._told.add("row", dict(row))
        summary = self._run.summary  # which keeps no None
        changed = {key: value for key, value in row.items() if summary.get(key) != value}
        if changed:
            summary.update(changed)

    def panels(self, make: Callable[[], Mapping[str, Any]], digest: str) -> None:
        self._told.add("panels", digest)
        if self._run.summary.get(SHOWN) != digest:
            self._run.log(dict(make()))
            self._run.summary.update({SHOWN: digest})

    def finish(self, ok: bool) -> None:
        """Raises TimeoutError if it takes longer than FINISH_SECONDS, ConnectionError if the server refused
        what was sent on the way: not all of it has arrived."""
        self._run.finish(exit_code=0 if ok else 1)
        if self._mode == "online" and (lost := what_was_lost(self._folder)):
            raise ConnectionError(lost)
        (self._folder / TOLD).write_text(self._told.text())
        for folder in self._unsent:
            shutil.rmtree(folder, ignore_errors=True)

    def abandon(self) -> None:
        """Ends the run as failed, where it was not told to its end: its id is free again."""
        self._run.finish(exit_code=1)


def what_was_lost(folder: Path) -> str | None:
    """Why wandb sent no more of an online run, if it gave up on the way (a key was revoked, say). It tells
    the terminal, which is not ours to write on, and its log in the run's ``folder``; ``finish`` does not."""
    log = folder / "logs" / "debug-internal.log"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    for line in lines:
        if FATAL in line:
            return str(json.loads(line)["msg"])
    return None


def content(
    config: Mapping[str, Any],
    lines: Iterable[Mapping[str, Any]] = (),
    row: Mapping[str, Any] | None = None,
    panels: str | None = None,
) -> str:
    """The digest of a run that is told all of this, ``panels`` by their own."""
    told = Digest(config)
    for line in lines:
        told.add("line", dict(line))
    if row is not None:
        told.add("row", dict(row))
    if panels is not None:
        told.add("panels", panels)
    return told.text()


def is_written(run: TrackedRun, digest: str) -> bool:
    """Whether a process has told ``run`` exactly what has ``digest``, and left it in ``run.folder``."""
    return any(was_told(folder, digest) for folder in folders(run))


def was_told(folder: Path, digest: str) -> bool:
    """Whether what a run's ``folder`` was told to its end has ``digest``."""
    path = folder / TOLD
    return path.is_file() and path.read_text() == digest


def folders(run: TrackedRun) -> list[Path]:
    """What wandb has written of ``run``: a folder for every process that told it."""
    return sorted(path.parent for path in run.folder.glob(f"wandb/*run-*/run-{_id(run)}.wandb"))


def was_sent(folder: Path) -> bool:
    """Whether W&B has seen what is in a run's ``folder``: as it was told, or by `wandb sync`."""
    return not folder.name.startswith("offline-") or bool(list(folder.glob("*.wandb.synced")))


def agent_run() -> str | None:
    """The run that `wandb agent` has named for this process; None without an agent."""
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None


def start(mode: Mode, run: TrackedRun, project: str, entity: str | None) -> Session:
    """``wandb.init``: about a second offline, INIT_SECONDS at most online. Raises what it raises."""
    if mode == "online":
        reach_server()
    import wandb

    settings = wandb.Settings(
        init_timeout=INIT_SECONDS,
        finish_timeout=FINISH_SECONDS,
        finish_timeout_raises=True,
        silent=True,
        console="off",
        # A run of this process may hang: it must not be handed out again.
        reinit="create_new",
        x_disable_stats=not run.live,
        x_disable_meta=not run.live,
    )
    wandb.setup(settings)  # or the login would speak before the run's own settings hold
    # Under an agent project and id are its own: wandb takes no others, and says so.
    of_agent = agent_run() is not None
    try:
        begun = wandb.init(
            project=None if of_agent else project,
            entity=None if of_agent else entity,
            id=None if of_agent else run.id,
            name=run.name,
            group=run.group,
            job_type=run.job_type,
            config=dict(run.config),
            dir=str(run.folder),
            mode=mode,
            resume="allow" if mode == "online" else None,  # offline, wandb only complains about it
            settings=settings,
        )
    except Exception:
        wandb.teardown()  # the failed run keeps its id reserved, and an offline one wants it
        raise
    return Session(begun, run, mode)


def server_url() -> str:
    return os.environ.get("WANDB_BASE_URL") or DEFAULT_SERVER


def reach_server() -> None:
    """Raises OSError unless W&B's server answers within PROBE_SECONDS, with whatever but an error of its
    own (500 and above).

    Without this, every trial on a machine without network would wait for ``init_timeout``.
    """
    try:
        with urllib.request.urlopen(
            urllib.request.Request(server_url(), method="HEAD"), timeout=PROBE_SECONDS
        ):
            return
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise OSError(f"the server answers {error.code} {error.reason}") from error


def _id(run: TrackedRun) -> str:
    return agent_run() or run.id
