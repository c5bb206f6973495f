"""``task=generate``: finds the trial that was trained as the command says, and prints its text. Nothing is
written: no study, no row, no table."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from retsweep.spec import Settings, SpecError
from retsweep.sweep import tune
from retsweep.sweep.plan import Planned, cache_folder, identify
from retsweep.sweep.variants import Wanted
from retsweep.sweep.workers import places
from retsweep.tasks.base import Workspace
from retsweep.tasks.export import Export
from retsweep.tasks.generate import Generate
from retsweep.tasks.train import Train


def is_asked(wanted: Wanted) -> bool:
    return any(isinstance(run.spec.task, Generate) for run in wanted.runs)


def check(wanted: Wanted) -> None:
    """Raises SpecError if what is ``wanted`` cannot be generated, or has a prompt and generates nothing."""
    settings = wanted.settings
    if not is_asked(wanted):
        for key in ("prompt", "prompt_file"):
            if getattr(settings, key) is not None:
                raise SpecError(f"{key} is of task=generate, not of task={wanted.runs[0].spec.task.name}")
        return
    if len(wanted.runs) > 1 or wanted.sweep != "single":
        raise SpecError(
            f"task=generate speaks for one run, and this command lists {len(wanted.runs)}; accepted: "
            "no sweep, no seeds; seed=N is another run"
        )
    if tune.is_asked(wanted):
        raise SpecError(
            "task=generate chooses no learning rate; accepted: the config.yaml of the tuned trial as first "
            "argument, or its protocol.learning_rate"
        )


def generate(wanted: Wanted, arguments: Sequence[str], file: Path | None = None) -> None:
    """Prints prompt and continuation; on the standard error, whose weights speak.

    ``file``: the trial's config.yaml, where ``arguments`` name one. Raises SpecError: no such trial, no
    checkpoint, no prompt.
    """
    (run,) = wanted.runs
    task, settings = run.spec.task, wanted.settings
    prompt = _prompt(settings)
    cache = cache_folder(settings.cache)
    spec = dataclasses.replace(run.spec, task=Train())
    ((spec_hash, planned),) = identify([dataclasses.replace(run, spec=spec)], cache).items()
    folder = trained(planned, spec_hash, task, settings, training(arguments), file)
    workspace = Workspace(folder, places(settings).device, cache)
    pieces = task.text(planned.spec, workspace, prompt)
    print(f"retsweep: {run.label}, {folder / task.file}", file=sys.stderr, flush=True)
    print(prompt, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def _prompt(settings: Settings) -> str:
    """Raises SpecError if there is none."""
    if settings.prompt_file is not None:
        try:
            return Path(settings.prompt_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
            raise SpecError(f"prompt_file={settings.prompt_file} cannot be read: {reason}") from error
    if settings.prompt is None:
        raise SpecError('task=generate needs what to go on from; accepted: prompt="...", prompt_file=FILE')
    return settings.prompt


def trained(
    planned: Planned,
    spec_hash: str,
    task: Generate | Export,
    settings: Settings,
    training: str,
    file: Path | None,
) -> Path:
    """The folder of the trained trial, finished ones first. Raises SpecError, which says what to do."""
    folders = sorted(Path(settings.runs).glob(f"{settings.study or '*'}/trials/{spec_hash}"))
    if file is not None and file.resolve().parent.name == spec_hash:
        folders.insert(0, file.parent)
    with_it = [folder for folder in folders if (folder / task.file).is_file()]
    if with_it:
        return min(with_it, key=lambda folder: not (folder / "row.json").is_file())
    label, where = planned.run.label, f"{settings.runs}/{settings.study or '*'}/trials"
    if not folders:
        raise SpecError(f"no run of {label} with these keys in {where}/{spec_hash}; to train it: {training}")
    folder = folders[0]
    other = "last" if task.checkpoint == "best" else "best"
    if (folder / f"{other}.pt").is_file():
        raise SpecError(f"{folder} has no {task.file}; accepted: task.checkpoint={other}")
    if (folder / "row.json").is_file():
        raise SpecError(
            f"{folder} has its row alone, its checkpoints were removed (keep=rows) or never made; to train "
            f"it again, in another study: {training} study=NAME"
        )
    raise SpecError(f"{folder} has no checkpoint yet; to go on with its training: {training}")


def training(arguments: Sequence[str]) -> str:
    """The command that trains what ``arguments`` would generate from."""
    own = ("task", "prompt", "prompt_file")
    keys = [word.lstrip("+~").partition("=")[0].partition(".")[0] for word in arguments]
    kept = [word for word, key in zip(arguments, keys, strict=True) if key not in own]
    return shlex.join(["python", "-m", "retsweep", *kept])
