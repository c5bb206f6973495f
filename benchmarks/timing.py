"""Times of several things that take turns, so that what else the machine does falls on all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

#: "cpu" is the processor time of this process: less disturbed by a busy machine, and no speed.
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def interleaved(
    turns: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
    clock: str = "wall",
    tick: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds of each of ``turns``, by round; a round before them all warms up and is not counted.

    Every other round goes backwards, so that none always follows the same one. ``tick`` is called
    after each turn, (rounds + 1) * len(turns) times in all.
    """
    now = CLOCKS[clock]
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds + 1):
        for name in list(turns)[:: -1 if number % 2 else 1]:
            _wait(device)
            started = now()
            turns[name]()
            _wait(device)
            if number:
                seconds[name].append(now() - started)
            tick()
    return seconds


def speed_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median, over rounds, of how many times as fast ours was: above 1, ours is faster."""
    return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
