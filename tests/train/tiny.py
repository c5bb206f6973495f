"""A language model of a few hundred weights and endless batches for it: training in milliseconds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from retsweep.spec.protocol import Evaluation, Protocol

VOCABULARY, TIME = 11, 6


class TinyModel(nn.Module):
    """Embedding, one block with dropout, a norm, a head: (batch, time) -> (batch, time, 11)."""

    def __init__(self, dropout: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.embedding = nn.Embedding(VOCABULARY, 8)
            self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Dropout(dropout))])
            self.final_norm = nn.LayerNorm(8)
            self.head = nn.Linear(8, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = x + block(x)
        return self.head(self.final_norm(x))


def batch_at(step: int, micro: int = 0, batch: int = 4) -> tuple[Tensor, Tensor]:
    """Counting sequences, which are easily learnt, from random starts."""
    starts = torch.randint(
        VOCABULARY, (batch, 1), generator=torch.Generator().manual_seed(100 * step + micro)
    )
    tokens = (starts + torch.arange(TIME + 1)) % VOCABULARY
    return tokens[:, :-1], tokens[:, 1:]


def protocol(every: int = 0, **changes: Any) -> Protocol:
    settings: dict[str, Any] = {
        "name": "test",
        "steps": 40,
        "batch": 4,
        "learning_rate": 3e-2,
        "warmup": 0.1,
        "weight_decay": 0.05,
        "clip": 1.0,
        "divergence": "non_finite",
        "evaluation": Evaluation(every=every),
    }
    return Protocol(**{**settings, **changes})


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)
