"""AdamW (Loshchilov & Hutter 2019) over the parameters of a model, some of them decayed."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from retsweep.spec.protocol import Protocol


def is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether ``decay=matrices`` decays the parameter.

    Yes for every tensor of two dimensions or more, the embedding and the head among them; no for
    biases and for what belongs to a normalisation, even where it is kept as (heads, width).
    """
    *path, last = name.split(".")
    in_a_norm = any("norm" in part.lower() for part in path)
    return parameter.ndim >= 2 and not in_a_norm and "bias" not in last and "norm" not in last


def parameter_groups(model: nn.Module, protocol: Protocol) -> list[dict[str, Any]]:
    """One group of decayed and one of undecayed parameters, in the model's order; none is empty."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    chosen = [protocol.decay == "everything" or is_matrix(name, p) for name, p in named]
    groups = [
        {
            "params": [p for (_, p), yes in zip(named, chosen, strict=True) if yes == decayed],
            "weight_decay": w,
        }
        for decayed, w in ((True, protocol.weight_decay), (False, 0.0))
    ]
    return [group for group in groups if group["params"]]


def adamw(model: nn.Module, protocol: Protocol) -> torch.optim.AdamW:
    """One fused AdamW; its learning rate is set before each step by the loop."""
    return torch.optim.AdamW(
        parameter_groups(model, protocol),
        lr=protocol.learning_rate,
        betas=(protocol.beta1, protocol.beta2),
        fused=True,
    )
