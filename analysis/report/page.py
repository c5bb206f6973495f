"""The page: its sections in order, and the one file that they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis import scrub
from analysis.figures.source import Source
from analysis.report import bundled, fronts, importance, overview
from analysis.report.blocks import Block, Part
from analysis.report.charts import against, bench, curves, decode, ladder, pareto, placement, ratio
from analysis.report.claims import claims
from analysis.report.contrasts import against_transformer, contrasts, protocols
from analysis.report.lines import line_grid
from analysis.report.studies import Study, each, open_studies

LEAD = (
    "How much attention does a language model need? The RetFormers report (Agrawal & Hu, 2023) answered with "
    "one table of 31 hybrids. This page puts its claims beside runs that were made again, and says which of "
    "them the numbers bear.",
)
SORTING = (
    "A click on a heading sorts, by every digit of the value and not by what is printed. Pointing at a "
    "heading says what it holds.",
)


@dataclass(frozen=True)
class Page:
    title: str
    lead: tuple[str, ...]
    parts: tuple[Part, ...]
    command: str


def html(folders: Sequence[Path], command: str) -> str:
    """The whole file; ``command`` is what wrote it. Raises TableError in one line."""
    bundled.require()
    page = make(open_studies(folders), scrub.command(command))
    return (
        bundled.environment()
        .get_template("page.html.jinja")
        .render(
            page=page,
            style=bundled.template_text("style.css"),
            script=bundled.template_text("page.js"),
            plotly_js=bundled.plotly_js(),
            datatables_js=bundled.datatables_js(),
            datatables_css=bundled.datatables_css(),
        )
    )


def make(studies: Sequence[Study], command: str) -> Page:
    """The sections of ``studies``; the claims first, what they rest on below."""
    parts = (
        overview.what_was_run(studies),
        claims(studies),
        contrasts(studies),
        against_transformer(studies),
        protocols(studies),
        each("lines", "Every model", studies, _lines, SORTING),
        each("pareto", "Perplexity against cost", studies, pareto.blocks),
        each("front", "The front, by bucket of MACs", studies, fronts.blocks),
        each("ratio", "Perplexity against the ratio", studies, ratio.blocks),
        each("curves", "Loss curves", studies, curves.blocks),
        each("ladder", "Which defect makes which difference", studies, ladder.blocks),
        each("placement", "Placement against ratio", studies, placement.blocks),
        each("importance", "What matters, ratio or placement", studies, importance.blocks, importance.INTRO),
        each("decode", "Decoding against context", studies, decode.blocks),
        each("decoding", "Decoding, measured", studies, bench.decoding),
        each("training", "Training speed, measured", studies, bench.training),
        each("scaling", "Ratio by model size", studies, against.by_size),
        each("context", "Ratio by training context", studies, against.by_context),
        overview.provenance(studies, command),
    )
    names = " and ".join(study.name for study in studies) if len(studies) < 3 else f"{len(studies)} studies"
    return Page(f"Attention against retention: {names}", LEAD, parts, command)


def _lines(source: Source, anchor: str) -> list[Block]:
    return [line_grid(f"{anchor}-table", source.table)]
