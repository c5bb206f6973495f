"""What time it is on a device that works on while the program goes on."""

from __future__ import annotations

import time

import torch


def now(device: torch.device) -> float:
    """Seconds since some moment, all that was asked of the device being done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
