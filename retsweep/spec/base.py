"""What every spec is: a frozen dataclass whose fields are checked once, when it is made."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked_dataclass
from typing_extensions import dataclass_transform

Kind = TypeVar("Kind")


class SpecError(ValueError):
    """A run was described in a way that cannot be built. Its text is one line for the user."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def spec(cls: type[Kind]) -> type[Kind]:
    """Class decorator: a frozen, hashable, keyword-only dataclass.

    Types are enforced without coercion (an int serves as a float) and unknown keys are errors.
    """
    return checked_dataclass(  # type: ignore[return-value]  # it keeps the class, whatever its stub says
        cls,
        frozen=True,
        kw_only=True,
        config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True),
    )


#: Field metadata of a label: it names a thing and changes no number, so identity leaves it out.
LABEL: dict[str, Any] = {"label": True}
