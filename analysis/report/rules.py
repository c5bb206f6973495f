"""The rules by which trained runs speak to a claim of the report; each states its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analysis.aggregate import Line
from analysis.columns import number
from analysis.figures.source import share
from analysis.inference import Estimate, NoInference
from analysis.report.blocks import Said
from analysis.report.plain import Plain, is_leaky, perplexity

BEST, BASE = "Type A 10:2", "Transformer"
#: What contrasts/ar_ratio.yaml calls the two sides of a comparison that stands in a claim.
NAMED = {
    "beats": ("valid nll", "A 10:2", "Transformer"),
    "type c": ("valid nll", "C", "A"),
    "speed": ("tokens_per_second", "RetNet", "Transformer"),
}
NOT_RESOLVED = "not resolved"
NOT_ESTABLISHED = "not established"


def beats(found: Plain) -> Said | None:
    """A 10:2 against the Transformer: holds if its validation NLL is resolved below, does not if
    above. Of leaky weights, under a causal mask; the training perplexity that leaks stands beside."""
    if not {BEST, BASE} <= set(found.lines):
        return None
    best, base = found.lines[BEST], found.lines[BASE]
    said = _judged(found, _one(best), _one(base), "beats", lower=True)
    words = [said.words, f"validation perplexity {perplexity(best)} against {perplexity(base)}"]
    if is_leaky([best, base]):
        words[1] += ", leaky weights under a causal mask"
        words.append(f"training perplexity, leaking, as the report measured: {_leaking(found, best, base)}")
    return Said(said.verdict, "; ".join(words))


def _leaking(found: Plain, best: Line, base: Line) -> str:
    try:
        model = found.model("train nll", "as trained")
        return model.difference(best["variant_hash"], base["variant_hash"]).words()
    except NoInference as none:
        return f"{number(best.get('train_ppl'))} against {number(base.get('train_ppl'))} ({none})"


def hopeless(found: Plain) -> Said | None:
    """Type C against RetNet, which all of it is above in the report: holds if the mean of what came
    through is resolved above, or if nothing came through. Beside it, against Type A at equal shares
    of attention, and how many of its models diverged."""
    own = found.of("Type C")
    if not own or "RetNet" not in found.lines:
        return None
    alive = [line for line in own if line["ok"] == line["n"]]
    diverged = f"{len(own) - len(alive)} of {len(own)} Type C models diverged"
    if not alive:
        return Said("holds", diverged)
    weights = {str(line["variant_hash"]): 1 / len(alive) for line in alive}
    said = _judged(found, weights, _one(found.lines["RetNet"]), "", lower=False)
    which = "Type C" if len(alive) > 1 else str(alive[0]["architecture"])
    masked = ", leaky weights under a causal mask" if is_leaky(alive) else ""
    words = [f"{which} against RetNet: {said.words}{masked}", diverged]
    pairs = [(line, other) for line in alive for other in found.of("Type A") if share(line) == share(other)]
    if pairs:
        left = {str(line["variant_hash"]): 1 / len(pairs) for line, _ in pairs}
        right = {str(other["variant_hash"]): 1 / len(pairs) for _, other in pairs}
        against = _judged(found, left, right, "type c", lower=True)
        words.append(f"against Type A at equal shares of attention: {against.words}")
    return Said(said.verdict, "; ".join(words))


def speed(found: Plain) -> Said | None:
    """RetNet's training speed beside the Transformer's: what a saving would have to show in. Holds if
    it is resolved faster."""
    if not {"RetNet", BASE} <= set(found.lines):
        return None
    sides = [found.lines[name] for name in ("RetNet", BASE)]
    if not all(line.get("tokens_per_second") for line in sides):
        return None
    devices = dict.fromkeys(str(row.get("device")) for row in found.rows)
    if len(devices) > 1:
        return Said(NOT_ESTABLISHED, f"timed on several devices: {', '.join(devices)}")
    said = _judged(found, _one(sides[0]), _one(sides[1]), "speed", lower=False)
    values = [number(line.get("tokens_per_second")) for line in sides]
    return Said(said.verdict, f"RetNet trains {values[0]} tokens a second against {values[1]}: {said.words}")


def _one(line: Line) -> dict[str, float]:
    return {str(line["variant_hash"]): 1.0}


def _judged(
    found: Plain, left: Mapping[str, float], right: Mapping[str, float], named: str, lower: bool
) -> Said:
    """Whether left is lower (higher) than right, as is claimed. A comparison that was named before the
    runs counts as resolved only if it is so after Holm's correction."""
    quantity, *sides = NAMED.get(named, ("valid nll", "", ""))
    try:
        estimate = found.model(quantity).difference(left, right)
    except NoInference as none:
        return Said(NOT_ESTABLISHED, str(none))
    low, high = ("slower", "faster") if quantity == "tokens_per_second" else ("lower", "higher")
    if not estimate.resolved:
        return Said(NOT_RESOLVED, estimate.not_resolved.removeprefix(f"{NOT_RESOLVED}: "))
    if _after_holm(found, quantity, sides) is False:
        return Said(NOT_RESOLVED, f"{estimate.size(low, high)}, but not after Holm's correction")
    return Said(_verdict(estimate, lower), estimate.size(low, high))


def _verdict(estimate: Estimate, lower: bool) -> str:
    return "holds" if (estimate.nats < 0) == lower else "does not hold"


def _after_holm(found: Plain, quantity: str, sides: Sequence[str]) -> bool | None:
    """What the study's own contrast says at 5 %; None if it has no such contrast."""
    if found.study.sweep != "ar_ratio" or found.study.judgement is None:
        return None
    for verdict in found.study.judgement.verdicts:
        if [verdict.quantity, verdict.left, verdict.right] == [quantity, *sides]:
            return verdict.resolved
    return None
