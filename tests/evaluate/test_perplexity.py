from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from retsweep.evaluate import perplexity
from retsweep.evaluate.perplexity import (
    LOGITS_BYTES,
    Likelihood,
    affordable_batch,
    mean_batch_perplexity,
    negative_log_likelihood,
)
from retsweep.layers.precision import products

VOCABULARY = 11


class Toy(nn.Module):
    """A bigram table behind dropout: enough of a language model to be evaluated."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, VOCABULARY)
        self.dropout = nn.Dropout(0.5)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.table.weight.copy_(scale * torch.randn(VOCABULARY, VOCABULARY, generator=generator))
        self.lengths: list[int] = []

    def forward(self, tokens: Tensor) -> Tensor:
        self.lengths.append(tokens.shape[1])
        logits: Tensor = self.dropout(self.table(tokens))
        return logits


@pytest.fixture
def tokens() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, VOCABULARY, 101).astype(np.uint16)


def cut(
    tokens: np.ndarray[Any, Any], context: int
) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Windows one by one, the last shorter."""
    starts = range(0, len(tokens) - 1, context)
    return [
        (tokens[None, s : min(s + context, len(tokens) - 1)], tokens[None, s + 1 : s + context + 1])
        for s in starts
    ]


def naive(model: Toy, tokens: np.ndarray[Any, Any]) -> float:
    total = 0.0
    for context, token in zip(tokens.tolist(), tokens.tolist()[1:], strict=False):
        row = [math.exp(value) for value in model.table.weight[context].tolist()]
        total -= math.log(row[token] / sum(row))
    return total


def test_equals_the_sum_over_all_targets(tokens: np.ndarray[Any, Any]) -> None:
    model = Toy()
    found = negative_log_likelihood(model, cut(tokens, 7))
    assert found.targets == 100
    assert found.nats == pytest.approx(naive(model, tokens), rel=1e-6)
    assert found.perplexity == pytest.approx(math.exp(found.nats / 100))
    assert found.bits_per_byte(250) == pytest.approx(found.nats / math.log(2) / 250)
    assert min(model.lengths) == 100 % 7, "the last window is shorter, not padded"


def test_batches_change_nothing_but_rounding(tokens: np.ndarray[Any, Any]) -> None:
    windows = [(tokens[:100].reshape(20, 5), tokens[1:101].reshape(20, 5))]
    results = [negative_log_likelihood(Toy(), windows, batch=batch) for batch in (1, 3, 64)]
    for result in results:
        assert result.targets == 100
        assert result.nats == pytest.approx(results[0].nats, rel=1e-6)
    assert negative_log_likelihood(Toy(), windows, batch=3) == results[1]


def test_large_logits_mean_small_batches() -> None:
    assert affordable_batch(64, 63, 512) == 64
    paper = affordable_batch(64, 127, 50_257)
    assert 4 <= paper < 64
    assert 4 * paper * 127 * 50_257 <= LOGITS_BYTES
    assert affordable_batch(64, 2048, 200_000) == 1


def test_modes_and_gradients_come_back(tokens: np.ndarray[Any, Any]) -> None:
    model = Toy().train()
    model.table.eval()  # a part that is frozen on purpose
    negative_log_likelihood(model, cut(tokens, 7))
    assert (model.training, model.dropout.training, model.table.training) == (True, True, False)
    assert model(torch.zeros(1, 3, dtype=torch.int64)).requires_grad

    class Fails(Toy):
        def forward(self, tokens: Tensor) -> Tensor:
            raise RuntimeError("out of memory")

    failing = Fails().train()
    with pytest.raises(RuntimeError, match="out of memory"):
        negative_log_likelihood(failing, cut(tokens, 7))
    assert failing.dropout.training


def test_overflow_is_infinite_and_nan_stays(tokens: np.ndarray[Any, Any]) -> None:
    assert negative_log_likelihood(Toy(scale=1e6), cut(tokens, 7)).perplexity == math.inf
    assert Likelihood(math.inf, 3).perplexity == math.inf
    assert math.isnan(Likelihood(math.nan, 3).perplexity)
    batch = torch.from_numpy(tokens[:100].astype(np.int64)).reshape(4, 25)
    assert mean_batch_perplexity(Toy(scale=1e6), [(batch, batch)]) == math.inf


def test_mean_of_batches_weighs_batches_alike(tokens: np.ndarray[Any, Any]) -> None:
    model = Toy().train()
    stream = torch.from_numpy(tokens.astype(np.int64))
    batches = [(stream[None, :10], stream[None, 1:11]), (stream[None, 50:90], stream[None, 51:91])]
    losses = [naive(model, tokens[:11]) / 10, naive(model, tokens[50:91]) / 40]
    assert mean_batch_perplexity(model, iter(batches)) == pytest.approx(math.exp(sum(losses) / 2), rel=1e-6)
    assert model.dropout.training


def test_products_are_fp32_whatever_the_process_trains_in(tokens: np.ndarray[Any, Any]) -> None:
    class Hears(Toy):
        def forward(self, tokens: Tensor) -> Tensor:
            heard.append(torch.get_float32_matmul_precision())
            return super().forward(tokens)

    heard: list[str] = []
    batch = torch.from_numpy(tokens[:100].astype(np.int64)).reshape(4, 25)
    with products("tf32"):
        negative_log_likelihood(Hears(), cut(tokens, 50))
        mean_batch_perplexity(Hears(), [(batch, batch)])
        assert torch.get_float32_matmul_precision() == "high"
    assert heard == ["highest"] * 3


def test_nothing_to_evaluate() -> None:
    with pytest.raises(ValueError, match="no window"):
        negative_log_likelihood(Toy(), [])
    with pytest.raises(ValueError, match="no batch"):
        mean_batch_perplexity(Toy(), [])


@pytest.mark.parametrize("ahead", [1, 60, 10_000])
def test_a_gpu_gets_the_batches_of_a_cpu_in_few_copies(
    tokens: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    class Gpu:
        type = "cuda"

    copied = []
    tensor = perplexity._tensor

    def copy(part: np.ndarray[Any, Any], device: Any) -> Tensor:
        copied.append(len(part))
        return tensor(part, torch.device("cpu"))

    inputs, targets = tokens[:100].reshape(20, 5), tokens[1:101].reshape(20, 5)
    on_cpu = list(perplexity._batches(inputs, targets, 3, torch.device("cpu")))
    monkeypatch.setattr(perplexity, "_tensor", copy)
    monkeypatch.setattr(perplexity, "TOKENS_AHEAD", ahead)
    on_gpu = list(perplexity._batches(inputs, targets, 3, Gpu()))  # type: ignore[arg-type]
    assert len(on_cpu) == len(on_gpu) == 7
    for pair, other in zip(on_cpu, on_gpu, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(pair, other, strict=True))
    assert torch.equal(torch.cat([pair[1] for pair in on_cpu]), torch.from_numpy(targets.astype("int64")))
    assert len(copied) == 2 * {1: 7, 60: 2, 10_000: 1}[ahead]
