"""The built model against the census: operation by operation, module path by module path."""

import dataclasses
import subprocess
import sys
import warnings
from collections import Counter

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from retsweep import costs, model
from retsweep.costs.fvcore_trace import compare, expected, trace, trace_whole
from retsweep.costs.handles import CensusError
from retsweep.layers.msr import CHUNKWISE_FROM
from tests.costs.specs import loaded, pattern

TINY = "scale=tiny"
TWO, THREE = "scale.layers=2", "scale.layers=3"

#: Every layer, layout and switch that changes what is computed.
RUNS = {
    "transformer": ("layout.attention=2", TWO),
    "retnet": ("layout.attention=0", TWO),
    "type_a": ("layout.attention=1",),
    "type_b": ("layout=type_b", "layout.attention=3"),
    "type_c": ("layout=type_c", "layout.attention=1", TWO),
    "type_c_direct": ("layout=type_c", "layout.attention=3", "layer.hybrid.form=direct", TWO),
    "every_letter": ("layout=pattern", "layout.pattern=NHAR"),
    "ffn_only": ("layout=pattern", "layout.pattern=N", TWO),
    "no_position": ("layer.msr.position=none", "layer.attention.position=none", TWO),
    "xpos": ("layer.msr.position=xpos", "layer.attention.position=xpos", TWO),
    "published_defects": ("protocol=published", "layout=pattern", "layout.pattern=ARH", THREE),
    "wide_values": ("layout=pattern", "layout.pattern=RH", "layer.msr.value_expansion=2", TWO),
    "wide_values_direct": ("layout=type_c", "layer.hybrid.form=direct", "layer.msr.value_expansion=2", TWO),
    "normalised_decay": ("layout.attention=0", "layer.msr.normalise_decay=true", TWO),
    "plain_norm": ("layout.attention=0", "layer.msr.norm_affine=false", TWO),
    "log_spaced": ("layout=type_c", "layer.msr.decay=log_spaced", "layer.hybrid.decays=full", TWO),
    "final_norm": ("model.final_norm=true", "model.head_bias=false", TWO),
    "dropout": ("model.dropout=0.2", TWO),
    "chunkwise": ("layout.attention=0", "layer.msr.form=chunkwise", "layer.msr.chunk=8", TWO),
    "chunkwise_whole": ("layout.attention=0", "layer.msr.form=chunkwise", "layer.msr.chunk=31", TWO),
    "chunkwise_hybrid": ("layout=type_c", "layer.msr.form=chunkwise", "layer.msr.chunk=8", TWO),
    "by_length": ("layout=pattern", "layout.pattern=RH", f"scale.context={CHUNKWISE_FROM + 9}", TWO),
    "odd_length": ("scale.context=37", TWO),
    "one_token": ("scale.context=1", "layout=pattern", "layout.pattern=ARH", THREE),
}


@pytest.mark.parametrize("overrides", RUNS.values(), ids=RUNS)
def test_the_trace_is_the_census_plus_fvcores_norms(overrides):
    spec = loaded(TINY, *overrides)
    found = trace(spec)  # raises if any module path differs
    whole = trace_whole(spec)
    compare(expected(spec), whole.by_module())
    assert Counter(found.operations) == Counter(whole.operations)
    census = sum(operation.macs for operation in model.operations(spec))
    assert found.macs == census + costs.macs_normalisation_fvcore(spec)


@pytest.mark.parametrize("overrides", RUNS.values(), ids=RUNS)
def test_torchs_own_counter_agrees_on_every_product(overrides):
    """FLOPs of two independent tracers: half of torch's is the census, module by module."""
    spec = loaded(TINY, *overrides)
    built = model.build(spec, device="meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        built(torch.zeros(1, spec.scale.context, dtype=torch.int64, device="meta"))
    assert counter.get_total_flops() == 2 * sum(operation.macs for operation in model.operations(spec))
    by_path = {path: sum(found.values()) for path, found in counter.get_flop_counts().items()}
    for index in range(spec.scale.layers):
        inside = [op.macs for op in model.operations(spec) if op.module.startswith(f"blocks.{index}.")]
        assert by_path[f"LanguageModel.blocks.{index}"] == 2 * sum(inside)


def test_fvcores_own_handles_agree_where_they_count():
    """Without attention's kernel, which they miss, and einsum, which they round."""
    warnings.simplefilter("ignore")
    from fvcore.nn import FlopCountAnalysis

    spec = loaded(TINY, "layout=pattern", "layout.pattern=ARH")
    tokens = torch.zeros(1, spec.scale.context, dtype=torch.int64, device="meta")
    plain = FlopCountAnalysis(model.build(spec, device="meta").eval(), tokens)
    plain.unsupported_ops_warnings(False).tracer_warnings("none")
    missed = sum(op.macs for op in trace(spec).operations if op.operator == "scaled_dot_product_attention")
    assert missed > 0
    assert plain.total() == trace(spec).macs - missed


def test_paper_scale_numbers():
    retnet, transformer = (loaded("scale=paper", f"layout.attention={k}") for k in (0, 12))
    tokens, d = 127, 768
    # 5 an element for two LayerNorms a layer, 4 for retention's, which has its weights apart
    assert trace(retnet).macs == 11_491_398_912 + 12 * tokens * d * (5 + 5 + 4)
    assert trace(transformer).macs == 10_592_507_136 + 12 * tokens * d * (5 + 5)


def test_a_wrong_census_is_named(monkeypatch):
    spec = loaded(TINY, "layout.attention=0")
    true = model.operations

    def one_off(spec, form=None):
        first, *others = true(spec, form)
        return (dataclasses.replace(first, macs=first.macs + 1), *others)

    monkeypatch.setattr(model, "operations", one_off)
    with pytest.raises(CensusError, match=r"blocks\.0\.mixer\.qkvg: the census says 126,977 .* does 126,976"):
        trace(spec)


def test_an_operation_in_the_wrong_place_is_named():
    census = {"a": Counter(product=3), "b": Counter(product=5)}
    compare(census, {"a": Counter(linear=3), "b": Counter(matmul=5)})
    with pytest.raises(CensusError, match=r"^a: the census says 3"):
        compare(census, {"b": Counter(matmul=8)})
    with pytest.raises(CensusError, match=r"^c: the census says 0"):
        compare(census, {"a": Counter(linear=3), "b": Counter(matmul=5), "c": Counter(mm=1)})
    with pytest.raises(CensusError, match="normalisations"):
        compare({"a": Counter(normalisation=4)}, {"a": Counter(layer_norm=5)})


def test_deep_patterns_are_traced_block_by_block():
    spec = pattern("AARHN", TINY, layers=10)
    assert {
        op.module.split(".")[1] for op in trace(spec).operations if op.module.startswith("blocks")
    } == set(map(str, range(10)))
    assert Counter(trace(spec).operations) == Counter(trace_whole(spec).operations)


def test_tracing_is_silent_lazy_and_survives_strict_warnings():
    program = (
        "import sys, retsweep.costs, retsweep.costs.fvcore_trace as t\n"
        "assert 'fvcore' not in sys.modules\n"
        "from retsweep.spec import load_spec\n"
        "import warnings; warnings.simplefilter('error', DeprecationWarning)\n"
        "print(t.trace(load_spec(['scale=tiny', 'layout=type_c'])).macs > 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert done.stderr == ""
