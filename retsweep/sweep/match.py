"""``match=params|macs``: variants as large, or as dear, as the Transformer of the same settings.

The FFN width is what gives: parameters and multiply-accumulates both grow by the same amount for
each hidden unit of the FFNs (2 d_model + 1 parameters and 2 d_model MACs a token, in every layer),
so that the nearest width is a division of whole numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from retsweep.spec import RunSpec, SpecError
from retsweep.spec.load import load_resolved

#: A resolved config as plain data: see retsweep.spec.load.resolve.
Tree = Mapping[str, Any]


def matched(
    spec: RunSpec, tree: Tree, how: str, *, optional: bool = False
) -> tuple[RunSpec, Tree, dict[str, Any]]:
    """``spec`` and its resolved config with the FFN width solved, and the columns that say so.

    ``how`` is "params", "macs" (``macs_train_forward``), or "none", which changes nothing. Raises
    SpecError if no width will do; ``optional`` (a line to compare with) then stays as it is, and
    its row says "none".
    """
    if how == "none":
        return spec, tree, {}
    reference = transformer(tree)
    target = measure(how)(reference)
    try:
        found = solved(spec, how, reference)
    except SpecError:
        if not optional:
            raise
        return spec, tree, {"match": "none", "match_target": target}
    scale = {**tree["scale"], "ffn": found.scale.ffn}
    return found, {**tree, "scale": scale}, {"match": how, "match_target": target}


def solved(spec: RunSpec, how: str, reference: RunSpec) -> RunSpec:
    """``spec`` with the FFN width (1 or more) that brings it nearest to ``reference`` in parameters
    ("params") or train-forward MACs ("macs"); of two as near, the narrower. Raises SpecError if it
    is too large without any FFN."""
    of = measure(how)
    least = of(_with_ffn(spec, 1))
    unit = of(_with_ffn(spec, 2)) - least
    target = of(reference)
    # Nearest whole number to (target - least) / unit, halves downwards, without a float on the way.
    width = 1 - (-(2 * (target - least) - unit) // (2 * unit))
    if width < 1:
        name = spec.layout.architecture(spec.layers, spec.scale.heads)
        raise SpecError(
            f"match={how}: {name} with an FFN of width 1 has {least} {how}, the Transformer with "
            f"scale.ffn={reference.scale.ffn} only {target}; accepted: a wider scale.ffn, or match=none"
        )
    return _with_ffn(spec, width)


def transformer(tree: Tree) -> RunSpec:
    """The Transformer of a resolved config: the same run with attention, as configured, in all layers."""
    layout = {
        "_target_": "retsweep.spec.layouts.type_a.TypeA",
        "mixer": "attention",
        "attention": tree["scale"]["layers"],
    }
    return load_resolved({**tree, "layout": layout})[0]


def measure(how: str) -> Callable[[RunSpec], int]:
    """What is matched: the closed form behind the column ``params`` or ``macs_train_forward``."""
    from retsweep import costs  # torch comes with it

    return {"params": costs.parameters, "macs": costs.macs_train_forward}[how]


def _with_ffn(spec: RunSpec, width: int) -> RunSpec:
    return dataclasses.replace(spec, scale=dataclasses.replace(spec.scale, ffn=width))
