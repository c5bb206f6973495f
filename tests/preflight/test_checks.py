"""Every check is shown what it has to find: a mixer that is wrong in one way, beside one that is right."""

from __future__ import annotations

import dataclasses

import pytest

from retsweep.layers.attention import Attention, AttentionSpec
from retsweep.layers.msr import CHUNKWISE_FROM
from retsweep.preflight import PreflightError, preflight
from retsweep.preflight.causality import _time, check_causality, declares_fft, leak
from retsweep.preflight.census import check_census
from retsweep.preflight.forms import check_forms
from retsweep.preflight.learning import check_learning
from retsweep.preflight.shrink import shrunken
from retsweep.spec.forms import Chunkwise, Parallel
from retsweep.spec.layer import Shape
from retsweep.spec.run import RunSpec
from tests.costs.specs import pattern
from tests.preflight.neighbour import Fault, NeighbourSpec

TINY = ("scale=tiny", "tokenizer=bytes")


def network(fault: Fault, letters: str = "AR", **options) -> RunSpec:
    """A tiny network that ends in the mixer with ``fault``."""
    around = pattern(letters, *TINY, layers=len(letters))
    layers = (*around.layers, NeighbourSpec(fault=fault, **options))
    return dataclasses.replace(
        around, layers=layers, scale=dataclasses.replace(around.scale, layers=len(layers))
    )


def complaint(check, spec: RunSpec) -> str:
    with pytest.raises(PreflightError) as error:
        check(spec)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_right_mixer_passes():
    columns = preflight(network("none"))
    assert columns["preflight"] == "ok"
    assert 0 <= columns["preflight_forms_error"] < 1e-12
    assert columns["preflight_seconds"] > 0
    assert not any(name.startswith("leak") for name in columns)


# ---- causality -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fault", "dtype"),
    [("leaks", "float32"), ("leaks across chunks", "float32"), ("leaks in float64", "float64")],
)
def test_a_leak_is_found_and_its_layer_named(fault, dtype):
    said = complaint(preflight, network(fault))
    assert said.startswith(f"causality: expected that no token changes an earlier logit by a bit ({dtype})")
    assert "changes position" in said
    assert "(neighbour alone does so too)" in said


def test_a_declared_fft_may_round_and_no_more():
    spec = shrunken(network("through an fft"))
    check_causality(spec)
    undeclared = complaint(check_causality, with_layer(spec, UndeclaredFft(fault="through an fft")))
    assert "by a bit" in undeclared
    wrapped = complaint(check_causality, shrunken(network("through an fft, wrapped")))
    assert "the rounding of an FFT" in wrapped


class UndeclaredFft(NeighbourSpec):
    fft = False


def test_an_fft_inside_another_layer_is_declared_too():
    hybrid = pattern("H", *TINY, layers=1).layers[0]
    assert not declares_fft(hybrid)
    assert declares_fft(dataclasses.replace(hybrid, mixer=NeighbourSpec(fault="through an fft")))


def test_chunks_of_training_meet_within_what_is_read():
    spec = pattern("R", *TINY, layers=1)
    assert _time(spec) == 41
    (layer,) = spec.layers
    chunked = dataclasses.replace(layer, form="chunkwise", chunk=64)
    assert _time(with_layer(spec, chunked)) == 41, "its context has no second chunk"
    long = dataclasses.replace(spec, scale=dataclasses.replace(spec.scale, context=127))
    assert _time(with_layer(long, chunked)) == 73
    check_causality(shrunken(with_layer(long, chunked)))


def test_what_trains_in_chunks_by_its_length_is_checked_in_chunks():
    spec = pattern("RH", *TINY, f"scale.context={CHUNKWISE_FROM}", layers=2)
    copy = shrunken(spec)
    assert [layer.training_form(17) for layer in copy.layers] == 2 * [Chunkwise(17, 64)]
    assert _time(copy) == 73
    short = shrunken(pattern("RH", *TINY, layers=2))
    assert [layer.training_form(10**6) for layer in short.layers] == 2 * [Parallel(10**6)]


