from __future__ import annotations

import gc
import sys

import pytest
import torch

from retsweep.train import memory
from retsweep.train.memory import PeakMemory

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
