"""How much memory a run needed, whatever its process did before, and how much is free."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch

from retsweep.spec.base import SpecError

#: Writing 5 here sets VmHWM, the process's peak, to what it holds now (Linux 4.0, proc(5)).
CLEAR = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")
MEMORY = Path("/proc/meminfo")
#: The limits of the process's control group, in a container its own.
GROUP = Path("/sys/fs/cgroup")
#: How errors of torch that are no OutOfMemoryError tell of one: an allocation on a CPU, and on a GPU
#: those that libraries make past torch's allocator.
NO_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


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

    def own_bytes(self) -> int | None:
        """The same, or None where it may be an earlier run's."""
        return self.bytes() if self.resets else None


def free_memory(device: torch.device, option: str, read: Callable[[Path], str] = Path.read_text) -> int:
    """Bytes that can be allocated: of a GPU what nobody holds, of a CPU what Linux calls available, or
    what is left of the limit of its group. Raises SpecError where the system does not tell it; the
    message asks for ``option``."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = dict(line.split(":", 1) for line in read(MEMORY).splitlines() if ":" in line)
        available = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError) as error:
        raise SpecError(f"this system does not say how much memory is free; give {option}") from error
    try:
        left = int(read(GROUP / "memory.max")) - int(read(GROUP / "memory.current"))
    except (OSError, ValueError):  # no group, or one without a limit ("max")
        return available
    return min(available, left)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the system, had no memory left."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


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
