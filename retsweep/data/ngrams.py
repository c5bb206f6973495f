"""The reference lines: what counting single tokens and pairs predicts, without a model.

Both are trained on the train split and evaluated on the targets of the models: every token of a
split but its first. Probabilities are exact and sum to one over the vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Unigram:
    """Add-one smoothing (Laplace): p(w) = (c(w) + 1) / (N + V). ``probabilities`` (V,)."""

    probabilities: NDArray[np.float64]

    @classmethod
    def of(cls, train: NDArray[Any], vocabulary: int) -> Unigram:
        counts = np.bincount(train, minlength=vocabulary).astype(np.float64)
        return cls((counts + 1) / (len(train) + vocabulary))


@dataclass(frozen=True)
class Bigram:
    """Interpolated Kneser-Ney of order two (Kneser & Ney 1995; Chen & Goodman 1999, eq. 22-25).

        p(w|v) = max(c(vw) - D, 0) / c(v.)  +  D n(v.) / c(v.) * q(w)
        q(w)   = max(n(.w) - E, 0) / n(..)  +  E m / n(..) * 1/V

    c counts pairs of neighbours in train, n(.w) the different tokens seen before w, n(v.) those
    seen after v, n(..) all different pairs, m the tokens that end some pair, V the vocabulary.
    D and E are absolute discounts estimated from counts of counts, n1 / (n1 + 2 n2), of c(vw) and
    n(.w). A token v that nothing follows in train predicts q.

    ``keys`` (pairs,) are v V + w in rising order, ``counts`` their c(vw); ``lower`` (V,) is q;
    ``totals`` and ``followers`` (V,) are c(v.) and n(v.).
    """

    keys: NDArray[np.int64]
    counts: NDArray[np.int64]
    totals: NDArray[np.int64]
    followers: NDArray[np.int64]
    lower: NDArray[np.float64]
    discount: float

    @classmethod
    def of(cls, train: NDArray[Any], vocabulary: int) -> Bigram:
        """Raises ValueError for fewer than two tokens."""
        if len(train) < 2:
            raise ValueError(f"a bigram needs two tokens to count, not {len(train)}")
        pairs = train[:-1].astype(np.int64) * vocabulary + train[1:].astype(np.int64)
        keys, counts = np.unique(pairs, return_counts=True)
        first, second = keys // vocabulary, keys % vocabulary
        before = np.bincount(second, minlength=vocabulary)
        return cls(
            keys=keys,
            counts=counts,
            totals=np.bincount(first, weights=counts, minlength=vocabulary).astype(np.int64),
            followers=np.bincount(first, minlength=vocabulary),
            lower=_continuation(before, vocabulary),
            discount=discount(counts),
        )

    def probability(self, contexts: NDArray[Any], tokens: NDArray[Any]) -> NDArray[np.float64]:
        """(n,) p(token | context), of arrays (n,)."""
        contexts, tokens = contexts.astype(np.int64), tokens.astype(np.int64)
        wanted = contexts * len(self.lower) + tokens
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        counts = np.where(self.keys[place] == wanted, self.counts[place], 0)
        totals = self.totals[contexts]
        known = np.maximum(totals, 1)
        kept = np.maximum(counts - self.discount, 0) / known
        spare = np.where(totals > 0, self.discount * self.followers[contexts] / known, 1.0)
        return np.asarray(kept + spare * self.lower[tokens])


def discount(counts: NDArray[Any]) -> float:
    """n1 / (n1 + 2 n2) of ``counts`` (all positive); 1/2 where one of the two never occurs."""
    ones, twos = int((counts == 1).sum()), int((counts == 2).sum())
    return ones / (ones + 2 * twos) if ones and twos else 0.5


def _continuation(before: NDArray[np.int64], vocabulary: int) -> NDArray[np.float64]:
    """q of :class:`Bigram` from n(.w), (V,)."""
    seen = before[before > 0]
    less = discount(seen)
    spare = less * len(seen) / seen.sum()
    return np.asarray(np.maximum(before - less, 0) / seen.sum() + spare / vocabulary)


def unigram_perplexity(train: NDArray[Any], valid: NDArray[Any], vocabulary: int) -> float:
    """Perplexity on ``valid`` (all tokens but the first) of :class:`Unigram` of ``train``."""
    return _perplexity(Unigram.of(train, vocabulary).probabilities[valid[1:]])


def bigram_perplexity(train: NDArray[Any], valid: NDArray[Any], vocabulary: int) -> float:
    """Perplexity on ``valid`` (all tokens but the first) of :class:`Bigram` of ``train``."""
    return _perplexity(Bigram.of(train, vocabulary).probability(valid[:-1], valid[1:]))


def _perplexity(probabilities: NDArray[np.float64]) -> float:
    return math.exp(-float(np.log(probabilities).mean()))
