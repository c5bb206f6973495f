"""Whether the models of a study learned to mix at all: without that, no verdict is about mixers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from analysis.aggregate import Line, group_of
from analysis.columns import number
from analysis.figures.source import CAUSAL_METRIC, METRIC, is_finite
from analysis.notes import LAST_TOKEN, MODELS
from analysis.report.plain import Plain


@dataclass(frozen=True)
class Doubt:
    """``decides``: the models are no better than one that sees the last token alone, so that nothing
    can be said of how they mix. Otherwise they only know less than the corpus's bigram table."""

    words: str
    decides: bool


def unlearned(found: Plain) -> Doubt | None:
    """What is to be doubted where the better of Transformer and RetNet passes neither line, by its
    validation perplexity (of leaky weights under a causal mask); None where both are passed."""
    models = [found.lines[name] for name in MODELS if name in found.lines]
    reached = _least(models)
    if reached is None:
        return None
    groups = {group_of(line) for line in models}
    alike = [line for line in found.study.source.table.lines if group_of(line) in groups]
    alone = _least(line for line in alike if line.get("architecture") == LAST_TOKEN)
    whose = (
        f"neither {' nor '.join(MODELS)} passes" if len(models) > 1 else f"{models[0]['label']} does not pass"
    )
    if alone is not None and reached >= alone:
        return Doubt(f"{whose} {LAST_TOKEN} ({number(reached)} against {number(alone)})", decides=True)
    bigram = min((line["bigram_valid_ppl"] for line in models if is_finite(line.get("bigram_valid_ppl"))),
                 default=None)  # fmt: skip
    if bigram is not None and reached >= bigram:
        return Doubt(f"{whose} the bigram line ({number(reached)} against {number(bigram)})", decides=False)
    return None


def _least(lines: Iterable[Line]) -> float | None:
    values = [line.get(CAUSAL_METRIC if line.get("leaky") else METRIC) for line in lines]
    return min((float(value) for value in values if is_finite(value)), default=None)
