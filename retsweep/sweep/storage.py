"""Opens the Optuna storage of a study so that many processes can share it.

What Optuna does not do by itself: on SQLite its transactions read before they write, so two
workers can take the same trial; BEGIN IMMEDIATE takes the write lock first. Creating a fresh
database, and reconciling a list of runs with it, is done by one process at a time:
:func:`exclusive` (a lock file beside the database, an advisory lock in PostgreSQL). A process that is
stopped in the middle of a transaction holds rows, or that lock, from everybody: PostgreSQL ends the
session of one that does nothing for ``heartbeat.grace``.
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
from retsweep.spec.settings import Heartbeat
from retsweep.sweep.patience import Patience, StorageLost, lost, reason, shown

if TYPE_CHECKING:
    import optuna
    import sqlalchemy

#: Seconds a SQLite transaction waits for its turn.
BUSY_SECONDS = 60
#: Seconds that a server may take to answer a call.
CONNECT_SECONDS = 10

ACCEPTED = "accepted: sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"


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


def exists(url: str) -> bool:
    """Whether there may be a database at ``url``: whoever opens a file that is not there makes it."""
    import sqlalchemy

    parsed = sqlalchemy.make_url(url)
    return not _is_sqlite(parsed) or Path(parsed.database or "").is_file()


def open_study(url: str, name: str, *, create: bool, heartbeat: Heartbeat | None = None) -> optuna.Study:
    """The Optuna study ``name``. Creating (or finding) one needs :func:`exclusive`."""
    heartbeat = heartbeat or Heartbeat()
    import optuna
    from sqlalchemy import event

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # of a storage that is away we tell ourselves
    with warnings.catch_warnings():  # heartbeats are "experimental"
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = optuna.storages.RDBStorage(
            url,
            engine_kwargs=_engine_options(url, heartbeat.grace),
            heartbeat_interval=heartbeat.every,
            grace_period=heartbeat.grace,
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
def exclusive(url: str, study: str, patience: Patience | None = None) -> Iterator[None]:
    """One process at a time, of all that share this storage, is inside for this study.

    A server that restarts meanwhile, or finds that the process inside is stopped, lets the next one in:
    the study bears it (``study.py``), and the lock only spares it surplus trials. Raises StorageLost.
    """
    import sqlalchemy

    patience = patience or Patience(url)
    parsed = sqlalchemy.make_url(url)
    if _is_sqlite(parsed):
        with _file_lock(Path(parsed.database or ""), patience):
            yield
        return
    key = int.from_bytes(hashlib.sha256(f"retsweep {study}".encode()).digest()[:8], signed=True)
    options = _timeouts(parsed, patience.heartbeat.grace)
    engine = sqlalchemy.create_engine(parsed, poolclass=sqlalchemy.NullPool, **options)

    def enter() -> sqlalchemy.Connection:
        connection = engine.connect()
        try:  # until the transaction ends: with the connection, however that ends
            connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
        except BaseException:
            connection.close()
            raise
        return connection

    connection = patience(enter)
    try:
        yield
    finally:
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):  # the lock was gone before
            connection.close()


@contextmanager
def _file_lock(database: Path, patience: Patience) -> Iterator[None]:
    from filelock import FileLock, Timeout

    database.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{database}.lock", timeout=patience.heartbeat.patience)
    try:
        lock.acquire()
    except Timeout as error:
        raise StorageLost(
            f"storage {database}: another process holds {lock.lock_file}, and has not let go of it for "
            f"{patience.heartbeat.patience} s; is one of this study stopped?"
        ) from error
    try:
        yield
    finally:
        lock.release()


def seconds_up(url: str) -> float:
    """How long ago the server of a storage started; a file has always been there."""
    import sqlalchemy

    parsed = sqlalchemy.make_url(url)
    if _is_sqlite(parsed):
        return float("inf")
    engine = sqlalchemy.create_engine(parsed, poolclass=sqlalchemy.NullPool, **_timeouts(parsed))
    question = "SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())"
    with engine.connect() as connection:
        return float(connection.execute(sqlalchemy.text(question)).scalar_one())


@contextmanager
def answering(url: str) -> Iterator[None]:
    """Whatever the storage at ``url`` raises inside becomes a StorageLost."""
    import sqlalchemy
    from optuna.exceptions import StorageInternalError

    try:
        yield
    except (StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        raise StorageLost(lost(url, error)) from error


def check_reachable(url: str) -> None:
    """Raises SpecError, in one line, if the database at ``url`` cannot be used: nobody answers at
    a server's, a file cannot be written or is something else. Leaves nothing behind."""
    import sqlalchemy

    parsed = sqlalchemy.make_url(url)
    if _is_sqlite(parsed):
        assert parsed.database
        _check_file(Path(parsed.database))
        return
    engine = sqlalchemy.create_engine(parsed, poolclass=sqlalchemy.NullPool, **_timeouts(parsed))
    try:
        with engine.connect():
            pass
    except sqlalchemy.exc.OperationalError as error:
        raise SpecError(f"storage {shown(parsed)} does not answer: {reason(error, url)}") from error


def check_folder(folder: Path) -> None:
    """Raises SpecError unless files can be made in ``folder``, or ``folder`` itself. Leaves
    nothing behind."""
    try:
        while not folder.exists():
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        said = error.strerror
        raise SpecError(f"{folder} cannot be written: {said}; runs=FOLDER names another place") from error


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


def _is_in_memory(url: sqlalchemy.URL) -> bool:
    return _is_sqlite(url) and url.database in (None, "", ":memory:")


def _is_sqlite(url: sqlalchemy.URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _engine_options(url: str, grace: int) -> dict[str, Any]:
    import sqlalchemy

    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": BUSY_SECONDS}}
    return {"pool_pre_ping": True, "pool_size": 2, **_timeouts(sqlalchemy.make_url(url), grace)}


def _timeouts(url: sqlalchemy.URL, grace: int | None = None) -> dict[str, Any]:
    """How long a server may take to answer a call, a line may be dead before it counts as broken, and a
    session may do nothing in the middle of a transaction (``grace`` seconds)."""
    arguments: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS}
    if grace is not None:
        idle = f"-c idle_in_transaction_session_timeout={1000 * grace}"
        given = url.query.get("options", "")  # what the user's URL says stays said
        arguments["options"] = f"{given if isinstance(given, str) else ' '.join(given)} {idle}".strip()
        arguments |= {"keepalives_idle": grace, "keepalives_interval": max(1, grace // 4)}
        arguments |= {"keepalives_count": 4, "tcp_user_timeout": 2000 * grace}
    return {"connect_args": arguments}


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
