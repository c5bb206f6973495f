"""What every layer must hold, as functions: test_every_layer.py asks it of each YAML as it stands,
the files here of its options."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from retsweep.layers.initialise import initialise
from retsweep.layers.mixer import Mixer
from retsweep.spec.compose import compose
from retsweep.spec.forms import Chunkwise, Form, Parallel, Recurrent
from retsweep.spec.layer import LayerSpec, Shape
from retsweep.spec.load import construct

SHAPE = Shape(d_model=24, heads=3)
TIME, CHUNK = 11, 4  # the last chunk is shorter
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


@cache
def layer(name: str, *overrides: str) -> LayerSpec:
    """conf/layer/<name>.yaml with ``overrides``, as the command line reads them."""
    tree = OmegaConf.to_container(compose(overrides).layer, resolve=True)
    assert isinstance(tree, dict)
    return construct(LayerSpec, tree[name], f"layer.{name}")


def built(spec: LayerSpec, shape: Shape = SHAPE, dtype: torch.dtype = torch.float32) -> Mixer:
    spec.check(shape)
    mixer = spec.build(shape)
    assert isinstance(mixer, Mixer)
    initialise(mixer, 0, "torch")  # with biases that are not zero
    return mixer.to(dtype)


def inputs(time: int = TIME, dtype: torch.dtype = torch.float32, d_model: int = SHAPE.d_model) -> Tensor:
    stream = torch.Generator().manual_seed(5)
    return torch.randn(2, time, d_model, generator=stream, dtype=torch.float64).to(dtype)


# ---- forms -----------------------------------------------------------------------------------
def by_token(mixer: Mixer, x: Tensor, state: Any = None) -> Tensor:
    """``recurrent`` over the whole of x."""
    state = mixer.initial_state(x.shape[0], dtype=x.dtype) if state is None else state
    outputs = []
    for x_t in x.unbind(1):
        y, state = mixer.recurrent(x_t, state)
        outputs.append(y)
    return torch.stack(outputs, 1)


def in_parts(mixer: Mixer, x: Tensor, chunk: int = CHUNK) -> Tensor:
    """Chunkwise, chunkwise again, then token by token, the state handed on."""
    third = x.shape[1] // 3
    first, state = mixer.chunkwise(x[:, :third], chunk)
    second, state = mixer.chunkwise(x[:, third : 2 * third], chunk, state)
    return torch.cat([first, second, by_token(mixer, x[:, 2 * third :], state)], 1)


def forms(chunk: int = CHUNK) -> dict[str, Callable[[Mixer, Tensor], Tensor]]:
    return {
        "forward": lambda mixer, x: mixer(x),
        "parallel": lambda mixer, x: mixer.parallel(x),
        "chunkwise": lambda mixer, x: mixer.chunkwise(x, chunk)[0],
        "recurrent": by_token,
        "in parts": lambda mixer, x: in_parts(mixer, x, chunk),
    }


def with_gradients(mixer: Mixer, x: Tensor, form: Callable[[Mixer, Tensor], Tensor]) -> list[Tensor]:
    """Output, and the gradients of a fixed projection of it to x and every parameter."""
    x = x.detach().requires_grad_()
    y = form(mixer, x)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    wanted = [x, *mixer.parameters()]
    gradients = torch.autograd.grad((y * weights).sum(), wanted, allow_unused=True)
    return [y, *(torch.zeros_like(a) if g is None else g for a, g in zip(wanted, gradients, strict=True))]


def check_forms(mixer: Mixer, x: Tensor, chunk: int = CHUNK, only: tuple[str, ...] = ()) -> None:
    """Every form equals the naive one, values and gradients, relative to the largest element."""
    wanted = with_gradients(mixer, x, lambda m, x: m.naive(x))
    for name, form in forms(chunk).items():
        if only and name not in only:
            continue
        for index, (got, want) in enumerate(zip(with_gradients(mixer, x, form), wanted, strict=True)):
            error = (got - want).abs().max() / want.abs().max().clamp(min=1e-3)
            assert error < TOLERANCE[x.dtype], f"{name}, tensor {index}: {error:.1e}"


def check_causal(mixer: Mixer, form: Callable[[Mixer, Tensor], Tensor]) -> None:
    """A later token changes no earlier output, to the bit; and does change a later one."""
    x = inputs()
    changed = x.clone()
    changed[:, 7] += 1
    with torch.no_grad():
        before, after = form(mixer, x), form(mixer, changed)
    assert torch.equal(before[:, :7], after[:, :7])
    if list(mixer.parameters()):
        assert not torch.equal(before[:, 7:], after[:, 7:])


# ---- census ----------------------------------------------------------------------------------
class Called(nn.Module):
    """Calls one form as a module's forward, so that a tracer sees paths below ``mixer``."""

    def __init__(self, mixer: Mixer, form: Callable[[Mixer, Tensor], Any]) -> None:
        super().__init__()
        self.mixer, self.form = mixer, form

    def forward(self, x: Tensor) -> Any:
        return self.form(self.mixer, x)


