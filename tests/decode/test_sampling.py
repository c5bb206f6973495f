"""Sampling: which tokens can come, how often, and that a seed says which do."""

from __future__ import annotations

import pytest
import torch

from retsweep.decode import Sampling
from retsweep.spec import SpecError

#: Tokens 2, 0, 3, 1 in falling order of probability: 0.4, 0.3, 0.2, 0.1.
P = torch.tensor([[0.3, 0.1, 0.4, 0.2]])
LOGITS = P.log() + 5


def probabilities(**options: float) -> list[float]:
    return Sampling(**options).sampler().probabilities(LOGITS)[0].tolist()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.3, 0.1, 0.4, 0.2]),
        ({"temperature": 0.5}, [9 / 30, 1 / 30, 16 / 30, 4 / 30]),
        ({"top_k": 2}, [3 / 7, 0, 4 / 7, 0]),
        ({"top_k": 4}, [0.3, 0.1, 0.4, 0.2]),
        ({"top_k": 99}, [0.3, 0.1, 0.4, 0.2]),
        ({"top_p": 0.35}, [0, 0, 1, 0]),
        ({"top_p": 0.65}, [3 / 7, 0, 4 / 7, 0]),
        ({"top_p": 1.0}, [0.3, 0.1, 0.4, 0.2]),
        ({"top_p": 1e-9}, [0, 0, 1, 0]),
        ({"top_k": 3, "top_p": 0.5}, [3 / 7, 0, 4 / 7, 0]),  # of 4/9, 3/9, 2/9
        ({"temperature": 1e-30}, [0, 0, 1, 0]),
        ({"temperature": 1e-46}, [0, 0, 1, 0]),  # 0 in float32
    ],
)
def test_probabilities(options: dict[str, float], expected: list[float]) -> None:
    assert probabilities(**options) == pytest.approx(expected, abs=1e-6)


def test_ties_keep_the_first_tokens() -> None:
    even = torch.zeros(1, 4)
    assert Sampling(top_k=2).sampler().probabilities(even)[0].tolist() == [0.5, 0.5, 0, 0]
    assert Sampling(temperature=0).sampler()(even).tolist() == [0]
    assert Sampling(temperature=1e-300).sampler().probabilities(even)[0].tolist() == [0.25] * 4


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_k": 1}, {"top_p": 0.1}])
def test_greedy_in_three_ways(options: dict[str, float]) -> None:
    logits = torch.randn(50, 11, generator=torch.Generator().manual_seed(0))
    chosen = Sampling(**options).sampler()(logits)  # type: ignore[arg-type]
    assert torch.equal(chosen, logits.argmax(-1))


def test_draws_are_as_frequent_as_they_are_likely_and_the_seeds_own() -> None:
    many = LOGITS.expand(20_000, -1)
    drawn = Sampling(seed=3).sampler()(many)
    assert torch.bincount(drawn).div(20_000).tolist() == pytest.approx(P[0].tolist(), abs=0.02)
    assert torch.equal(drawn, Sampling(seed=3).sampler()(many))
    assert not torch.equal(drawn, Sampling(seed=4).sampler()(many))
    one = Sampling(seed=3).sampler()
    assert not torch.equal(one(many), one(many))


def test_a_draw_leaves_the_global_stream_alone() -> None:
    before = torch.random.get_rng_state()
    Sampling().sampler()(LOGITS)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_choose_nothing(bad: float, temperature: float) -> None:
    with pytest.raises(SpecError, match="no finite numbers"):
        Sampling(temperature=temperature).sampler()(torch.tensor([[0.0, bad]]))


@pytest.mark.parametrize("options", [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Sampling(**options)  # type: ignore[arg-type]
