"""Opens the Optuna storage of a study so that many processes can share it.

What Optuna does not do by itself: on SQLite its transactions read before they write, so two
workers can take the same trial; BEGIN IMMEDIATE takes the write lock first. Creating a fresh
database, and reconciling a list of runs with it, must be done by one process at a time:
:func:`exclusive` (a lock file beside the database, an advisory lock in PostgreSQL).
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retsweep.spec import SpecError
from retsweep.spec.secret import hidden

if TYPE_CHECKING:
    import optuna
    import sqlalchemy

#: Seconds between two signs of life of a running trial, and the silence after which another
#: machine takes it to be dead. (On its own machine a dead process is noticed at once.)
HEARTBEAT_SECONDS = 2
GRACE_SECONDS = 60
#: Seconds a SQLite transaction waits for its turn.
BUSY_SECONDS = 60

ACCEPTED = "accepted: sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"


class StorageLost(Exception):
    """The storage failed in the middle of a sweep. Its text is one line for the user."""


def storage_url(storage: str | None, folder: Path) -> str:
    """The database of a study: ``storage`` if it is given, else SQLite in the study's folder.

    Raises SpecError if it is a kind of database that is not supported or not installed.
    """
    import sqlalchemy

    if storage is None:
        url = sqlalchemy.URL.create("sqlite", database=str((folder / "study.db").resolve()))
        return url.render_as_string(hide_password=False)
    try:
        url = sqlalchemy.make_url(storage)
        url.get_dialect()
    except sqlalchemy.exc.ArgumentError as error:
        raise SpecError(f"storage={hidden(storage)!r} is no database URL; {ACCEPTED}") from error
    except sqlalchemy.exc.NoSuchModuleError as error:
        raise SpecError(f"storage: unknown database {url.drivername!r}; {ACCEPTED}") from error
    of_a_file = url.get_backend_name() == "sqlite" and not (url.host or url.username or url.password)
    if (not of_a_file and url.get_backend_name() != "postgresql") or _is_in_memory(url):
        raise SpecError(f"storage={shown(url)} cannot be shared by workers; {ACCEPTED}")
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if not _is_sqlite(url):
        try:
            url.get_dialect().import_dbapi()
        except ImportError as error:
            raise SpecError(
                f"storage: {error.name} is missing; pip install 'retsweep[postgresql]'"
            ) from error
    return url.render_as_string(hide_password=False)


def open_study(url: str, name: str, *, create: bool) -> optuna.Study:
    """The Optuna study ``name``. Creating (or finding) one needs :func:`exclusive`."""
    import optuna
    from sqlalchemy import event

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():  # heartbeats are "experimental"
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = optuna.storages.RDBStorage(
            url,
            engine_kwargs=_engine_options(url),
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=GRACE_SECONDS,
            skip_table_creation=not create,
        )
    if url.startswith("sqlite"):
        storage.engine.dispose()  # connections made so far lack the two events below
        event.listen(storage.engine, "connect", _on_connect)
        event.listen(storage.engine, "begin", _on_begin)
    if create:
        return optuna.create_study(
            storage=storage, study_name=name, load_if_exists=True, sampler=_no_sampler(), pruner=_no_pruner()
        )
    return optuna.load_study(storage=storage, study_name=name, sampler=_no_sampler(), pruner=_no_pruner())


@contextmanager
def exclusive(url: str, study: str) -> Iterator[None]:
    """One process at a time, of all that share this storage, is inside for this study."""
    import sqlalchemy

    parsed = sqlalchemy.make_url(url)
    if _is_sqlite(parsed):
        from filelock import FileLock

        assert parsed.database
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{parsed.database}.lock"):
            yield
        return
    key = int.from_bytes(hashlib.sha256(f"retsweep {study}".encode()).digest()[:8], signed=True)
    engine = sqlalchemy.create_engine(parsed, poolclass=sqlalchemy.NullPool, **_timeout())
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": key})
        try:
            yield
        finally:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_unlock(:key)"), {"key": key})


@contextmanager
def answering(url: str) -> Iterator[None]:
    """Whatever the storage at ``url`` raises inside becomes a StorageLost."""
    import sqlalchemy
    from optuna.exceptions import StorageInternalError

    try:
        yield
    except (StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        reason = hidden(_reason(error.__cause__ or error), [url])
        raise StorageLost(
            f"storage {shown(sqlalchemy.make_url(url))} failed, workers are stopped: {reason}; "
            "the same command goes on"
        ) from error


def check_reachable(url: str) -> None:
    """Raises SpecError, in one line, if the database at ``url`` cannot be used: nobody answers at
    a server's, a file cannot be written or is something else. Leaves nothing behind."""
    import sqlalchemy

    parsed = sqlalchemy.make_url(url)
    if _is_sqlite(parsed):
        assert parsed.database
        _check_file(Path(parsed.database))
        return
    engine = sqlalchemy.create_engine(parsed, poolclass=sqlalchemy.NullPool, **_timeout())
    try:
        with engine.connect():
            pass
    except sqlalchemy.exc.OperationalError as error:
        reason = hidden(_reason(error), [url])
        raise SpecError(f"storage {shown(parsed)} does not answer: {reason}") from error


