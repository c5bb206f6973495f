from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest
import torch

from retsweep.spec import SpecError
from retsweep.train import memory
from retsweep.train.memory import PeakMemory, free_memory, is_out_of_memory

MIB = 1 << 20


def hold(mebibytes: int) -> None:
    """Has so much memory in use for a moment."""
    held = bytearray(mebibytes * MIB)
    held[::4096] = b"x" * len(range(0, len(held), 4096))
    del held
    gc.collect()


def test_it_rises_with_what_is_held() -> None:
    peak = PeakMemory(torch.device("cpu"))
    before = peak.bytes()
    hold(300)
    assert peak.bytes() > before + 150 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux resets the peak of a process")
def test_what_a_process_needed_before_does_not_count() -> None:
    first = PeakMemory(torch.device("cpu"))
    hold(300)
    needed = first.bytes()
    second = PeakMemory(torch.device("cpu"))
    if second.resets:
        assert second.bytes() < needed - 150 * MIB
    else:  # a container may forbid it; then the number is that of the process
        assert second.bytes() >= needed


def test_where_the_peak_cannot_be_reset_it_is_that_of_the_process(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "absent" / "clear_refs")
    peak = PeakMemory(torch.device("cpu"))
    assert not peak.resets
    assert peak.bytes() == memory._peak_of_all_time() > MIB
    assert peak.own_bytes() is None


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("a shape is wrong"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_what_is_out_of_memory(error: Exception, told: bool) -> None:
    assert is_out_of_memory(error) is told


def test_an_allocation_that_fails_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(error.value)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"meminfo": "MemTotal: 9 kB\nMemAvailable:  4 kB\n"}, 4096),
        ({"meminfo": "MemAvailable: 4 kB", "memory.max": "max\n", "memory.current": "5"}, 4096),
        ({"meminfo": "MemAvailable: 4 kB", "memory.max": "1000\n", "memory.current": "900\n"}, 100),
    ],
)
def test_free_memory_is_the_least_of_what_limits_it(files: dict[str, str], expected: int) -> None:
    def read(path: Path) -> str:
        if path.name not in files:
            raise FileNotFoundError(path)
        return files[path.name]

    assert free_memory(torch.device("cpu"), "it", read) == expected


def test_where_free_memory_is_not_told_an_option_is_asked_for() -> None:
    with pytest.raises(SpecError, match=r"how much memory is free; give task\.that=BYTES$"):
        free_memory(torch.device("cpu"), "task.that=BYTES", lambda path: "")
