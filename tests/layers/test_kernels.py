"""``layer.msr.kernel=fla``: where it is refused, what it computes, and the kernels themselves.

The kernels run where flash-linear-attention (extra ``fla``) and a GPU are, or without a GPU under
Triton's interpreter: ``pip install triton``, then ``TRITON_INTERPRET=1 pytest tests/layers/test_kernels.py``.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor

from retsweep.__main__ import EXIT_BAD, main
from retsweep.layers import kernels
from retsweep.layers.decays import decay_matrix
from retsweep.layers.msr import MsrSpec
from retsweep.preflight import preflight
from retsweep.spec import SpecError, load_spec
from retsweep.spec.forms import Chunkwise, Form, Parallel
from retsweep.spec.identity import spec_hash
from retsweep.spec.layer import LayerSpec, Shape
from tests.layers.checks import built, inputs, layer, with_gradients

FLA = "layer.msr.kernel=fla"
OPTIONS: dict[str, dict[str, Any]] = {
    "rotary": {},
    "no positions": {"position": "none"},
    "log spaced": {"decay": "log_spaced"},
    "rows normalised": {"normalise_decay": True},
    "scores not scaled": {"scale_scores": False},
    "wide values": {"value_expansion": 2},
    "chunked": {"form": "chunkwise", "chunk": 16},
}
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def by_definition(q: Tensor, k: Tensor, v: Tensor, log_gamma: Tensor, divisor: float, form: Form) -> Tensor:
    """What ``kernels.retain`` stands for, in plain torch."""
    decay = decay_matrix(log_gamma.double().cpu(), q.shape[2]).to(q)
    return (q @ k.mT * decay / divisor) @ v


# ---- where it is refused ---------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([FLA, "layer.msr.position=xpos"], "has one decay a head"),
        ([FLA, "layer.msr.chunk=48"], "layer.msr.chunk=48 is none of layer.msr.kernel=fla; accepted: powers"),
        ([FLA, "layer.msr.chunk=8"], "powers of two from 16 on"),
        (["layer.msr.kernel=cuda"], "kernel"),
    ],
)
def test_what_the_kernels_cannot_do_is_no_spec(words: list[str], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        load_spec(["layout.attention=0", *words])


def test_it_needs_a_gpu_its_products_and_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    fla = MsrSpec(letter="R", kernel="fla")
    with pytest.raises(SpecError, match=r"^layer\.msr\.kernel=fla runs on a GPU, and this run is on cpu"):
        fla.check_device("cpu", "bf16")
    with pytest.raises(SpecError, match=r"rounds .* accepted: tf32, bf16$"):
        fla.check_device("cuda:1", "fp32")
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    with pytest.raises(SpecError, match=r"\.\[fla\]'; accepted without it: torch$"):
        fla.check_device("cuda", "tf32")
    monkeypatch.setattr(kernels, "find_spec", lambda name: object())
    fla.check_device("cuda", "tf32")
    MsrSpec(letter="R").check_device("cpu", "fp32")


def test_a_hybrid_asks_its_parts() -> None:
    hybrid = layer("hybrid", FLA)
    with pytest.raises(SpecError, match="this run is on cpu"):
        hybrid.check_device("cpu", "bf16")
    hybrid.portable().check_device("cpu", "fp32")


@pytest.mark.parametrize("task", ["train", "train_bench"])
def test_it_is_refused_when_the_sweep_is_planned(tmp_path: Any, capsys: Any, task: str) -> None:
    asked = [f"task={task}", "scale=tiny", FLA, "layout.attention=0", "device=cpu", "tracker=none"]
    assert main([*asked, f"runs={tmp_path}/runs"]) == EXIT_BAD
    assert "runs on a GPU, and this run is on cpu" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


# ---- what it changes -------------------------------------------------------------------------
def test_identities_know_it_where_it_trains_alone() -> None:
    for task, same in (("train", False), ("train_bench", False), ("count", True), ("decode_bench", True)):
        ours, theirs = (
            spec_hash(load_spec([f"task={task}", "layout.attention=0", f"layer.msr.kernel={kernel}"]), "data")
            for kernel in ("torch", "fla")
        )
        assert (ours == theirs) == same, task


def test_preflight_checks_the_layer_without_a_gpu() -> None:
    spec = load_spec(["scale=tiny", "layout=type_c", FLA, "task=preflight"])
    assert preflight(spec)["preflight"] == "ok"


@pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)
def test_training_steps_alone_take_the_kernel(
    option: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Form] = []

    def retain(*words: Any) -> Tensor:
        asked.append(words[-1])
        return by_definition(*words)

    monkeypatch.setattr(kernels, "retain", retain)
    spec = MsrSpec(letter="R", **({"chunk": 16} | option), kernel="fla")
    mixer, x = built(spec, dtype=torch.float64), inputs(40, dtype=torch.float64)
    wanted = with_gradients(mixer, x, lambda m, x: m.naive(x))
    for got, want in zip(with_gradients(mixer.train(), x, lambda m, x: m(x)), wanted, strict=True):
        torch.testing.assert_close(got, want, atol=1e-10, rtol=1e-8)
    assert asked == [Chunkwise(40, 16) if option.get("form") == "chunkwise" else Parallel(40)]
    mixer.eval()(x)
    assert len(asked) == 1


# ---- the kernels themselves ------------------------------------------------------------------
@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where the kernels run here."""
    if find_spec("fla") is None:
        pytest.skip("flash-linear-attention is not installed: pip install -c constraints.txt -e '.[fla]'")
    if torch.cuda.is_available() and not INTERPRETED:
        yield "cuda"
        return
    if find_spec("triton") is None or not INTERPRETED:
        pytest.skip("no GPU; TRITON_INTERPRET=1, with triton installed, runs the kernels without one")
    interpret(monkeypatch)
    yield "cpu"


def interpret(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Triton's interpreter lacks for these kernels: it cannot time configurations, of which the
    first has to do, and its loops count in ints of Python, which have no ``.to``."""
    import fla.ops.common.chunk_h as looping
    import numpy as np
    import triton.language as tl
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.interpreter import TensorHandle

    run = Autotuner.run

    def first(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.configs = self.configs[:1]
        return run(self, *args, **kwargs)

    def counting(*ends: Any) -> Iterator[Any]:
        for index in builtins.range(*map(int, ends)):
            yield tl.core.tensor(TensorHandle(np.array([index], dtype=np.int32), tl.int32), tl.int32)

    monkeypatch.setattr(Autotuner, "run", first)
    monkeypatch.setattr(looping, "range", counting, raising=False)


@pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)
def test_the_kernels_equal_ours(option: dict[str, Any], device: str) -> None:
    """Outputs and gradients, of 70 tokens in chunks of 16, 5 of them whole: on a GPU as near as TF32 is."""
    spec: LayerSpec = MsrSpec(letter="R", **({"chunk": 16} | option), kernel="fla")
    shape = Shape(d_model=48, heads=3)
    mixer = built(spec, shape).to(device).train()
    x = inputs(70, d_model=48).to(device)
    ours = built(spec, shape, torch.float64).to(device)
    wanted = with_gradients(ours, x.double(), lambda m, x: m.parallel(x))
    near = 2e-2 if device == "cuda" else 1e-4
    for index, (got, want) in enumerate(
        zip(with_gradients(mixer, x, lambda m, x: m(x)), wanted, strict=True)
    ):
        error = (got - want).abs().max() / want.abs().max()
        assert error < near, f"tensor {index}: {error:.1e}"
