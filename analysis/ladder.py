"""The defect ladder: what each step changes, for each model, against the same model as it is.

Every model of a ladder is fitted by itself, all its steps together: the spread between seeds is
pooled over its steps, not over models, since a leaky Transformer evaluated under a causal mask
scatters unlike a RetNet. "All repaired" is the other protocol and sets no other step's variance: it
is judged by a fit of its own, with the base and all steps in it. With 11 steps of three seeds that
leaves 20 degrees of freedom. :func:`spreads` says how much of the variance leaky steps bring.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from analysis.aggregate import Line, is_leaky, lines_of
from analysis.inference import Estimate, Leaky, Model, NoInference, fit, observe
from analysis.order import named, put_in_order
from analysis.plan import Plan
from analysis.rows import Row

BASE = "as it is"
#: The step that is the other protocol: it scatters as that does.
OTHER = "all repaired"
#: Columns in which models of one architecture may differ that climb the same ladder ...
APART = ("hybrid_form", "mixer", "d_model", "context")
#: ... and, where that leaves several bases (some sweeps vary it on purpose), the last one.
APART_TOO = (*APART, "learning_rate")


@dataclass(frozen=True)
class Step:
    """One step of one model. ``estimate`` is the step minus its base in nats, where runs are leaky
    of their weights under a causal mask; ``as_trained`` is the same difference with the leaky
    perplexities as they are (no likelihoods), and None where none is leaky. ``why`` says in words
    what stands in the way of an estimate, ``remark`` what a reader must know of it; ``share`` is
    what part of the residual variance behind its model's estimates the step brings."""

    ladder: str
    step: str
    architecture: str
    variant_hash: str
    line: Line
    base_hash: str | None = None
    is_base: bool = False
    leaky: bool = False
    estimate: Estimate | None = None
    why: str = ""
    as_trained: Estimate | None = None
    remark: str = ""
    share: float | None = None


def ladder(rows: Sequence[Row], plan: Plan | None, quantity: str = "valid nll") -> list[Step]:
    """Every step that has rows, in the order of the sweep; [] for a study that is no ladder.

    The step of a ladder called "as it is" is the base of its other steps. ``architecture`` tells
    models apart that share one: "Type C 2:6 (direct, lr 0.001)".
    """
    if plan is None:
        return []
    lines = {line["variant_hash"]: line for line in put_in_order(lines_of(rows), plan)}
    steps = [
        Step(
            ladder=member.said.get("ladder") or plan.sweep or "",
            step=member.said["step"],
            architecture=str(lines[member.variant_hash].get("architecture")),
            variant_hash=member.variant_hash,
            line=lines[member.variant_hash],
            is_base=member.said["step"] == BASE,
            leaky=is_leaky(lines[member.variant_hash]),
        )
        for member in plan.members
        if "step" in member.said and member.variant_hash in lines
    ]
    found: dict[int, Step] = {}
    for places in _models(steps):
        climbed = _climb([steps[place] for place in places], rows, quantity)
        found |= dict(zip(places, climbed, strict=True))
    return [found[place] for place in sorted(found)]


def _models(steps: list[Step]) -> list[list[int]]:
    """The places of each model's steps; models that share an architecture get it told apart."""

    def key(step: Step, columns: Sequence[str]) -> tuple[Any, ...]:
        return step.ladder, step.architecture, *(str(step.line.get(column)) for column in columns)

    bases = [key(step, APART) for step in steps if step.is_base]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, step in enumerate(steps):
        columns = APART_TOO if bases.count(key(step, APART)) > 1 else APART
        groups.setdefault(key(step, columns), []).append(place)
    for group, places in groups.items():
        alike = [other for other in groups if other[:2] == group[:2] and len(other) == len(group)]
        apart = [
            column
            for index, column in enumerate(APART_TOO[: len(group) - 2])
            if len({other[2 + index] for other in alike}) > 1
        ]
        for place in places:
            steps[place] = replace(steps[place], architecture=named(steps[place].line, apart))
    return list(groups.values())


