"""The learning rate at a step: warm-up, then constant or cosine (Loshchilov & Hutter 2017, no restarts)."""

from __future__ import annotations

import math

from retsweep.spec.protocol import Protocol


def warmup_steps(protocol: Protocol, total: int) -> int:
    """Optimiser steps of linear warm-up in a run of ``total``, rounded up."""
    return math.ceil(protocol.warmup * total)


def learning_rate(protocol: Protocol, step: int, total: int) -> float:
    """The rate of optimiser step ``step``, counted from 1, in a run of ``total`` steps.

    Warm-up rises linearly to ``protocol.learning_rate``, which its last step uses in full. The
    cosine starts there and the run's last step uses ``final_learning_rate`` of it.
    """
    warm = warmup_steps(protocol, total)
    if step <= warm:
        return protocol.learning_rate * (step / warm)
    if protocol.schedule == "constant":
        return protocol.learning_rate
    done = (step - warm) / (total - warm)
    final = protocol.final_learning_rate
    return protocol.learning_rate * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done)))
