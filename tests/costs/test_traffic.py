"""Bytes of a decoding step: against the tensors of a built model, and where retention begins to save."""

import pytest
import torch

from retsweep import costs, model
from tests.costs.specs import loaded, pattern, published
from tests.costs.test_conventions import NAMED

TINY = "scale=tiny"
BATCH, CONTEXT = 3, 7


def tensors(part):
    if isinstance(part, torch.Tensor):
        return [part]
    return [found for inner in part for found in tensors(inner)] if isinstance(part, tuple) else []


def decoded(spec, dtype=torch.float32):
    """The built model, and its states after CONTEXT tokens decoded one by one."""
    built = model.build(spec, dtype=dtype).eval()
    states = built.initial_states(BATCH)
    with torch.no_grad():
        for token in torch.randint(spec.scale.vocabulary, (CONTEXT, BATCH)):
            _, states = built.recurrent(token, states)
    return built, states


def moved(built, states):
    """Bytes of what one step touches: weights, rows of the embedding, caches, and fixed states twice."""
    weights = sum(p.nbytes for name, p in built.named_parameters() if name != "embedding.weight")
    rows = built.embedding.weight[torch.arange(BATCH)].nbytes
    kept = sum((1 if t.shape[2] == CONTEXT else 2) * t.nbytes for t in tensors(tuple(states)))
    return weights + rows + kept


@pytest.mark.parametrize("letters", ["A", "R", "ARNH", "HRRA"])
@pytest.mark.parametrize("switch", ["layer.msr.value_expansion=2", "model.final_norm=true"])
def test_the_closed_form_is_what_a_built_model_and_its_states_hold(letters, switch):
    spec = pattern(letters, TINY, switch)
    assert spec.scale.shape.head_dim != CONTEXT  # else a cache could not be told from a memory
    assert costs.bytes_decode(spec, CONTEXT, BATCH) == moved(*decoded(spec))


def test_a_model_cast_to_bfloat16_moves_half_the_weights_and_half_the_cache():
    spec = pattern("ARNH", TINY)
    built, states = decoded(spec, torch.bfloat16)
    assert costs.bytes_decode(spec, CONTEXT, BATCH, weight_bytes=2, cache_bytes=2) == moved(built, states)


def test_bf16_products_leave_weights_and_states_in_float32():
    full, half = (
        loaded(TINY, "layout.attention=2", f"protocol.precision={name}") for name in ("fp32", "bf16")
    )
    cache = model.state_elements(full, CONTEXT)["cache"]
    difference = costs.bytes_decode(full, CONTEXT, BATCH) - costs.bytes_decode(half, CONTEXT, BATCH)
    assert difference == BATCH * cache * 2


def test_weights_count_once_a_step_and_states_once_a_sequence():
    spec = pattern("AR", TINY)
    one, two, three = (costs.bytes_decode(spec, CONTEXT, batch) for batch in (1, 2, 3))
    state = model.state_elements(spec, CONTEXT)
    assert two - one == three - two == 4 * (spec.scale.d_model + state["cache"] + 2 * state["state"])


# ---- where retention begins to save --------------------------------------------------------------
RETNET, TRANSFORMER = published(NAMED["RetNet"]), published(NAMED["Transformer"])


@pytest.mark.parametrize(
    ("batch", "weight_bytes", "cache_bytes", "context"),
    [
        (1, 2, 2, 576),  # all that can be halved is: d/(2b) + 2d/h
        (64, 2, 2, 198),
        (1, 4, 2, 960),  # float32 weights, as bf16 products leave them: d/b + 2d/h
        (64, 4, 2, 204),
        (1, 4, 4, 480),  # float32: d/(2b) + d/h, at batch 1 where the products cross
        (64, 4, 4, 102),
    ],
)
def test_retention_moves_less_from_about_where_the_formula_says(batch, weight_bytes, cache_bytes, context):
    """Within one per cent, which is what attention's biases and retention's norms weigh."""
    d, heads = 768, 8
    assert context == weight_bytes * d // (2 * cache_bytes * batch) + 4 * d // (cache_bytes * heads)
    found = costs.bytes_crossover(RETNET, TRANSFORMER, batch, weight_bytes, cache_bytes)
    assert found == pytest.approx(context, rel=0.01)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_crossover_is_the_first_context_with_fewer_bytes(batch):
    found = costs.bytes_crossover(RETNET, TRANSFORMER, batch)
    for context, less in ((found - 1, False), (found, True)):
        bytes_of = [costs.bytes_decode(spec, context, batch) for spec in (RETNET, TRANSFORMER)]
        assert (bytes_of[0] < bytes_of[1]) is less


def test_there_is_none_the_other_way_round_and_a_cheaper_model_crosses_at_once():
    assert costs.bytes_crossover(TRANSFORMER, TRANSFORMER, 1) is None
    assert costs.bytes_crossover(pattern("R", TINY), pattern("R", TINY), 1) is None
    assert costs.bytes_crossover(pattern("N", TINY), pattern("A", TINY), 1) == 1
