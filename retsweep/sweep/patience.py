"""A storage that goes away for a while (a server that restarts, a broken line) is waited for.

Every call of a study goes through a :class:`Patience`: what the database says by its own codes to be
a matter of time is tried again, for as long as ``heartbeat.patience`` allows; all else, and the end of
patience, is a :class:`StorageLost`.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from retsweep.spec.secret import hidden
from retsweep.spec.settings import Heartbeat

if TYPE_CHECKING:
    import sqlalchemy

Result = TypeVar("Result")

#: Seconds between two tries: so many at first, then twice as many, up to the last.
FIRST_PAUSE, LAST_PAUSE = 0.1, 2.0
#: What SQLite says of a file that others hold, or that a disk has no space for, just now.
PASSING_IN_SQLITE = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN")
#: Classes of SQLSTATE (PostgreSQL, appendix A): connection exception, transaction rollback (deadlock),
#: insufficient resources (disk full, too many connections), operator intervention (shutdown, starting
#: up), system error; and single ones: a lock not available, a transaction that idled too long, and what two
#: get that create the same tables at once, of whom the slower finds them there the next time.
PASSING_CLASSES = ("08", "40", "53", "57", "58")
PASSING_STATES = ("55P03", "25P03", "23505", "42P07")


class StorageLost(Exception):
    """The storage failed in the middle of a sweep. Its text is one line for the user."""


def say_on_stderr(text: str) -> None:
    with contextlib.suppress(OSError):  # a log on a full disk
        print(f"retsweep: {text}", file=sys.stderr, flush=True)


class Patience:
    """One process's, with the storage at ``url``. ``say`` is told once an outage; ``meanwhile`` is called
    between tries, and an exception from it ends the waiting."""

    def __init__(
        self,
        url: str,
        heartbeat: Heartbeat | None = None,
        say: Callable[[str], None] = say_on_stderr,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        self.url, self.heartbeat = url, heartbeat or Heartbeat()
        self._say, self._meanwhile = say, meanwhile
        self._returned = float("-inf")

    def __call__(self, action: Callable[[], Result], again: Callable[[], Result] | None = None) -> Result:
        """What ``action`` returns, tried as often as it takes. After a try that failed nobody knows
        whether the storage had carried it out: ``again`` then stands for ``action``, if that matters.

        Raises StorageLost, and what is no matter of the storage's.
        """
        import sqlalchemy
        from optuna.exceptions import StorageInternalError

        began, pause = 0.0, FIRST_PAUSE
        while True:
            try:
                result = action()
            except (StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
                now = time.monotonic()
                if not is_passing(error):
                    raise StorageLost(lost(self.url, error)) from error
                if not began:
                    began = now
                    self._say(
                        f"storage {shown(self.url)} is away ({reason(error, self.url)}); waiting for it, "
                        f"{self.heartbeat.patience} s at most"
                    )
                if now - began >= self.heartbeat.patience:
                    raise StorageLost(lost(self.url, error)) from error
                self._meanwhile()
                time.sleep(min(pause, self.heartbeat.patience))
                pause = min(2 * pause, LAST_PAUSE)
                action = again or action
                continue
            if began:
                self._returned = time.monotonic()
            return result

    @property
    def just_returned(self) -> bool:
        """Whether the storage was away so recently that a worker's silence may be none of its own."""
        return time.monotonic() - self._returned < self.heartbeat.grace


def is_passing(error: BaseException) -> bool:
    """Whether ``error``, of Optuna's storage or of SQLAlchemy, may be gone after a while."""
    import sqlalchemy
    from optuna.exceptions import StorageInternalError

    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if isinstance(cause, sqlalchemy.exc.PendingRollbackError):
        return True  # the connection broke inside a transaction, and the next statement noticed
    if not isinstance(cause, sqlalchemy.exc.DBAPIError):
        return False
    name = getattr(cause.orig, "sqlite_errorname", None)
    if name is not None:
        return str(name).startswith(PASSING_IN_SQLITE)
    state = getattr(cause.orig, "sqlstate", None)
    if state is not None:
        return state.startswith(PASSING_CLASSES) or state in PASSING_STATES
    broken = (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError)
    return cause.connection_invalidated or isinstance(cause, broken)


def lost(url: str, error: BaseException) -> str:
    """For StorageLost."""
    return f"storage {shown(url)} failed, workers are stopped: {reason(error, url)}; the same command goes on"


def reason(error: BaseException, url: str) -> str:
    """The last line of what the database at ``url`` said, without its password."""
    cause = error.__cause__ or error
    said = str(getattr(cause, "orig", None) or cause).strip().splitlines()
    return hidden(said[-1].strip(), [url]) if said else type(cause).__name__


def shown(url: str | sqlalchemy.URL) -> str:
    """``url`` for everybody's eyes."""
    import sqlalchemy

    return hidden(sqlalchemy.make_url(url).render_as_string())
