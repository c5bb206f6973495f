"""Specs made directly, for tests that need many: composing each through Hydra takes 0.1 s."""

from __future__ import annotations

import dataclasses
import functools

from analysis.published import Published, retformers
from retsweep.spec import RunSpec, load_spec
from retsweep.spec.layouts.base import Layout
from retsweep.spec.layouts.pattern import Pattern
from retsweep.spec.layouts.type_a import TypeA
from retsweep.spec.layouts.type_b import TypeB
from retsweep.spec.layouts.type_c import TypeC

LAYOUTS = {"type_a": TypeA, "type_b": TypeB, "type_c": TypeC}


@functools.cache
def loaded(*overrides: str) -> RunSpec:
    return load_spec(overrides)


@functools.cache
def known_layers(*overrides: str) -> dict[str, object]:
    """Every layer by name, from a network that holds them all."""
    spec = loaded("layout=pattern", "layout.pattern=ARHN", *overrides)
    return {layer.kind: layer for layer in spec.layers}


def with_layout(layout: Layout, *overrides: str, layers: int | None = None) -> RunSpec:
    """The spec of ``overrides`` under another layout (and depth)."""
    spec = loaded(*overrides)
    scale = dataclasses.replace(spec.scale, layers=layers or spec.scale.layers)
    stack = layout.stack(scale.layers, scale.heads, known_layers(*overrides))
    return dataclasses.replace(spec, layout=layout, scale=scale, layers=stack)


def pattern(letters: str, *overrides: str, layers: int | None = None) -> RunSpec:
    return with_layout(Pattern(pattern=letters), *overrides, layers=layers)


def published(model: Published) -> RunSpec:
    """One of the report's models, at the report's scale."""
    return with_layout(LAYOUTS[model.layout](attention=model.attention), "scale=paper")


def all_published() -> list[tuple[Published, RunSpec]]:
    return [(model, published(model)) for model in retformers()]
