"""Which processes there are: how many fit, who this one is, and whether another still lives."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

#: Names, in the environment of a worker that a queue started, its job there.
JOB = "RETSWEEP_JOB"


def cores() -> int:
    """Cores that this process may use: its affinity, within its control group's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(allowed, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no control groups, or no quota ("max")
        return max(1, allowed)


def here() -> str:
    """Names the set of processes in which a process id means this one: host, boot and namespace."""
    parts = [socket.gethostname(), _read("/proc/sys/kernel/random/boot_id")[:8]]
    try:
        parts.append(Path("/proc/self/ns/pid").readlink().name)
    except OSError:
        parts.append("")
    return "/".join(parts)


def identity(pid: int | None = None) -> dict[str, str | int]:
    """What is written beside a claim, so that others can tell whether its process lives, and which
    worker of theirs it is."""
    pid = os.getpid() if pid is None else pid
    job = {"job": os.environ[JOB]} if JOB in os.environ else {}
    return {"where": here(), "pid": pid, "born": _born(pid), **job}


def is_of(worker: Mapping[str, str | int] | None, known: Mapping[str, str | int]) -> bool:
    """Whether a claim's ``worker`` is the one of which so much is ``known``: of a process all of its
    identity, of a job in a queue its name, before there is a process."""
    return worker is not None and known.items() <= worker.items()


def is_dead(process: dict[str, str | int]) -> bool:
    """Whether a process named by :func:`identity` is known to be gone; False if nobody here can
    tell (it belongs to another machine: its heartbeat has to tell)."""
    if process.get("where") != here():
        return False
    pid = int(process["pid"])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return _born(pid) != process.get("born")


def die_with_parent() -> None:
    """Asks the kernel to kill this process when its parent ends (Linux; elsewhere no-op: workers
    also leave when the pipe from their parent closes)."""
    if sys.platform.startswith("linux"):
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)


def _born(pid: int) -> str:
    """When the process started, in clock ticks; process ids are used again. "" if unknown or dead."""
    stat = _read(f"/proc/{pid}/stat")
    fields = stat.rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] != "Z" else ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
