"""task=preflight: what must hold of a spec before compute is spent on it, checked on the CPU in seconds."""

from __future__ import annotations

from typing import Any, ClassVar

from retsweep.spec.base import spec
from retsweep.spec.run import RunSpec
from retsweep.tasks.base import Workspace


@spec
class Preflight:
    name: ClassVar[str] = "preflight"
    reads_data: ClassVar[bool] = False

    def __call__(self, spec: RunSpec, workspace: Workspace) -> dict[str, Any]:
        """The columns of :func:`retsweep.preflight.preflight`. Raises PreflightError."""
        from retsweep.preflight import preflight

        return preflight(spec)
