"""The cost conventions side by side: what each counts, and that they rank the models differently.

``python -m analysis.macs [STUDY]`` draws a counted study (``make macs``: the report's 31 models at
its own scale). Such a table leaves out the reference rows: what they refer to is a perplexity.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from analysis.aggregate import Line
from analysis.columns import contexts
from analysis.statistics import rank_correlation


def convention_notes(lines: Sequence[Line]) -> list[str]:
    """What each convention counts, a line each, and one that shows how their orders differ."""
    return [
        "published: nn.Linear and 4 per LayerNorm element, as the report counted; retention's own "
        "projections and every Q K^T and A V are missing.",
        "full: every multiply-accumulate of every matrix product of the parallel training forward; no norms.",
        "fvcore: the same, traced in the built model, plus 5 per normalised element (4 without affine).",
        "chunkwise: GMACs of a training sequence of that length, retention in chunks, attention in parallel.",
        "decode: MMACs of one generated token at that context, recurrent retention, attention with its "
        "key/value cache; state: what is kept between tokens.",
        *ranking_notes(lines),
    ]


def ranking_notes(lines: Sequence[Line]) -> list[str]:
    """RetNet against the Transformer by convention, and the rank correlation over all lines."""
    conventions = _conventions(lines)
    if len(conventions) < 2:
        return []
    named = {str(line.get("architecture")): line for line in lines}
    notes = []
    if {"RetNet", "Transformer"} <= set(named):
        ratios = [
            f"{title} {named['RetNet'][column] / named['Transformer'][column]:.2f}x"
            for title, column in conventions.items()
        ]
        notes.append(f"RetNet costs, against the Transformer: {', '.join(ratios)}.")
    (first, base), *others = conventions.items()
    against = []
    for title, column in others:
        correlation = rank_correlation([line[base] for line in lines], [line[column] for line in lines])
        against.append(f"{title} {correlation:+.2f}")
    if len(lines) > 2:
        notes.append(f"Rank correlation of {first} over the {len(lines)} models with {', '.join(against)}.")
    return notes


def _conventions(lines: Sequence[Line]) -> dict[str, str]:
    """The cost columns that every line has, by the name of their convention."""
    titles = {"published": "macs_published", "full": "macs_train_forward"}
    titles |= {f"decode at {n:,}": f"macs_decode_{n}" for n in contexts(lines, "macs_decode_")}
    return {
        title: column
        for title, column in titles.items()
        if all(isinstance(line.get(column), int) for line in lines)
    }


if __name__ == "__main__":
    from analysis.table import main

    sys.exit(main(sys.argv[1:] or ["macs"]))
