"""Machines in one: parents with a host name and a runs folder of their own, and disks that can fill."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

#: Marks the processes of one storm in their environment, which their children inherit.
MARK = "RETSWEEP_CHAOS"
DISK_BYTES = 64 << 20
BLOCKS = (1 << 20, 4096, 1)


class Machine:
    """``disk``: its runs folder is a small file system of its own. ``storage``: the studies'; None: a file
    in the runs folder."""

    def __init__(
        self, name: str, folder: Path, mark: str, *, disk: bool = False, storage: str | None = None
    ) -> None:
        self.name, self.folder, self.disk = name, folder, disk
        self.log = folder.with_suffix(".log")
        self._environment = {**os.environ, MARK: mark, "OMP_NUM_THREADS": "1"}
        if storage is not None:
            self._environment["RETSWEEP_STORAGE"] = storage
        self.full = False
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        if disk:
            words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
            subprocess.run(words, check=True)

    def start(self, arguments: Sequence[str]) -> None:
        """The sweep's command, as on every machine."""
        command = [sys.executable, "-m", "retsweep", *arguments, f"runs={self.folder}"]
        if own_names():
            command = [*own_names(), "sh", "-c", 'hostname "$0" && exec "$@"', self.name, *command]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                process_group=0,
            )

    @property
    def parent(self) -> int | None:
        """Its process id while it runs."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if running and self._process else None

    @property
    def ended(self) -> int | None:
        """The exit code of a parent that has ended (negative: a signal)."""
        return None if self._process is None else self._process.poll()

    def workers(self) -> list[int]:
        """Process ids of the parent's workers."""
        found: list[int] = []
        for task in Path(f"/proc/{self.parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [pid for pid in map(int, task.read_text().split()) if _is_worker(pid)]
        return found

    def end(self) -> None:
        """For the end of a storm that went wrong."""
        if self.parent is not None and self._process is not None:
            self._process.kill()
            self._process.wait()

    def fill(self) -> None:
        """Leaves no byte of the disk."""
        self.full = True
        filler = os.open(self.folder / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for size in BLOCKS:
                with contextlib.suppress(_Full):
                    while True:
                        _write(filler, bytes(size))
        finally:
            os.close(filler)

    def free(self) -> None:
        (self.folder / "filler").unlink(missing_ok=True)
        self.full = False

    def said(self) -> str:
        """The last line of what its parents printed."""
        return (self.log.read_text(errors="replace").strip().splitlines() or [""])[-1]

    def all_said(self) -> str:
        """What its parents and workers printed."""
        logs = [self.log, *self.folder.rglob("worker-*.log")]
        return "\n".join(log.read_text(errors="replace") for log in logs)

    def tracebacks(self) -> int:
        """In all that: nothing that is expected to happen ends in one."""
        return self.all_said().count("Traceback (most")

    def unmount(self) -> None:
        if self.disk:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


def _is_worker(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"retsweep.sweep.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


class _Full(Exception):
    pass


def _write(file: int, content: bytes) -> None:
    try:
        os.write(file, content)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _Full from error
        raise


def send(number: int, pid: int) -> bool:
    """Whether the process was there to get the signal."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def marked(mark: str) -> list[int]:
    """Processes of the storm that still are there (those that wait for their parent's look are not)."""
    found = []
    wanted = f"{MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def sweep_up(mark: str) -> None:
    """Kills what a storm that went wrong left."""
    for pid in marked(mark):
        send(signal.SIGKILL, pid)


@functools.cache
def own_names() -> tuple[str, ...]:
    """What gives a process a host name of its own; empty where nothing may. Without it every parent knows
    at once that another's process has died, and no heartbeat has to tell."""
    for words in (("unshare", "--uts"), ("unshare", "--user", "--map-root-user", "--uts")):
        with contextlib.suppress(OSError):
            if not subprocess.run([*words, "hostname", "x"], capture_output=True, check=False).returncode:
                return words
    return ()


@functools.cache
def own_mounts() -> tuple[str, ...]:
    """What runs a command in which mounting is nobody else's business; empty where that takes root."""
    words = ("unshare", "--mount", "--propagation", "private")
    with contextlib.suppress(OSError):
        probe = [*words, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        if not subprocess.run(probe, capture_output=True, check=False).returncode:
            return words
    return ()
