"""The command: what it refuses, what it measures, and that the peers do equal work."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from benchmarks import contestants, peers, report
from benchmarks.contestants import (
    GROUPS,
    Contestant,
    Unavailable,
    block_parameters,
    halve_matrices,
    parameters,
)
from benchmarks.measure import PRODUCTS, Measure
from benchmarks.options import NotMeasured
from benchmarks.report import Report
from retsweep.costs import macs_as_trained, macs_train_forward
from retsweep.layers.precision import casting
from retsweep.model import build
from retsweep.spec import load_spec
from retsweep.spec.run import RunSpec
from retsweep.train.utilisation import SIZE

SPEC = load_spec(["scale=tiny", "layout.attention=0"])
TINY = ["--scale=tiny", "--rounds=1", "--context=9", "--tokens=2", "--batch=2"]
NOBODY: dict[str, tuple[str, ...]] = {"cpu": (), "cuda": ()}
PEERS = [one for group in GROUPS.values() for one in group[1:]]


def twin(name: str, **changes: Any) -> Contestant:
    """A peer that needs nothing installed: our own model under another name."""
    return dataclasses.replace(GROUPS["retention"][0], name=name, **changes)


@pytest.fixture
def twins(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = {group: (members[0], twin(f"twin of {members[0].name}")) for group, members in GROUPS.items()}
    monkeypatch.setattr(contestants, "GROUPS", groups)
    monkeypatch.setattr("benchmarks.report.GROUPS", groups)
    monkeypatch.setattr(contestants, "REQUIRED", NOBODY)
    monkeypatch.setattr("benchmarks.measure.REQUIRED", NOBODY)


# ---- what is refused -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("--device=tpu", "accepted: cpu, cuda, cuda:N"),
        ("--device=cuda:x", "accepted: cpu, cuda, cuda:N"),
        ("--precision=tf32", "accepted on a CPU: fp32, bf16"),
        ("--what=train,run", "accepted: train, decode"),
        ("--rounds=0", "accepted: 1 or more"),
        ("--head-tokens=-1", "--head-tokens=-1 is not accepted"),
        ("--context=1", "accepted: 2 or more"),
        ("--scale=huge", "unknown scale 'huge'; known:"),
    ],
)
def test_bad_input_is_one_line(
    argument: str, complaint: str, twins: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert peers.main([argument]) == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1


def test_without_the_extra_one_line_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, peer, _ = GROUPS["attention"]
    absent = dataclasses.replace(peer, modules=("a_module_that_nobody_has",))
    monkeypatch.setattr(contestants, "GROUPS", {"attention": (ours, absent)})
    assert peers.main(TINY) == 2
    said = capsys.readouterr().err
    assert "pip install -c constraints.txt -e '.[peers]'" in said
    assert said.count("\n") == 1


def test_kernels_of_a_gpu_say_so_on_a_cpu() -> None:
    (fla,) = (one for one in PEERS if one.name == "flash-linear-attention")
    with pytest.raises(Unavailable, match="kernels for cuda alone, and this is cpu"):
        fla.check("cpu")


def test_a_gpu_that_is_not_among_those_there(
    twins: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert peers.main(["--device=cuda:2"]) == 2
    assert "accepted: cuda:0 to cuda:1" in capsys.readouterr().err


def test_on_a_gpu_the_kernels_of_a_gpu_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(self: Contestant, kind: str) -> None:
        if self.name == "flash-linear-attention":
            raise Unavailable("no flash-linear-attention")

    monkeypatch.setattr(Contestant, "check", check)
    assert "flash-linear-attention" in peers.present("cpu")[1]
    with pytest.raises(NotMeasured, match="no flash-linear-attention"):
        peers.present("cuda")


def test_a_gpu_that_is_not_there(twins: None, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU, so that none can be missed")
    assert peers.main(["--device=cuda"]) == 2
    assert "sees no GPU" in capsys.readouterr().err


# ---- what is measured ------------------------------------------------------------------------
def test_every_contestant_has_a_version_or_none() -> None:
    for group in GROUPS.values():
        assert group[0].version == ""
        assert all(isinstance(peer.version, str) for peer in group[1:])


def test_the_last_line_names_every_ratio(twins: None, capsys: pytest.CaptureFixture[str]) -> None:
    status = peers.main(TINY)
    last = capsys.readouterr().out.splitlines()[-1]
    for what in ("train", "decode"):
        for ours in ("Transformer", "RetNet"):
            assert f"{what} {ours}/twin of {ours} " in last
    assert "MFU Transformer" in last
    assert status == (1 if "BELOW" in last else 0)


def failing(*given: Any) -> Any:
    raise RuntimeError("no kernel\nfor this device")


@pytest.mark.parametrize("part", ["build", "logits", "decoder"])
def test_a_peer_that_fails_is_left_out_and_named_at_the_end(
    part: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, broken = GROUPS["retention"][0], twin("broken", **{part: failing})
    for module in (contestants, report):
        monkeypatch.setattr(module, "GROUPS", {"retention": (ours, twin("sound"), broken)})
    monkeypatch.setattr(contestants, "REQUIRED", NOBODY)
    assert peers.main(TINY) in (0, 1)
    said = capsys.readouterr()
    last = said.out.splitlines()[-1]
    assert last.endswith("; not measured: broken")
    assert ("train RetNet/broken" in last) is (part == "decoder")
    assert "RuntimeError: no kernel for this device" in said.err
    monkeypatch.setattr("benchmarks.measure.REQUIRED", {"cpu": ("broken",)})
    assert peers.main(TINY) == 2


def test_our_engine_decodes_in_the_precision_that_is_stated(
    twins: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retsweep.decode.engine import Decoder

    seen = []
    step = Decoder.step

    def watched(self: Decoder, tokens: Tensor) -> Tensor:
        seen.append(self.model.head.weight.dtype)
        return step(self, tokens)

    monkeypatch.setattr(Decoder, "step", watched)
    peers.main([*TINY, "--what=decode", "--precision=bf16"])
    assert set(seen) == {torch.bfloat16}


@pytest.mark.parametrize(("targets", "status"), [(0.0, 0), (1e9, 1)])
def test_the_exit_status_follows_the_targets(
    twins: None, monkeypatch: pytest.MonkeyPatch, targets: float, status: int
) -> None:
    for table in ("TRAIN", "UTILISATION"):
        monkeypatch.setattr(f"benchmarks.measure.{table}", {"cpu": targets})
    assert peers.main([*TINY, "--what=train", "--head-tokens=7"]) == status


def test_a_step_that_is_one_matrix_product_uses_all_of_the_device() -> None:
    options = peers.parse([*TINY, "--what=train"])
    measure = Measure(options, SPEC, [GROUPS["retention"][0]], Report(options, {}, 0))
    tokens = 2 * SPEC.scale.context
    work = 3 * 2 * macs_train_forward(SPEC) * 2  # FLOP of two sequences, backward pass included
    rate = 1e9
    products = 2 * SIZE["cpu"] ** 3 * PRODUCTS / rate
    judged = measure._utilisation([work / rate, 2 * work / rate], [products, products], tokens)
    assert judged.value == pytest.approx((1 + 0.5) / 2)
    assert judged.name == "MFU RetNet"


def test_utilisation_counts_the_form_that_is_trained() -> None:
    spec = load_spec(["scale=tiny", "layout.attention=0", "scale.context=1024"])
    options = peers.parse([*TINY, "--what=train"])
    measure = Measure(options, spec, [GROUPS["retention"][0]], Report(options, {}, 0))
    assert macs_as_trained(spec) < macs_train_forward(spec)
    products = 2 * SIZE["cpu"] ** 3 * PRODUCTS
    judged = measure._utilisation([3 * 2 * macs_as_trained(spec)], [products], 1024)
    assert judged.value == pytest.approx(1)


def test_the_bar_ends_full(twins: None, monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[Report] = []
    keep = Report.__init__

    def keeping(self: Report, *given: Any) -> None:
        keep(self, *given)
        reports.append(self)

    monkeypatch.setattr(Report, "__init__", keeping)
    peers.main(TINY)
    (bar,) = reports[0].progress.tasks
    assert bar.completed == bar.total


def test_a_peer_that_does_other_work_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wider(spec: Any, positions: int) -> nn.Module:
        return build(load_spec(["scale=tiny", "layout.attention=0", "scale.ffn=64"]))

    def wider_inside(spec: Any, positions: int) -> nn.Module:
        """More in blocks, less in embedding and head: as many in all."""
        more = load_spec(["scale=tiny", "layout.attention=0", "scale.ffn=64"])
        surplus = parameters(build(more)) - parameters(build(spec))
        model = build(more)
        model.embedding = nn.Embedding(288 - surplus // 32, 32)
        return model

    def shorter(model: nn.Module, tokens: Tensor) -> Tensor:
        return cast(Tensor, model(tokens))[:, -1:]

    for peer, complaint in (
        (twin("wide", build=wider), "parameters and ours"),
        (twin("wide inside", build=wider_inside), "parameters in blocks and ours"),
        (twin("short", logits=shorter), "gave logits of (2, 1, 288)"),
    ):
        monkeypatch.setattr(contestants, "GROUPS", {"retention": (GROUPS["retention"][0], peer)})
        monkeypatch.setattr(contestants, "REQUIRED", NOBODY)
        assert peers.main([*TINY, "--what=train"]) == 2
        said = capsys.readouterr().err
        assert complaint in said
        assert "no equal work" in said


# ---- the peers themselves, where they are installed ------------------------------------------
def place(peer: Contestant) -> str:
    """Where it runs; skips where that, or the peer, is not there."""
    kind = peer.on[0]
    if kind == "cuda" and not torch.cuda.is_available():
        pytest.skip(f"{peer.name} has kernels for a GPU alone, and there is none")
    try:
        peer.check(kind)
    except Unavailable as error:
        pytest.skip(str(error))
    return kind


def equal_spec(peer: Contestant) -> RunSpec:
    return load_spec(["scale=tiny", "layout.attention=4"]) if peer in GROUPS["attention"] else SPEC


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_peer_has_our_size_and_no_dropout(peer: Contestant) -> None:
    device, spec = place(peer), equal_spec(peer)
    model, ours = peer.build(spec, spec.scale.context).to(device).train(), build(spec)
    vocabulary = spec.scale.vocabulary
    assert parameters(model) == pytest.approx(parameters(ours), rel=0.02)
    assert block_parameters(model, vocabulary) == pytest.approx(block_parameters(ours, vocabulary), rel=0.02)
    tokens = torch.randint(vocabulary, (2, 9)).to(device)
    logits = peer.logits(model, tokens)
    assert logits.shape == (2, 9, vocabulary)
    assert torch.equal(logits, peer.logits(model, tokens))  # no dropout: the same twice in train mode


@pytest.mark.parametrize("peer", [one for one in PEERS if one.name != "torchscale"], ids=lambda p: p.name)
def test_a_peer_decodes_what_it_computes_at_once(peer: Contestant) -> None:
    """Not torchscale's: its recurrence begins without a prompt."""
    device = place(peer)
    near = {"rtol": 1e-3, "atol": 1e-4} if device == "cpu" else {"rtol": 1e-2, "atol": 1e-2}  # tf32 in Triton
    model = peer.build(SPEC, 16).to(device).eval()
    tokens = torch.randint(SPEC.scale.vocabulary, (1, 12), generator=torch.Generator().manual_seed(0))
    tokens = tokens.to(device)
    with torch.inference_mode():
        whole = peer.logits(model, tokens)
        step = peer.decoder(model, tokens[:, :9], 12, "fp32")
        for position in range(9, 12):
            torch.testing.assert_close(step(tokens[:, position]), whole[:, position], **near)


