"""Closed forms against the report's numbers, against each other, and against PROTOCOL's facts."""

import dataclasses
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.published import retformers
from retsweep import costs, model
from retsweep.layers.msr import CHUNKWISE_FROM
from retsweep.spec.forms import Chunkwise, Parallel, Recurrent
from tests.costs.specs import LAYOUTS, all_published, loaded, pattern, published, with_layout

NAMED = {row.architecture: row for row in retformers()}
PAPER = "scale=paper"


@pytest.mark.parametrize("row", retformers(), ids=lambda row: row.architecture)
def test_every_published_value_to_the_unit(row):
    spec = published(row)
    assert spec.layout.architecture(spec.layers, spec.scale.heads) == row.architecture
    assert spec.layout.ar_ratio(spec.layers, spec.scale.heads) == row.ar_ratio
    assert costs.macs_published(spec) == row.macs


def test_the_same_through_the_command_lines_way():
    assert (
        costs.macs_published(loaded(PAPER, "layout=type_b", "layout.attention=8")) == NAMED["Type B 8:4"].macs
    )


def test_full_counts_and_parameters_of_both_ends():
    retnet, transformer = published(NAMED["RetNet"]), published(NAMED["Transformer"])
    assert costs.macs_train_forward(retnet) == 11_491_398_912
    assert costs.macs_train_forward(transformer) == 10_592_507_136
    assert costs.parameters(retnet) == 126_863_953
    assert costs.parameters(transformer) == 119_804_497
    assert costs.macs_train_forward(retnet) / costs.macs_train_forward(transformer) == pytest.approx(
        1.085, abs=5e-4
    )


def test_the_published_switches_cost_the_same():
    plain, defective = loaded(PAPER), loaded(PAPER, "protocol=published")
    assert costs.macs_published(plain) == costs.macs_published(defective)
    assert costs.macs_train_forward(plain) == costs.macs_train_forward(defective)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(lambda: pattern("N"), id="no mixer"),
        pytest.param(lambda: pattern("RRAN"), id="one layer without a mixer"),
        pytest.param(lambda: loaded("layout=type_c", "layer.hybrid.form=direct"), id="direct hybrid"),
    ],
)
def test_none_where_the_report_had_no_such_mixer(spec):
    assert costs.macs_published(spec()) is None


def test_the_count_of_all_31_is_reversed():
    """By the published column RetNet is the cheapest of Types A and B, in full the dearest."""
    rows = [(row, spec) for row, spec in all_published() if row.layout != "type_c"]
    by_published = [row.architecture for row, _ in sorted(rows, key=lambda pair: pair[0].macs)]
    by_full = [
        row.architecture for row, _ in sorted(rows, key=lambda pair: costs.macs_train_forward(pair[1]))
    ]
    assert (by_published[0], by_published[-1]) == ("RetNet", "Transformer")
    assert (by_full[0], by_full[-1]) == ("Transformer", "RetNet")


# ---- break-evens -------------------------------------------------------------------------------
def mixer_macs(letter, form):
    """The mixers of a whole paper-scale network, without FFN and head."""
    return sum(
        operation.macs
        for operation in model.operations(pattern(letter, PAPER), form)
        if operation.group in ("projection", "interaction")
    )


def test_retention_decodes_cheaper_from_a_context_of_480():
    """d/2 + d/h."""
    for context, sign in ((479, 1), (480, 0), (481, -1)):
        retention, attention = (mixer_macs(letter, Recurrent(context)) for letter in "RA")
        assert (retention > attention) - (retention < attention) == sign


