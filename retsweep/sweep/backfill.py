"""``task=mirror``: sends a study that is there already to Weights & Biases, whole: every finished run with
its history and its row, and the table. Nothing is trained, and what W&B has already is not sent twice.

A run under `wandb agent` that found its row in the study is answered in the same way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from retsweep.spec import SpecError
from retsweep.sweep import dashboard, tune
from retsweep.sweep.blocks import key_of
from retsweep.sweep.mirror import mirror as mirror_files
from retsweep.sweep.plan import Job, cache_folder
from retsweep.sweep.storage import answering, check_folder, check_reachable, storage_url
from retsweep.sweep.study import Entry, Study
from retsweep.sweep.tracked import finished, history
from retsweep.sweep.variants import Wanted
from retsweep.tasks.mirror import Mirror
from retsweep.tracking import (
    Auto,
    Decided,
    Resolution,
    Sent,
    Wandb,
    agent_run,
    content,
    is_written,
    reach_server,
)

ACCEPTED = ("task", "study", "runs", "storage", "tracker")
ENDED = ("complete", "failed")


def is_asked(wanted: Wanted) -> bool:
    return any(isinstance(run.spec.task, Mirror) for run in wanted.runs)


def check(wanted: Wanted, overrides: Sequence[str], file: Path | None = None) -> None:
    """Raises SpecError if what is ``wanted`` cannot be sent, or cannot be told to the W&B run of an agent.

    ``overrides`` are those of the command line, ``file`` the config.yaml that it begins with."""
    if not is_asked(wanted):
        _check_agent(wanted)
        return
    others = [word for word in overrides if key_of(word).partition(".")[0] not in ACCEPTED]
    if others or file is not None:
        raise SpecError(
            f"task=mirror sends a whole study, whatever {others[0] if others else file} says; "
            f"accepted beside it: {', '.join(ACCEPTED[1:])}"
        )
    if wanted.settings.study is None:
        raise SpecError("task=mirror needs the name of a study; accepted: study=NAME")
    if agent_run() is not None:
        raise SpecError("task=mirror is no run of a W&B sweep; accepted: to run it without `wandb agent`")
    _decided(wanted.settings.tracker)


def backfill(wanted: Wanted, console: Console, build_table: Callable[[Path], Any | None]) -> bool:
    """Sends the study that is ``wanted``: whether all of it has arrived where it was to go.

    ``build_table`` makes the table of a study's folder. Raises SpecError (no such study) and StorageLost.
    """
    settings = wanted.settings
    folder, study = Path(settings.runs) / wanted.study, wanted.study
    url = storage_url(settings.storage, folder)
    entries = _entries(url, study)
    ended = {key: entry for key, entry in entries.items() if entry.state in ENDED and entry.row}
    if not ended:
        raise SpecError(f"study {study} has no finished run yet")
    check_folder(folder)
    job = Job({}, url, study, folder, cache_folder(settings.cache), "cpu", settings.tracker)
    mirror_files(job, ended, retries=0)
    tracker = _decided(settings.tracker)
    where = tracker.resolution.mode
    tracker = _reached(tracker, console)
    console.print(f"{folder}: {len(ended)} runs, tracker {tracker.resolution}", markup=False)
    sent = [send(entry, study, job.trial_folder(key), tracker) for key, entry in ended.items()]
    table = build_table(folder)
    if table is not None:
        sent.append(dashboard.mirror(tracker, study, folder, table.lines))
    _tell(folder, sent, len(ended), len(entries) - len(ended), console)
    return all(one == where for one in sent)


def send(entry: Entry, study: str, folder: Path, tracker: Decided) -> Sent:
    """One finished run, with the history that is in its ``folder``."""
    assert entry.row is not None
    run, lines = finished(entry, study, folder), history(folder)
    if tracker.resolution.mode == "offline" and is_written(run, content(run.config, lines, entry.row)):
        return "offline"
    opened = tracker.open(run)
    for line in lines:
        opened.metrics(line)
    opened.row(entry.row)
    return opened.close()


def answer_agent(job: Job) -> None:
    """Under `wandb agent`: tells the run that the agent has named what the study knew of it already (another
    command finished it, or another agent's). Else the search that proposed it would wait in vain."""
    named = agent_run()
    if named is None or job.tracker.resolve().mode == "none":
        return
    for entry in _entries(job.url, job.study, job.runs).values():
        folder = job.trial_folder(entry.hash)
        own = list(folder.glob(f"wandb/*run-*/run-{named}.wandb"))
        if own or entry.state not in ENDED or entry.row is None:
            continue  # a worker of this command has told it, or there is nothing to tell
        run = dataclasses.replace(finished(entry, job.study, folder), id=named, job_type="answered")
        opened = job.tracker.open(run)
        for line in history(folder):
            opened.metrics(line)
        opened.row(entry.row)
        opened.close()


def _check_agent(wanted: Wanted) -> None:
    """Raises SpecError for what is more than one run: an agent has named one."""
    if agent_run() is None or wanted.settings.tracker.resolve().mode == "none":
        return
    if len(wanted.runs) > 1 or tune.is_asked(wanted):
        many = "tries of learning rates" if tune.is_asked(wanted) else f"{len(wanted.runs)} runs"
        raise SpecError(
            f"`wandb agent` asks for one run at a time, and this command has {many}; accepted: seed, and "
            "whatever else is to vary, as parameters of the W&B sweep, or tracker=none"
        )


def _decided(tracker: Any) -> Decided:
    """``tracker`` as whoever asks for a mirror means it: tracker=auto tracks. Raises SpecError."""
    if not isinstance(tracker, (Auto, Wandb)):
        raise SpecError("task=mirror sends to Weights & Biases; accepted: tracker=wandb, tracker=auto")
    resolution = Wandb().resolve()
    if resolution.mode == "none":
        raise SpecError(f"task=mirror sends to Weights & Biases, and {resolution.reason}; unset it")
    return Decided(resolution, tracker.project, tracker.entity)


def _reached(tracker: Decided, console: Console) -> Decided:
    """``tracker``, offline if it is to be online and no server answers."""
    if tracker.resolution.mode != "online":
        return tracker
    try:
        reach_server()
    except OSError as error:
        console.print(f"W&B does not answer: {error}", markup=False, style="red")
        return dataclasses.replace(tracker, resolution=Resolution("offline", "no server"))
    return tracker


def _entries(url: str, study: str, hashes: Mapping[str, Any] | None = None) -> dict[str, Entry]:
    """How the runs of a study stand (all, or those among ``hashes``). Raises SpecError if there is no such
    study, and makes none."""
    import sqlalchemy

    parsed = sqlalchemy.make_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(str(parsed.database)).is_file():
        raise SpecError(f"no study {study}: there is no {parsed.database}")
    check_reachable(url)
    with answering(url):
        try:
            known = Study(url, study)
        except KeyError as error:
            raise SpecError(f"no study {study} in this storage; accepted: the name of a study") from error
        return known.standing(hashes or {entry.hash for entry in known.entries()})


def _tell(folder: Path, sent: Sequence[Sent], runs: int, unfinished: int, console: Console) -> None:
    if unfinished:
        console.print(f"not finished, left out: {unfinished} of {unfinished + runs}", markup=False)
    lost = sent.count("nowhere")
    if lost:
        console.print(
            f"{lost} of {len(sent)} did not arrive; the same command goes on", markup=False, style="red"
        )
    places = ("trials/*/wandb/offline-run-*", "wandb/offline-run-*")
    lying = [f"{folder}/{place}" for place in places if any(folder.glob(place))]
    if "offline" in sent and lying:
        console.print(f"they lie offline; to send them: wandb sync {' '.join(lying)}", markup=False)
