"""The rules by which trained runs speak to a claim of the report; each states its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from analysis.aggregate import Line
from analysis.columns import number
from analysis.figures.source import share
from analysis.inference import Estimate, Leaky, NoInference
from analysis.notes import TRAIN_PPL_OF
from analysis.report.blocks import Said
from analysis.report.counts import THIRD
from analysis.report.learning import unlearned
from analysis.report.plain import Plain, is_leaky, perplexity
from analysis.verdicts import Verdict

BEST, BASE = "Type A 10:2", "Transformer"
#: What contrasts/ar_ratio.yaml calls the two sides of a comparison that stands in a claim.
NAMED = {
    "beats": ("valid nll", "A 10:2", "Transformer"),
    "type c": ("valid nll", "C", "A"),
    "speed": ("tokens_per_second", "RetNet", "Transformer"),
}
HOLDS, NOT, IN_PART = "holds", "does not hold", "in part"
NOT_RESOLVED, NOT_ESTABLISHED = "not resolved", "not established"


@dataclass(frozen=True)
class Measure:
    """What is compared: a quantity of ``analysis.inference``, and what of leaky weights."""

    quantity: str
    leaky: Leaky = "causal mask"


LIKELIHOOD, AS_MEASURED = Measure("valid nll"), Measure("train nll", "as trained")
SPEED = Measure("tokens_per_second")


def beats(found: Plain) -> tuple[Said, ...]:
    """A 10:2 against the Transformer: holds if its NLL is resolved below, does not if above."""
    if not {BEST, BASE} <= set(found.lines):
        return ()
    best, base = found.lines[BEST], found.lines[BASE]

    def said(measure: Measure) -> Said:
        judged = _judged(found, measure, _one(best), _one(base), "beats", lower=True)
        values = (
            f"validation perplexity {perplexity(best)} against {perplexity(base)}"
            if measure == LIKELIHOOD
            else f"train perplexity {_measured(best)} against {_measured(base)}"
        )
        return Said(judged.verdict, f"{judged.words}; {values}")

    return _stated(found, [best, base], said)


def hopeless(found: Plain) -> tuple[Said, ...]:
    """Type C, by what came through: holds if no run of it did, and in part if any did not. Where all
    did it is held against RetNet, which all of it is above in the report: in part if its mean is
    resolved above (it is worse, but it works), does not hold if below. Beside it, against Type A at
    equal shares of attention."""
    own = found.of("Type C")
    runs, gone = sum(line["n"] for line in own), sum(line["n"] - line["ok"] for line in own)
    if not runs or "RetNet" not in found.lines:
        return ()
    diverged = f"{gone} of {runs} runs of Type C diverged"
    if gone == runs:
        return (Said(HOLDS, diverged),)
    whole = [line for line in own if line["n"] and line["ok"] == line["n"]]
    if not whole:
        return (Said(IN_PART, f"{diverged}; no model of it came through whole"),)

    def said(measure: Measure) -> Said:
        judged = _judged(found, measure, _mean(whole), _one(found.lines["RetNet"]), "", lower=False)
        which = "Type C" if len(whole) == len(own) > 1 else ", ".join(_name(line) for line in whole)
        words = [diverged, f"{which} against RetNet: {_inline(judged)}"]
        pairs = [
            (line, other) for line in whole for other in found.of("Type A") if share(line) == share(other)
        ]
        if pairs and measure == LIKELIHOOD:
            left, right = (_mean([pair[side] for pair in pairs]) for side in (0, 1))
            against = _judged(found, measure, left, right, "type c", lower=True)
            words.append(f"against Type A at equal shares of attention: {_inline(against)}")
        verdict = IN_PART if gone or judged.verdict == HOLDS else judged.verdict
        return Said(verdict, "; ".join(words))

    return _stated(found, whole, said)


def speed(found: Plain) -> tuple[Said, ...]:
    """RetNet's training speed beside the Transformer's: what a saving would have to show in. Holds if
    the interval says that it saves a third of a token's time, in part if it is resolved faster."""
    if not {"RetNet", BASE} <= set(found.lines):
        return ()
    sides = [found.lines[name] for name in ("RetNet", BASE)]
    if not all(line.get("tokens_per_second") for line in sides):
        return ()
    devices = dict.fromkeys(str(row.get("device")) for row in found.rows)
    if len(devices) > 1:
        return (Said(NOT_ESTABLISHED, f"timed on several devices: {', '.join(devices)}"),)
    values = [number(line.get("tokens_per_second")) for line in sides]
    trains = f"RetNet trains {values[0]} tokens a second against {values[1]}"
    estimate = _estimated(found, SPEED, _one(sides[0]), _one(sides[1]), "speed")
    if isinstance(estimate, Said):
        return (Said(estimate.verdict, f"{trains}: {estimate.words}"),)
    saved = -math.expm1(-estimate.low)  # of the time that a token takes, at the least
    verdict = NOT if estimate.nats < 0 else HOLDS if saved >= THIRD else IN_PART
    return (Said(verdict, f"{trains}: {estimate.size('slower', 'faster')}"),)