def test_chunkwise_retention_trains_cheaper_from_544_tokens():
    """d/2 + B + d/h at B = 64, exactly where a chunk is whole; between, a shorter chunk saves."""
    d, heads, chunk = 768, 8, 64

    def per_token(tokens):
        return mixer_macs("R", Chunkwise(tokens, chunk)) / tokens, mixer_macs(
            "A", Chunkwise(tokens, chunk)
        ) / tokens

    retention, attention = per_token(2048)
    assert retention / attention == pytest.approx(0.58, abs=5e-3)
    assert retention == 12 * (5 * d**2 + 2 * chunk * d + 2 * d**2 // heads)
    assert attention == 12 * (4 * d**2 + 2 * 2048 * d)
    assert d // 2 + chunk + d // heads == 544
    assert per_token(512)[0] > per_token(512)[1]
    assert per_token(576)[0] < per_token(576)[1]
    # at 544 = 8.5 chunks the last one is half as long, so it costs a little less than the formula
    assert per_token(544)[0] == pytest.approx(per_token(544)[1], rel=3e-3)


@pytest.mark.parametrize(("context", "ratio"), [(128, 1.08), (2048, 0.76), (8192, 0.39)])
def test_whole_model_decoding_against_the_transformer(context, ratio):
    retnet, transformer = published(NAMED["RetNet"]), published(NAMED["Transformer"])
    assert costs.macs_decode(retnet, context) / costs.macs_decode(transformer, context) == pytest.approx(
        ratio, abs=6e-3
    )


def test_parallel_retention_never_saves():
    for tokens in (1, 127, 2048, 100_000):
        assert mixer_macs("R", Parallel(tokens)) > mixer_macs("A", Parallel(tokens))


# ---- state -------------------------------------------------------------------------------------
def test_state_bytes_of_both_ends():
    retnet, transformer = published(NAMED["RetNet"]), published(NAMED["Transformer"])
    assert costs.state_bytes(retnet, 128) == costs.state_bytes(retnet, 8192) == 12 * 768 * 96 * 4
    assert costs.state_bytes(transformer, 8192) == 12 * 2 * 8192 * 768 * 4
    assert costs.state_bytes(transformer, 8192, cache_bytes=2) == 12 * 2 * 8192 * 768 * 2


def test_bf16_halves_the_cache_and_leaves_the_state():
    full, half = (loaded("layout.attention=5", f"protocol.precision={name}") for name in ("fp32", "bf16"))
    state = 7 * 64 * 8 * 4
    assert costs.state_bytes(half, 100) - state == (costs.state_bytes(full, 100) - state) // 2


# ---- properties --------------------------------------------------------------------------------
letters = st.text("ARHN", min_size=1, max_size=6)
lengths = st.integers(1, 5000)


def all_costs(spec, n):
    return (
        costs.macs_train_forward(spec),
        costs.macs_train_chunkwise(spec, n, 64),
        costs.macs_decode(spec, n),
        costs.state_bytes(spec, n),
        costs.parameters(spec),
        costs.macs_normalisation_fvcore(spec),
    )


@settings(deadline=None, max_examples=50)
@given(letters, letters, lengths)
def test_costs_add_up_over_layers(first, second, n):
    """What two stacks cost together is what each costs, the shell (embedding and head) once."""
    both, one, other = (pattern(stack, layers=len(stack)) for stack in (first + second, first, second))
    shell = [
        2 * block - twice
        for block, twice in zip(*(all_costs(pattern("N", layers=k), n) for k in (1, 2)), strict=True)
    ]
    sums = [a + b - c for a, b, c in zip(all_costs(one, n), all_costs(other, n), shell, strict=True)]
    assert list(all_costs(both, n)) == sums


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(sorted(LAYOUTS)), st.integers(1, 7), lengths, st.integers(1, 1000))
def test_costs_never_fall_as_the_context_grows(layout, attention, n, more):
    spec = with_layout(LAYOUTS[layout](attention=attention))
    assert costs.macs_decode(spec, n) < costs.macs_decode(spec, n + more)
    assert costs.state_bytes(spec, n) < costs.state_bytes(spec, n + more)
    assert costs.macs_train_chunkwise(spec, n, 64) < costs.macs_train_chunkwise(spec, n + more, 64)


@given(lengths, lengths)
def test_retention_decodes_at_a_constant_cost(n, m):
    spec = pattern("R")
    assert costs.macs_decode(spec, n) == costs.macs_decode(spec, m)
    assert costs.state_bytes(spec, n) == costs.state_bytes(spec, m)


@settings(deadline=None, max_examples=50)
@given(letters, st.integers(1, 200))
def test_one_chunk_is_the_parallel_form_plus_its_state(stack, tokens):
    spec = pattern(stack, layers=len(stack))
    whole = costs.macs_train_chunkwise(spec, tokens, tokens)
    parallel = costs.macs_train_forward(
        dataclasses.replace(spec, scale=dataclasses.replace(spec.scale, context=tokens))
    )
    written = sum(
        op.macs for op in model.operations(spec, Chunkwise(tokens, tokens)) if op.name.startswith("state")
    )
    assert whole == parallel + written


def test_what_is_trained_is_counted_in_the_form_that_its_length_takes():
    spec = pattern("ARH", "scale=tiny")
    assert costs.macs_as_trained(spec) == costs.macs_train_forward(spec)
    assert costs.macs_as_trained(spec, CHUNKWISE_FROM) == costs.macs_train_chunkwise(spec, CHUNKWISE_FROM, 64)


def test_every_cost_is_a_whole_number_and_a_column():
    columns = costs.cost_columns(loaded(), contexts=(7,), chunkwise_tokens=(65,), chunk=64)
    assert set(columns) == {
        "params",
        "macs_published",
        "macs_train_forward",
        "macs_train_chunkwise_65",
        "macs_decode_7",
        "state_bytes_7",
    }
    assert all(type(value) is int for value in columns.values())


def test_closed_forms_of_all_31_take_less_than_a_second():
    specs = [spec for _, spec in all_published()]
    began = time.process_time()
    for spec in specs:
        costs.cost_columns(spec)
    assert time.process_time() - began < 1


def test_a_retnet_costs_the_same_whichever_layout_names_it() -> None:
    for layout in ("type_a", "type_b"):
        spec = loaded(PAPER, f"layout={layout}", "layout.attention=0")
        assert costs.macs_published(spec) == NAMED["RetNet"].macs
