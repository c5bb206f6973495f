"""How much of a device's arithmetic a training used: model FLOP utilisation (Chowdhery et al. 2022, PaLM).

    mfu = 3 * 2 * MACs of a token's forward pass * tokens a second / FLOP a second of one large product

A MAC is two FLOP, a backward pass costs two forward passes, and what is not a matrix product counts
as nothing. The denominator is no data sheet's: it is what one square product reaches on this device in
the precision of the run, so that a step which is nothing but large products would have mfu 1.
"""

from __future__ import annotations

import functools

import torch

from retsweep.layers.precision import Precision, products
from retsweep.train.clock import now

FLOP_A_MAC = 2
#: Forward, and backward to inputs and to weights.
PASSES = 3
#: Rows of the square product, by kind of device: half a GFLOP on a CPU, where it takes some 10 ms on one
#: core (in cache, as a small model's are), and a TFLOP on a GPU, some 20 ms of an H100 in fp32.
SIZE = {"cpu": 640, "cuda": 8192}
#: The best of so many counts: on a busy machine the others say what else it did.
TRIES = 4


def utilisation(
    macs_a_token: float, tokens_per_second: float, device: str, precision: Precision
) -> dict[str, float]:
    """``gemm_flops_per_second`` of the device, and ``mfu`` of a training with these tokens a second."""
    possible = gemm_flops_per_second(device, precision)
    used = PASSES * FLOP_A_MAC * macs_a_token * tokens_per_second
    return {"gemm_flops_per_second": possible, "mfu": used / possible}


@functools.cache
def gemm_flops_per_second(device: str, precision: Precision) -> float:
    """FLOP a second of a square matrix product; measured once a process, in about 0.1 s.

    On a CPU with as many threads as the process trains with. Draws from no generator that others use.
    """
    place = torch.device(device)
    size = SIZE.get(place.type, SIZE["cpu"])
    generator = torch.Generator(place).manual_seed(0)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    one, other = (torch.randn(size, size, generator=generator, device=place).to(dtype) for _ in range(2))
    seconds = []
    with torch.no_grad(), products(precision):
        _timed(one, other, place)  # the first one loads kernels
        for _ in range(TRIES):
            seconds.append(_timed(one, other, place))
    return FLOP_A_MAC * size**3 / min(seconds)


def _timed(one: torch.Tensor, other: torch.Tensor, place: torch.device) -> float:
    started = now(place)
    torch.mm(one, other)
    return now(place) - started
