"""Every conf/protocol/*.yaml composes, trains and evaluates: a new one is tested unasked."""

from __future__ import annotations

import math
import warnings

import pytest

from retsweep.spec import load_spec
from retsweep.spec.compose import choices
from retsweep.tasks.base import Workspace
from retsweep.tasks.train import PublishedDefectWarning
from retsweep.train.schedule import learning_rate
from tests.tasks.corpora import write_corpus


@pytest.mark.parametrize("name", choices("protocol"))
def test_a_protocol_trains_and_evaluates(name, tmp_path):
    corpus = write_corpus(tmp_path / "corpus")
    overrides = [f"protocol={name}", "scale=tiny", "corpus=text", f"corpus.path={corpus}", "tokenizer=bytes"]
    protocol = load_spec(overrides).protocol
    assert protocol.name == name
    shorter = ["protocol.batch=4"]
    shorter += ["protocol.steps=12"] if protocol.steps else ["protocol.epochs=2"]
    shorter += ["protocol.train_chunks=24"] if protocol.train_chunks or protocol.epochs else []
    spec = load_spec([*overrides, *shorter])
    folder = tmp_path / "trial"
    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PublishedDefectWarning)
        row = spec.task(spec, Workspace(folder, "cpu", tmp_path / "cache"))
    assert row["status"] == "ok"
    assert row["steps"] == 12
    for split in ("train", "valid", "test"):
        assert 1 < row[f"{split}_ppl"] < spec.scale.vocabulary
        assert math.isfinite(row[f"{split}_bits_per_byte"])


@pytest.mark.parametrize("name", choices("protocol"))
def test_a_protocol_has_a_rate_for_each_step_of_its_own_length(name):
    protocol = load_spec([f"protocol={name}"]).protocol
    steps = protocol.steps or (protocol.epochs or 0) * 64
    rates = [learning_rate(protocol, step, steps) for step in range(1, steps + 1)]
    assert max(rates) == protocol.learning_rate
    assert min(rates) > 0


def test_the_published_protocol_is_the_published_one():
    """The values of the report's notebook, one by one."""
    spec = load_spec(["protocol=published", "scale=paper"])
    protocol = spec.protocol
    assert (protocol.epochs, protocol.batch, protocol.train_chunks, protocol.shuffle) == (10, 32, 2048, False)
    assert protocol.evaluation.every == 64  # each epoch
    assert (protocol.learning_rate, protocol.schedule, protocol.warmup) == (1e-3, "constant", 0.0)
    assert (protocol.weight_decay, protocol.decay, protocol.clip) == (0.05, "everything", None)
    assert (protocol.beta1, protocol.beta2, protocol.precision) == (0.9, 0.999, "fp32")
    assert (protocol.evaluation.train_ppl, protocol.evaluation.train_batches) == ("first_batches", 40)
    assert protocol.divergence == "non_finite"
    assert spec.model.dropout == 0.2
    assert spec.leaky
