"""How products are computed is what the run says, whatever the process was set to."""

from __future__ import annotations

import pytest
import torch

from retsweep.layers.precision import products


@pytest.fixture(autouse=True)
def _restored():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("precision", "inside"), [("fp32", "highest"), ("bf16", "highest"), ("tf32", "high")]
)
@pytest.mark.parametrize("outside", ["highest", "high", "medium"])
def test_only_tf32_rounds_products_and_only_inside(precision, inside, outside) -> None:
    torch.set_float32_matmul_precision(outside)
    with products(precision):
        assert torch.get_float32_matmul_precision() == inside
    with pytest.raises(ZeroDivisionError), products(precision):
        1 / 0  # noqa: B018
    assert torch.get_float32_matmul_precision() == outside