def _climb(steps: Sequence[Step], rows: Sequence[Row], quantity: str) -> list[Step]:
    """The steps of one model, each against the base among them."""
    base = next((step for step in steps if step.is_base), None)
    apart = {step.variant_hash for step in steps if step.step == OTHER}
    apart -= {step.variant_hash for step in steps if step.step != OTHER}
    leaks = any(step.leaky for step in steps)
    judges: dict[bool, tuple[_Judge, _Judge | None]] = {}
    for other in (False, True):
        variants = {step.variant_hash for step in steps} - (set() if other else apart)
        own = [row for row in rows if row["variant_hash"] in variants]
        trained = _Judge.of(own, quantity, "as trained") if leaks else None
        judges[other] = _Judge.of(own, quantity, "causal mask"), trained
    shares = judges[False][0].shares()
    return [
        replace(
            _against(step, base, *judges[step.variant_hash in apart]), share=shares.get(step.variant_hash)
        )
        for step in steps
    ]


def spreads(steps: Sequence[Step]) -> list[str]:
    """One sentence for each model whose intervals are not those of runs of one kind: what part of
    the residual variance the leaky steps bring where others are not leaky, or a step that brings
    more than half of it."""
    models: dict[tuple[str, str], list[Step]] = {}
    for step in steps:
        if step.share is not None:
            models.setdefault((step.ladder, step.architecture), []).append(step)
    found = []
    for (name, architecture), own in models.items():
        distinct = list({step.variant_hash: step for step in own}.values())
        leaky = [step for step in distinct if step.leaky]
        worst = max(distinct, key=lambda step: step.share or 0.0)
        parts = []
        if leaky and len(leaky) < len(distinct):
            parts.append(f"{len(leaky)} leaky of {len(distinct)} steps bring {_percent(leaky)}")
        if (worst.share or 0.0) > 0.5 and len(distinct) > 2:
            parts.append(f"{worst.step!r} alone brings {_percent([worst])}")
        if parts:
            found.append(f"{architecture} ({name}): {', '.join(parts)} of the variance behind its intervals.")
    return found


def _percent(steps: Sequence[Step]) -> str:
    return f"{100 * sum(step.share or 0.0 for step in steps):.0f} %"


def _against(step: Step, base: Step | None, counted: _Judge, trained: _Judge | None) -> Step:
    if base is None:
        return replace(step, why=f"no run of the step {BASE!r}")
    step = replace(step, base_hash=base.variant_hash, remark=_remark(step, base))
    if step.is_base:
        return step
    if step.variant_hash == base.variant_hash:
        return replace(step, why="the same model: the step does not concern it")
    estimate, why = counted.difference(step, base)
    leaks = step.leaky or base.leaky
    as_trained = trained.difference(step, base)[0] if trained and leaks else None
    return replace(step, estimate=estimate, why=why, as_trained=as_trained)


def _remark(step: Step, base: Step) -> str:
    if not (step.leaky or base.leaky):
        return ""
    whose = "" if step.leaky and base.leaky else "the step's " if step.leaky else "the base's "
    return f"{whose}leaky weights, evaluated under a causal mask"


@dataclass(frozen=True)
class _Judge:
    """The model of one ladder's climber, or why there is none; and who has no part in it."""

    model: Model | NoInference
    left_out: Mapping[str, str]

    @classmethod
    def of(cls, rows: Sequence[Row], quantity: str, leaky: Leaky) -> _Judge:
        left_out = observe(rows, quantity, leaky)[1]
        try:
            return cls(fit(rows, quantity, leaky), left_out)
        except NoInference as none:
            return cls(none, left_out)

    def shares(self) -> dict[str, float]:
        return {} if isinstance(self.model, NoInference) else self.model.shares()

    def difference(self, step: Step, base: Step) -> tuple[Estimate | None, str]:
        """The estimate, or why there is none."""
        if base.variant_hash in self.left_out:
            return None, f"the base {self.left_out[base.variant_hash]}"
        if step.variant_hash in self.left_out:
            return None, self.left_out[step.variant_hash]
        if isinstance(self.model, NoInference):
            return None, str(self.model)
        try:
            return self.model.difference(step.variant_hash, base.variant_hash), ""
        except NoInference as none:
            return None, str(none)
