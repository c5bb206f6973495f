"""The whole model: census, initialisation, forms, blocks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from retsweep import model
from retsweep.spec import load_spec
from retsweep.spec.forms import Chunkwise, Parallel, Recurrent
from retsweep.spec.run import RunSpec
from tests.layers.checks import traced

TINY = ("scale=tiny", "tokenizer=bytes")
LAYOUTS = {
    "A": ("layout=type_a", "layout.attention=1"),
    "B": ("layout=type_b", "layout.attention=1"),
    "C": ("layout=type_c",),
    "C direct, final norm": ("layout=type_c", "layer.hybrid.form=direct", "model.final_norm=true"),
    "with FFN-only blocks, no head bias": ("layout=pattern", "layout.pattern=RNAH", "model.head_bias=false"),
}


def tiny(*overrides: str) -> RunSpec:
    return load_spec([*TINY, *overrides])


@pytest.fixture(scope="module", params=LAYOUTS.values(), ids=LAYOUTS)
def spec(request: pytest.FixtureRequest) -> RunSpec:
    return tiny(*request.param)


def tokens(batch: int = 2, time: int = 13) -> torch.Tensor:
    return torch.randint(0, 288, (batch, time), generator=torch.Generator().manual_seed(0))


# ---- census ----------------------------------------------------------------------------------
def test_census_names_and_sizes_equal_the_built_ones(spec: RunSpec) -> None:
    held = {name: tensor.numel() for name, tensor in model.build(spec, "meta").named_parameters()}
    assert model.parameters(spec) == held


def test_census_operations_equal_what_forward_runs(spec: RunSpec) -> None:
    built = model.build(spec, "meta")
    want: dict[str, int] = {}
    for operation in model.operations(spec):
        want[operation.module] = want.get(operation.module, 0) + operation.macs
    got = traced(built, tokens(1, spec.scale.context), lambda m, x: m(x))  # type: ignore[arg-type]
    assert got == want
    assert set(want) - {""} <= set(dict(built.named_modules()))


@pytest.mark.parametrize(
    ("attention", "parameters", "macs"),
    [(0, 126_863_953, 11_491_398_912), (12, 119_804_497, 10_592_507_136)],
)
def test_published_sizes_and_full_costs(attention: int, parameters: int, macs: int) -> None:
    spec = load_spec(["scale=paper", f"layout.attention={attention}", "tokenizer=bytes"])
    assert sum(model.parameters(spec).values()) == parameters
    assert sum(o.macs for o in model.operations(spec, Parallel(127))) == macs
    assert sum(t.numel() for t in model.build(spec, "meta").parameters()) == parameters


def test_costs_cross_where_the_paper_says() -> None:
    """Decoding: retention and attention cost the same at n = d/2 + d/h = 480; chunks of 64: at
    T = d/2 + B + d/h = 544 a token."""
    retnet, transformer = (
        load_spec(["scale=paper", f"layout.attention={k}", "tokenizer=bytes"]) for k in (0, 12)
    )

    def total(spec: RunSpec, form: Recurrent | Chunkwise) -> int:
        return sum(o.macs for o in model.operations(spec, form))

    assert total(retnet, Recurrent(480)) == total(transformer, Recurrent(480))
    assert total(retnet, Recurrent(481)) < total(transformer, Recurrent(481))
    # B = 32 breaks even at 384 + 32 + 96 = 512, which it divides
    assert total(retnet, Chunkwise(512, 32)) == total(transformer, Chunkwise(512, 32))
    assert total(retnet, Chunkwise(544, 32)) < total(transformer, Chunkwise(544, 32))
    # 544 is not a multiple of 64: the shorter last chunk makes retention a little cheaper still
    assert total(retnet, Chunkwise(576, 64)) < total(transformer, Chunkwise(576, 64))
    assert total(retnet, Chunkwise(512, 64)) > total(transformer, Chunkwise(512, 64))


def test_state_grows_in_attention_alone() -> None:
    spec = tiny("layout=pattern", "layout.pattern=RNAH")
    d, dk = 32, 8
    assert model.state_elements(spec, 10) == {"cache": 2 * 10 * (d + 2 * dk), "state": d * dk + 2 * dk * dk}
    assert model.state_elements(spec, 20)["state"] == model.state_elements(spec, 10)["state"]


# ---- forms -----------------------------------------------------------------------------------
def test_every_form_gives_the_same_logits(spec: RunSpec) -> None:
    built, x = model.build(spec, dtype=torch.float64), tokens()
    with torch.no_grad():
        want = built(x)
        assert want.shape == (2, 13, 288)
        first, states = built.chunkwise(x[:, :6], 4)
        outputs = [first]
        for token in x[:, 6:].unbind(1):
            logits, states = built.recurrent(token, states)
            outputs.append(logits[:, None])
        torch.testing.assert_close(torch.cat(outputs, 1), want, rtol=1e-9, atol=1e-9)
        logits, _ = built.recurrent(x[:, 0], built.initial_states(2))
        torch.testing.assert_close(logits, want[:, 0], rtol=1e-9, atol=1e-9)


def test_later_tokens_change_no_earlier_logit(spec: RunSpec) -> None:
    built, x = model.build(spec), tokens()
    changed = x.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 288
    with torch.no_grad():
        assert torch.equal(built(x)[:, :9], built(changed)[:, :9])
        assert not torch.equal(built(x)[:, 9], built(changed)[:, 9])


def test_the_block_is_the_published_one() -> None:
    """x + mixer(LN x), then + FFN(LN .), GELU; then the head, and no norm before it."""
    built, x = model.build(tiny("layout.attention=4", "model.branches=plain")), tokens()
    y = built.embedding(x)
    for block in built.blocks:
        y = y + block.mixer(block.mixer_norm(y))
        y = y + block.ffn.down(functional.gelu(block.ffn.up(block.ffn_norm(y))))
    torch.testing.assert_close(built(x), built.head(y))
    assert isinstance(built.final_norm, nn.Identity)


def test_dropout_works_in_training_alone() -> None:
    built, x = model.build(tiny("model.dropout=0.5")), tokens()
    assert not torch.equal(built(x), built(x))
    built.eval()
    assert torch.equal(built(x), built(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_other_precisions_train(spec: RunSpec, dtype: torch.dtype) -> None:
    built = model.build(spec, dtype=dtype)
    loss = functional.cross_entropy(built(tokens()).flatten(0, 1).float(), tokens().flatten())
    loss.backward()
    assert all(
        p.dtype == dtype and p.grad is not None and p.grad.isfinite().all() for p in built.parameters()
    )


# ---- initialisation --------------------------------------------------------------------------
def test_neighbouring_ratios_share_all_that_they_have_in_common() -> None:
    """A 5:7 and A 6:6 differ in layer 5 alone: the rest is equal to the bit."""
    small = ("tokenizer=bytes", "layout=type_a")
    five, six = (
        dict(model.build(load_spec([*small, f"layout.attention={k}"])).named_parameters()) for k in (5, 6)
    )
    different = {name for name in five.keys() & six.keys() if not torch.equal(five[name], six[name])}
    assert different == set()
    assert {name.split(".")[1] for name in five.keys() ^ six.keys()} == {"5"}
    assert {
        "embedding.weight",
        "blocks.0.mixer.qkv.weight",
        "blocks.4.ffn.up.weight",
    } <= five.keys() & six.keys()


def test_values_do_not_depend_on_dtype_and_do_on_the_seed(spec: RunSpec) -> None:
    single = model.build(spec).state_dict()
    for name, tensor in model.build(spec, dtype=torch.float64).state_dict().items():
        assert torch.equal(tensor, single[name].double()), name
    for name, tensor in model.build(spec, dtype=torch.bfloat16).state_dict().items():
        assert torch.equal(tensor, single[name].bfloat16()), name
    assert not torch.equal(model.build(spec.with_seed(1)).state_dict()["head.weight"], single["head.weight"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, which few machines have")
def test_values_do_not_depend_on_the_device(spec: RunSpec) -> None:
    for name, tensor in model.build(spec, "cuda").state_dict().items():
        assert torch.equal(tensor.cpu(), model.build(spec).state_dict()[name]), name


def test_meta_models_hold_no_memory() -> None:
    assert all(tensor.is_meta for tensor in model.build(tiny(), "meta").parameters())


def test_a_fresh_model_guesses_evenly(spec: RunSpec) -> None:
    """The first loss is close to log(vocabulary), however deep the model is."""
    built = model.build(spec)
    with torch.no_grad():
        loss = functional.cross_entropy(built(tokens(8)).flatten(0, 1), tokens(8).flatten())
    assert loss == pytest.approx(math.log(288), abs=0.05)


def test_retention_starts_alive_inside_the_model() -> None:
    for options in (
        ["layout.attention=0"],
        ["layout=type_c", "layout.attention=2"],
        ["layout=type_c", "layout.attention=2", "layer.hybrid.form=direct"],
        ["layout=type_c", "layout.attention=6", "layer.hybrid.decays=full"],
    ):
        built = model.build(load_spec(["scale=small", *options]))
        with torch.no_grad():
            spread = built.blocks[5].mixer(torch.randn(8, 63, 64)).std()
        assert 0.3 < spread < 1.5


def test_scaled_branches_are_plain_ones_with_smaller_closing_weights() -> None:
    """The same functions can be reached: the factor could be absorbed into the closing weights."""
    scaled = model.build(tiny("layout.attention=2")).double()
    plain = model.build(tiny("layout.attention=2", "model.branches=plain")).double()
    read = tokens(3)
    assert not torch.allclose(scaled(read), plain(read))
    with torch.no_grad():
        for block in plain.blocks:
            for tensor in (*block.mixer.out.parameters(), *block.ffn.down.parameters()):
                tensor *= 8**-0.5
    torch.testing.assert_close(plain(read), scaled(read))
