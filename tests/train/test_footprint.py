"""What a step keeps and takes, foretold on shapes alone, against models that run."""

import pytest
import torch

from retsweep import model
from retsweep.layers.precision import casting
from retsweep.train.footprint import BYTES_A_PARAMETER, saved_bytes, saving, step_bytes
from retsweep.train.loss import cross_entropy
from tests.costs.specs import pattern

TINY = "scale=tiny"


def really_saved(spec, tokens, batch):
    built = model.build(spec)
    read = torch.zeros(batch, tokens, dtype=torch.int64)
    with saving(built) as saved:
        with casting(spec.protocol.precision, "cpu"):
            logits = built(read)
        cross_entropy(logits, read)
    return saved.bytes


@pytest.mark.parametrize("letters", ["A", "R", "AARHN"])
@pytest.mark.parametrize("tokens", [31, 300])
def test_shapes_alone_tell_what_a_model_keeps(letters, tokens):
    spec = pattern(letters, TINY, layers=len(letters))
    assert saved_bytes(spec, tokens, 3, "cpu") == really_saved(spec, tokens, 3)


def test_the_same_under_autocast_and_dropout():
    spec = pattern("AR", TINY, "protocol.precision=bf16", "model.dropout=0.1", layers=2)
    assert saved_bytes(spec, 31, 2, "cpu") == really_saved(spec, 31, 2)


def of_form(form):
    spec = pattern("R", TINY, f"layer.msr.form={form}", layers=1)
    return [really_saved(spec, tokens, 1) for tokens in (256, 512, 1024)]


def test_retention_in_chunks_keeps_as_much_again_for_as_many_tokens_again():
    short, middle, long = of_form("chunkwise")
    assert (long - middle) == pytest.approx(2 * (middle - short), rel=0.01)
    assert long == pytest.approx(4 * short, rel=0.05)


def test_parallel_retention_keeps_squares():
    """Scores, their product with the decays and the decays themselves: c T^2 + b T, c at least 4 heads
    of float32."""
    short, middle, long = of_form("parallel")
    square = ((long - middle) / 512 - (middle - short) / 256) / 768
    assert square == pytest.approx(round(square / 16) * 16, rel=0.01)
    assert square >= 4 * 4
    assert long > 8 * short


def test_a_step_adds_parameters_four_times_over_and_room_for_what_comes_and_goes():
    spec = pattern("AR", TINY, layers=2)
    own = BYTES_A_PARAMETER * sum(model.parameters(spec).values())
    kept = really_saved(spec, 31, 2)
    assert own + kept < step_bytes(spec, 31, 2, "cpu") < own + 2 * kept


def test_a_loss_in_chunks_keeps_no_logits():
    whole, chunked = (pattern("AR", TINY, *more, layers=2) for more in ((), ("protocol.head_tokens=8",)))
    tokens, batch = 31, 4
    vocabulary, d = whole.scale.vocabulary, whole.scale.d_model
    log_probabilities = 4 * tokens * batch * vocabulary
    instead = 4 * (tokens * batch * d + 8 * vocabulary)
    less = saved_bytes(whole, tokens, batch, "cpu") - saved_bytes(chunked, tokens, batch, "cpu")
    # The head no longer keeps its input for a backward pass of its own, and the targets are not kept twice.
    assert less == pytest.approx(log_probabilities - instead, abs=4 * tokens * batch * (d + 2))
    assert less > 0
