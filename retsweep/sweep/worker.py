"""A worker process: takes trials of one study until none waits, and dies with its parent.

Started as ``python -m retsweep.sweep.worker``. Its standard input carries the job, then "s" when
it shall stop, and ends when the parent does.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
import warnings
from typing import IO, Any

from retsweep.spec.secret import Hiding
from retsweep.sweep.processes import die_with_parent

LENGTH_BYTES = 8
STOP = b"s"
#: Exit codes: what the parent is to know of a worker that leaves before the queue is empty.
EXIT_STORAGE_LOST, EXIT_DISK_FULL = 3, 4


def send_job(pipe: IO[bytes], job: Any) -> None:
    """Writes a job to a worker's standard input."""
    body = pickle.dumps((sys.path, pickle.dumps(job)))
    pipe.write(len(body).to_bytes(LENGTH_BYTES) + body)
    pipe.flush()


def main() -> None:
    die_with_parent()
    stopping = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is for the parent
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    body = _read(int.from_bytes(_read(LENGTH_BYTES)))
    threading.Thread(target=_watch, args=(stopping,), daemon=True).start()
    path, job = pickle.loads(body)
    sys.path[:] = path
    found = pickle.loads(job)
    # The log is read by others, and what raises, warns or prints knows nothing of secrets.
    sys.stdout, sys.stderr = Hiding(sys.stdout, found.urls), Hiding(sys.stderr, found.urls)
    code = worked(found, stopping)
    with contextlib.suppress(OSError):  # a log on a full disk
        sys.stdout.flush()
    if code:  # as it is: what Python's own end cannot write to a log on a full disk would make it another
        os._exit(code)


def worked(job: Any, stopping: threading.Event) -> int:
    """:func:`work` as an exit code, and a line in the log where it is not 0."""
    from retsweep.sweep.patience import StorageLost, say_on_stderr
    from retsweep.sweep.trial import DiskFull

    try:
        work(job, stopping)
    except (DiskFull, StorageLost) as error:
        say_on_stderr(str(error))
        return EXIT_DISK_FULL if isinstance(error, DiskFull) else EXIT_STORAGE_LOST
    return 0


def work(job: Any, stopping: threading.Event) -> None:
    """Runs waiting trials of ``job`` one after another until there is none or it shall stop. Raises
    DiskFull, StorageLost."""
    from retsweep.sweep.patience import Patience
    from retsweep.sweep.study import Study
    from retsweep.sweep.trial import run_trial
    from retsweep.tasks.train import PublishedDefectWarning

    warnings.simplefilter("ignore", PublishedDefectWarning)  # the parent has said it, once for all
    study = Study(job.url, job.study, patience=Patience(job.url, job.heartbeat))
    while not stopping.is_set():
        entry = study.claim(job.runs) if job.feed is None else job.feed.take(job, study)
        if entry is None:
            return
        run_trial(job, study, entry, stopping.is_set)


def _watch(stopping: threading.Event) -> None:
    """Waits for the word to stop; the pipe's end is the parent's."""
    while said := os.read(0, 1):
        if said == STOP:
            stopping.set()
    os._exit(1)


def _read(count: int) -> bytes:
    """``count`` bytes of standard input; no buffer, so that nothing is read ahead of _watch."""
    kept = b""
    while len(kept) < count:
        piece = os.read(0, count - len(kept))
        if not piece:
            os._exit(1)  # the parent is gone already
        kept += piece
    return kept


if __name__ == "__main__":
    main()
