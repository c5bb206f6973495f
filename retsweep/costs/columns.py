"""The cost columns of a row, in closed form: cheap enough for every row."""

from __future__ import annotations

from collections.abc import Sequence

from retsweep.costs import conventions
from retsweep.spec.run import RunSpec

CONTEXTS = (128, 512, 2048, 8192)
CHUNKWISE_TOKENS = (2048, 8192)
CHUNK = 64


def cost_columns(
    spec: RunSpec,
    contexts: Sequence[int] = CONTEXTS,
    chunkwise_tokens: Sequence[int] = CHUNKWISE_TOKENS,
    chunk: int = CHUNK,
) -> dict[str, int | None]:
    """``params``, ``macs_*`` and ``state_bytes_*`` of one sequence, whole numbers all.

    ``contexts`` are those of decoding, ``chunkwise_tokens`` lengths of chunkwise training in
    chunks of ``chunk``. ``macs_published`` is None for what the report did not have.
    """
    return {
        "params": conventions.parameters(spec),
        "macs_published": conventions.macs_published(spec),
        "macs_train_forward": conventions.macs_train_forward(spec),
        **{
            f"macs_train_chunkwise_{n}": conventions.macs_train_chunkwise(spec, n, chunk)
            for n in chunkwise_tokens
        },
        **{f"macs_decode_{n}": conventions.macs_decode(spec, n) for n in contexts},
        **{f"state_bytes_{n}": conventions.state_bytes(spec, n) for n in contexts},
    }