# ---- leaks on purpose ------------------------------------------------------------------------
class ClaimedLeak(AttentionSpec):
    """It says leaky, and builds attention that is not."""

    def build(self, shape: Shape) -> Attention:
        return AttentionSpec(letter=self.letter).build(shape)


def with_layer(spec: RunSpec, layer) -> RunSpec:
    return dataclasses.replace(spec, layers=(*spec.layers[:-1], layer))


def test_a_spec_that_says_leaky_must_leak():
    assert "a leak, because the spec says leaky" in complaint(preflight, network("says leaky"))
    claimed = with_layer(network("none"), ClaimedLeak(letter="A", mask="leaky"))
    assert "a leak, because the spec says leaky" in complaint(preflight, claimed)


def test_a_leak_is_measured():
    """Attention that hardly tells positions apart spreads itself evenly: (T - 1) / 2T lies ahead."""
    spec = pattern("A", *TINY, "protocol=published", layers=1)
    found = leak(shrunken(spec))
    assert found["leak_mass"] == pytest.approx(30 / 62, abs=0.03)
    assert 1e-3 < found["leak_logit_change"] < 10
    assert "leak_mass" not in leak(shrunken(network("leaks and says so"))), "what leaks is no attention"


def test_the_rest_of_a_leaky_network_is_checked_with_the_leak_closed():
    columns = preflight(network("leaks and says so"))
    assert columns["leak_logit_change"] > 0
    assert columns["preflight_forms_error"] < 1e-12
    more = complaint(preflight, network("leaks and says so, and more"))
    assert more.startswith("causality: expected that no token changes an earlier logit")


# ---- forms -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fault", "form"),
    [
        ("forgets a bias", "recurrent"),
        ("forgets the state", "recurrent"),
        ("chunks start anew", "chunkwise in chunks of 1"),
    ],
)
def test_a_form_that_differs_is_found_and_named(fault, form):
    said = complaint(preflight, network(fault))
    assert said.startswith("forms: expected the logits of the parallel form")
    assert f"seen: {form}: " in said
    assert "(neighbour alone does so too)" in said


def test_a_form_that_is_missing_is_found():
    assert "Neighbour.recurrent has none" in complaint(preflight, network("no recurrent form"))


def test_the_form_that_trains_is_compared_with_the_parallel_one():
    """Retention that trains in chunks: forward is another form than parallel, and both are run."""
    spec = pattern("RH", *TINY, "layer.msr.form=chunkwise", "layer.msr.chunk=5", layers=2)
    assert check_forms(shrunken(spec)) < 1e-12


# ---- census ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("census of parameters", "blocks.2.mixer.out.weight of 1,025 elements as the census says"),
        ("unlisted parameter", "blocks.2.mixer.more of no such parameter as the census says"),
        ("census of operations", "the census says 31,745 multiply-accumulates"),
    ],
)
def test_a_census_that_is_off_is_found(fault, words):
    said = complaint(check_census, network(fault))
    assert said.startswith("census: expected ")
    assert words in said
    assert said == complaint(preflight, network(fault)), "nothing else is looked at first"


# ---- learning --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("unused parameter", "none for blocks.2.mixer.more"),
        ("dead parameter", "zeros only for blocks.2.mixer.more"),
        ("broken gradient", "expected finite gradients"),
    ],
)
def test_a_parameter_without_gradient_is_found(fault, words):
    said = complaint(preflight, network(fault))
    assert said.startswith("learning: ")
    assert words in said


def test_a_tensor_behind_one_that_starts_at_zero_gets_its_gradient_after_a_step():
    check_learning(shrunken(network("starts at zero")))


def test_a_step_that_raises_the_loss_is_found():
    said = complaint(preflight, network("reversed gradient"))
    assert said.startswith("learning: expected a step at learning rate 0.001 to lower the loss")
