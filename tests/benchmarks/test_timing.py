from __future__ import annotations

import time

import pytest
import torch

from benchmarks.targets import Judged, verdict
from benchmarks.timing import interleaved, speed_ratio

CPU = torch.device("cpu")


def test_everything_takes_turns_after_one_round_that_does_not_count() -> None:
    order: list[str] = []
    ticks: list[None] = []
    turns = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = interleaved(turns, 3, CPU, tick=lambda: ticks.append(None))
    assert "".join(order) == "abccbaabccba"
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3, "c": 3}
    assert len(ticks) == len(order)


def test_the_cpu_clock_does_not_hear_waiting() -> None:
    turns = {"sleep": lambda: time.sleep(0.05)}
    assert min(interleaved(turns, 1, CPU, "wall")["sleep"]) >= 0.05
    assert max(interleaved(turns, 1, CPU, "cpu")["sleep"]) < 0.05


def test_a_ratio_is_of_the_rounds_and_above_one_where_ours_is_faster() -> None:
    # The machine was ten times slower in the second round: a ratio of medians would be 1.5 / 2.
    assert speed_ratio([1.0, 10.0, 1.5], [2.0, 20.0, 3.0]) == 2.0
    with pytest.raises(ValueError, match="shorter"):
        speed_ratio([1.0, 2.0], [1.0])


def test_the_verdict_names_every_ratio_and_begins_with_those_below() -> None:
    good, bad = Judged("train A/B", 0.98, 0.97), Judged("decode A/B", 0.5, 1.0)
    assert verdict([good], ["A", "B"]).endswith("(>= 0.97); not measured: A; B")
    assert verdict([good]) == "all 1 targets hold: train A/B 0.980 (>= 0.97)"
    assert verdict([good, bad]) == (
        "1 of 2 targets missed: decode A/B 0.500 (BELOW 1), train A/B 0.980 (>= 0.97)"
    )
