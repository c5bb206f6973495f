"""The three forms in which a mixer can be computed; a census is always of one of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Parallel:
    """All ``tokens`` at once, every pair of positions (training)."""

    tokens: int


@dataclass(frozen=True)
class Chunkwise:
    """``tokens`` in chunks of ``chunk`` (the last may be shorter), a state carried between them.

    Mixers with no chunkwise form of their own (attention) are counted in their parallel form.
    """

    tokens: int
    chunk: int


@dataclass(frozen=True)
class Recurrent:
    """One token generated at context ``context``, the token itself included (decoding)."""

    context: int


Form = Parallel | Chunkwise | Recurrent
