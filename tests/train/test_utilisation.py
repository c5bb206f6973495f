from __future__ import annotations

import time

import pytest
import torch

from retsweep.train import utilisation as module
from retsweep.train.utilisation import gemm_flops_per_second, utilisation


@pytest.fixture(autouse=True)
def _unmeasured():
    gemm_flops_per_second.cache_clear()
    yield
    gemm_flops_per_second.cache_clear()


def test_it_is_measured_once_a_process_and_quickly() -> None:
    state = torch.random.get_rng_state()
    started = time.perf_counter()
    found = gemm_flops_per_second("cpu", "fp32")
    assert time.perf_counter() - started < 2, "measured at 0.1 s on a busy core"
    assert 1e8 < found < 1e14
    assert gemm_flops_per_second("cpu", "fp32") == found
    assert gemm_flops_per_second.cache_info().misses == 1
    assert torch.equal(torch.random.get_rng_state(), state)


def test_flop_of_a_product_over_its_best_time(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([9.0, 0.5, 0.25, 1.0, 0.5])  # the first one warms up
    monkeypatch.setattr(module, "_timed", lambda *given: next(times))
    monkeypatch.setitem(module.SIZE, "cpu", 10)
    assert gemm_flops_per_second("cpu", "fp32") == 2 * 10**3 / 0.25


def test_utilisation_is_six_flop_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "gemm_flops_per_second", lambda device, precision: 1e9)
    found = utilisation(1_000_000, 50.0, "cpu", "fp32")
    assert found == {"gemm_flops_per_second": 1e9, "mfu": pytest.approx(6 * 1e6 * 50 / 1e9)}
