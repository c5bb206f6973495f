"""Count: what a model costs under every convention, without building more than a shadow of it."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from pydantic import PositiveInt

from retsweep.costs import cost_columns
from retsweep.costs.columns import CHUNK, CHUNKWISE_TOKENS, CONTEXTS
from retsweep.spec.base import spec
from retsweep.spec.run import RunSpec
from retsweep.tasks.base import Workspace


@spec
class Count:
    """``contexts``: those of macs_decode_<n> and state_bytes_<n>. ``chunkwise_tokens``: those of
    macs_train_chunkwise_<n>, in chunks of ``chunk``. ``fvcore``: trace the built model too."""

    name: ClassVar[str] = "count"
    reads_data: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    computes: ClassVar[bool] = False

    contexts: tuple[PositiveInt, ...] = CONTEXTS
    chunkwise_tokens: tuple[PositiveInt, ...] = CHUNKWISE_TOKENS
    chunk: PositiveInt = CHUNK
    fvcore: bool = True

    def __call__(self, spec: RunSpec, workspace: Workspace) -> dict[str, Any]:
        """The cost columns of one sequence. Raises CensusError if trace and census disagree."""
        columns: dict[str, Any] = dict(cost_columns(spec, self.contexts, self.chunkwise_tokens, self.chunk))
        if self.fvcore:
            from retsweep.costs.fvcore_trace import trace

            columns["macs_fvcore"] = trace(dataclasses.replace(spec, layers=spec.settled_layers)).macs
        return columns
