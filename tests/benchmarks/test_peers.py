"""The command: what it refuses, what it measures, and that the peers do equal work."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from benchmarks import contestants, peers
from benchmarks.contestants import GROUPS, Contestant, Unavailable, parameters
from benchmarks.measure import PRODUCTS, Measure
from benchmarks.report import Report
from retsweep.costs import macs_train_forward
from retsweep.model import build
from retsweep.spec import load_spec
from retsweep.train.utilisation import SIZE

SPEC = load_spec(["scale=tiny", "layout.attention=0"])
TINY = ["--scale=tiny", "--rounds=1", "--context=9", "--tokens=2", "--batch=2"]
PEERS = [one for group in GROUPS.values() for one in group[1:]]


def twin(name: str, **changes: Any) -> Contestant:
    """A peer that needs nothing installed: our own model under another name."""
    return dataclasses.replace(GROUPS["retention"][0], name=name, **changes)


@pytest.fixture
def twins(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = {group: (members[0], twin(f"twin of {members[0].name}")) for group, members in GROUPS.items()}
    monkeypatch.setattr(contestants, "GROUPS", groups)
    monkeypatch.setattr("benchmarks.report.GROUPS", groups)
    monkeypatch.setattr(contestants, "REQUIRED", ())


# ---- what is refused -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("--device=tpu", "accepted: cpu, cuda, cuda:N"),
        ("--what=train,run", "accepted: train, decode"),
        ("--rounds=0", "accepted: 1 or more"),
        ("--head-tokens=0", "--head-tokens=0 is not accepted"),
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
    ours, peer = GROUPS["attention"]
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


def test_a_gpu_that_is_not_there(twins: None, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
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

    def shorter(model: nn.Module, tokens: Tensor) -> Tensor:
        return cast(Tensor, model(tokens))[:, -1:]

    for peer, complaint in (
        (twin("wide", build=wider), "parameters and ours"),
        (twin("short", logits=shorter), "gave logits of (2, 1, 288)"),
    ):
        monkeypatch.setattr(contestants, "GROUPS", {"retention": (GROUPS["retention"][0], peer)})
        monkeypatch.setattr(contestants, "REQUIRED", ())
        assert peers.main([*TINY, "--what=train"]) == 2
        said = capsys.readouterr().err
        assert complaint in said
        assert "no equal work" in said


# ---- the peers themselves, where they are installed ------------------------------------------
def installed(peer: Contestant) -> None:
    try:
        peer.check("cpu")
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_peer_has_our_size_and_no_dropout(peer: Contestant) -> None:
    installed(peer)
    model = peer.build(SPEC, SPEC.scale.context).train()
    ours = GROUPS["attention" if peer.name == "GPT-2" else "retention"][0]
    spec = load_spec(["scale=tiny", "layout.attention=4"]) if peer.name == "GPT-2" else SPEC
    assert parameters(model) == pytest.approx(parameters(ours.build(spec, 0)), rel=0.02)
    tokens = torch.randint(SPEC.scale.vocabulary, (2, 9))
    logits = peer.logits(model, tokens)
    assert logits.shape == (2, 9, SPEC.scale.vocabulary)
    assert torch.equal(logits, peer.logits(model, tokens))  # no dropout: the same twice in train mode


@pytest.mark.parametrize("peer", [one for one in PEERS if one.name != "torchscale"], ids=lambda p: p.name)
def test_a_peer_decodes_what_it_computes_at_once(peer: Contestant) -> None:
    """Not torchscale's: its recurrence begins without a prompt."""
    installed(peer)
    model = peer.build(SPEC, 16).eval()
    tokens = torch.randint(SPEC.scale.vocabulary, (1, 12), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = peer.logits(model, tokens)
        step = peer.decoder(model, tokens[:, :9], 12)
        for position in range(9, 12):
            torch.testing.assert_close(step(tokens[:, position]), whole[:, position], rtol=1e-3, atol=1e-4)
