"""What one step of decoding moves through memory, which is what bounds it: a step of b sequences does
little arithmetic on every weight and every state.

n  context of decoding    b  sequences at once    d  scale.d_model    h  scale.heads

Attention moves 4 d^2 weights a layer and, a sequence, a cache of 2 n d; retention 5 d^2 weights and,
a sequence, a state of d^2/h there and back. With w, c and s bytes an element of weights, cache and
state, retention moves less from about n = w d / (2 c b) + s d / (c h) on.
"""

from __future__ import annotations

from retsweep import model
from retsweep.costs.conventions import CACHE_BYTES, STATE_BYTES
from retsweep.spec.run import RunSpec

#: Weights lie in float32 under every ``protocol.precision``: bf16 is how products are computed.
WEIGHT_BYTES = 4
EMBEDDING = "embedding.weight"


def bytes_decode(
    spec: RunSpec,
    context: int,
    batch: int,
    weight_bytes: int = WEIGHT_BYTES,
    cache_bytes: int | None = None,
) -> int:
    """Bytes that one step of decoding ``batch`` sequences moves, the new token being the ``context``-th.

    Every weight is read once, of the embedding ``batch`` rows only. Of each sequence a fixed state is
    read and written back, and of a growing cache ``context`` - 1 tokens are read and one is written.
    Activations, logits and fixed tables are left out: they can stay in a cache of the processor.

    Elements are as wide as ``state_bytes`` states it: states float32, the cache as wide as
    ``protocol.precision`` has activations unless ``cache_bytes`` says otherwise. Weights are float32
    (bf16 is a precision of products, not of weights) unless the model was cast: ``weight_bytes``.
    """
    sizes = model.parameters(spec)
    weights = sum(sizes.values()) - sizes[EMBEDDING] + batch * spec.scale.d_model
    kept = model.state_elements(spec, context)  # the cache: context - 1 tokens read and one written
    cache = kept["cache"] * (cache_bytes or CACHE_BYTES[spec.protocol.precision])
    return weights * weight_bytes + batch * (2 * kept["state"] * STATE_BYTES + cache)


def bytes_crossover(
    spec: RunSpec,
    other: RunSpec,
    batch: int,
    weight_bytes: int = WEIGHT_BYTES,
    cache_bytes: int | None = None,
) -> int | None:
    """The smallest context at which ``spec`` moves fewer bytes a step than ``other``; None: there is none."""

    def difference(context: int) -> int:
        ours, theirs = (bytes_decode(one, context, batch, weight_bytes, cache_bytes) for one in (spec, other))
        return ours - theirs

    at_one = difference(1)
    growth = difference(2) - at_one  # traffic is linear in the context
    if at_one < 0:
        return 1
    return None if growth >= 0 else 2 + at_one // -growth
