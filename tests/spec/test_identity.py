"""Hashes: what changes a number changes them, nothing else does, and they never change by release."""

from __future__ import annotations

import pytest

from retsweep.layers.msr import CHUNKWISE_FROM
from retsweep.spec import load_spec
from retsweep.spec.identity import spec_hash, variant_hash

BASE = ["scale=tiny", "layout.attention=2"]

# Golden: a later version that changes one of these orphans every finished study.
GOLDEN = {
    "scale=tiny": "7b64c5ac2c75aaed",
    "layout=type_b layout.attention=10 seed=3": "99a1cd6b5f3dcd73",
    "layout=type_c layout.attention=3 scale=paper task=count": "55d9153110db39e7",
    "protocol=published layout=pattern layout.pattern=RAH": "5013187c16fa7e70",
    # The last two as they were before conf/ changed what these names stand for.
    "layout=type_c layout.attention=3 scale=paper task=count protocol.evaluation.every=0": "1e3dd95fcc62bd6d",
    "protocol=published protocol.batch=32 protocol.learning_rate=1e-3 protocol.train_chunks=2048 "
    "layer.msr.scale_scores=true layout=pattern layout.pattern=RAH": "c75df5726900b82f",
    # From before there was a choice by length: what trains nothing keeps it at any length.
    "scale=paper scale.context=511 protocol.batch=8 task=count": "c07505bc766daf6a",
    "scale=paper scale.context=511 protocol.batch=8 layout=type_c layout.attention=3 task=count": (
        "225bc42579fa8059"
    ),
    # What trains has it below CHUNKWISE_FROM, and in the form that it had by default then.
    "scale=paper scale.context=255 protocol.batch=16": "63ccadc5c8217e31",
    "scale=paper scale.context=511 protocol.batch=8 layer.msr.form=parallel": "0add280a40a53733",
    # In chunks it computes other numbers.
    "scale=paper scale.context=511 protocol.batch=8": "7e9e4f4d86d2d09c",
}


def variant(*overrides: str, data: str = "d") -> str:
    return variant_hash(load_spec([*BASE, *overrides]), data)


@pytest.mark.parametrize(
    "override",
    [
        "study=x",
        "workers=1",
        "tracker=none",
        "limit.minutes=3",
        "device=cpu",
        "protocol.checkpoint_every=7",
        "protocol.name=mine",
        "scale.name=mine",
        "layer.hybrid.form=direct",  # not used by this layout
        "layer.msr.letter=M",
        "seed=3",
        "protocol.clip=1",
        "tokenizer=bytes",  # the data hash speaks for it
        "budget.steps=30",
        "layer.msr.chunk=32",  # of the chunkwise form alone
        "protocol.evaluation.train_batches=7",  # of the published train perplexity alone
    ],
)
def test_what_changes_no_number_changes_no_hash(override: str) -> None:
    assert variant(override) == variant()


@pytest.mark.parametrize(
    "override",
    [
        "layout=type_b",
        "layout.attention=1",
        "layer.msr.decay=log_spaced",
        "layer.msr.form=chunkwise",
        "layer.attention.position=none",
        "scale.ffn=64",
        "model.final_norm=true",
        "protocol=published",
        "protocol.learning_rate=1e-4",
        "protocol.evaluation.train_ppl=whole",
        "protocol.head_tokens=512",  # in the last digits
        "budget.steps=31",
        "task=count",
    ],
)
def test_what_changes_a_number_changes_the_hash(override: str) -> None:
    overrides = [override, "layout.attention=2"] if override.startswith("layout=") else [override]
    assert variant(*overrides) != variant()


LONG = f"scale.context={CHUNKWISE_FROM}"


def test_a_form_chosen_by_length_is_the_form_that_it_chooses() -> None:
    """By name or by length, the same computation; and the parallel form is that of every old study."""
    assert variant("layer.msr.form=parallel") == variant()
    assert variant(LONG) == variant(LONG, "layer.msr.form=chunkwise")
    assert variant(LONG) != variant(LONG, "layer.msr.form=parallel")
    assert variant(LONG, "layer.msr.chunk=32") != variant(LONG)
    hybrid = ("layout=type_c", "layout.attention=1", LONG)
    assert variant(*hybrid) == variant(*hybrid, "layer.msr.form=chunkwise")
    assert variant(*hybrid) != variant(*hybrid, "layer.msr.form=parallel")


@pytest.mark.parametrize("task", ["count", "decode_bench"])
def test_where_nothing_trains_nothing_is_chosen_by_length(task: str) -> None:
    asked = (LONG, f"task={task}")
    assert variant(*asked) == variant(*asked, "layer.msr.form=parallel")
    assert variant(*asked) == variant(*asked, "layer.msr.chunk=32")
    assert variant(*asked) != variant(*asked, "layer.msr.form=chunkwise")


def test_what_is_checked_before_training_is_the_form_that_trains() -> None:
    asked = (LONG, "task=preflight")
    assert variant(*asked) == variant(*asked, "layer.msr.form=chunkwise")
    assert variant(*asked) != variant(*asked, "layer.msr.form=parallel")


def test_data_and_seed() -> None:
    spec = load_spec(BASE)
    assert variant_hash(spec, "d") != variant_hash(spec, "e")
    assert variant_hash(spec.with_seed(1), "d") == variant_hash(spec, "d")
    assert spec_hash(spec.with_seed(1), "d") != spec_hash(spec, "d")


@pytest.mark.parametrize("overrides", GOLDEN)
def test_golden_hashes(overrides: str) -> None:
    assert spec_hash(load_spec(overrides.split()), "golden") == GOLDEN[overrides]
