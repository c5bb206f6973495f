"""The same ledger in PostgreSQL, in a server of the test's own where PostgreSQL is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from retsweep.sweep.reconcile import open_and_reconcile
from retsweep.sweep.storage import check_reachable, storage_url
from retsweep.sweep.study import Study
from tests.sweep.test_study import released_at_once


def program(name: str) -> str:
    """Debian keeps PostgreSQL's programs out of the PATH."""
    known = [shutil.which(name), *sorted(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")))]
    found = [path for path in known if path]
    if not found:
        pytest.skip("PostgreSQL is not installed on this machine")
    return found[-1]


def user() -> str | None:
    """PostgreSQL refuses to run as root; None for whoever runs the tests."""
    if os.geteuid():
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@pytest.fixture
def server() -> Iterator[str]:
    """The URL of a database that nobody else uses, reached through a socket in its own folder."""
    pytest.importorskip("psycopg", reason="psycopg is an extra: pip install 'retsweep[postgresql]'")
    initdb, pg_ctl, owner = program("initdb"), program("pg_ctl"), user()
    with tempfile.TemporaryDirectory(prefix="pg") as folder:  # a socket's path must be short
        if owner is not None:
            shutil.chown(folder, owner)
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"

        def call(*words: str) -> None:
            subprocess.run(words, user=owner, cwd=folder, check=True, stdout=subprocess.DEVNULL)

        call(initdb, "-D", f"{folder}/data", "-U", "retsweep", "--auth=trust", "--no-sync")
        call(pg_ctl, "-D", f"{folder}/data", "-o", options, "-l", f"{folder}/log", "-w", "start")
        try:
            yield f"postgresql://retsweep@/postgres?host={folder}"
        finally:
            call(pg_ctl, "-D", f"{folder}/data", "-m", "immediate", "stop")


def test_parents_and_workers_share_a_server(server: str, tmp_path: Path) -> None:
    url = storage_url(server, tmp_path)
    assert url.startswith("postgresql+psycopg://"), "the driver that the extra installs"
    check_reachable(url)
    ran = released_at_once(url, tmp_path, 4, 16, "fresh")
    assert sorted(chain(*ran)) == sorted(f"hash{number}" for number in range(16))
    assert len(Study(url, "s").entries()) == 16
    assert list(open_and_reconcile(url, "other", {"a": "run a"}).standing({"a"})) == ["a"]
