"""task=train_bench: its columns, and what it does not try."""

import re

import pytest
import torch

from retsweep.costs import macs_as_trained
from retsweep.layers.msr import CHUNKWISE_FROM
from retsweep.spec import SpecError, load_spec
from retsweep.spec.identity import variant_hash
from retsweep.tasks import train_bench
from retsweep.tasks.base import InterruptedRun, Workspace
from retsweep.tasks.train_bench import CONTEXTS, TrainBench, form

TINY = ("task=train_bench", "scale=tiny", "scale.layers=2", "layout.attention=1", "tokenizer=bytes")
SHORT = ("task.contexts=[16,256]", "task.tokens=64", "task.steps=2")
MEASURED = ("tokens_per_second", "mfu", "peak_memory_bytes", "batch", "form")


def bench(tmp_path, *overrides, **workspace):
    spec = load_spec([*TINY, *SHORT, *overrides])
    return spec, spec.task(spec, Workspace(tmp_path, "cpu", tmp_path, **workspace))


def test_the_task_is_what_its_yaml_names():
    assert load_spec(list(TINY)).task == TrainBench()
    assert CONTEXTS[0] == 128
    assert CONTEXTS[-1] == 16384


def test_every_context_has_its_columns_and_their_numbers_agree(tmp_path):
    told = []
    spec, row = bench(tmp_path, progress=lambda done, total: told.append((done, total)))
    assert set(row) == {
        "gemm_flops_per_second",
        "train_skipped",
        *(f"train_{name}_{tokens}" for name in MEASURED for tokens in (16, 256)),
    }
    assert row["train_skipped"] is None
    assert [row[f"train_batch_{tokens}"] for tokens in (16, 256)] == [4, 1]
    assert [row[f"train_form_{tokens}"] for tokens in (16, 256)] == ["parallel", "chunkwise 64"]
    for tokens in (16, 256):
        flops = 6 * macs_as_trained(spec, tokens) / tokens * row[f"train_tokens_per_second_{tokens}"]
        assert row[f"train_mfu_{tokens}"] == pytest.approx(flops / row["gemm_flops_per_second"])
        assert row[f"train_peak_memory_bytes_{tokens}"] > 0
    assert told == [(step, 6) for step in (0, 1, 2, 3, 3, 4, 5, 6)]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("task.gigabytes=1.0e-6", r"^16: a step needs about 0\.\d GB of 0\.0; 256: a step needs about"),
        ("task.seconds=1.0e-9", r"^16: 3 steps would take about 0 s of 1e-09; 256: 3 steps"),
    ],
)
def test_what_does_not_fit_is_named_and_never_tried(tmp_path, monkeypatch, limit, words):
    monkeypatch.setattr(train_bench._Bench, "times", lambda self, tokens: pytest.fail("it was tried"))
    told = []
    _, row = bench(tmp_path, limit, progress=lambda done, total: told.append((done, total)))
    assert set(row) == {"gemm_flops_per_second", "train_skipped"}
    assert re.match(words, row["train_skipped"])
    assert told == [(3, 6), (6, 6)]


def test_what_the_measured_speed_foretells_decides_about_the_next_context(tmp_path, monkeypatch):
    """The first context is measured as slow as an hour a step, so the second is not tried."""
    monkeypatch.setattr(train_bench._Bench, "times", lambda self, tokens: ([3600.0], 1))
    _, row = bench(tmp_path)
    assert row["train_peak_memory_bytes_16"] == 1
    assert "train_form_256" not in row
    assert row["train_skipped"].startswith("256: 3 steps would take about")


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_running_out_of_memory_is_told_too(tmp_path, monkeypatch, error):
    def fails(self, tokens):
        raise error

    monkeypatch.setattr(train_bench._Bench, "times", fails)
    _, row = bench(tmp_path, "task.contexts=[16]")
    assert row["train_skipped"] == "16: out of memory, though a step was expected to fit"


def test_any_other_error_is_no_skip(tmp_path, monkeypatch):
    monkeypatch.setattr(train_bench._Bench, "times", lambda *_: (_ for _ in ()).throw(RuntimeError("shape")))
    with pytest.raises(RuntimeError, match="shape"):
        bench(tmp_path)


def test_memory_is_measured_and_limited_as_in_decoding(tmp_path, monkeypatch):
    """By what the process's group leaves too; and nobody's peak is another's."""
    monkeypatch.setattr("retsweep.train.memory._reset_peak", lambda: False)
    _, row = bench(tmp_path, "task.contexts=[16]")
    assert row["train_peak_memory_bytes_16"] is None
    monkeypatch.setattr("retsweep.train.memory.free_memory", lambda device, option: 100_000)
    _, row = bench(tmp_path, "task.contexts=[16]")
    assert row["train_skipped"].startswith("16: a step needs about")


def test_it_stops_between_steps(tmp_path):
    asked = []

    def stop():
        asked.append(True)
        return len(asked) == 2

    with pytest.raises(InterruptedRun):
        bench(tmp_path, stop=stop)


def test_the_identity_names_the_form_of_every_length():
    """At the scale's own context both are parallel; what is measured is not the same."""

    def variant(*more):
        return variant_hash(load_spec([*TINY, *more]), "")

    assert variant("layer.msr.form=parallel") != variant()
    assert variant("task.contexts=[16,64]", "layer.msr.form=parallel") == variant("task.contexts=[16,64]")
    assert variant("task.steps=7") != variant()
    assert form(load_spec([*TINY, "layout.attention=2"]), CHUNKWISE_FROM) == "parallel"


@pytest.mark.parametrize("contexts", ["[]", "[16,16]", "[32,16]"])
def test_lengths_rise(contexts):
    with pytest.raises(SpecError, match="accepted: one length or more, rising"):
        load_spec([*TINY, f"task.contexts={contexts}"])
