"""Causality: no token changes a logit before it; and a spec that says leaky does leak, by so much."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from retsweep.layers.attention import Attention
from retsweep.preflight.error import PreflightError
from retsweep.preflight.shrink import VOCABULARY, built, tokens
from retsweep.spec.forms import Chunkwise
from retsweep.spec.layer import LayerSpec
from retsweep.spec.run import RunSpec

CHECK = "causality"
#: Tokens read; more where a layer trains in chunks, so that two of them meet.
TIME = 41
BEYOND_CHUNK = 9
#: Scores (heads x time x time x sequences) held at once: fewer tokens are changed in long sequences.
AFFORDABLE = 2**23
#: Places looked at in float64; float32 is what shows a bit.
FEW = 10
#: What an FFT's rounding may carry to earlier positions, relative to the largest logit.
FFT_LIMIT = {torch.float64: 1e-12, torch.float32: 1e-5}

#: A leak is looked at over the spec's own context, up to so many tokens: attention that leaks evenly
#: has half of its mass on later ones however many there are.
LEAK_TIME = 128
LEAK_BATCH = 2
#: Change of an earlier logit, in standard deviations of the logits (float64), that is no rounding.
LEAK_FOUND = 1e-6


def check_causality(spec: RunSpec) -> None:
    """Changes one token after another, each in a sequence of its own; raises PreflightError if a
    logit before it changes by a bit, or by more than an FFT's rounding where a layer declares one."""
    time = _time(spec)
    places = _places(spec, time)
    model = built(spec, torch.float32)
    _check_places(spec, model, places, time)
    _check_places(spec, model.double(), places[:: max(1, len(places) // FEW)], time)


def leak(spec: RunSpec) -> dict[str, float]:
    """How much a leaky spec leaks as it starts.

    ``leak_logit_change``: the largest change of an earlier logit when the last token of the context
    changes, in standard deviations of the logits. ``leak_mass``: the share of a position's attention
    that lies on later positions, averaged over positions, heads and the leaky attention layers
    (absent where something else than attention leaks). Raises PreflightError if nothing leaks.
    """
    time = min(max(spec.scale.context, 2), LEAK_TIME)
    read = tokens(LEAK_BATCH, time)
    other = read.clone()
    other[:, -1] = (other[:, -1] + 1) % VOCABULARY
    model = built(spec, torch.float64, moved=False)
    with torch.no_grad():
        masses, before = _with_future_shares(model, read)
        change = float((model(other) - before)[:, :-1].abs().max() / before.std())
    if not change > LEAK_FOUND:
        raise PreflightError(
            CHECK,
            "a leak, because the spec says leaky",
            f"changing the last of {time} tokens changes earlier logits by {change:.1e} of their spread",
        )
    mass = {"leak_mass": sum(masses) / len(masses)} if masses else {}
    return {"leak_logit_change": change, **mass}


def declares_fft(layer: object) -> bool:
    """Whether ``layer``, or a layer inside it, is computed through an FFT."""
    if not isinstance(layer, LayerSpec):
        return False
    return layer.fft or any(declares_fft(part) for part in vars(layer).values())


def _check_places(spec: RunSpec, model: nn.Module, places: Tensor, time: int) -> None:
    """Changes the token at each of ``places``, in the dtype that ``model`` has."""
    read, row = tokens(len(places), time), torch.arange(len(places))
    other = read.clone()
    other[row, places] = (other[row, places] + 1) % VOCABULARY
    with torch.no_grad():
        before = model(read)
        change = (model(other) - before).abs().amax(-1)  # (place, time)
    kind = str(before.dtype).removeprefix("torch.")
    if not before.isfinite().all():
        raise PreflightError(CHECK, "finite logits", f"logits that are not, in {kind}")
    fft = any(map(declares_fft, spec.layers))
    limit = FFT_LIMIT[before.dtype] * float(before.abs().max()) if fft else 0.0
    leaked = change.where(torch.arange(time) < places[:, None], 0)
    if not float(leaked.max()) <= limit:
        place, position = divmod(int(leaked.argmax()), time)
        how = f"by more than {limit:.1e}, the rounding of an FFT" if fft else "by a bit"
        raise PreflightError(
            CHECK,
            f"that no token changes an earlier logit {how} ({kind})",
            f"token {int(places[place])} changes position {position} by {float(leaked.max()):.1e}",
        )
    own = change[row, places]
    if not (own > 0).all():
        silent = int(places[int(own.argmin())])
        raise PreflightError(
            CHECK, f"that a token changes the logits at its own place ({kind})", f"token {silent} does not"
        )


def _time(spec: RunSpec) -> int:
    """Tokens to read: past the first chunk of every layer that trains in chunks, as in training."""
    context = max(spec.scale.context, TIME)
    forms = [layer.training_form(context) for layer in spec.layers]
    chunks = [form.chunk for form in forms if isinstance(form, Chunkwise) and form.chunk < context]
    return max([TIME, *(min(chunk + BEYOND_CHUNK, context) for chunk in chunks)])


def _places(spec: RunSpec, time: int) -> Tensor:
    """The tokens to change: all but the first, before which there is nothing, or as many of them as
    are affordable, evenly spread, the last among them."""
    rows = max(3, min(time - 1, AFFORDABLE // (spec.scale.heads * time * time)))
    return torch.linspace(1, time - 1, rows).round().long()


def _with_future_shares(model: nn.Module, read: Tensor) -> tuple[list[float], Tensor]:
    """The logits, and each leaky attention layer's mean share of attention on later positions."""
    shares: list[float] = []

    def look(attention: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        assert isinstance(attention, Attention)
        shares.append(float(attention.weights(inputs[0]).triu(1).sum(-1).mean()))

    leaky = [module for module in model.modules() if isinstance(module, Attention) and module.leaky]
    handles = [module.register_forward_hook(look) for module in leaky]
    try:
        return shares, model(read)
    finally:
        for handle in handles:
            handle.remove()
