"""Bytes of a decoding step: against the tensors of a built model, and where retention begins to save."""

import dataclasses

import pytest
import torch

from analysis.crossing import cross
from retsweep import costs, model
from retsweep.decode import Decoder
from tests.costs.specs import pattern, published
from tests.costs.test_conventions import NAMED

TINY = "scale=tiny"
BATCH, CONTEXT = 3, 7


def tensors(part):
    if isinstance(part, torch.Tensor):
        return [part]
    return [found for inner in part for found in tensors(inner)] if isinstance(part, tuple) else []


def decoded(spec):
    """The built model, and its states after CONTEXT tokens decoded one by one."""
    built = model.build(spec).eval()
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


@pytest.mark.parametrize("letters", ["A", "R", "ARNH", "HRRA"])
def test_bf16_halves_matrices_and_cache_and_nothing_else(letters):
    """Against the decoder's own tensors."""
    spec = pattern(letters, TINY, "protocol.precision=bf16", "model.final_norm=true")
    decoder = Decoder(model.build(spec), BATCH, CONTEXT, precision="bf16", stand_in=CONTEXT - 1)
    assert costs.bytes_decode(spec, CONTEXT, BATCH) == moved(decoder.model, decoder.states)


def test_weights_count_once_a_step_and_states_once_a_sequence():
    spec = pattern("AR", TINY)
    one, two, three = (costs.bytes_decode(spec, CONTEXT, batch) for batch in (1, 2, 3))
    state = model.state_elements(spec, CONTEXT)
    assert two - one == three - two == 4 * (spec.scale.d_model + state["cache"] + 2 * state["state"])


# ---- where retention begins to save --------------------------------------------------------------
RETNET, TRANSFORMER = published(NAMED["RetNet"]), published(NAMED["Transformer"])


def crossover(batch, precision="fp32"):
    """Where the table says that RetNet moves less from on."""
    protocol = dataclasses.replace(RETNET.protocol, precision=precision)
    own, other = (
        {n: costs.bytes_decode(dataclasses.replace(spec, protocol=protocol), n, batch) for n in (1, 2, 9)}
        for spec in (RETNET, TRANSFORMER)
    )
    return cross(own, other)[0]


@pytest.mark.parametrize(
    ("batch", "precision", "context"),
    [
        (1, "fp32", 480),  # d/(2b) + d/h, at batch 1 where the products cross
        (64, "fp32", 102),
        (1, "bf16", 576),  # matrices and cache halved, states not: d/(2b) + 2d/h
        (64, "bf16", 198),
    ],
)
def test_retention_moves_less_from_about_where_the_formula_says(batch, precision, context):
    """Within one per cent, which is what attention's biases and retention's norms weigh."""
    d, heads, matrix = 768, 8, {"fp32": 4, "bf16": 2}[precision]
    assert context == d // (2 * batch) + 4 * d // (matrix * heads)
    assert crossover(batch, precision) == pytest.approx(context, rel=0.01)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_before_the_crossover_it_moves_more(batch):
    found = crossover(batch)
    for context, less in ((int(found), False), (int(found) + 1, True)):
        bytes_of = [costs.bytes_decode(spec, context, batch) for spec in (RETNET, TRANSFORMER)]
        assert (bytes_of[0] < bytes_of[1]) is less
