from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retsweep.data import batches as module
from retsweep.data.batches import DeviceRows, HostRows, TrainBatches, windows
from retsweep.spec import SpecError
from retsweep.spec.protocol import Protocol


def protocol(**fields: Any) -> Protocol:
    return Protocol(**{"name": "test", "steps": 1, "batch": 4, "learning_rate": 1e-3, **fields})


def stream(length: int) -> np.ndarray[Any, Any]:
    """Tokens that are their own positions."""
    return np.arange(length, dtype=np.uint16)


@given(length=st.integers(0, 200), context=st.integers(1, 40))
def test_every_target_is_in_one_window(length: int, context: int) -> None:
    pairs = windows(stream(length), context)
    for inputs, targets in pairs:
        assert inputs.shape == targets.shape
        assert (targets == inputs + 1).all()
    assert all(inputs.shape[1] == context for inputs, _ in pairs[:-1])
    assert all(0 < inputs.shape[1] <= context for inputs, _ in pairs)
    assert [int(t) for _, targets in pairs for t in targets.flat] == list(range(1, length))


@given(
    length=st.integers(30, 400),
    context=st.integers(1, 20),
    batch=st.integers(1, 9),
    accumulate=st.integers(1, 3),
    chunking=st.sampled_from(["context", "context_plus_one"]),
    shuffle=st.booleans(),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_chunk_comes_once_an_epoch(
    length: int, context: int, batch: int, accumulate: int, chunking: str, shuffle: bool, seed: int
) -> None:
    settings = protocol(batch=batch, accumulate=accumulate, chunking=chunking, shuffle=shuffle)
    batches = TrainBatches(stream(length), settings, context, seed)
    stride = context if chunking == "context" else context + 1
    starts = []
    for step in range(2 * batches.steps_per_epoch):
        for micro in range(accumulate):
            inputs, targets = batches.batch_at(step, micro)
            assert inputs.shape == targets.shape == (batch, context)
            assert inputs.dtype == targets.dtype == torch.int64
            assert (targets == inputs + 1).all()
            starts += inputs[:, 0].tolist()
    expected = [index * stride for index in range(length) if index * stride + context < length]
    assert batches.chunks == len(expected)
    for epoch in range(2):
        of_epoch = starts[epoch * len(expected) : (epoch + 1) * len(expected)]
        assert (sorted(of_epoch) if shuffle else of_epoch) == expected
    ((inputs, targets),) = batches.windows()
    assert inputs[:, 0].tolist() == expected
    assert (targets == inputs + 1).all()


def test_accumulation_cuts_the_same_batch_in_pieces() -> None:
    whole = TrainBatches(stream(500), protocol(batch=6), 7, seed=3)
    pieces = TrainBatches(stream(500), protocol(batch=2, accumulate=3), 7, seed=3)
    for step in range(20):
        parts = [pieces.batch_at(step, micro)[0] for micro in range(3)]
        assert torch.equal(torch.cat(parts), whole.batch_at(step)[0])
    assert whole.steps_per_epoch == pieces.steps_per_epoch
    assert whole.tokens_per_step == pieces.tokens_per_step == 42


def test_order_is_drawn_from_seed_and_epoch_and_from_nothing_before() -> None:
    one, other = (TrainBatches(stream(999), protocol(), 5, seed=1) for _ in range(2))
    for _ in range(3):
        one.batch_at(700)
    assert torch.equal(one.batch_at(9)[0], other.batch_at(9)[0])
    assert torch.equal(one.batch_at(700)[1], other.batch_at(700)[1])
    first, second = one.batch_at(0)[0], one.batch_at(one.steps_per_epoch)[0]
    assert not torch.equal(first, second)
    assert not torch.equal(first, TrainBatches(stream(999), protocol(), 5, seed=2).batch_at(0)[0])


def test_golden_order() -> None:
    """Finished studies were trained in this order."""
    inputs, _ = TrainBatches(stream(100), protocol(batch=9), 10, seed=0).batch_at(0)
    assert (inputs[:, 0] // 10).tolist() == [0, 2, 1, 8, 5, 4, 3, 6, 7]


def test_published_chunks() -> None:
    """2,048 chunks of 127 inputs and their last target, 64 steps an epoch, in the order of the text."""
    published = protocol(batch=32, shuffle=False, train_chunks=2048, chunking="context_plus_one")
    batches = TrainBatches(np.arange(300_000, dtype=np.uint32), published, 127, seed=0)
    assert batches.steps_per_epoch == 64
    inputs, targets = batches.batch_at(64 + 1)
    assert inputs[0].tolist() == list(range(32 * 128, 32 * 128 + 127))
    assert int(targets[-1, -1]) == 64 * 128 - 1


def test_fewer_chunks_than_asked_for() -> None:
    with pytest.raises(
        SpecError, match=r"has 9 chunks of 10 tokens and a target; protocol\.train_chunks=10 needs"
    ):
        TrainBatches(stream(100), protocol(train_chunks=10), 10, seed=0)
    with pytest.raises(SpecError, match=r"has 0 chunks of 100 tokens"):
        TrainBatches(stream(100), protocol(), 100, seed=0)
    assert TrainBatches(stream(101), protocol(), 100, seed=0).chunks == 1


def test_a_batch_costs_a_fraction_of_a_step() -> None:
    batches = TrainBatches(np.zeros(700_000, dtype=np.uint16), protocol(batch=32), 63, seed=0)
    batches.batch_at(0)
    seconds = []
    for step in range(200):
        start = time.perf_counter()
        batches.batch_at(step)
        seconds.append(time.perf_counter() - start)
    assert sorted(seconds)[50] < 1e-3, "measured at 0.1 ms"


@given(
    starts=st.lists(st.integers(0, 70_000), min_size=1, max_size=9),
    length=st.integers(1, 40),
    dtype=st.sampled_from([np.uint16, np.uint32]),
)
def test_rows_of_a_device_are_those_of_the_host(starts: list[int], length: int, dtype: type) -> None:
    tokens = np.random.default_rng(0).integers(0, 65_536, 70_040).astype(dtype)
    places = np.array(starts)
    on_host = HostRows(tokens, length)(places)
    on_device = DeviceRows(tokens, length, torch.device("cpu"))(places)
    assert on_host.dtype == on_device.dtype == torch.int64
    assert torch.equal(on_host, on_device)
    assert on_host.tolist() == [tokens[start : start + length].tolist() for start in starts]


@pytest.mark.parametrize("chunking", ["context", "context_plus_one"])
def test_batches_are_the_same_wherever_the_tokens_lie(monkeypatch: pytest.MonkeyPatch, chunking: str) -> None:
    tokens = np.random.default_rng(1).integers(0, 65_536, 1_003).astype(np.uint16)
    settings = protocol(batch=7, accumulate=2, chunking=chunking, train_chunks=90)
    host = TrainBatches(tokens, settings, 10, seed=5)
    monkeypatch.setattr(
        module, "HostRows", lambda used, length: DeviceRows(used, length, torch.device("cpu"))
    )
    device = TrainBatches(tokens, settings, 10, seed=5)
    for step in range(2 * host.steps_per_epoch):
        for micro in range(2):
            for one, other in zip(host.batch_at(step, micro), device.batch_at(step, micro), strict=True):
                assert torch.equal(one, other)
                assert one.is_contiguous()
                assert other.is_contiguous()
