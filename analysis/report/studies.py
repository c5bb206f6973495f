"""The studies of one page, and what is to be said of each before its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from analysis.aggregate import MIXED, Line, has_ended
from analysis.bench import is_bench
from analysis.columns import count
from analysis.figures.source import MissingError, Source, is_finite, open_source
from analysis.notes import learned
from analysis.report.blocks import Block, Heading, Part, Words
from analysis.rows import TableError
from analysis.verdicts import Judgement, judge

KINDS = {
    "ar_ratio": "ratio of attention to retention",
    "defects": "defect ladder",
    "divergence": "what makes Type C diverge",
    "placement": "placement of attention at a fixed ratio",
    "scaling": "ratio by model size",
    "context": "ratio by training context",
}


@dataclass(frozen=True)
class Study:
    """A study with its place on the page: ``anchor`` begins the ids of what is drawn from it."""

    source: Source
    anchor: str

    @property
    def name(self) -> str:
        return self.source.name

    @cached_property
    def trained(self) -> bool:
        """Whether any line has a perplexity: a study of counts only has none."""
        try:
            self.source.trained()
        except MissingError:
            return False
        return True

    @cached_property
    def measured(self) -> bool:
        """Whether any line has speeds by context."""
        return any(map(is_bench, self.lines))

    @cached_property
    def ended(self) -> bool:
        """Whether any run came to an end."""
        return any(has_ended(row) for row in self.source.rows)

    @cached_property
    def doubt(self) -> str | None:
        """A sentence where the models did not learn what a verdict on them would need."""
        return learned(self.source.table.lines) if self.trained else None

    @cached_property
    def judgement(self) -> Judgement | None:
        """The verdicts on its contrasts; None if its sweep has none."""
        return judge(self.source.rows, self.source.plan) if self.trained else None

    @property
    def sweep(self) -> str | None:
        """The sweep as the plan names it, else what the rows vary: nothing says it in old studies."""
        plan = self.source.plan
        if plan is not None and plan.sweep:
            return plan.sweep
        if len(self.values("d_model")) > 1:
            return "scaling"
        return "context" if len(self.values("context")) > 1 else "ar_ratio"

    @property
    def kind(self) -> str:
        """What the study varies, in words."""
        words = KINDS.get(str(self.sweep), str(self.sweep))
        if not self.ended:
            return f"{words}, no run came to an end"
        return words if self.trained else f"{words}, {self.nature}"

    @property
    def nature(self) -> str:
        """What a study that trained nothing consists of."""
        return "speeds only" if self.measured else "counts only"

    @property
    def lines(self) -> tuple[Line, ...]:
        return self.source.lines

    @property
    def setting(self) -> str:
        """Protocol, scale and text: what every number of the study stands under."""
        protocols = " and ".join(map(str, self.values("protocol")))
        text = [self.source.text] if self.trained else []
        return "; ".join(
            [f"{protocols} protocol", f"scale {', '.join(map(str, self.values('scale')))}", *text]
        )

    @property
    def data(self) -> str:
        """The identity of the text: studies share an axis only where they share it."""
        return MIXED.join(map(str, self.values("data_hash"))) or self.source.text

    @property
    def training(self) -> str:
        """How long its models were trained: "350 x 1,008 tokens (352,800)", steps and what each reads,
        every one of them where they differ; "" where the rows do not say."""
        found = {
            (line["steps"], line.get("tokens"))
            for line in self.lines
            if line["ok"] and line["ok"] == line["n"] and is_finite(line.get("steps"))
        }
        return "; ".join(_length(steps, tokens) for steps, tokens in sorted(found, key=str))

    def values(self, column: str) -> list[Any]:
        """What the lines hold in ``column``, each value once: numbers rising, words as in the table."""
        found = dict.fromkeys(line[column] for line in self.lines if line.get(column) is not None)
        return sorted(found) if all(isinstance(value, (int, float)) for value in found) else list(found)


def _length(steps: float, tokens: float | None) -> str:
    if not is_finite(tokens):
        return f"{count(round(steps))} steps"
    return f"{steps:,.0f} x {tokens / steps:,.0f} tokens ({count(round(tokens))})"


def open_studies(folders: Sequence[Path]) -> list[Study]:
    """Reads the studies. Raises TableError, also if none of them trained or measured anything."""
    studies = [Study(open_source(folder), f"s{place}") for place, folder in enumerate(folders, start=1)]
    if not any(study.ended for study in studies):
        raise TableError(f"no run came to an end: {', '.join(study.name for study in studies)}")
    if not any(study.trained or study.measured for study in studies):
        names = ", ".join(study.name for study in studies)
        raise TableError(
            f"a report needs a study that was trained, and {names} only counted: "
            "make table has the counts; python -m analysis.report TRAINED COUNTED shows both on a page"
        )
    return studies


def each(anchor: str, title: str, studies: Iterable[Study], drawn: Any, intro: tuple[str, ...] = ()) -> Part:
    """The section of what ``drawn(source, anchor)`` makes of every study. A study that lacks what it
    needs is named below the others; if all do, the section is a line of the contents."""
    blocks: list[Block] = []
    missing: dict[str, list[str]] = {}
    for study in studies:
        try:
            found = drawn(study.source, f"{study.anchor}-{anchor}")
        except MissingError as error:
            missing.setdefault(str(error), []).append(study.name)
            continue
        blocks += [Heading(study.name, study.setting), *found]
    if not blocks:
        return Part(anchor, title, absent="; ".join(missing) or "nothing to draw")
    if intro:
        blocks.insert(0, Words(intro))
    lacking = tuple(f"Not drawn for {', '.join(names)}: {why}." for why, names in missing.items())
    return Part(anchor, title, (*blocks, *([Words(lacking, quiet=True)] if lacking else [])))
