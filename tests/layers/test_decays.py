"""Decay schedules and what is computed from them."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from retsweep.layers.decays import decay_matrix, log_decays, row_sums


def test_retnet_schedule_is_the_papers() -> None:
    for h, log_gamma in enumerate(log_decays("retnet", 8)):
        assert math.exp(log_gamma) == pytest.approx(1 - 2.0 ** (-5 - h), rel=1e-15)


def test_log_spaced_schedule_runs_from_one_32nd_to_one_512th() -> None:
    forgotten = [1 - math.exp(value) for value in log_decays("log_spaced", 5)]
    assert forgotten[0] == pytest.approx(1 / 32)
    assert forgotten[-1] == pytest.approx(1 / 512)
    ratios = [b / a for a, b in pairwise(forgotten)]
    assert ratios == pytest.approx([ratios[0]] * 4)
    assert 1 - math.exp(log_decays("log_spaced", 1)[0]) == pytest.approx(1 / 32)


@pytest.mark.parametrize("schedule", ["retnet", "log_spaced"])
def test_matrix_and_row_sums_agree(schedule: str) -> None:
    log_gamma = torch.tensor(log_decays(schedule, 4), dtype=torch.float64)
    decay = decay_matrix(log_gamma, 50)
    assert torch.equal(decay, decay.tril())
    assert torch.equal(decay.diagonal(dim1=1, dim2=2), torch.ones(4, 50, dtype=torch.float64))
    torch.testing.assert_close(decay[:, 40, 37], (3 * log_gamma).exp())
    torch.testing.assert_close(row_sums(log_gamma, 50), decay.sum(2).T)
