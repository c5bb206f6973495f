"""task=mirror: a study that is there already, sent to Weights & Biases. It makes no row:
``sweep/backfill.py`` reads the study and sends it."""

from __future__ import annotations

from typing import Any, ClassVar

from retsweep.spec.base import SpecError
from retsweep.spec.base import spec as make_spec
from retsweep.spec.run import RunSpec
from retsweep.tasks.base import Workspace


@make_spec
class Mirror:
    name: ClassVar[str] = "mirror"
    reads_data: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    computes: ClassVar[bool] = False

    def __call__(self, spec: RunSpec, workspace: Workspace) -> dict[str, Any]:
        """It has no columns. Raises SpecError."""
        raise SpecError("task=mirror sends a whole study and makes no row; accepted: study=NAME")
