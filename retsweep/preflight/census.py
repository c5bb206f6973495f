"""Census: what the layers say they hold and do is what the full model, built on the meta device, holds
and what fvcore traces in it."""

from __future__ import annotations

from retsweep import model
from retsweep.costs.fvcore_trace import trace
from retsweep.costs.handles import CensusError
from retsweep.preflight.error import PreflightError
from retsweep.spec.run import RunSpec

CHECK = "census"


def check_census(spec: RunSpec) -> None:
    """Raises PreflightError at the first parameter or operation that differs. ``spec`` is the full
    one: nothing of it is allocated."""
    said = model.parameters(spec)
    held = {name: tensor.numel() for name, tensor in model.build(spec, "meta").named_parameters()}
    for name in dict.fromkeys([*held, *said]):
        if said.get(name) != held.get(name):
            raise PreflightError(
                CHECK,
                f"{name} of {_elements(said.get(name))} as the census says",
                f"{_elements(held.get(name))} in the built model",
            )
    try:
        trace(spec)
    except CensusError as error:
        raise PreflightError(CHECK, "the operations that fvcore traces", str(error)) from error


def _elements(count: int | None) -> str:
    return "no such parameter" if count is None else f"{count:,} elements"