def casts(model: nn.Module, step: Callable[[Tensor], Tensor], token: Tensor) -> int:
    """How often one step casts a tensor of the shape of one of the model's matrices."""
    shapes = {tuple(p.shape) for p in model.parameters() if p.ndim == 2}
    shapes |= {shape[::-1] for shape in shapes}
    with torch.profiler.profile(record_shapes=True) as profile:
        step(token)
    return sum(
        event.name == "aten::_to_copy" and tuple(event.input_shapes[0]) in shapes
        for event in profile.events()
    )


@pytest.mark.parametrize("peer", [one for one in PEERS if "cpu" in one.on], ids=lambda p: p.name)
def test_no_peer_casts_its_matrices_for_every_token(peer: Contestant) -> None:
    """In bf16 ours has them cast beforehand: against one that casts anew each token it would win unfairly."""
    place(peer)
    spec, token = equal_spec(peer), torch.zeros(1, dtype=torch.long)
    counts = []
    with torch.inference_mode(), casting("bf16", torch.device("cpu")):
        for prepare in (lambda model: model, halve_matrices):
            model = prepare(peer.build(spec, 16).eval())
            step = peer.decoder(model, token[:, None].expand(1, 9), 16, "bf16")
            step(token)
            counts.append(casts(model, step, token))
    assert counts[1] == 0 < counts[0]
