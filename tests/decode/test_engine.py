"""The decoder gives the logits of a full forward, for whatever conf/layer and conf/layout hold: a new one
is tested unasked."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from retsweep.costs import bytes_decode, state_bytes
from retsweep.decode import Decoder, RoomError, Sampling, continuation, halve
from retsweep.layers import attention, positions
from retsweep.layers.constants import Rows
from retsweep.model import LanguageModel, build, state_elements
from retsweep.spec import RunSpec, SpecError, load_spec
from retsweep.spec.compose import choices
from tests.layers.checks import layer

#: Branches as they are: scaled ones would hide an error behind the embedding.
TINY = ("scale=tiny", "tokenizer=bytes", "model.branches=plain")
BATCH, TIME, ROOM = 3, 29, 33
TOLERANCE = 1e-4

OPTIONS = {
    "xPos": ("layout.pattern=RAHA", "layer.attention.position=xpos", "layer.msr.position=xpos"),
    "no positions": ("layout.pattern=RAHA", "layer.attention.position=none", "layer.msr.position=none"),
    "xPos up both": ("layout.pattern=RAHA", "layer.attention.position=xpos_both_up"),
    "normalised decay": ("layout.pattern=RRHA", "layer.msr.normalise_decay=true"),
    "direct hybrids": ("layout.pattern=HHRA", "layer.hybrid.form=direct", "layer.hybrid.decays=full"),
    "wide values": ("layout.pattern=RHRA", "layer.msr.value_expansion=2", "model.final_norm=true"),
    "trained in chunks": ("layout.pattern=RHRA", "layer.msr.form=chunkwise", "layer.msr.chunk=5"),
}
SPECS = {
    **{f"layout {name}": (f"layout={name}",) for name in choices("layout")},
    **{
        f"layer {name}": ("layout=pattern", f"layout.pattern={layer(name).letter}")
        for name in choices("layer")
    },
    **OPTIONS,
}


def spec_of(*overrides: str) -> RunSpec:
    layout = ["layout=pattern"] if overrides and overrides[0].startswith("layout.pattern") else []
    return load_spec([*TINY, *layout, *overrides])


@pytest.fixture(scope="module", params=SPECS.values(), ids=SPECS)
def spec(request: pytest.FixtureRequest) -> RunSpec:
    return spec_of(*request.param)


@pytest.fixture(scope="module")
def model(spec: RunSpec) -> LanguageModel:
    return build(spec).eval()


@pytest.fixture(scope="module")
def want(model: LanguageModel) -> Tensor:
    """The logits of a forward pass over all tokens."""
    with torch.no_grad():
        return model(tokens())


def tokens(time: int = TIME, batch: int = BATCH) -> Tensor:
    return torch.randint(288, (batch, time), generator=torch.Generator().manual_seed(1))


def close(got: Tensor, want: Tensor) -> None:
    assert got.dtype == torch.float32
    assert float((got - want).abs().max()) < TOLERANCE


# ---- logits ----------------------------------------------------------------------------------
@pytest.mark.parametrize("parts", [(), (1,), (13,), (1, 6), (7, 1, 9), (4, 8, 4), (TIME,)], ids=str)
def test_every_position_has_the_logits_of_a_full_forward(
    model: LanguageModel, want: Tensor, parts: tuple[int, ...]
) -> None:
    """Prompts of uneven lengths behind one another, the rest token by token."""
    decoder, read = Decoder(model, BATCH, ROOM, chunk=4), tokens()
    for part in parts:
        low = decoder.position
        close(decoder.read(read[:, low : low + part]), want[:, low + part - 1])
    for n in range(decoder.position, TIME):
        close(decoder.step(read[:, n]), want[:, n])
    assert decoder.position == TIME


def test_a_prompt_may_come_behind_generated_tokens(model: LanguageModel, want: Tensor) -> None:
    decoder, read = Decoder(model, BATCH, ROOM, chunk=4), tokens()
    for n in range(5):
        close(decoder.step(read[:, n]), want[:, n])
    close(decoder.read(read[:, 5:17]), want[:, 16])
    close(decoder.step(read[:, 17]), want[:, 17])


def test_sequences_of_a_batch_know_nothing_of_one_another(model: LanguageModel) -> None:
    read = tokens()
    together, alone = Decoder(model, BATCH, ROOM), Decoder(model, 1, ROOM)
    together.read(read[:, :9]), alone.read(read[1:2, :9])
    close(together.step(read[:, 9])[1:2], alone.step(read[1:2, 9]))


def test_long_prompts_are_read_in_passes(
    model: LanguageModel, want: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retsweep.decode.engine.PASS", 8 * BATCH)
    monkeypatch.setattr(attention, "QUERIES", 3)
    decoder, read = Decoder(model, BATCH, ROOM, chunk=4), tokens()
    close(decoder.read(read[:, :-1]), want[:, -2])
    close(decoder.step(read[:, -1]), want[:, -1])


def test_the_model_is_read_without_dropout() -> None:
    model, read = build(spec_of("layout=type_c", "model.dropout=0.5")), tokens()
    close(Decoder(model, BATCH, ROOM).read(read), model.eval()(read)[:, -1].detach())


@pytest.mark.parametrize("layout", ["layout=type_a", "layout=type_c"])
def test_products_in_bfloat16(layout: str) -> None:
    model, read = build(spec_of(layout)), tokens()
    decoder = Decoder(model, BATCH, ROOM, precision="bf16")
    logits = [decoder.read(read[:, :9]), *(decoder.step(read[:, n]) for n in range(9, TIME))]
    got, want = torch.stack(logits, 1), model(read)[:, 8:].detach()
    assert got.dtype == torch.float32
    assert 0 < float((got - want).abs().max()) < 0.1


def test_a_step_in_bfloat16_reads_matrices_of_two_bytes_and_casts_none() -> None:
    """Of all weights a step touches just what the census says that it moves, and casts none of them."""
    spec = spec_of("layout.pattern=RHAN", "model.final_norm=true", "protocol.precision=bf16")
    model = build(spec)
    decoder = Decoder(model, 1, ROOM, precision="bf16")
    decoder.step(tokens()[:1, 0])
    weights = {weight.data_ptr(): weight for weight in decoder.model.parameters()}
    with Operations() as second:
        decoder.step(tokens()[:1, 1])
    read = {part.data_ptr() for _, given in second.calls for part in given} & set(weights)
    assert read == set(weights)
    cast = {part.data_ptr() for name, given in second.calls if "_to_copy" in name for part in given}
    assert not cast & set(weights)
    rest = 4 * spec.scale.d_model - decoder.model.embedding.weight.nbytes  # of the embedding a row
    states = 2 * state_bytes(spec, 2) - 2 * state_elements(spec, 2)["cache"]  # caches move once
    assert sum(weight.nbytes for weight in weights.values()) + rest + states == bytes_decode(spec, 2, 1)


def test_a_model_that_is_decoded_in_bfloat16_stays_as_it_was() -> None:
    model = build(spec_of("layout=type_c"))
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    Decoder(model, BATCH, ROOM, precision="bf16").read(tokens())
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert Decoder(halve(model), BATCH, ROOM, precision="bf16").model is model  # no second copy


@pytest.mark.parametrize("kind", ["xpos", "xpos_both_up"])
def test_xpos_keys_are_moved_to_another_origin_before_they_overflow(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(positions, "REACH", 4)
    model, read = build(spec_of("layout.attention=4", f"layer.attention.position={kind}")).eval(), tokens()
    want, decoder = model(read).detach(), Decoder(model, BATCH, ROOM)
    for n in range(7):
        close(decoder.step(read[:, n]), want[:, n])
    close(decoder.read(read[:, 7:19]), want[:, 18])
    for n in range(19, TIME):
        close(decoder.step(read[:, n]), want[:, n])
    origins = {state.origin for state in decoder.states}
    assert all(abs(TIME - origin) <= 4 for origin in origins) or kind == "xpos_both_up"


# ---- room ------------------------------------------------------------------------------------
def test_the_room_is_filled_to_the_last_token_and_not_beyond(model: LanguageModel, want: Tensor) -> None:
    decoder, read = Decoder(model, BATCH, TIME), tokens()
    decoder.read(read[:, :-1])
    with pytest.raises(RoomError, match=r"room for 29 tokens holds 28 and is given 2 more; accepted: 1 more"):
        decoder.read(read[:, :2])
    close(decoder.step(read[:, -1]), want[:, -1])
    for beyond in (lambda: decoder.step(read[:, 0]), lambda: decoder.read(read[:, :1])):
        with pytest.raises(RoomError, match="is given 1 more; accepted: 0 more, or a room of 30"):
            beyond()
    assert decoder.position == TIME


@pytest.mark.parametrize("shape", [(BATCH,), (BATCH, 0), (BATCH + 1, 2), (BATCH, 1, 1)])
def test_prompts_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    decoder = Decoder(build(spec_of()), BATCH, ROOM)
    with pytest.raises(ValueError, match=r"accepted are \(3, 1 or more\)"):
        decoder.read(torch.zeros(shape, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"accepted are \(3,\)"):
        decoder.step(torch.zeros(BATCH, 1, dtype=torch.int64))


@pytest.mark.parametrize("sizes", [{"batch": 0}, {"room": 0}, {"chunk": 0}])
def test_sizes_below_one_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="accepted are 1 and more"):
        Decoder(build(spec_of()), **{"batch": 1, "room": 1, **sizes})


def test_a_leak_has_no_decoder() -> None:
    model = build(spec_of("layout.attention=2", "layer.attention.mask=leaky"))
    with pytest.raises(SpecError, match="reads later tokens and has no recurrent or chunkwise form"):
        Decoder(model, 1, ROOM)


# ---- states ----------------------------------------------------------------------------------
def test_a_full_state_takes_what_the_census_says(spec: RunSpec, model: LanguageModel) -> None:
    assert Decoder(model, BATCH, ROOM).state_bytes() == BATCH * state_bytes(spec, ROOM)
    half = Decoder(model, BATCH, ROOM, precision="bf16")
    assert half.state_bytes() == BATCH * state_bytes(spec, ROOM, cache_bytes=2)


def test_a_step_writes_in_place(model: LanguageModel) -> None:
    decoder = Decoder(model, BATCH, ROOM, stand_in=5)
    before = addresses(decoder)
    decoder.step(tokens()[:, 0])
    decoder.step(tokens()[:, 1])
    assert addresses(decoder) == before


def test_a_stand_in_goes_on_as_the_state_that_it_stands_for(model: LanguageModel) -> None:
    """The same tensors, and the same position: what they hold is arbitrary, and a number."""
    stand_in, real = Decoder(model, BATCH, ROOM, stand_in=7), Decoder(model, BATCH, ROOM)
    real.read(tokens(7))
    assert described(stand_in.states) == described(real.states)
    assert stand_in.position == real.position
    assert stand_in.step(tokens()[:, 0]).isfinite().all()
    with pytest.raises(RoomError):
        Decoder(model, BATCH, ROOM, stand_in=ROOM + 1)


def test_a_step_asks_for_no_table_of_positions(
    model: LanguageModel, want: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that grows with the context would make a step of retention cost what attention's does."""
    decoder = Decoder(model, BATCH, ROOM)
    monkeypatch.setattr(Rows, "__call__", lambda *_: pytest.fail("a table with a row a position"))
    for n in range(4):
        close(decoder.step(tokens()[:, n]), want[:, n])


