"""Closed forms: the census of a spec under each convention. Nothing is built here.

T  scale.context    d  scale.d_model    V  scale.vocabulary    n  context of decoding
"""

from __future__ import annotations

import dataclasses

from retsweep import model
from retsweep.spec.forms import Chunkwise, Form, Parallel, Recurrent
from retsweep.spec.run import RunSpec

#: What the report's counter took a LayerNorm to cost, in MACs an element.
PUBLISHED_LAYER_NORM = 4
#: What fvcore takes a normalisation to cost, in MACs an element, without and with weights.
FVCORE_NORM = {False: 4, True: 5}
STATE_BYTES = 4  # states are float32 whatever the activations are
CACHE_BYTES = {"fp32": 4, "tf32": 4, "bf16": 2}  # TF32 is how products round, not how tensors lie


def parameters(spec: RunSpec) -> int:
    """Trainable elements."""
    return sum(model.parameters(spec).values())


def macs_train_forward(spec: RunSpec) -> int:
    """Every matrix product of the parallel form over one sequence of ``scale.context`` tokens.

    Score and value products in full T^2, though the mask leaves half; no normalisations.
    """
    return _total(spec, Parallel(spec.scale.context))


def macs_as_trained(spec: RunSpec, tokens: int | None = None) -> int:
    """Every matrix product of one sequence of ``tokens`` tokens (None: ``scale.context``), each layer in
    the form in which it trains at that length."""
    scale = dataclasses.replace(spec.scale, context=tokens or spec.scale.context)
    return sum(operation.macs for operation in model.operations(dataclasses.replace(spec, scale=scale)))


def macs_train_chunkwise(spec: RunSpec, tokens: int, chunk: int) -> int:
    """Every matrix product over ``tokens`` tokens, retention in chunks of ``chunk``.

    Attention has no chunkwise form of its own and counts in full T^2.
    """
    return _total(spec, Chunkwise(tokens, chunk))


def macs_decode(spec: RunSpec, context: int) -> int:
    """Every matrix product for one generated token, the ``context``-th: recurrent retention,
    attention over a key/value cache that holds the token itself too."""
    return _total(spec, Recurrent(context))


def macs_normalisation_fvcore(spec: RunSpec) -> int:
    """What fvcore adds to the census: 5 an element of a normalisation, 4 of one without weights."""
    norms = model.normalisations(spec, spec.scale.context)
    return sum(norm.elements * FVCORE_NORM[norm.weighted] for norm in norms)


def state_bytes(spec: RunSpec, context: int, cache_bytes: int | None = None) -> int:
    """Bytes kept between generated tokens of one sequence at ``context``.

    ``cache_bytes`` an element of the key/value cache, by default those of ``protocol.precision``;
    a state that does not grow is always float32.
    """
    elements = model.state_elements(spec, context)
    if cache_bytes is None:
        cache_bytes = CACHE_BYTES[spec.protocol.precision]
    return elements["cache"] * cache_bytes + elements["state"] * STATE_BYTES


def macs_published(spec: RunSpec) -> int | None:
    """The GMACs column of the RetFormers report (Agrawal & Hu, 2023), in MACs.

    It counts ``nn.Linear`` and 4 per LayerNorm element, two LayerNorms a layer, over one sequence.
    Retention's own projections are bare parameters there, so it misses them; it misses Q K^T and
    A V too. Type B was counted on a forward in which retention layers skip their first LayerNorm.
    None for mixers that the report did not have.
    """
    if any(not _was_published(layer) for layer in spec.layers):
        return None
    linears = sum(
        operation.macs
        for operation in model.operations(spec, Parallel(spec.scale.context))
        if operation.group != "interaction" and operation.mixer != "msr"
    )
    norms = 2 * spec.scale.layers + spec.model.final_norm
    if spec.layout.kind == "type_b" and len({layer.kind for layer in spec.layers}) > 1:
        norms -= sum(layer.kind == "msr" for layer in spec.layers)
    return linears + norms * PUBLISHED_LAYER_NORM * spec.scale.context * spec.scale.d_model


def _was_published(layer: object) -> bool:
    kind = getattr(layer, "kind", None)
    if kind == "hybrid":
        beside = getattr(layer, "mixer", None)
        return getattr(layer, "form", None) == "two_stage" and getattr(beside, "kind", None) == "msr"
    return kind in ("attention", "msr")


def _total(spec: RunSpec, form: Form) -> int:
    return sum(operation.macs for operation in model.operations(spec, form))
