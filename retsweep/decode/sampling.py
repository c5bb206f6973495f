"""Which token comes next: greedy, or drawn, from all tokens or from the likeliest of them.

temperature t    p_i is proportional to exp(logit_i / t); 0 is greedy, the largest logit, and so, but for
                 ties, which are drawn, is all below COLDEST
top_k            of the k largest logits alone (Fan et al., 2018)
top_p            of the smallest set of largest p_i that add up to p (Holtzman et al., 2020), which are
                 those behind temperature and top_k; the likeliest token is always in it
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor

from retsweep.spec.base import SpecError, spec

#: Smaller temperatures are taken for this one: float32 holds them no more, and 0/0 is no probability.
COLDEST = 1e-30


@spec
class Sampling:
    """``seed``: of the draws, which are made on the CPU: equal logits and seeds give equal tokens on any
    device."""

    temperature: NonNegativeFloat = 1.0
    top_k: PositiveInt | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    def sampler(self) -> Sampler:
        """A fresh stream of draws."""
        return Sampler(self)


class Sampler:
    """(batch, vocabulary) logits -> (batch,) tokens of int64 on the CPU; each call draws anew.

    Raises SpecError for logits that are no numbers: such weights choose nothing.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._stream = torch.Generator(device="cpu").manual_seed(sampling.seed)

    def __call__(self, logits: Tensor) -> Tensor:
        logits = logits.float().cpu()
        if not logits.isfinite().all():
            raise SpecError("the model's logits are no finite numbers, so that no token can be chosen")
        if self._sampling.temperature == 0:
            return logits.argmax(-1)
        drawn = torch.multinomial(self.probabilities(logits), 1, generator=self._stream)
        return drawn[:, 0]

    def probabilities(self, logits: Tensor) -> Tensor:
        """What a token is drawn from: (batch, vocabulary), rows that sum to 1. Temperature above 0."""
        chosen = self._sampling
        largest = logits.amax(-1, keepdim=True)  # first: a small temperature would overflow
        logits = (logits - largest) / max(chosen.temperature, COLDEST)
        if chosen.top_k is not None and chosen.top_k < logits.shape[-1]:
            # By rank and not by value: of tokens as likely as the k-th the first ones are kept.
            beyond = logits.argsort(dim=-1, descending=True, stable=True)[:, chosen.top_k :]
            logits = logits.scatter(-1, beyond, -torch.inf)
        p = logits.softmax(-1)
        if chosen.top_p is None:
            return p
        ordered, order = p.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered
        p = p.scatter(-1, order, ordered.where(before < chosen.top_p, 0))
        return p / p.sum(-1, keepdim=True)
