"""Probes: what else a trained model is asked. ``evaluate.probes=[NAME]`` asks ``NAME.py`` of this folder.

A probe is a module with two functions. Its options, if it has any, are the section of its name in
``spec/evaluate.py``, and so in ``evaluate:`` of conf/config.yaml.

    columns(evaluation: Evaluation, model: nn.Module) -> dict[str, Any]
        The row's columns, each beginning with the probe's name. The model is trained, and not diverged.
    pin(evaluate: Evaluate) -> Evaluate
        The options with the hash of whatever text or task they lead to, so that it is part of a run's
        identity; ``evaluate`` itself if there is none. Raises SpecError if it cannot be read.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from retsweep.spec.evaluate import PROBES, Evaluate

if TYPE_CHECKING:
    from torch import nn

    from retsweep.tasks.evaluation import Evaluation


def pinned(evaluate: Evaluate) -> Evaluate:
    """``evaluate`` with the content of all of its probes. Raises SpecError."""
    for name in evaluate.probes:
        evaluate = importlib.import_module(f"{PROBES}.{name}").pin(evaluate)
    return evaluate


def columns(evaluation: Evaluation, model: nn.Module) -> dict[str, Any]:
    """Those of every probe that the run asks for. Raises SpecError, InterruptedRun."""
    found: dict[str, Any] = {}
    for name in evaluation.spec.evaluate.probes:
        found |= importlib.import_module(f"{PROBES}.{name}").columns(evaluation, model)
    return found
