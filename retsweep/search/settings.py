"""What ``search:`` in a config may say. ``+sweep=pareto`` gives the defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from retsweep.spec.base import SpecError, spec

Letter = Annotated[str, Field(pattern="^[A-Z]$")]
Share = Annotated[float, Field(gt=0, lt=1)]


@spec
class Space:
    """What may be chosen of an architecture, each from a list; null leaves it as configured."""

    letters: tuple[Letter, ...] = ("A", "R", "H")
    """Of ``layout.pattern``: one choice a layer."""
    period: PositiveInt | None = None
    """So many layers are chosen and repeated; None: every layer of ``scale.layers``."""
    heads: tuple[PositiveInt, ...] | None = None
    """``scale.heads``."""
    split: tuple[Share, ...] | None = None
    """The share of a hybrid's heads that attend (at least one of them does, and one does not)."""
    form: tuple[Literal["two_stage", "direct"], ...] | None = None
    """``layer.hybrid.form``."""
    ffn: tuple[PositiveFloat, ...] | None = None
    """FFN widths, as multiples of ``scale.ffn``."""
    decay: tuple[str, ...] | None = None
    """``layer.msr.decay``."""
    more: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    """Any other key of ``layer`` or ``model``: {layer.msr.value_expansion: [1, 2]}."""

    def __post_init__(self) -> None:
        named = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        lists = {name: found for name, found in named.items() if isinstance(found, tuple)} | dict(self.more)
        for name, choices in lists.items():
            plain = all(isinstance(choice, (bool, int, float, str)) for choice in choices)
            if not choices or not plain or len(set(choices)) < len(choices):
                shown = ",".join(map(str, choices))
                raise SpecError(
                    f"search.space.{name}=[{shown}] is not accepted; accepted: different choices, or null"
                )
        for key in self.more:
            if key.partition(".")[0] not in ("layer", "model") or "." not in key:
                raise SpecError(
                    f"search.space.more: {key!r} is not accepted; accepted: keys of layer or model"
                )


@spec
class Halving:
    """Successive halving on validation perplexity within buckets of like MACs."""

    rungs: tuple[PositiveInt, ...] | None = None
    """Optimiser steps after which runs are compared, ascending; None: a third of a run; an
    empty list: every run is trained to its end."""
    eta: Annotated[int, Field(ge=2)] = 2
    """Of a rung's runs in a bucket the best 1/eta go on."""
    buckets: PositiveInt | tuple[PositiveFloat, ...] = 6
    """How many, of equally many architectures of the space each; or the edges between them, in GMACs."""
    macs: str = "macs_decode_2048"
    """What they are buckets of: the cost that the front is about."""

    def __post_init__(self) -> None:
        for name, values in (("rungs", self.rungs), ("buckets", self.buckets)):
            if isinstance(values, tuple) and list(values) != sorted(set(values)):
                shown = ",".join(map(str, values))
                raise SpecError(
                    f"search.halving.{name}=[{shown}] is not accepted; accepted: ascending numbers"
                )


@spec
class Search:
    """A search ends after ``trials`` architectures (those that a budget refuses, and those that were known,
    do not count) or ``steps`` optimiser steps in all, whichever comes first; null: no such end."""

    objectives: tuple[str, ...] = ("valid_ppl", "macs_decode_2048")
    sampler: Literal["tpe", "nsga2"] = "tpe"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    ends: bool = True
    """Whether the first proposals have layers of one letter each, and whether such networks are trained
    whole: the ends of a front, which chance seldom finds where every layer is chosen."""
    spread: bool = True
    """Whether the first ``startup`` proposals are as configured but for their letters and spread evenly over
    the costs, which are known before anything is trained; else they are drawn from the space, and most cost
    about the same."""
    startup: PositiveInt = 10
    """Finished proposals before TPE goes by them."""
    population: Annotated[int, Field(ge=2)] = 16
    """Of a generation of NSGA-II."""
    trials: PositiveInt | None = None
    steps: PositiveInt | None = None
    warm_start: tuple[str, ...] = ()
    """Studies whose finished rows the sampler is told of, as far as they lie in the space."""
    space: Space = dataclasses.field(default_factory=Space)
    halving: Halving = dataclasses.field(default_factory=Halving)

    def __post_init__(self) -> None:
        for name in self.warm_start:
            if not name or set(name) & set("/\\ ") or name.startswith("."):
                raise SpecError(f"search.warm_start: {name!r} is no study; accepted: names of studies")
        if self.trials is None and self.steps is None:
            raise SpecError("a search needs an end; accepted: search.trials=N, search.steps=N, or both")
