"""What one command does, after its arguments are read: plan, run, tell, print the table."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

import retsweep
from retsweep.spec import Settings, SpecError
from retsweep.spec.compose import compose
from retsweep.spec.configs import as_yaml, from_file
from retsweep.spec.secret import hidden
from retsweep.spec.trust import is_allowance
from retsweep.sweep import backfill, dashboard, export, generate, planfile, tune
from retsweep.sweep.engine import Engine, Outcome
from retsweep.sweep.files import check_inside
from retsweep.sweep.patience import Patience, StorageLost
from retsweep.sweep.plan import Job, Planned, cache_folder, plan, with_data
from retsweep.sweep.storage import answering, check_folder, check_reachable, exclusive, storage_url
from retsweep.sweep.study import Entry, Study
from retsweep.sweep.variants import Run, Wanted, wanted_from
from retsweep.sweep.workers import Crew, places
from retsweep.tasks.train import published_defects
from retsweep.train import store
from retsweep.train.atomic import is_full

EXIT_OK, EXIT_FAILED, EXIT_BAD, EXIT_INTERRUPTED, EXIT_TERMINATED = 0, 1, 2, 130, 143


#: Gives a job that has all that is known beforehand the feed that brings its runs.
Feeding = Callable[[Job], Job]


def run(
    arguments: Sequence[str],
    began: float | None = None,
    take: Callable[[Wanted], Wanted] = lambda wanted: wanted,
    wanted: Wanted | None = None,
    feeding: Feeding | None = None,
) -> int:
    """Runs what ``arguments`` (overrides, or a trial's config.yaml first) ask for: exit code.

    ``began``: time.monotonic() at the command's start; ``wanted``: what they ask for, if that is known.
    ``take`` makes of it what is to be done in this process. Raises SpecError before anything is written.
    """
    began = time.monotonic() if began is None else began
    wanted = take(asked(read(arguments), arguments) if wanted is None else wanted)
    if generate.is_asked(wanted):
        generate.generate(wanted, arguments, _file(arguments))
        return EXIT_OK
    if export.is_asked(wanted):
        export.export(wanted, arguments, _file(arguments))
        return EXIT_OK
    console = Console(highlight=False, soft_wrap=True)
    tuned, since = EXIT_OK, began
    try:
        if backfill.is_asked(wanted):
            sent = backfill.backfill(wanted, console, lambda folder: _build_table(folder, console))
            return EXIT_OK if sent else EXIT_FAILED
        if tune.is_asked(wanted):
            found, tuned = tune_rates(wanted, console, began, arguments)
            if found is None:
                return tuned
            wanted, since = found, time.monotonic()
        outcome = sweep(wanted, console, began, arguments, since, feeding)
        folder = _folder(wanted)
        _table(folder, outcome, wanted, console)
    except StorageLost as error:
        print(f"retsweep: {error}", file=sys.stderr)
        return EXIT_FAILED
    except OSError as error:
        if not is_full(error):
            raise
        named = f" for {error.filename}" if error.filename else ""
        print(f"retsweep: no space left on the disk{named}; the same command goes on", file=sys.stderr)
        return EXIT_FAILED
    return tell(outcome, wanted, folder, console) or tuned


def sweep(
    wanted: Wanted,
    console: Console,
    began: float,
    arguments: Sequence[str] = (),
    since: float | None = None,
    feeding: Feeding | None = None,
) -> Outcome:
    """Carries out everything wanted, as far as time and signals let it; ``arguments`` are what asked
    for it, ``since`` when the command's work on this study began if other work came first. With
    ``feeding`` what is wanted only stands for the runs that a feed brings. Raises SpecError, before
    anything is written, and StorageLost."""
    _check_places(wanted)
    planned = plan(wanted)
    _check_rows(wanted, planned)
    job = _job(wanted, planned)
    if feeding is not None:
        job = feeding(job)
    return _carry_out(job, wanted, console, began, arguments, since)


def tune_rates(
    wanted: Wanted, console: Console, began: float, arguments: Sequence[str] = ()
) -> tuple[Wanted | None, int]:
    """Chooses a learning rate for every variant: what is wanted with the rates chosen, and an exit code.

    None in its place: the tries are not over (a limit, a signal, workers that died), so that nothing is
    chosen for anything, and the command ends with the code. Variants whose tries were over before are
    not tried again. Raises as :func:`sweep` does.
    """
    _check_places(wanted)
    planned = with_data(wanted.runs, cache_folder(wanted.settings.cache))
    tuning = tune.tuning_of(wanted, planned)
    _check_rows(wanted, tuning.outcomes(planned))  # now, not after hours of tries
    tries = tuning.wanted_tries
    _check_places(tries)
    job = _job(tries, tuning.planned)
    left = tuning.unsettled(_standing(job))
    if left:
        outcome = _carry_out(dataclasses.replace(job, runs=left), tries, console, began, arguments)
        if outcome.left or outcome.ending in ("interrupted", "terminated", "full"):
            console.print("tuning is not over; the runs that count come after it", markup=False)
            return None, tell(outcome, tries, job.folder, console)
    else:
        console.print(f"{job.folder}: tuned before, with {len(job.runs)} runs", markup=False)
    standing = _standing(job)
    not_over = tuning.open(standing)
    if not_over:
        for one in not_over.values():
            console.print(f"not over, its worker died: {one.run.label}", markup=False, style="red")
        console.print(
            f"no learning rate is chosen; {job.folder}/worker-*.log may say why; the same command goes on",
            markup=False,
        )
        return None, EXIT_FAILED
    choices = tuning.choices(standing)
    for line in tune.lines(choices):
        console.print(line, markup=False)
    failed = [key for key, entry in standing.items() if entry.state == "failed"]
    for key in failed:
        console.print(f"failed, and counts as infinitely bad: {job.labels[key]}", markup=False, style="red")
    if failed:
        console.print(
            f"what they raised: {job.folder}/trials/*/error.txt; the choice stands, another study "
            "(study=NAME) makes its own",
            markup=False,
        )
    return tuning.tuned(choices), EXIT_FAILED if failed else EXIT_OK


def _check_rows(wanted: Wanted, planned: Mapping[str, Planned]) -> None:
    """Raises SpecError if the study that is ``wanted`` has a row of one of ``planned`` that says
    something else of how the run came to be than its row would now. Such columns are no part of a run's
    identity: it would be taken for finished, and never say that it was matched, or tuned."""
    noting = {key: one for key, one in planned.items() if one.run.extra}
    folder = _folder(wanted)
    if not noting or not folder.exists():  # a study leaves a folder wherever it runs
        return
    url = storage_url(wanted.settings.storage, folder)
    patience = Patience(url, wanted.settings.heartbeat)
    with answering(url), exclusive(url, wanted.study, patience):
        standing = Study(url, wanted.study, create=True, patience=patience).standing(noting)
    for key, entry in standing.items():
        row = entry.row if entry.state == "complete" else None
        for column, value in noting[key].run.extra.items():
            if row is not None and row.get(column) != value:
                said = f"says {column}={row[column]}" if column in row else f"has no {column}"
                raise SpecError(
                    f"the row of {noting[key].run.label} in study {wanted.study} {said}, where this command "
                    f"would write {column}={value}; accepted: another study (study=NAME)"
                )


def _standing(job: Job) -> dict[str, Entry]:
    """How the runs of ``job`` stand in its study, which exists from now on."""
    patience = Patience(job.url, job.heartbeat)
    with answering(job.url), exclusive(job.url, job.study, patience):
        return Study(job.url, job.study, create=True, patience=patience).standing(job.runs)


def _check_places(wanted: Wanted) -> None:
    """Raises SpecError if a study cannot be kept, or worked on, where it is ``wanted``."""
    crew = places(wanted.settings)
    for run in wanted.runs:
        if run.spec.task.computes:
            run.spec.check_device(crew.device)
    folder = _folder(wanted)
    check_inside(Path(wanted.settings.runs), folder)
    for written in (folder, folder / "trials"):
        check_folder(written)
    planfile.read(folder)
    url = storage_url(wanted.settings.storage, folder)
    crew.check_storage(url)
    check_reachable(url)
    store.check(wanted.settings.checkpoint.dir)


def _job(wanted: Wanted, planned: Mapping[str, Planned]) -> Job:
    """What workers have to know. The study's folder exists from now on."""
    settings, folder = wanted.settings, _folder(wanted)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(
            f"{folder} cannot be made: {error.strerror}; runs=FOLDER names another place"
        ) from error
    return Job(
        runs=planned,
        url=storage_url(settings.storage, folder),
        study=wanted.study,
        folder=folder,
        cache=cache_folder(settings.cache),
        device=places(settings).device,
        tracker=settings.tracker,
        keep=settings.keep,
        heartbeat=settings.heartbeat,
        checkpoints=store.place(settings.checkpoint.dir, wanted.study),
    )


def _carry_out(
    job: Job,
    wanted: Wanted,
    console: Console,
    began: float,
    arguments: Sequence[str],
    since: float | None = None,
) -> Outcome:
    """Runs the trials of ``job`` (all that is ``wanted`` of a study, or what is left of it)."""
    planfile.note(job.folder, wanted.sweep, arguments, job.runs)
    chosen = places(wanted.settings)
    console.print(_heading(job, wanted, chosen), markup=False)
    defects = defects_in(wanted.runs)
    if defects:
        console.print(f"PUBLISHED DEFECTS ARE ON: {'; '.join(defects)}", markup=False, style="yellow")
    engine = Engine(job, wanted.settings, chosen, console, began, since)
    try:
        outcome = engine.run()
    finally:
        if job.feed is not None:  # it brought more
            planfile.note(job.folder, wanted.sweep, arguments, engine.runs)
    backfill.answer_agent(job)
    return outcome


def read(arguments: Sequence[str]) -> Any:
    """The composed config of a command line. Raises SpecError."""
    file = _file(arguments)
    if file is not None:
        return from_file(file, tuple(_overrides(arguments)))
    return compose(_overrides(arguments))


def config(arguments: Sequence[str]) -> str:
    """``--cfg``: what the command line composes to, as YAML. Raises SpecError if it cannot run."""
    composed = read(arguments)
    asked(composed, arguments)
    return hidden(as_yaml(composed))


def asked(composed: Any, arguments: Sequence[str]) -> Wanted:
    """The runs that a composed command line asks for. Raises SpecError if they cannot be."""
    wanted = wanted_from(composed, _overrides(arguments))
    generate.check(wanted)
    export.check(wanted)
    tune.check(wanted)
    backfill.check(wanted, _overrides(arguments), _file(arguments))
    return wanted


def tell(outcome: Outcome, wanted: Wanted, folder: Path, console: Console) -> int:
    """Says in a few lines how it ended. Returns the exit code."""
    if outcome.spent is not None:
        console.print(outcome.spent.line(), markup=False)
    for label in outcome.failed:
        console.print(f"failed: {label}", markup=False, style="red")
    if outcome.failed:
        console.print(
            f"what they raised: {folder}/trials/*/error.txt; the same command tries them again", markup=False
        )
    if outcome.left:
        trials = len(outcome.left) + len(outcome.failed) + len(outcome.finished)
        reason = {
            "limit": f"limit.minutes={wanted.settings.limit.minutes:g} is over"
            if wanted.settings.limit.minutes is not None
            else "",
            "interrupted": "interrupted",
            "terminated": "terminated",
            "full": f"no space left in {folder}",
        }.get(outcome.ending, "stopped")
        console.print(
            f"{reason}: {len(outcome.left)} of {trials} runs are left; the same command goes on", markup=False
        )
    if outcome.ending == "interrupted":
        return EXIT_INTERRUPTED
    if outcome.ending == "terminated":
        return EXIT_TERMINATED
    return EXIT_FAILED if outcome.failed or outcome.ending == "full" else EXIT_OK


def defects_in(runs: Iterable[Run]) -> list[str]:
    """The known defects of the published code that any of ``runs`` trains with, in words."""
    found = (published_defects(run.spec) for run in runs if run.spec.task.reads_data)
    return list(dict.fromkeys(words for defects in found for words in defects))


def _heading(job: Job, wanted: Wanted, chosen: Crew) -> str:
    many, workers = f"{len(job.runs)} runs" if len(job.runs) != 1 else "1 run", chosen.count
    if job.feed is not None:
        many = job.feed.heading()
    else:
        workers = min(workers, len(job.runs))
    return f"{_folder(wanted)}: {many}, {workers} x {chosen.device}, tracker {_tracking(wanted.settings)}"


def _folder(wanted: Wanted) -> Path:
    """The study's."""
    return Path(wanted.settings.runs) / wanted.study


def _tracking(settings: Settings) -> str:
    return str(settings.tracker.resolve())


def _table(folder: Path, outcome: Outcome, wanted: Wanted, console: Console) -> None:
    """Writes, prints and mirrors the study's table; not after Ctrl-C, when everybody is in a hurry, and
    not on a full disk."""
    if not outcome.finished or outcome.ending in ("interrupted", "terminated", "full"):
        return
    table = _build_table(folder, console)
    if table is None:
        return
    from analysis.table import show

    show(table)
    dashboard.mirror(wanted.settings.tracker, wanted.study, folder, table.lines)


def _build_table(folder: Path, console: Console) -> Any | None:
    """The study's table, written into its folder; None, and a line that says why, if there is none."""
    hider = _hider_of_analysis()
    if hider:
        console.print(
            f"no table: {hider} hides the package analysis of retsweep; rename it, or work elsewhere",
            markup=False,
        )
        return None
    from analysis.rows import TableError
    from analysis.table import write

    try:
        return write(folder)
    except TableError as error:
        console.print(f"no table: {error}", markup=False)
        return None


def _hider_of_analysis() -> str | None:
    """What ``import analysis`` would find in place of retsweep's own, which lies beside retsweep: an
    analysis.py of the user's, for instance. Found without running it: it may be a script."""
    found = find_spec("analysis")
    origin = Path(found.origin).resolve() if found and found.origin else None
    own = Path(retsweep.__file__).resolve().parents[1] / "analysis" / "__init__.py"
    return None if origin == own else str(origin or "nothing that can be found")


def _file(arguments: Sequence[str]) -> Path | None:
    """The config.yaml of a trial, if the command names one."""
    first = arguments[0] if arguments else ""
    return Path(first) if first.endswith((".yaml", ".yml")) and "=" not in first else None


def _overrides(arguments: Sequence[str]) -> list[str]:
    words = arguments[1:] if _file(arguments) is not None else arguments
    return [word for word in words if not is_allowance(word)]  # which is obeyed already: __main__
