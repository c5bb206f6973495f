"""What the report claims, and what published protocol, corrected protocol and counting say to it.

No verdict stands here: ``analysis.report.rules`` makes each from the studies on the page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from analysis.published import Published, retformers
from analysis.report import counts, rules
from analysis.report.blocks import Cell, Grid, GridRow, Head, Part, Said, Words
from analysis.report.plain import PROTOCOLS, Plain, plain
from analysis.report.studies import Study

HEADS = ("claim", "in the report", "published protocol, run again", "corrected protocol", "counting")
NO_RUN = Cell(said=(Said("a count", "no run decides it"),))
CAVEAT = (
    "Made from the studies on this page by fixed rules; a verdict is of the scale, the text and the length "
    "of training of its study, and of no other. Intervals are of 95 %, seeds as blocks and the variance "
    "pooled over models. Where a question was named before the runs (see the contrasts), its verdict is the "
    "one after Holm's correction; the others stand each for itself. “Not resolved” means that these seeds "
    "could not have told, not that there is no difference. “Not established” is said where the runs cannot "
    "speak to the claim at all: one run a model, a named contrast without its runs, or models that are no "
    "better than one that sees the last token alone (FFN only) and so did not learn to mix."
)


def claims(studies: Sequence[Study]) -> Part:
    """The section: a row a claim."""
    model = {each.architecture: each for each in retformers()}
    best, base, retnet = model[rules.BEST], model[rules.BASE], model["RetNet"]
    rows = [
        [
            Cell(f"{rules.BEST} beats the {rules.BASE}"),
            Cell(_reported(best, base)),
            *(_trained(studies, protocol, rules.beats) for protocol in PROTOCOLS),
            _counted(studies, counts.cost_of_best),
        ],
        [
            Cell("Type C, heads of both kinds in every layer, is hopeless"),
            Cell(_reported_type_c(list(model.values()))),
            *(_trained(studies, protocol, rules.hopeless) for protocol in PROTOCOLS),
            _counted(studies, counts.cost_of_type_c),
        ],
        [
            Cell("Retention saves a third of the MACs"),
            Cell(
                f"RetNet {retnet.gmacs:,.2f} GMACs, {rules.BASE} {base.gmacs:,.2f}: "
                f"{100 * (1 - retnet.macs / base.macs):.0f} % less"
            ),
            *(_trained(studies, protocol, rules.speed) for protocol in PROTOCOLS),
            _counted(studies, counts.saves),
        ],
        [
            Cell("The column of GMACs orders the models by cost"),
            Cell("the more layers of attention, the dearer; RetNet is the cheapest"),
            NO_RUN,
            NO_RUN,
            _counted(studies, counts.order),
        ],
    ]
    heads = tuple(Head(head) for head in HEADS)
    table = Grid("claims-table", heads, tuple(GridRow(tuple(row)) for row in rows), wide=True, even=True)
    return Part("claims", "Which claims survive", (table, Words((CAVEAT,), quiet=True)))


def _trained(studies: Sequence[Study], protocol: str, rule: Callable[[Plain], Sequence[Said]]) -> Cell:
    """What ``rule`` says of every study under ``protocol``."""
    found = [(each.study.name, said) for each in plain(studies, protocol) for said in rule(each)]
    return _cell(found, len(studies))


def _counted(studies: Sequence[Study], rule: Callable[[Study], Said | None]) -> Cell:
    """What ``rule`` says of the counts: once for studies of one size, which count the same."""
    found: dict[Said, list[str]] = {}
    for study in studies:
        if said := rule(study):
            found.setdefault(said, []).append(study.name)
    return _cell([(", ".join(names), said) for said, names in found.items()], len(studies))


def _cell(found: Sequence[tuple[str, Said]], studies: int) -> Cell:
    if not found:
        return Cell("not in this study" if studies == 1 else "not in these studies")
    return Cell(
        said=tuple(Said(said.verdict, said.words, name if studies > 1 else "") for name, said in found)
    )


def _reported(best: Published, base: Published) -> str:
    return (
        f"train perplexity {best.train_ppl:,.2f} against {base.train_ppl:,.2f}: one run each, 40 training "
        "batches, under a mask that leaks"
    )


def _reported_type_c(models: Sequence[Published]) -> str:
    own = [model.train_ppl for model in models if model.layout == "type_c"]
    others = [model.train_ppl for model in models if model.layout != "type_c"]
    return (
        f"train perplexities from {min(own):,.0f} to {max(own):,.0f}; all others from {min(others):,.1f} to "
        f"{max(others):,.1f}; one run each"
    )
