"""What a model costs, under which convention.

Layers report a census; weights, factors and units live here. One MAC is one multiply-accumulate
(two FLOP); all counts are forward passes of one sequence.
"""

from retsweep.costs.columns import cost_columns
from retsweep.costs.conventions import (
    macs_as_trained,
    macs_decode,
    macs_normalisation_fvcore,
    macs_published,
    macs_train_chunkwise,
    macs_train_forward,
    parameters,
    state_bytes,
)
from retsweep.costs.traffic import bytes_decode

__all__ = [
    "bytes_decode",
    "cost_columns",
    "macs_as_trained",
    "macs_decode",
    "macs_normalisation_fvcore",
    "macs_published",
    "macs_train_chunkwise",
    "macs_train_forward",
    "parameters",
    "state_bytes",
]
