"""Brings the trials' files into line with the study, whose word is the last."""

from __future__ import annotations

from collections.abc import Mapping

from retsweep.sweep.files import holds_row, sealed, write_row, write_whole
from retsweep.sweep.plan import Job
from retsweep.sweep.study import Entry
from retsweep.sweep.trial import STATUS_FAILED, frame


def mirror(job: Job, standing: Mapping[str, Entry], retries: int) -> None:
    """Writes the rows that have no file here, or another one: of other machines, of workers that
    were killed between the storage and the file, of runs given up. Beside a failed row stands
    error.txt, and beside no other."""
    for spec_hash, entry in standing.items():
        if entry.given_up(retries):
            _give_up(job, spec_hash, entry)
        elif entry.row and entry.state in ("complete", "failed"):
            folder = job.trial_folder(spec_hash)
            folder.mkdir(parents=True, exist_ok=True)
            if not holds_row(folder, entry.row):
                write_row(folder, entry.row)
            error = folder / "error.txt"
            if entry.state == "complete":
                error.unlink(missing_ok=True)
            elif not error.exists():
                write_whole(error, f"{entry.error}\n(the traceback is not on this machine)\n")


def _give_up(job: Job, spec_hash: str, entry: Entry) -> None:
    """A run whose workers died can write nothing itself."""
    error = f"its worker died, {entry.attempt + 1} times in a row"
    row = {**frame(job.runs[spec_hash], job.device), "status": STATUS_FAILED, "error": error}
    folder = job.trial_folder(spec_hash)
    folder.mkdir(parents=True, exist_ok=True)
    write_row(folder, sealed(row))
    hint = f"What it said before, if anything: {job.folder}/worker-*.log. Was it killed for want of memory?"
    write_whole(folder / "error.txt", f"{error}\n{hint}\n")