def shown(url: sqlalchemy.URL) -> str:
    """``url`` for everybody's eyes."""
    return hidden(url.render_as_string())


def check_folder(folder: Path) -> None:
    """Raises SpecError unless files can be made in ``folder``, or ``folder`` itself. Leaves
    nothing behind."""
    try:
        while not folder.exists():
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror
        raise SpecError(f"{folder} cannot be written: {reason}; runs=FOLDER names another place") from error


def _check_file(database: Path) -> None:
    check_folder(database.parent)
    if not database.exists():
        return
    try:
        connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=rw", BUSY_SECONDS, uri=True)
        with contextlib.closing(connection):
            connection.isolation_level = None
            connection.execute("BEGIN IMMEDIATE")
            # SQLite begins even in a file that cannot be written, until something is.
            connection.execute("PRAGMA user_version = 0")
            connection.execute("ROLLBACK")
            said = connection.execute("PRAGMA quick_check(1)").fetchone()
        if said != ("ok",):
            raise sqlite3.DatabaseError(" ".join(str(said[0]).split()) if said else "no answer")
    except sqlite3.OperationalError as error:  # locked, not to be opened: it may be sound
        raise SpecError(f"storage {database} cannot be used: {error}; storage=URL names another") from error
    except sqlite3.Error as error:
        raise SpecError(
            f"storage {database} cannot be used: {error}; storage=URL names another; or move it away, and "
            "the same command makes a new one (from the checkpoints: finished trainings are not repeated)"
        ) from error


def _reason(error: BaseException) -> str:
    """The last line of what the database said."""
    said = str(getattr(error, "orig", None) or error).strip().splitlines()
    return said[-1].strip() if said else type(error).__name__


def _is_in_memory(url: sqlalchemy.URL) -> bool:
    return _is_sqlite(url) and url.database in (None, "", ":memory:")


def _is_sqlite(url: sqlalchemy.URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _engine_options(url: str) -> dict[str, Any]:
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": BUSY_SECONDS}}
    return {"pool_pre_ping": True, "pool_size": 2, **_timeout()}


def _timeout() -> dict[str, Any]:
    """How long a server may take to answer a call, in seconds."""
    return {"connect_args": {"connect_timeout": 10}}


def _on_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself: _on_begin does
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _on_begin(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _no_sampler() -> optuna.samplers.BaseSampler:
    """Runs are listed, never proposed: any sampler serves, and this one starts fastest."""
    import optuna

    return optuna.samplers.RandomSampler(seed=0)


def _no_pruner() -> optuna.pruners.BasePruner:
    import optuna

    return optuna.pruners.NopPruner()
