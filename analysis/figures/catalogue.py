"""Which figures there are, in the order in which they are drawn and told."""

from __future__ import annotations

from analysis.figures import (
    context,
    curves,
    decode,
    decode_bench,
    ladder,
    pareto,
    placement,
    ratio,
    scaling,
    train_bench,
)

FIGURES = {
    "pareto": pareto,
    "ratio": ratio,
    "ladder": ladder,
    "placement": placement,
    "scaling": scaling,
    "context": context,
    "curves": curves,
    "decode": decode,
    "decode_bench": decode_bench,
    "train_bench": train_bench,
}