def traced(mixer: Mixer, x: Tensor, form: Callable[[Mixer, Tensor], Any]) -> Counter[str]:
    """MACs by module path on the meta device, children left out of their parents."""
    mixer = mixer.to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        Called(mixer, form)(x.to("meta"))
    total = {path: sum(ops.values()) // 2 for path, ops in counter.get_flop_counts().items()}
    own: Counter[str] = Counter()
    for path, macs in total.items():
        if path.startswith("Called"):
            own[path] += macs
            above = path.rpartition(".")[0]
            while above and above not in total:  # a mixer called by method has no line of its own
                above = above.rpartition(".")[0]
            if above:
                own[above] -= macs
    counted: Counter[str] = Counter()
    for path, macs in own.items():
        counted[path.removeprefix("Called").removeprefix(".mixer").removeprefix(".")] += macs
    return +counted


def census(spec: LayerSpec, shape: Shape, form: Form) -> Counter[str]:
    counted: Counter[str] = Counter()
    for operation in spec.operations(shape, form):
        counted[operation.module] += operation.macs
    return counted


def check_operations(spec: LayerSpec, shape: Shape = SHAPE, incremental: bool = True) -> None:
    """The census against what runs: by path in training, and by projection in the other forms,
    where nested mixers are called by method and their products show under the root."""
    x = inputs(d_model=shape.d_model)[:1]
    assert census(spec, shape, spec.training_form(TIME)) == traced(built(spec, shape), x, lambda m, x: m(x))
    cases: list[tuple[Form, Tensor, Callable[[Mixer, Tensor], Any]]] = [
        (Parallel(TIME), x, lambda m, x: m.parallel(x))
    ]
    if incremental:
        state = built(spec, shape).chunkwise(x[:, :-1], CHUNK)[1]
        cases += [
            (Chunkwise(TIME, CHUNK), x, lambda m, x: m.chunkwise(x, CHUNK)),
            (Recurrent(TIME), x[:, -1], lambda m, x: m.recurrent(x, to_meta(state))),
        ]
    for form, x_, call in cases:
        got, want = traced(built(spec, shape), x_, call), census(spec, shape, form)
        linears = {
            path for path, module in built(spec, shape).named_modules() if isinstance(module, nn.Linear)
        }
        assert {p: got[p] for p in linears} == {p: want[p] for p in linears}, form
        assert got.total() == want.total(), form


def to_meta(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.to("meta")
    if isinstance(state, tuple):
        parts = [to_meta(part) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    return state


def check_parameters(spec: LayerSpec, shape: Shape = SHAPE) -> None:
    held = {name: tensor.numel() for name, tensor in built(spec, shape).named_parameters()}
    assert spec.parameters(shape) == held


def check_state(spec: LayerSpec, shape: Shape = SHAPE, context: int = 7) -> None:
    """The census's state elements are those that the state holds at ``context``."""
    _, state = built(spec, shape).chunkwise(inputs(context, d_model=shape.d_model)[:1], CHUNK)
    held = sum(tensor.numel() for tensor in tensors(state))
    assert held == sum(spec.state_elements(shape, context).values())


def tensors(part: Any) -> list[Tensor]:
    """Those of a state."""
    if isinstance(part, Tensor):
        return [part]
    return [found for inner in part for found in tensors(inner)] if isinstance(part, tuple) else []
