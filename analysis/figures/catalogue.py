"""Which figures there are, in the order in which they are drawn and told."""

from __future__ import annotations

from analysis.figures import context, curves, decode, ladder, pareto, placement, ratio, scaling

FIGURES = {
    "pareto": pareto,
    "ratio": ratio,
    "ladder": ladder,
    "placement": placement,
    "scaling": scaling,
    "context": context,
    "curves": curves,
    "decode": decode,
}
