"""Two processes that share a training: the curve of one, and an end when one of them dies."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from retsweep.train import checkpoint
from retsweep.train.distributed import ALONE, Group
from retsweep.train.loop import train
from tests.train.loops import lines, valid_loss
from tests.train.tiny import TinyModel, batch_at, protocol
from tests.train.together import SILENT, together

STEPS = 12
EVERYTHING = {"accumulate": 2, "clip": 0.1, "head_tokens": 5, "checkpoint_every": 4}


class WithHidden(TinyModel):
    def hidden(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = x + block(x)
        return self.final_norm(x)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.hidden(tokens))


def one_training(group: Group, folder: Path, changes: dict[str, Any], **arguments: Any) -> list[float]:
    """The weights, in a row. Only the chief has a folder, and the first weights that count."""
    model = WithHidden(seed=group.rank)
    train(
        model,
        arguments.pop("batches", batch_at),
        protocol(every=4, **changes),
        steps=STEPS,
        seed=3,
        folder=folder if group.chief else Path(os.devnull),
        validate=valid_loss,
        group=group,
        **arguments,
    )
    return torch.cat([weights.flatten() for weights in model.state_dict().values()]).tolist()


def dies_at(group: Group, folder: Path, changes: dict[str, Any], step: int) -> list[float]:
    """The second process is killed before it computes ``step``."""

    def batches(index: int, micro: int) -> tuple[Tensor, Tensor]:
        if index == step and not group.chief:
            os.kill(os.getpid(), signal.SIGKILL)
        return batch_at(index, micro)

    return one_training(group, folder, changes, batches=batches)


def stops_at(group: Group, folder: Path, raises: bool) -> list[float]:
    """The chief is asked to stop, or loses its claim, before the sixth step; the others are asked nothing."""
    asked = 0

    def stop() -> bool:
        nonlocal asked
        assert group.chief
        asked += 1
        if raises and asked == 6:
            raise KeyError
        return asked == 6

    return one_training(group, folder, {}, stop=stop)


def curve(folder: Path) -> list[list[float]]:
    return [[line[key] for key in ("step", "loss", "tokens", "learning_rate")] for line in lines(folder)]


def validated(folder: Path) -> dict[int, float]:
    return {line["step"]: line["valid_loss"] for line in lines(folder) if "valid_loss" in line}


@pytest.mark.parametrize("changes", [{"clip": None}, EVERYTHING])
def test_two_processes_have_the_curve_of_one(tmp_path: Path, changes: dict[str, Any]) -> None:
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    for folder in (alone, shared):
        folder.mkdir()
    weights = one_training(ALONE, alone, changes)
    found = together(one_training, shared, changes)
    assert found[0] == found[1], "they go through the same states"
    assert found[0] == pytest.approx(weights, abs=1e-5)
    for ours, theirs in zip(curve(shared), curve(alone), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    assert validated(shared) == pytest.approx(validated(alone), rel=1e-4)
    assert {path.name for path in shared.iterdir()} - set(checkpoint.OLD.values()) == {
        *(checkpoint.LAST, checkpoint.BEST, "metrics.jsonl")
    }


def test_when_a_process_dies_the_others_leave_and_the_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    weights = together(one_training, whole, EVERYTHING)[0]
    assert together(dies_at, broken, EVERYTHING, 6) == ["LostGroup", SILENT]
    assert checkpoint.load(broken / "last.pt")["step"] == 4
    assert together(one_training, broken, EVERYTHING) == [weights, weights]
    assert curve(broken) == curve(whole)


@pytest.mark.parametrize("raises", [False, True])
def test_the_chief_says_when_all_leave(tmp_path: Path, raises: bool) -> None:
    left = together(stops_at, tmp_path, raises)
    assert left == (["KeyError", "LostGroup"] if raises else ["Interrupted", "Interrupted"])
    assert (tmp_path / "last.pt").exists() != raises


def shares(group: Group, _folder: None) -> Any:
    content = {"weights": {"w": torch.arange(6.0).reshape(2, 3).T}, "state": {"step": 3}, "list": [None, 2]}
    got = group.share(content if group.chief else None)
    return [got["weights"]["w"].tolist(), got["state"], got["list"], group.sums([group.rank, 0.5])]


def test_what_the_chief_shares_arrives_whole() -> None:
    expected = [[[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]], {"step": 3}, [None, 2], [1.0, 1.0]]
    assert together(shares, None) == [expected, expected]


def uneven(group: Group, _folder: None) -> int:
    return len(group.part(torch.zeros(3, 2)))


def test_a_batch_that_cannot_be_shared_evenly_is_refused() -> None:
    assert together(uneven, None) == ["ValueError", "ValueError"]
