"""task=decode_bench: its columns, what it leaves out and names, and that its bytes are the census's.
Speeds are not tested."""

from __future__ import annotations

import pytest
import torch

from retsweep.costs import bytes_decode, macs_decode, parameters, state_bytes
from retsweep.decode import Decoder
from retsweep.layers.attention import AttentionCache
from retsweep.layers.msr import RetentionState
from retsweep.model import build
from retsweep.spec import RunSpec, SpecError, load_spec
from retsweep.tasks import decode_bench
from retsweep.tasks.base import InterruptedRun, Workspace
from retsweep.tasks.decode_bench import DecodeBench
from retsweep.train import memory
from retsweep.train.memory import PeakMemory

SMALL = (
    "task=decode_bench", "scale=tiny", "tokenizer=bytes", "task.contexts=[9,5]", "task.batches=[1,3]",
    "task.tokens=4", "task.warm_up=1", "task.chunk=4",
)  # fmt: skip
MEASURED = (
    "decode_tokens_per_second",
    "decode_latency_ms",
    "decode_latency_p95_ms",
    "decode_peak_memory_bytes",
    "decode_state_bytes",
)
GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))


def spec_of(*overrides: str) -> RunSpec:
    return load_spec([*SMALL, *overrides])


@pytest.fixture
def bench(tmp_path):
    def run(*overrides: str, device: str = "cpu", **workspace) -> dict:
        spec = spec_of(*overrides)
        assert isinstance(spec.task, DecodeBench)
        return spec.task(spec, Workspace(tmp_path, device, tmp_path, **workspace))

    return run


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("layout", ["layout.attention=4", "layout.attention=0", "layout=type_c"])
def test_the_row_has_its_columns_and_the_bytes_of_the_census(bench, layout, device):
    row, spec = bench(layout, device=device), spec_of(layout)
    cells = [(n, b) for n in (5, 9) for b in (1, 3)]
    assert set(row) == {
        *(f"{name}_{n}_b{b}" for name in ("bytes_decode", *MEASURED) for n, b in cells),
        *(f"prefill_tokens_per_second_{n}" for n in (5, 9)),
        *(f"macs_decode_{n}" for n in (5, 9)),
        "decode_weight_dtype",
        "decode_cache_dtype",
        "decode_state_dtype",
        "decode_threads",
        "decode_skipped",
    }
    for n, b in cells:
        assert row[f"macs_decode_{n}"] == macs_decode(spec, n)
        assert row[f"bytes_decode_{n}_b{b}"] == bytes_decode(spec, n, b)
        assert row[f"decode_state_bytes_{n}_b{b}"] == b * state_bytes(spec, n)
        assert 0 < row[f"decode_latency_ms_{n}_b{b}"] <= row[f"decode_latency_p95_ms_{n}_b{b}"]
        assert row[f"decode_tokens_per_second_{n}_b{b}"] > 0
        if PeakMemory(torch.device(device)).resets:
            assert row[f"decode_peak_memory_bytes_{n}_b{b}"] > row[f"decode_state_bytes_{n}_b{b}"]
    assert row["decode_skipped"] is None


def test_bf16_halves_the_cache(bench):
    row = bench("layout.attention=4", "protocol.precision=bf16", "task.batches=[2]")
    assert row["decode_state_bytes_9_b2"] == state_bytes(spec_of("layout.attention=4"), 9)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("layout", ["layout.attention=4", "layout.attention=0", "layout=type_c"])
def test_dtypes_are_those_of_the_tensors(layout, precision):
    spec = spec_of(layout, f"protocol.precision={precision}")
    decoder = Decoder(build(spec), 1, 3, precision=precision, stand_in=2)
    caches = {part.keys.dtype for part in parts(decoder.states) if isinstance(part, AttentionCache)}
    states = {part.memory.dtype for part in parts(decoder.states) if isinstance(part, RetentionState)}
    weights = {part.weight.dtype for part in decoder.model.modules() if isinstance(part, torch.nn.Linear)}
    for name, found in (("weight", weights), ("cache", caches), ("state", states)):
        assert {str(dtype).removeprefix("torch.") for dtype in found} == (
            {decode_bench.dtypes(spec)[f"decode_{name}_dtype"]} - {None}
        )
    assert weights
    assert caches or states


def parts(state: object) -> list[object]:
    """It, and all that is in it."""
    return [state, *(found for part in state for found in parts(part))] if isinstance(state, tuple) else []


def test_where_the_peak_cannot_be_reset_no_cell_has_one(bench, monkeypatch):
    monkeypatch.setattr("retsweep.train.memory._reset_peak", lambda: False)
    row = bench("task.contexts=[5]", "task.batches=[1]")
    assert row["decode_peak_memory_bytes_5_b1"] is None


def test_every_step_is_at_a_position_of_its_own(bench, monkeypatch):
    """The context itself is the first that is timed: behind the warm-up, as far as the past has room."""
    read: list[tuple[int, int]] = []
    step = Decoder.step

    def noted(decoder, tokens):
        read.append((decoder.position + 1, decoder.batch))
        assert decoder.room == (2 if decoder.position < 5 else 9) + 4 - 1
        return step(decoder, tokens)

    monkeypatch.setattr(Decoder, "step", noted)
    bench("layout=type_c", "task.warm_up=2", "task.contexts=[2,9]")
    warmed = {2: (1,), 9: (7, 8)}
    assert read == [(m, b) for n in (2, 9) for b in (1, 3) for m in (*warmed[n], *range(n, n + 4))]


