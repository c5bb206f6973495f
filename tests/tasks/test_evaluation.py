"""The columns that are about other weights, or another mask, than those that training ended with."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from retsweep.data.prepare import TokenisedCorpus, prepare
from retsweep.model import build
from retsweep.spec import RunSpec
from retsweep.tasks.base import InterruptedRun
from retsweep.train import checkpoint
from tests.tasks.test_train import losses_by_hand, mean_perplexity

#: Its rate rises to the last step, far beyond what is good: an early validation is the best one.
DIVERGING = ("protocol.learning_rate=0.3", "protocol.warmup=0.99", "protocol.evaluation.every=5")
RUINED = (*DIVERGING, "protocol.divergence=non_finite")
LEAKY = ("layer.attention.mask=leaky", "protocol.steps=8", "protocol.learning_rate=0.01")


def prepared(spec: RunSpec, cache: Path) -> TokenisedCorpus:
    return prepare(spec.corpus, spec.tokenizer, spec.scale.vocabulary, cache)


def with_weights_of(spec: RunSpec, file: Path) -> torch.nn.Module:
    model = build(spec).eval()
    checkpoint.load_weights(model, file)
    return model


@pytest.mark.parametrize(
    "layout",
    [
        ("layout.attention=2",),
        ("layout=type_c",),
        ("layout=type_c", "layer.hybrid.form=direct"),
        ("layout=type_c", "layout.mixer=attention"),  # attention in both halves
    ],
    ids=" ".join,
)
def test_leaky_weights_are_read_under_a_causal_mask_too(run, spec_of, cache, tmp_path, layout):
    spec = spec_of(*LEAKY, *layout)
    row = run(spec)
    causal = spec_of(*LEAKY, *layout, "layer.attention.mask=causal")
    assert spec.leaky
    assert not causal.leaky
    tokens = prepared(spec, cache).splits["valid"].tokens
    for column, seen in (("valid_ppl", spec), ("valid_ppl_causal_eval", causal)):
        losses = losses_by_hand(with_weights_of(seen, tmp_path / "last.pt"), tokens)
        assert row[column] == pytest.approx(mean_perplexity(losses), rel=1e-5)
    assert row["valid_ppl_causal_eval"] != pytest.approx(row["valid_ppl"], rel=1e-4)
    ratio = math.log(row["valid_ppl_causal_eval"]) / math.log(row["valid_ppl"])
    assert row["valid_bits_per_byte_causal_eval"] == pytest.approx(ratio * row["valid_bits_per_byte"])


def test_a_run_without_a_leak_has_no_such_column(run, spec_of):
    row = run(spec_of("layer.attention.mask=leaky", "layout.attention=0", "protocol.steps=2"))
    assert not [column for column in row if "causal_eval" in column]


def test_weights_chosen_on_validation_are_read_on_test(run, spec_of, cache, tmp_path):
    spec = spec_of(*RUINED)
    row = run(spec)
    assert row["best_step"] < row["steps"] == 30
    tokens = prepared(spec, cache).splits["test"].tokens
    losses = losses_by_hand(with_weights_of(spec, tmp_path / "best.pt"), tokens)
    assert row["best_test_ppl"] == pytest.approx(mean_perplexity(losses), rel=1e-5)
    assert row["best_test_ppl"] < row["test_ppl"] / 2
    assert run(spec)["best_test_ppl"] == row["best_test_ppl"]  # of a run that had ended


def test_they_are_known_after_a_resume_too(run, spec_of, tmp_path):
    spec = spec_of(*RUINED)
    unbroken = run(spec, tmp_path / "unbroken")
    heard = [0]
    with pytest.raises(InterruptedRun, match="step 17 of 30"):
        run(
            spec,
            tmp_path / "broken",
            stop=lambda: heard[-1] == 17,
            progress=lambda done, total: heard.append(done),
        )
    resumed = run(spec, tmp_path / "broken")
    assert resumed["best_step"] < 17
    assert resumed["best_test_ppl"] == unbroken["best_test_ppl"]


def test_a_run_that_diverged_has_those_of_its_best_validation(run, spec_of, cache, tmp_path):
    spec = spec_of(*DIVERGING)
    row = run(spec)
    assert row["status"].startswith("diverged@")
    assert "test_ppl" not in row
    losses = losses_by_hand(
        with_weights_of(spec, tmp_path / "best.pt"), prepared(spec, cache).splits["test"].tokens
    )
    assert row["best_test_ppl"] == pytest.approx(mean_perplexity(losses), rel=1e-5)


@pytest.mark.parametrize("damage", ["gone", "broken", "of another step"])
def test_best_weights_that_are_not_those_validated_are_told(run, spec_of, tmp_path, damage):
    spec = spec_of(*RUINED)
    before = run(spec)
    best = tmp_path / "best.pt"
    if damage == "gone":
        best.unlink()
    elif damage == "broken":
        best.write_bytes(best.read_bytes()[:-200])
    else:
        checkpoint.save(best, {**checkpoint.load(best), "step": 30})
    with pytest.warns(UserWarning, match="no best_test_ppl"):
        row = run(spec)
    assert "best_test_ppl" not in row
    assert row["test_ppl"] == before["test_ppl"]
