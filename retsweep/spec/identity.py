"""A run's identity: a content hash over what can change its numbers, and nothing else.

Left out: labels, fields that hold their default (so that a new field with a default orphans no
finished study), fields that the other fields leave without effect (``idle``), layers that are not
used, and corpus and tokenizer, for which the hash of the data that they produced stands. A choice by
length counts as what it chooses at the run's length, whether it was made or written out; where nothing
is trained it chooses nothing, and such runs have the identity of before there was one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from retsweep.spec.run import RunSpec

HASH_LENGTH = 16


def canonical(value: Any) -> Any:
    """``value`` as JSON-ready data: specs as their kind and the fields that differ from default."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = {
            field.name: canonical(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if not field.metadata.get("label")
            and field.name not in getattr(value, "idle", ())
            and not _is_default(field, getattr(value, field.name))
        }
        return {"is": getattr(value, "kind", type(value).__name__), **kept}
    if isinstance(value, (tuple, list)):
        return [canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} cannot be part of a spec's identity")


def _is_default(field: dataclasses.Field[Any], value: Any) -> bool:
    if field.default_factory is dataclasses.MISSING:
        return bool(value == field.default)
    default = field.default_factory()
    return bool(value == default) or canonical(value) == canonical(default)


def variant_hash(spec: RunSpec, data_hash: str) -> str:
    """The run without its seed: what a line of a table is about."""
    return _digest(_content(spec, data_hash))


def spec_hash(spec: RunSpec, data_hash: str) -> str:
    """The run with its seed: what a trial is about."""
    return _digest({**_content(spec, data_hash), "seed": spec.seed})


def _content(spec: RunSpec, data_hash: str) -> dict[str, Any]:
    # Probes add columns to what a trained model gives. A run without them keeps the identity that it
    # had before there were any.
    asked = spec.task.reads_data and spec.evaluate.probes
    # A task may train at other lengths than the context, where layers may take another form.
    lengths = getattr(spec.task, "trained_contexts", ())
    forms = [[canonical(layer) for layer in spec.layers_at(tokens)] for tokens in lengths]
    return {
        **({"layers_at": forms} if forms else {}),
        **({"evaluate": canonical(spec.evaluate)} if asked else {}),
        "layout": spec.layout.kind,
        "layers": [canonical(layer) for layer in spec.settled_layers],
        "scale": canonical(spec.scale),
        "model": canonical(spec.model),
        "protocol": canonical(spec.protocol),
        "task": canonical(spec.task),
        "data": data_hash,
    }


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]
