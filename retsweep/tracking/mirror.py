"""The thread that talks to W&B, and the queue in front of it."""

from __future__ import annotations

import contextlib
import queue
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from retsweep.tracking.base import Mode, Sent
from retsweep.tracking.session import Session

#: How long ``close`` waits for what is queued. Beyond it the rest is given up.
CLOSE_SECONDS = 45.0
#: As much, in a process where wandb has hung once: a worker runs many trials.
CLOSE_SECONDS_AFTER_HANG = 5.0
#: Messages kept for a thread that does not keep up; beyond them tracking ends.
QUEUE_LENGTH = 100_000


class Mirror:
    """Queues what it hears for its thread, which starts wandb and passes it on.

    ``start`` makes a W&B run in a mode. If going online fails, the thread says so and starts an
    offline one, which `wandb sync` sends later. If anything else fails it says so and stops. After
    one that did not finish in time, the later ones of the process begin offline and wait less.
    """

    hung: ClassVar[threading.Event] = threading.Event()
    """Set once a mirror of this process was waited for in vain."""

    def __init__(
        self, start: Callable[[Mode], Session], mode: Mode, close_seconds: float | None = None
    ) -> None:
        close_seconds = CLOSE_SECONDS if close_seconds is None else close_seconds
        if self.hung.is_set():
            mode, close_seconds = "offline", min(close_seconds, CLOSE_SECONDS_AFTER_HANG)
        self._start, self._mode, self._close_seconds = start, mode, close_seconds
        self._queue: queue.Queue[Callable[[Session], object] | None] = queue.Queue(QUEUE_LENGTH)
        self._given_up = False
        self._ok = False
        self._thread = threading.Thread(target=self._work, name="wandb mirror", daemon=True)
        self._thread.start()

    def metrics(self, line: Mapping[str, Any]) -> None:
        kept = dict(line)
        self._put(lambda session: session.line(kept))

    def row(self, row: Mapping[str, Any]) -> None:
        kept = dict(row)
        self._ok = "error" not in kept
        self._put(lambda session: session.row(kept))

    def panels(self, make: Callable[[], Mapping[str, Any]], digest: str) -> None:
        self._ok = True
        self._put(lambda session: session.panels(make, digest))

    def close(self) -> Sent:
        """Waits, ``close_seconds`` at most, until all of it has been passed on. A run that has neither row
        nor panels, or a failed row, ends as failed in W&B."""
        if self._given_up:
            return "nowhere"
        ok = self._ok
        self._put(lambda session: session.finish(ok))
        self._put(None)
        self._thread.join(self._close_seconds)
        if self._thread.is_alive():
            self.hung.set()
            self._give_up(f"it did not finish within {self._close_seconds:.0f} s")
        return "nowhere" if self._given_up else self._mode

    # ---- on either thread ----
    def _put(self, message: Callable[[Session], object] | None) -> None:
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
        session: Session | None = None
        try:
            session = self._begin()
            while (message := self._queue.get()) is not None and not self._given_up:
                message(session)
        except Exception as error:  # whatever wandb does, the run goes on
            if isinstance(error, TimeoutError):  # of finish: the server is there no more
                self.hung.set()
            self._give_up(_first_line(error))
        if session is not None and self._given_up:
            with contextlib.suppress(Exception):
                session.abandon()

    def _begin(self) -> Session:
        try:
            return self._start(self._mode)
        except Exception as error:
            if self._mode != "online":
                raise
            warnings.warn(f"wandb cannot be reached, tracking offline: {_first_line(error)}", stacklevel=2)
            self._mode = "offline"
            return self._start("offline")


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
