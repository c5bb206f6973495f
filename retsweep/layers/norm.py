"""The norm inside retention: each token's heads are normalised one by one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class HeadNorm(nn.Module):
    """A group norm per token with a group a head, written as a layer norm over the head's channels
    (half the time of torch's group norm on such small groups). Never over time. ``eps`` is added to
    the variance. (Sun et al., 2023, eq. 8; Wu & He, "Group Normalization", 2018.)"""

    def __init__(self, heads: int, width: int, eps: float, affine: bool) -> None:
        super().__init__()
        self.width, self.eps = width, eps
        self.weight = nn.Parameter(torch.ones(heads * width)) if affine else None
        self.bias = nn.Parameter(torch.zeros(heads * width)) if affine else None

    def forward(self, o: Tensor) -> Tensor:
        """(batch, heads, time, width) -> (batch, time, heads * width)."""
        y = functional.layer_norm(o, (self.width,), eps=self.eps).transpose(1, 2).flatten(2)
        return y if self.weight is None or self.bias is None else torch.addcmul(self.bias, y, self.weight)
