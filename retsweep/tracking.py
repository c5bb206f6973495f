"""Weights & Biases as a mirror of metrics and rows: never a source, and never in a run's way.

Everything that touches wandb happens on a thread of its own, fed by a queue. A server that is
slow, absent or broken therefore costs a run one warning and, at its end, a few seconds of waiting.
wandb itself is imported on that thread, in the process that tracks, and nowhere else.
"""

from __future__ import annotations

import netrc
import os
import queue
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol
from urllib.parse import urlparse

from retsweep.spec.base import spec

DEFAULT_SERVER = "https://api.wandb.ai"
#: Seconds for a first sign of life from the server.
PROBE_SECONDS = 3.0
#: wandb's own deadlines, in seconds; its defaults are minutes.
INIT_SECONDS = 15
FINISH_SECONDS = 30
#: How long ``close`` waits for what is queued. Beyond it the rest is given up.
CLOSE_SECONDS = 45.0
#: As much, in a process where wandb has hung once: a worker runs many trials.
CLOSE_SECONDS_AFTER_HANG = 5.0
#: Messages kept for a thread that does not keep up; beyond them tracking ends.
QUEUE_LENGTH = 100_000

Mode = Literal["offline", "online"]


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
    ``job_type`` is what W&B groups by within a group: the family of layouts.
    """

    id: str
    name: str
    group: str
    folder: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    job_type: str | None = None


class Tracker(Protocol):
    """Hears a run. No method raises; none but ``close`` waits for anything."""

    def metrics(self, line: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl; it holds ``step``."""

    def row(self, row: Mapping[str, Any]) -> None:
        """The run's finished row."""

    def panels(self, make: Callable[[], Mapping[str, Any]]) -> None:
        """Tables and charts by name, of wandb's types: ``make`` is called where wandb may be imported."""

    def close(self) -> None:
        """The run is over."""


@spec
class NoTracker:
    """tracker=none."""

    def resolve(self) -> Resolution:
        return Resolution("none", "tracker=none")

    def open(self, run: TrackedRun) -> Tracker:
        return Silence()


@spec
class Wandb:
    """tracker=wandb: online with a key, offline without one, and as WANDB_MODE says."""

    project: str = "retsweep"
    entity: str | None = None

    def resolve(self) -> Resolution:
        return _resolve_wandb()

    def open(self, run: TrackedRun) -> Tracker:
        return _open(self.resolve(), run, self.project, self.entity)


@spec
class Auto:
    """tracker=auto: wandb where it is configured (a key, or WANDB_MODE), else none."""

    project: str = "retsweep"
    entity: str | None = None

    def resolve(self) -> Resolution:
        if not os.environ.get("WANDB_MODE") and find_key() is None:
            return Resolution("none", "wandb is not configured (no key, no WANDB_MODE)")
        return _resolve_wandb()

    def open(self, run: TrackedRun) -> Tracker:
        return _open(self.resolve(), run, self.project, self.entity)


class Silence:
    """The tracker that does nothing."""

    def metrics(self, line: Mapping[str, Any]) -> None: ...

    def row(self, row: Mapping[str, Any]) -> None: ...

    def panels(self, make: Callable[[], Mapping[str, Any]]) -> None: ...

    def close(self) -> None: ...


# ---- is wandb configured ---------------------------------------------------------------------
def _resolve_wandb() -> Resolution:
    wanted = os.environ.get("WANDB_MODE", "").lower()
    key = find_key()
    if wanted == "disabled":
        return Resolution("none", "WANDB_MODE=disabled")
    if wanted in ("offline", "dryrun"):
        return Resolution("offline", f"WANDB_MODE={wanted}")
    if key is None:
        return Resolution("offline", "no key" + (f", in spite of WANDB_MODE={wanted}" if wanted else ""))
    return Resolution("online", f"WANDB_MODE={wanted}" if wanted else f"a key in {key}")


def find_key() -> str | None:
    """Where W&B's key lies ("WANDB_API_KEY", or a netrc's path); None if nowhere. Never the key."""
    if os.environ.get("WANDB_API_KEY"):
        return "WANDB_API_KEY"
    host = urlparse(os.environ.get("WANDB_BASE_URL") or DEFAULT_SERVER).hostname or ""
    given = os.environ.get("NETRC")
    for path in [Path(given)] if given else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            entry = netrc.netrc(str(path)).authenticators(host)
        except (OSError, netrc.NetrcParseError):
            continue
        if entry is not None and entry[2]:
            return str(path)
    return None


