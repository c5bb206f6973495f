"""Forms: parallel, chunkwise and recurrent give the whole network the same logits, states handed on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from retsweep.model import LanguageModel
from retsweep.preflight.error import PreflightError
from retsweep.preflight.shrink import built, tokens
from retsweep.spec.run import RunSpec

CHECK = "forms"
BATCH = 2
#: A prime: no chunk but 1 divides it.
TIME = 17
CHUNKS = (1, 4, 9, TIME + 1)
#: Largest difference of a logit in float64, relative to the largest logit.
LIMIT = 1e-9

States = tuple[Any, ...]


def check_forms(spec: RunSpec) -> float:
    """The largest difference of a logit between two forms, relative to the largest logit. Raises
    PreflightError if it is too large. Of specs that do not leak: a leak has one form only."""
    model, read = built(spec, torch.float64), tokens(BATCH, TIME)
    largest = 0.0
    with torch.no_grad():
        with _all_parallel(model):
            want = model(read)
        for words, run in _forms().items():
            try:
                got = run(model, read)
            except NotImplementedError as error:
                raise PreflightError(CHECK, f"a form: {words}", f"{error} has none") from error
            differences = (got - want).abs().amax((0, 2)) / want.abs().max()
            if not float(differences.max()) <= LIMIT:
                first = int((~(differences <= LIMIT)).nonzero()[0])
                raise PreflightError(
                    CHECK,
                    f"the logits of the parallel form, within {LIMIT:.0e} of the largest (float64)",
                    f"{words}: {float(differences.max()):.1e}, first at position {first}",
                )
            largest = max(largest, float(differences.max()))
    return largest


def _forms() -> dict[str, Callable[[LanguageModel, Tensor], Tensor]]:
    """Ways to read all tokens, in words: (model, tokens) -> logits."""

    def in_chunks(chunk: int) -> Callable[[LanguageModel, Tensor], Tensor]:
        return lambda model, read: model.chunkwise(read, chunk)[0]

    return {
        "as trained": lambda model, read: model(read),
        **{f"chunkwise in chunks of {chunk}": in_chunks(chunk) for chunk in CHUNKS},
        "recurrent": lambda model, read: _recurrent(model, read, model.initial_states(BATCH))[0],
        "chunkwise in two calls, then recurrent": _prefilled,
        "recurrent, then chunkwise": _resumed,
    }


def _prefilled(model: LanguageModel, read: Tensor) -> Tensor:
    """As a prompt is read and gone on from."""
    first, states = model.chunkwise(read[:, :6], 4)
    second, states = model.chunkwise(read[:, 6:13], 5, states)
    third, _ = _recurrent(model, read[:, 13:], states)
    return torch.cat([first, second, third], dim=1)


def _resumed(model: LanguageModel, read: Tensor) -> Tensor:
    first, states = _recurrent(model, read[:, :5], model.initial_states(BATCH))
    second, _ = model.chunkwise(read[:, 5:], 7, states)
    return torch.cat([first, second], dim=1)


def _recurrent(model: LanguageModel, read: Tensor, states: States) -> tuple[Tensor, States]:
    logits = []
    for token in read.unbind(1):
        y, states = model.recurrent(token, states)
        logits.append(y)
    return torch.stack(logits, dim=1), states


@contextmanager
def _all_parallel(model: LanguageModel) -> Iterator[None]:
    """While it lasts every mixer computes its parallel form, whatever form it trains in."""
    mixers: list[Any] = [block.mixer for block in model.blocks if block.mixes]
    for mixer in mixers:
        mixer.forward = mixer.parallel
    try:
        yield
    finally:
        for mixer in mixers:
            del mixer.forward