def test_the_first_reading_of_a_prompt_does_not_count(bench, monkeypatch):
    seconds = {64: iter([9.0]), 80: iter([5.0, 1.0, 2.0, 4.0])}
    monkeypatch.setattr(decode_bench._Bench, "_read", lambda self, prompt: next(seconds[prompt.shape[1]]))
    row = bench("task.contexts=[80]", "task.batches=[1]")
    assert row["prefill_tokens_per_second_80"] == 80 / 2
    seconds = {64: iter([9.0]), 80: iter([5.0])}  # unless there is no time for another
    row = bench("task.contexts=[80]", "task.batches=[1]", "task.prefill_seconds=9")
    assert row["prefill_tokens_per_second_80"] == 80 / 5


def test_weights_that_do_not_fit_are_named_before_they_are_drawn(bench, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device, option: 100_000)
    monkeypatch.setattr("retsweep.model.build", lambda *_, **__: pytest.fail("it was built"))
    row = bench()
    assert row["decode_skipped"] == f"weights: {4 * parameters(spec_of()) / 1e6:.2f} MB, of 0.09 MB allowed"
    assert row["bytes_decode_9_b3"] == bytes_decode(spec_of(), 9, 3)
    assert not [column for column in row if "latency" in column]


def test_weights_that_the_device_has_no_room_for_are_named_too(bench, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("retsweep.model.build", full)
    assert bench()["decode_skipped"] == "weights: the device was out of memory"


def test_what_takes_too_much_memory_is_named(bench):
    """Under a limit that the smallest cell just fits into."""
    row = bench(
        "layout.attention=4", "task.memory_bytes=40000", "task.contexts=[2,32768]", "task.batches=[1]"
    )
    assert row["decode_skipped"] == (
        "n=32768 b=1: 33.56 MB, of 0.04 MB allowed; prefill n=32768: 146.80 MB, of 0.04 MB allowed"
    )
    assert "decode_latency_ms_2_b1" in row
    assert "prefill_tokens_per_second_2" in row
    assert not [
        column
        for column in row
        if "32768" in column and not column.startswith(("bytes_decode", "macs_decode"))
    ]
    assert row["bytes_decode_32768_b1"] == bytes_decode(
        spec_of("layout.attention=4"), 32768, 1
    )  # known without measuring


def test_a_prompt_that_takes_too_long_is_named(bench):
    row = bench("task.contexts=[4,32768]", "task.batches=[1]", "task.prefill_seconds=0.5")
    assert row["decode_skipped"].startswith("prefill n=32768: about ")
    assert row["decode_skipped"].endswith(" s, of 0.5 s allowed")
    assert "prefill_tokens_per_second_4" in row


def test_a_device_that_runs_out_of_memory_is_a_cell_left_out(bench, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")

    monkeypatch.setattr(Decoder, "step", full)
    row = bench("task.contexts=[5]", "task.batches=[1]")
    assert row["decode_skipped"] == "n=5 b=1: the device was out of memory"
    assert "decode_state_bytes_5_b1" not in row


def test_any_other_error_is_no_skip(bench, monkeypatch):
    monkeypatch.setattr(Decoder, "step", lambda *_: (_ for _ in ()).throw(RuntimeError("a shape is wrong")))
    with pytest.raises(RuntimeError, match="a shape is wrong"):
        bench()


def test_a_leak_cannot_be_measured(bench):
    with pytest.raises(
        SpecError, match=r"^task=decode_bench .* a mask that leaks has none; accepted: "
    ) as error:
        bench("layer.attention.mask=leaky", "layout.attention=2")
    assert "\n" not in str(error.value)


def test_tf32_wants_a_gpu(bench):
    with pytest.raises(SpecError, match="tf32"):
        bench("protocol.precision=tf32")


def test_it_stops_between_cells_and_tells_how_far_it_is(bench):
    asked, told = iter([False, False, True]), []
    with pytest.raises(InterruptedRun):
        bench(stop=lambda: next(asked), progress=lambda *steps: told.append(steps))
    assert told == [(0, 6), (1, 6)]


@pytest.mark.parametrize(
    "override",
    ["task.contexts=[1]", "task.contexts=[0]", "task.batches=[0]", "task.tokens=0", "task.prefill_seconds=0"],
)
def test_bad_options_are_one_line(override):
    with pytest.raises(SpecError, match="task") as error:
        spec_of(override)
    assert "\n" not in str(error.value)


def test_it_reads_no_data():
    assert DecodeBench.reads_data is False


@pytest.mark.parametrize(("count", "rank"), [(1, 1), (2, 2), (20, 19), (32, 31), (100, 95)])
def test_the_95th_percentile_is_a_measured_value(count, rank):
    assert decode_bench._percentile([float(n) for n in range(count, 0, -1)], 0.95) == rank
