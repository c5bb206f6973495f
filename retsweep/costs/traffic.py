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

#: An element of a matrix and its bias, as the decoder holds them. All other weights are float32.
MATRIX_BYTES = {"fp32": 4, "tf32": 4, "bf16": 2}
WEIGHT_BYTES = 4
EMBEDDING = "embedding.weight"


def bytes_decode(spec: RunSpec, context: int, batch: int) -> int:
    """Bytes that one step of decoding ``batch`` sequences moves, the new token being the ``context``-th.

    Every weight is read once, of the embedding ``batch`` rows only. Of each sequence a fixed state is
    read and written back, and of a growing cache ``context`` - 1 tokens are read and one is written.
    Activations, logits and fixed tables are left out: they can stay in a cache of the processor.

    Elements are as wide as ``retsweep.decode`` holds them under ``protocol.precision``: of matrices,
    their biases and the cache two bytes under bf16, else four; of embedding, norms and states four.
    """
    precision = spec.protocol.precision
    weights = batch * spec.scale.d_model * WEIGHT_BYTES
    for name, size in model.parameters(spec).items():
        if name != EMBEDDING:
            weights += size * (WEIGHT_BYTES if _norm(name) else MATRIX_BYTES[precision])
    kept = model.state_elements(spec, context)  # the cache: context - 1 tokens read and one written
    return weights + batch * (2 * kept["state"] * STATE_BYTES + kept["cache"] * CACHE_BYTES[precision])


def _norm(name: str) -> bool:
    """Whether the tensor of that name is a norm's; all others but the embedding are linear maps'."""
    return name.split(".")[-2].endswith("norm")
