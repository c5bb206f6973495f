"""``task=export``: finds the trial that was trained as the command says, and writes its weights as
safetensors into ``export/`` of the trial's folder, with the config that builds the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from retsweep.spec import SpecError
from retsweep.spec.configs import as_yaml
from retsweep.sweep import tune
from retsweep.sweep.files import check_inside, write_whole
from retsweep.sweep.generate import trained, training
from retsweep.sweep.plan import cache_folder, identify
from retsweep.sweep.variants import Wanted
from retsweep.tasks.export import CONFIG, FOLDER, Export, write
from retsweep.tasks.train import Train


def is_asked(wanted: Wanted) -> bool:
    return any(isinstance(run.spec.task, Export) for run in wanted.runs)


def check(wanted: Wanted) -> None:
    """Raises SpecError if what is ``wanted`` is to be exported and is not one run."""
    if not is_asked(wanted):
        return
    if len(wanted.runs) > 1 or wanted.sweep != "single" or tune.is_asked(wanted):
        raise SpecError(
            f"task=export writes one trained run, and this command lists {len(wanted.runs)}; accepted: no "
            "sweep, no seeds, no tuning; seed=N is another run"
        )


def export(wanted: Wanted, arguments: Sequence[str], file: Path | None = None) -> None:
    """Prints the folder that it wrote. ``file``: the trial's config.yaml, where ``arguments`` name one.
    Raises SpecError: no such trial, no checkpoint, or a broken one."""
    (run,) = wanted.runs
    task, settings = run.spec.task, wanted.settings
    config = {**run.config, "task": {"_target_": f"{Train.__module__}.{Train.__qualname__}"}}
    as_trained = dataclasses.replace(run, spec=dataclasses.replace(run.spec, task=Train()), config=config)
    ((spec_hash, planned),) = identify([as_trained], cache_folder(settings.cache)).items()
    trial = trained(planned, spec_hash, task, settings, training(arguments), file)
    check_inside(Path(settings.runs) if file is None else trial, trial)
    target = trial / FOLDER
    write(planned.spec, trial / task.file, target, {"spec_hash": spec_hash, "label": run.label})
    write_whole(target / CONFIG, as_yaml(config))
    print(target)
