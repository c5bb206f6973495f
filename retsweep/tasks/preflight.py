"""task=preflight: what must hold of a spec before compute is spent on it, checked on the CPU in seconds."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from retsweep.spec.base import SpecError, spec
from retsweep.spec.run import RunSpec
from retsweep.tasks.base import Workspace


@spec
class Preflight:
    """``code`` names the code that checks; the plan fills it in (:meth:`pinned`), so that a study's
    answer of before an edit is not taken for one about the code of today."""

    name: ClassVar[str] = "preflight"
    reads_data: ClassVar[bool] = False
    trains: ClassVar[bool] = True
    computes: ClassVar[bool] = False

    code: str | None = None

    def pinned(self) -> Preflight:
        from retsweep.preflight.once import code_identity

        return dataclasses.replace(self, code=code_identity())

    def columns(self) -> dict[str, Any]:
        return {"preflight_code": self.code}

    def __call__(self, spec: RunSpec, workspace: Workspace) -> dict[str, Any]:
        """The columns of :func:`retsweep.preflight.preflight`. Raises PreflightError; SpecError if this
        is not the code that the run was planned with."""
        from retsweep.preflight import preflight
        from retsweep.preflight.once import code_identity

        if self.code not in (None, code_identity()):
            raise SpecError("the code has changed since the check was planned; start the command again")
        return preflight(spec)