def test_a_state_of_retention_is_as_large_after_a_million_tokens() -> None:
    model = build(spec_of("layout.attention=0"))
    sizes = {Decoder(model, 1, 1 << 20, stand_in=n).state_bytes() for n in (1, 512, 1 << 20)}
    assert len(sizes) == 1


RETENTIONS = {
    "rotary": (),
    "xPos": ("layer.msr.position=xpos",),
    "normalised": ("layer.msr.normalise_decay=true",),
    "wide": ("layer.msr.value_expansion=2",),
}


@pytest.mark.parametrize("options", RETENTIONS.values(), ids=RETENTIONS)
def test_a_step_of_retention_touches_nothing_that_grows_with_the_position(options: tuple[str, ...]) -> None:
    model = build(spec_of("layout.attention=0", *options))
    assert touched(model, 5) == touched(model, 1 << 17)


def test_a_step_of_attention_touches_more_at_a_later_position() -> None:
    model = build(spec_of("layout.attention=4"))
    assert touched(model, 5) != touched(model, 1 << 10)


class Operations(TorchDispatchMode):
    """Every operation inside: its name, and all tensors that go in and come out."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, list[Tensor]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        given = [part for part in tree_leaves((args, kwargs, out)) if isinstance(part, Tensor)]
        self.calls.append((str(func), given))
        return out


def touched(model: LanguageModel, position: int) -> list[tuple[str, list[tuple[int, ...]]]]:
    """Of one step at ``position``: operations in turn, with the shapes of their tensors."""
    decoder = Decoder(model, 1, position + 2, stand_in=position)
    decoder.step(tokens()[:1, 0])
    with Operations() as step:
        decoder.step(tokens()[:1, 1])
    return [(name, [tuple(part.shape) for part in given]) for name, given in step.calls]


def addresses(decoder: Decoder) -> list[int]:
    return [leaf.data_ptr() for leaf in leaves(decoder.states) if isinstance(leaf, Tensor)]


def described(part: object) -> list[object]:
    """What of a state its cost depends on."""
    return [
        (tuple(leaf.shape), leaf.dtype, leaf.stride()) if isinstance(leaf, Tensor) else leaf
        for leaf in leaves(part)
    ]


def leaves(part: object) -> list[object]:
    return [leaf for inner in part for leaf in leaves(inner)] if isinstance(part, tuple) else [part]


# ---- generation ------------------------------------------------------------------------------
def test_a_continuation_is_what_repeated_forward_passes_choose(model: LanguageModel) -> None:
    prompt = tokens(5)
    decoder = Decoder(model, BATCH, 5 + 8 - 1)  # the last token is chosen and never read
    found = torch.stack(list(continuation(decoder, prompt, 8, Sampling(temperature=0).sampler())), 1)
    read = prompt
    with torch.no_grad():
        for _ in range(8):
            read = torch.cat([read, model(read)[:, -1].argmax(-1)[:, None]], 1)
    assert torch.equal(found, read[:, 5:])
    assert decoder.position == decoder.room
