"""How much memory a run needed, whatever its process did before."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

#: Writing 5 here sets VmHWM, the process's peak, to what it holds now (Linux 4.0, proc(5)).
CLEAR = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")


class PeakMemory:
    """Measures from when it is made: the tensors on a GPU, on a CPU the whole process, its
    interpreter and libraries included.

    Where the peak of a process cannot be reset (not Linux, or a container that forbids it), a CPU's
    is that since the process began (``resets`` is False): earlier runs of it count too.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.resets = True
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            self.resets = _reset_peak()

    def bytes(self) -> int:
        """The largest so far."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return _peak() if self.resets else _peak_of_all_time()


def _reset_peak() -> bool:
    try:
        CLEAR.write_text("5")
        return _peak() > 0
    except (OSError, ValueError):
        return False


def _peak() -> int:
    """VmHWM. Raises ValueError if the system does not tell it."""
    for line in STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.split()[0]) * 1024
    raise ValueError(f"{STATUS} has no VmHWM")


def _peak_of_all_time() -> int:
    import resource  # absent on Windows, where only this number would be missing

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