def _stated(found: Plain, lines: Sequence[Line], said: Callable[[Measure], Said]) -> tuple[Said, ...]:
    """What is said of a likelihood; under the published protocol after what is said of the training
    perplexity, which is what the report measured."""
    if found.protocol != "published":
        return (said(LIKELIHOOD),)
    leaks = is_leaky(lines)
    kinds = dict.fromkeys(line.get("train_ppl_of") for line in lines)
    of = " and ".join(TRAIN_PPL_OF.get(str(kind), str(kind)) for kind in kinds if kind)
    measured = f"as it measured (train ppl{f' of {of}' if of else ''}{', leaking' if leaks else ''})"
    likelihood = f"as a likelihood ({'leaky weights under a causal mask, ' if leaks else ''}valid)"
    return tuple(
        Said(one.verdict, f"{where}: {one.words}")
        for where, one in ((measured, said(AS_MEASURED)), (likelihood, said(LIKELIHOOD)))
    )


def _one(line: Line) -> dict[str, float]:
    return _mean([line])


def _mean(lines: Sequence[Line]) -> dict[str, float]:
    """Equal weights of the lines; one that stands there twice counts twice."""
    weights: dict[str, float] = {}
    for line in lines:
        variant = str(line["variant_hash"])
        weights[variant] = weights.get(variant, 0.0) + 1 / len(lines)
    return weights


def _name(line: Line) -> str:
    return str(line["architecture"])


def _measured(line: Line) -> str:
    return "diverged" if line["ok"] < line["n"] else number(line.get("train_ppl")) or "none"


def _inline(said: Said) -> str:
    """A verdict within a sentence: a size speaks for itself."""
    return said.words if said.verdict in (HOLDS, NOT) else f"{said.verdict}: {said.words}"


def _judged(
    found: Plain,
    measure: Measure,
    left: Mapping[str, float],
    right: Mapping[str, float],
    named: str,
    lower: bool,
) -> Said:
    """Whether left is lower (higher) than right, as is claimed; nothing of models that did not learn
    to mix. What holds of less than a bigram table knows is said with that caveat."""
    doubt = unlearned(found)
    if doubt and doubt.decides:
        return Said(NOT_ESTABLISHED, doubt.words)
    estimate = _estimated(found, measure, left, right, named)
    caveat = f"; but {doubt.words}" if doubt else ""
    if isinstance(estimate, Said):
        return Said(estimate.verdict, estimate.words + caveat)
    return Said(HOLDS if (estimate.nats < 0) == lower else NOT, estimate.size() + caveat)


def _estimated(
    found: Plain, measure: Measure, left: Mapping[str, float], right: Mapping[str, float], named: str
) -> Estimate | Said:
    """A resolved difference, or why there is none. A comparison that was named before the runs is the
    study's own contrast: resolved only after Holm's correction, and absent where that is absent."""
    contrast = _contrast(found, measure, named)
    if contrast is not None and contrast.estimate is None:
        return Said(NOT_ESTABLISHED, contrast.words)
    try:
        model = found.model(measure.quantity, measure.leaky)
        estimate = contrast.estimate if contrast and contrast.estimate else model.difference(left, right)
    except NoInference as none:
        return Said(NOT_ESTABLISHED, str(none))
    if not estimate.resolved:
        return Said(NOT_RESOLVED, estimate.smallest)
    if contrast is not None and not contrast.resolved:
        words = ("slower", "faster") if measure == SPEED else ("lower", "higher")
        return Said(NOT_RESOLVED, f"{estimate.size(*words)}, but not after Holm's correction")
    return estimate


def _contrast(found: Plain, measure: Measure, named: str) -> Verdict | None:
    """The study's own contrast of that name, if it has one."""
    if named not in NAMED or found.study.sweep != "ar_ratio" or found.study.judgement is None:
        return None
    wanted = (measure.quantity, *NAMED[named][1:])
    for verdict in found.study.judgement.verdicts:
        if (verdict.quantity, verdict.left, verdict.right) == wanted:
            return verdict
    return None
