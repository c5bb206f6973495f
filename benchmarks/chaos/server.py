"""A PostgreSQL server of one's own: Debian's package, a temporary folder, a socket, no root, no port."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

Mode = Literal["fast", "immediate"]

LOG_LINES = 5


class NoServer(Exception):
    """There can be none here. Its text says why, in one line."""


class Server:
    """A cluster in ``folder``, which is the owner's; its socket lies there too."""

    def __init__(self, folder: Path, owner: str | None) -> None:
        self._folder, self._owner = folder, owner
        self._pg_ctl = _program("pg_ctl")
        self._call(_program("initdb"), "-D", f"{folder}/data", "-U", "retsweep", "--auth=trust", "--no-sync")

    @property
    def url(self) -> str:
        """As ``storage=`` takes it."""
        return f"postgresql://retsweep@/postgres?host={self._folder}"

    def start(self) -> None:
        """Returns when it answers. Raises NoServer."""
        options = f"-k {self._folder} -c listen_addresses='' -c fsync=off"
        log = self._folder / "log"
        try:
            self._call(
                self._pg_ctl, "-D", f"{self._folder}/data", "-o", options, "-l", str(log), "-w", "start"
            )
        except subprocess.CalledProcessError as error:
            said = log.read_text().splitlines()[-LOG_LINES:] if log.exists() else []
            raise NoServer(f"PostgreSQL does not start: {' / '.join(said) or error}") from error

    def stop(self, mode: Mode) -> None:
        """``fast`` rolls back and shuts down; ``immediate`` is a crash: the next start recovers."""
        self._call(self._pg_ctl, "-D", f"{self._folder}/data", "-m", mode, "-w", "stop")

    def cut(self) -> int:
        """Ends every session, as a network does that breaks. How many there were."""
        import psycopg

        others = "backend_type = 'client backend' AND pid <> pg_backend_pid()"
        with psycopg.connect(host=str(self._folder), user="retsweep", dbname="postgres") as connection:
            found = connection.execute(
                f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {others}"
            ).fetchone()
        return int(found[0]) if found else 0

    def _call(self, *words: str) -> None:
        with (self._folder / "calls").open("ab") as said:
            subprocess.run(words, user=self._owner, cwd=self._folder, check=True, stdout=said, stderr=said)


@contextmanager
def server() -> Iterator[Server]:
    """A server that runs, and is stopped at the end. Raises NoServer."""
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise NoServer("psycopg is an extra: pip install 'retsweep[postgresql]'") from error
    _program("initdb")
    owner = _owner()
    with tempfile.TemporaryDirectory(prefix="pg") as name:  # a socket's path must be short
        folder = Path(name)
        if owner is not None:
            shutil.chown(folder, owner)
            folder.chmod(0o755)
        made = Server(folder, owner)
        made.start()
        try:
            yield made
        finally:
            if (folder / "data" / "postmaster.pid").exists():
                made.stop("immediate")


def _program(name: str) -> str:
    """Debian keeps PostgreSQL's programs out of the PATH."""
    known = [*sorted(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), shutil.which(name)]
    found = [path for path in known if path]
    if not found:
        raise NoServer("PostgreSQL is not installed on this machine: apt-get install postgresql")
    return found[0]


def _owner() -> str | None:
    """PostgreSQL refuses to run as root; None for whoever runs this."""
    if os.geteuid():
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"
