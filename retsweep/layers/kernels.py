"""Retention as flash-linear-attention's Triton kernels compute it: ``layer.msr.kernel=fla``, extra ``fla``.

Its retention kernel knows one schedule of decays, 1 - 2^(-5-h); these are its simple gated forms
(``fla.ops.simple_gla``), whose decay per head is given, so that every schedule has them. The products
of fp32 tensors are rounded to TF32 inside: ``protocol.precision`` has to say so.
"""

from __future__ import annotations

from importlib.util import find_spec

from torch import Tensor

from retsweep.spec.base import SpecError
from retsweep.spec.forms import Chunkwise, Form

#: Tokens of a chunk are a power of two, and Triton multiplies no narrower blocks.
SMALLEST_CHUNK = 16


def check_chunk(chunk: int) -> None:
    """Raises SpecError unless the kernels take chunks of so many tokens."""
    if chunk < SMALLEST_CHUNK or chunk & (chunk - 1):
        raise SpecError(
            f"layer.msr.chunk={chunk} is none of layer.msr.kernel=fla; accepted: powers of two from "
            f"{SMALLEST_CHUNK} on"
        )


def check_device(device: str, precision: str) -> None:
    """Raises SpecError unless training on ``device`` ("cpu", "cuda", "cuda:0") can use the kernels."""
    if not device.startswith("cuda"):
        raise SpecError(
            f"layer.msr.kernel=fla runs on a GPU, and this run is on {device}; accepted there: torch"
        )
    if precision == "fp32":
        raise SpecError(
            "layer.msr.kernel=fla rounds the products of protocol.precision=fp32; accepted: tf32, bf16"
        )
    if find_spec("fla") is None:
        raise SpecError(
            "layer.msr.kernel=fla needs flash-linear-attention: pip install -c constraints.txt -e '.[fla]'; "
            "accepted without it: torch"
        )


def retain(q: Tensor, k: Tensor, v: Tensor, log_gamma: Tensor, divisor: float, form: Form) -> Tensor:
    """(Q K^T * D) V / divisor, in the dtype of v. q, k: (batch, h, time, dk), turned; v and the result:
    (batch, h, time, dv); ``log_gamma``: (h,), float32."""
    from fla.ops.simple_gla import chunk_simple_gla, parallel_simple_gla

    q, k, v = (y.to(v.dtype).transpose(1, 2) for y in (q, k, v))
    if isinstance(form, Chunkwise):
        o, _ = chunk_simple_gla(q, k, v, g_gamma=log_gamma, scale=1 / divisor, chunk_size=form.chunk)
    else:
        gates = log_gamma.expand(q.shape[:3]).contiguous()
        o, _ = parallel_simple_gla(q, k, v, g=gates, scale=1 / divisor)
    y: Tensor = o.transpose(1, 2)
    return y