# ---- the thread that talks to wandb ----------------------------------------------------------
def _open(resolution: Resolution, run: TrackedRun, project: str, entity: str | None) -> Tracker:
    if resolution.mode == "none":
        return Silence()
    return Mirror(lambda mode: _start_wandb(mode, run, project, entity), resolution.mode)


def _start_wandb(mode: Mode, run: TrackedRun, project: str, entity: str | None) -> Any:
    """``wandb.init``: about a second offline, INIT_SECONDS at most online. Raises what it raises."""
    if mode == "online":
        reach_server()
    import wandb

    settings = wandb.Settings(
        init_timeout=INIT_SECONDS,
        finish_timeout=FINISH_SECONDS,
        silent=True,
        console="off",
        # Else init would hand out the run that hangs, as long as that one is not finished.
        reinit="create_new" if Mirror.hung.is_set() else "default",
    )
    wandb.setup(settings)  # or the login would speak before the run's own settings hold
    # Under `wandb agent` the agent has named the run, and looks for it under that name.
    agent_id = os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
    try:
        return wandb.init(
            project=project,
            entity=entity,
            id=agent_id or run.id,
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


def reach_server() -> None:
    """Raises OSError unless W&B's server answers, with whatever, within PROBE_SECONDS.

    Without this, every trial on a machine without network would wait for ``init_timeout``.
    """
    url = os.environ.get("WANDB_BASE_URL") or DEFAULT_SERVER
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_SECONDS):
            return
    except urllib.error.HTTPError:
        return  # an answer all the same


class Mirror:
    """Queues what it hears for its thread, which starts wandb and passes it on.

    ``start`` makes a W&B run in a mode. If going online fails, the thread says so and starts an
    offline one, which `wandb sync` sends later. If anything else fails it says so and stops. After
    one that did not finish in time, the later ones of the process begin offline and wait less.
    """

    hung: ClassVar[threading.Event] = threading.Event()
    """Set once a mirror of this process was waited for in vain."""

    def __init__(
        self, start: Callable[[Mode], Any], mode: Mode, close_seconds: float = CLOSE_SECONDS
    ) -> None:
        if self.hung.is_set():
            mode, close_seconds = "offline", min(close_seconds, CLOSE_SECONDS_AFTER_HANG)
        self._start, self._mode, self._close_seconds = start, mode, close_seconds
        self._queue: queue.Queue[Callable[[Any], object] | None] = queue.Queue(QUEUE_LENGTH)
        self._given_up = False
        self._thread = threading.Thread(target=self._work, name="wandb mirror", daemon=True)
        self._thread.start()

    def metrics(self, line: Mapping[str, Any]) -> None:
        values = {key: value for key, value in line.items() if key != "step"}
        step = line.get("step")
        self._put(lambda run: run.log(values, step=step))

    def row(self, row: Mapping[str, Any]) -> None:
        kept = dict(row)
        self._put(lambda run: run.summary.update(kept))

    def panels(self, make: Callable[[], Mapping[str, Any]]) -> None:
        self._put(lambda run: run.log(dict(make())))

    def close(self) -> None:
        """Waits, ``close_seconds`` at most, until all of it has been passed on."""
        if not self._thread.is_alive():
            return
        self._put(lambda run: run.finish())
        self._put(None)
        self._thread.join(self._close_seconds)
        if self._thread.is_alive():
            self.hung.set()
            self._give_up(f"it did not finish within {self._close_seconds:.0f} s")

    # ---- on either thread ----
    def _put(self, message: Callable[[Any], object] | None) -> None:
        if self._given_up:
            return
        try:
            self._queue.put_nowait(message)
        except queue.Full:
            self._give_up("it does not keep up")

    def _give_up(self, reason: str) -> None:
        if not self._given_up:
            self._given_up = True
            warnings.warn(f"tracking with wandb ends here, the run goes on: {reason}", stacklevel=3)

    # ---- on the mirror's thread ----
    def _work(self) -> None:
        try:
            run = self._begin()
            while (message := self._queue.get()) is not None and not self._given_up:
                message(run)
        except Exception as error:  # whatever wandb does, the run goes on
            self._give_up(_first_line(error))

    def _begin(self) -> Any:
        try:
            return self._start(self._mode)
        except Exception as error:
            if self._mode != "online":
                raise
            warnings.warn(f"wandb is not reachable, tracking offline: {_first_line(error)}", stacklevel=2)
            return self._start("offline")


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
