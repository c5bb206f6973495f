from __future__ import annotations

import itertools
import math
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retsweep.data.ngrams import Bigram, Unigram, bigram_perplexity, discount, unigram_perplexity

VOCABULARY = 7
TOKENS = st.lists(st.integers(0, VOCABULARY - 1), min_size=2, max_size=60).map(
    lambda tokens: np.array(tokens, dtype=np.uint16)
)


def naive_bigram(train: list[int], vocabulary: int) -> list[list[Fraction]]:
    """The docstring of Bigram, literally, in exact fractions."""
    pairs = Counter(itertools.pairwise(train))
    before = [len({v for v, w in pairs if w == token}) for token in range(vocabulary)]
    d, e = naive_discount(list(pairs.values())), naive_discount([n for n in before if n])
    kinds, ends = len(pairs), sum(n > 0 for n in before)
    q = [max(n - e, Fraction(0)) / kinds + e * ends / kinds / vocabulary for n in before]
    table = []
    for v in range(vocabulary):
        total = sum(count for (first, _), count in pairs.items() if first == v)
        after = len({w for first, w in pairs if first == v})
        row = []
        for w in range(vocabulary):
            kept = max(pairs[v, w] - d, Fraction(0)) / total if total else Fraction(0)
            row.append(kept + (d * after / total if total else 1) * q[w])
        table.append(row)
    return table


def naive_discount(counts: list[int]) -> Fraction:
    ones, twos = counts.count(1), counts.count(2)
    return Fraction(ones, ones + 2 * twos) if ones and twos else Fraction(1, 2)


def everything(vocabulary: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    first, second = np.divmod(np.arange(vocabulary**2), vocabulary)
    return first, second


@given(TOKENS)
def test_bigram_is_kneser_ney_and_sums_to_one(train: np.ndarray[Any, Any]) -> None:
    table = naive_bigram(train.tolist(), VOCABULARY)
    assert {sum(row) for row in table} == {Fraction(1)}
    found = Bigram.of(train, VOCABULARY).probability(*everything(VOCABULARY))
    expected = np.array([[float(p) for p in row] for row in table])
    np.testing.assert_allclose(found.reshape(VOCABULARY, VOCABULARY), expected, rtol=1e-12)
    assert (found > 0).all()


@given(TOKENS)
def test_unigram_sums_to_one(train: np.ndarray[Any, Any]) -> None:
    probabilities = Unigram.of(train, VOCABULARY).probabilities
    assert probabilities.sum() == pytest.approx(1, abs=1e-12)
    counts = Counter(train.tolist())
    assert probabilities.tolist() == [(counts[w] + 1) / (len(train) + VOCABULARY) for w in range(VOCABULARY)]


@given(TOKENS, TOKENS)
def test_perplexities_are_over_all_tokens_but_the_first(
    train: np.ndarray[Any, Any], valid: np.ndarray[Any, Any]
) -> None:
    table = naive_bigram(train.tolist(), VOCABULARY)
    pairs = list(zip(valid.tolist(), valid.tolist()[1:], strict=False))
    bigram = math.exp(-sum(math.log(table[v][w]) for v, w in pairs) / len(pairs))
    assert bigram_perplexity(train, valid, VOCABULARY) == pytest.approx(bigram, rel=1e-10)
    counts = Counter(train.tolist())
    unigram = -sum(math.log((counts[w] + 1) / (len(train) + VOCABULARY)) for _, w in pairs) / len(pairs)
    assert unigram_perplexity(train, valid, VOCABULARY) == pytest.approx(math.exp(unigram), rel=1e-10)


def test_discount_from_counts_of_counts() -> None:
    assert discount(np.array([1, 1, 1, 2, 5])) == 3 / 5
    assert discount(np.array([1, 1])) == discount(np.array([2])) == 0.5


def test_large_vocabularies_and_unseen_tokens() -> None:
    train = np.array([60_000, 5, 60_000, 5, 70_000], dtype=np.uint32)
    bigram = Bigram.of(train, 80_000)
    tokens = np.arange(80_000)
    for context in (60_000, 5, 70_000, 123):
        assert bigram.probability(np.full(80_000, context), tokens).sum() == pytest.approx(1)


def test_real_text_is_ordered(pydocs: Any) -> None:
    train, valid = pydocs.splits["train"].tokens, pydocs.splits["valid"].tokens
    unigram = unigram_perplexity(train, valid, pydocs.vocabulary)
    bigram = bigram_perplexity(train, valid, pydocs.vocabulary)
    assert 20 < bigram < unigram / 3 < pydocs.vocabulary / 3


def test_a_bigram_of_one_token_is_an_error() -> None:
    with pytest.raises(ValueError, match="two tokens"):
        Bigram.of(np.array([3], dtype=np.uint16), VOCABULARY)
