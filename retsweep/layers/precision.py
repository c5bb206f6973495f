"""How matrix products are computed: in training as ``protocol.precision`` says, in evaluation as fp32.

fp32   float32 products, in full, on any device
tf32   float32 tensors, whose products round their factors to 10 bits of mantissa: a GPU's tensor
       cores of Ampere and later. A deviation from fp32, and so a precision with a name of its own
bf16   autocast: products in bfloat16, weights and optimiser in float32
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch

Precision = Literal["fp32", "tf32", "bf16"]


@contextmanager
def products(precision: Precision) -> Iterator[None]:
    """Inside, float32 products (of a backward pass too) are rounded to TF32 if ``precision`` says so
    and are whole if not, whatever the process was set to; its setting comes back afterwards."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def casting(precision: Precision, device: torch.device | str) -> AbstractContextManager[object]:
    """Where forward passes run: bf16 autocast, or as the weights are."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16) if precision == "bf16" else nullcontext()
