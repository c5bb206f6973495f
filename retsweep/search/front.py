"""The end of a search in a few lines: the Pareto front of what was told, and what it took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from retsweep.search.objectives import MEASURED, PERPLEXITY
from retsweep.search.proposals import Proposal
from retsweep.search.standing import Plan

SHOWN = 20


def lines(proposals: Sequence[Proposal], best: Sequence[Proposal], plan: Plan) -> Iterator[str]:
    """The front by the first cost, cheapest first. ``best`` may hold one architecture several times."""
    yield _summary(proposals)
    names = plan.search.objectives
    by = next(at for at, name in enumerate(names) if name != PERPLEXITY)
    front = {str(one.hash): one for one in sorted(best, key=lambda one: one.number)}
    ordered = sorted(front.values(), key=lambda one: _key(one, by))
    if not ordered:
        return
    yield f"front of {', '.join(names)}:"
    for one in ordered[:SHOWN]:
        assert one.values is not None
        shown = "  ".join(
            _value(name, value).rjust(12) for name, value in zip(names, one.values, strict=True)
        )
        source = f"  (from {one.source})" if one.source is not None else ""
        yield f"{shown}  {plan.space.label(one.params)}{source}"
    if len(ordered) > SHOWN:
        yield f"and {len(ordered) - SHOWN} more"


def _summary(proposals: Sequence[Proposal]) -> str:
    """What became of the proposals."""
    known = sum(one.known for one in proposals)
    refused = sum(one.infeasible is not None for one in proposals)
    warm = sum(one.source is not None and not one.known for one in proposals)
    told = {one.hash for one in proposals if one.state == "told" and one.counts}
    parts = [f"{len(proposals) - warm} proposals", f"{len(told)} architectures trained to their end"]
    parts += [f"{refused} refused by the budget or the layers, unbuilt"] * bool(refused)
    parts += [f"{known} known already"] * bool(known)
    parts += [f"{warm} told from earlier studies"] * bool(warm)
    return ", ".join(parts)


def _key(one: Proposal, by: int) -> tuple[float, ...]:
    assert one.values is not None
    return (one.values[by], *one.values)


def _value(name: str, value: float) -> str:
    return f"{value:.3f}" if name == PERPLEXITY or MEASURED.fullmatch(name) else f"{value:,.0f}"
