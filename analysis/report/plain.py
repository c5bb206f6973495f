"""The models of a study as its protocol has them, without what a sweep changed on purpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from analysis.aggregate import Line
from analysis.columns import number
from analysis.inference import Model, NoInference, fit, together
from analysis.ladder import BASE
from analysis.report.studies import Study
from analysis.rows import Row

PROTOCOLS = ("published", "corrected")
CAUSAL = "valid_ppl_causal_eval"


@dataclass(frozen=True)
class Plain:
    """One study under one protocol: ``lines`` are its unchanged models, by architecture, those that
    stand there once; ``namesakes`` the labels of the others."""

    study: Study
    protocol: str
    lines: Mapping[str, Line]
    namesakes: tuple[str, ...] = ()

    @property
    def rows(self) -> list[Row]:
        """Those of its lines, and of the references that intervals are drawn from as well."""
        return together(self.study.source.rows, {line["variant_hash"] for line in self.lines.values()})

    def of(self, family: str) -> list[Line]:
        """The lines of "Type C", in the table's order."""
        return [line for name, line in self.lines.items() if name.startswith(f"{family} ")]

    @cached_property
    def _fits(self) -> dict[tuple[str, str], Model | str]:
        return {}

    def model(self, quantity: str, leaky: Any = "causal mask") -> Model:
        """The fit over all of its runs and those of its references. Raises NoInference."""
        key = (quantity, leaky)
        if key not in self._fits:
            try:
                self._fits[key] = fit(self.rows, quantity, leaky)
            except NoInference as none:
                self._fits[key] = str(none)
        found = self._fits[key]
        if isinstance(found, str):
            raise NoInference(found)
        return found


def plain(studies: Sequence[Study], protocol: str) -> list[Plain]:
    """Every trained study that has unchanged models under ``protocol``."""
    found = [_plain(study, protocol) for study in studies if study.trained]
    return [each for each in found if each.lines]


def _plain(study: Study, protocol: str) -> Plain:
    """An architecture that is left more than once (sizes, rates, patterns) stands for nothing."""
    lines = _unchanged(study, protocol)
    names = [str(line.get("architecture")) for line in lines]
    once = {name: line for name, line in zip(names, lines, strict=True) if names.count(name) == 1}
    others = tuple(
        str(line["label"]) for name, line in zip(names, lines, strict=True) if names.count(name) > 1
    )
    return Plain(study, protocol, once, others)


def _unchanged(study: Study, protocol: str) -> list[Line]:
    """Its lines under ``protocol``; of a ladder, those that stand there as they are; none of a sweep
    that moves attention."""
    members = study.source.plan.members if study.source.plan else ()
    if any("placement" in member.said for member in members):
        return []
    steps = {member.variant_hash for member in members if "step" in member.said}
    bases = {
        member.variant_hash
        for member in members
        if member.said.get("step") == BASE and member.said.get("ladder", protocol) == protocol
    }
    return [
        line
        for line in study.lines
        if line.get("protocol") == protocol
        and (line["variant_hash"] in bases or line["variant_hash"] not in steps)
    ]


def perplexity(line: Line) -> str:
    """ "24.11", of leaky weights under a causal mask; "diverged" or "none" where there is no number."""
    value = line.get(CAUSAL) if line.get("leaky") else line.get("valid_ppl")
    return "diverged" if line["ok"] < line["n"] else number(value) or "none"


def is_leaky(lines: Sequence[Line]) -> bool:
    return any(line.get("leaky") for line in lines)
