"""Checkpoints that are cut off, flipped or another's: found, named, and gone on from the last good one."""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retsweep.train import checkpoint
from retsweep.train.checkpoint import BrokenCheckpoint
from tests.train.loops import numbers, run, run_to, valid_loss, without_clock
from tests.train.tiny import TinyModel, protocol, same_weights

#: Saves after steps 10, 20, 30 and, when it is stopped there, 35; validates after every fifth step.
ARGUMENTS: dict[str, Any] = {"protocol": protocol(every=5, checkpoint_every=10), "validate": valid_loss}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory):
    """An unbroken run: its outcome, weights and lines."""
    folder = tmp_path_factory.mktemp("whole")
    outcome, model = run(folder, **ARGUMENTS)
    return numbers(outcome), model, without_clock(folder)


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    run_to(35, tmp_path, **ARGUMENTS)
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == [
        *("best.old.pt", "best.pt", "last.old.pt", "last.pt")
    ]
    return tmp_path


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for place in range(0, len(data), 97):  # one may fall between two tensors, where nothing stands
        data[place] ^= 4
    path.unlink()  # and not through a link
    path.write_bytes(data)


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[: len(data) // 2])


def foreign(path: Path) -> None:
    path.unlink()
    torch.save({"format": checkpoint.FORMAT, "weights": {"x": torch.zeros(1)}, "step": 3}, path)


def goes_on(folder: Path, whole: Any) -> list[str]:
    """What is told while the run in ``folder`` ends as an unbroken one does, to the bit."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        outcome, model = run(folder, **ARGUMENTS)
    assert numbers(outcome) == whole[0]
    assert same_weights(model, whole[1])
    assert without_clock(folder) == whole[2]
    _, best = checkpoint.load_best(folder, outcome.best_step, outcome.best_loss)
    assert best["weights"]
    said = [str(warning.message) for warning in told]
    assert all("\n" not in line for line in said)
    return said


@pytest.mark.parametrize("damage", [flip, cut, foreign, Path.unlink])
@pytest.mark.parametrize("names", [["last.pt"], ["best.pt"], ["last.pt", "best.pt"]], ids="+".join)
def test_the_pair_before_is_gone_on_from(
    names: list[str], damage: Callable[[Path], None], stopped: Path, whole: Any
) -> None:
    for name in names:
        damage(stopped / name)
    said = goes_on(stopped, whole)
    if damage is Path.unlink and "last.pt" in names:
        assert said == []  # nothing is broken
    else:
        (line,) = said
        assert line.startswith("training goes on from step 30: ")
        assert names[0] in line


@pytest.mark.parametrize("damage", [flip, cut])
def test_a_run_without_any_good_pair_begins_anew(
    damage: Callable[[Path], None], stopped: Path, whole: Any
) -> None:
    for name in ("last.pt", "last.old.pt"):
        damage(stopped / name)
    (line,) = goes_on(stopped, whole)
    assert line.startswith("training starts from the beginning: ")
    assert "last.pt" in line
    assert "last.old.pt" in line


def test_a_broken_file_never_becomes_the_old_one(stopped: Path, whole: Any) -> None:
    flip(stopped / "last.pt")
    with pytest.warns(UserWarning, match="goes on from step 30"):
        run_to(35, stopped, **ARGUMENTS)
    for name in ("last.pt", "last.old.pt", "best.pt", "best.old.pt"):
        checkpoint.load(stopped / name)
    flip(stopped / "last.pt")
    assert goes_on(stopped, whole)[0].startswith("training goes on from step 30: ")


def test_best_weights_that_are_gone_twice_leave_a_run_that_says_so(stopped: Path, whole: Any) -> None:
    for name in ("best.pt", "best.old.pt"):
        flip(stopped / name)
    with pytest.warns(UserWarning, match=r"from step 35, without the weights of its best step: .*best\.pt"):
        outcome, model = run(stopped, **ARGUMENTS)
    assert numbers(outcome) == whole[0]
    assert same_weights(model, whole[1])


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "another run": lambda content: content["run"].update(seed=4),
    "no run": lambda content: content.pop("run"),
    "no state": lambda content: content.update(state=None),
    "a field less": lambda content: content["state"].pop("tokens"),
    "a text for a number": lambda content: content["state"].update(step="35"),
    "a step beyond the end": lambda content: content["state"].update(step=41),
    "a status of its own": lambda content: content["state"].update(status="fine"),
    "no number": lambda content: content["state"].update(seconds=float("nan")),
    "no weights": lambda content: content.update(weights=None),
    "weights of another kind": lambda content: content["weights"].update(
        {"head.bias": content["weights"]["head.bias"].double()}
    ),
    "no optimiser": lambda content: content.update(optimiser=None),
    "moments of another shape": lambda content: content["optimiser"]["state"][0].update(
        exp_avg=torch.zeros(2)
    ),
    "other options": lambda content: content["optimiser"]["param_groups"][0].update(weight_decay=9.0),
    "moments of nothing": lambda content: content["optimiser"]["state"].update({99: {}}),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_sound_file_that_is_not_this_runs_is_refused(what: str, stopped: Path, whole: Any) -> None:
    content = torch.load(stopped / "last.pt", weights_only=True)
    CHANGES[what](content)
    (stopped / "last.pt").unlink()
    torch.save(content, stopped / "last.pt")
    (line,) = goes_on(stopped, whole)
    assert line.startswith("training goes on from step 30: ")


def test_a_line_of_metrics_that_is_damaged_is_told(stopped: Path) -> None:
    path = stopped / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:3], lines[3].replace("step", "st\0p"), *lines[4:]]))
    with pytest.warns(UserWarning, match=r"metrics\.jsonl is damaged in line 4: its curve lacks"):
        run(stopped, **ARGUMENTS)
    assert [line["step"] for line in without_clock(stopped)] == [1, 2, 3, *range(5, 41)]


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    torch.save({"format": checkpoint.FORMAT, "weights": {}, "step": 0, "x": Evil()}, tmp_path / "last.pt")
    with pytest.raises(BrokenCheckpoint):
        checkpoint.load(tmp_path / "last.pt")
    assert not (tmp_path / "executed").exists()


@functools.cache
def saved() -> bytes:
    file = io.BytesIO()
    model = TinyModel()
    torch.save({"format": checkpoint.FORMAT, "weights": model.state_dict(), "step": 7}, file)
    return file.getvalue()


@settings(max_examples=150)
@given(st.data())
def test_wherever_a_bit_is_flipped_or_the_file_ends(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """The file is refused, or all that it says is what was saved."""
    bytes_ = bytearray(saved())
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, 8 * len(bytes_) - 1))
        bytes_[place // 8] ^= 1 << place % 8
    else:
        del bytes_[data.draw(st.integers(0, len(bytes_) - 1)) :]
    path = tmp_path_factory.getbasetemp() / "flipped.pt"
    path.write_bytes(bytes_)
    try:
        content = checkpoint.load(path)
    except BrokenCheckpoint as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    assert content["step"] == 7
    model = TinyModel(seed=5)
    checkpoint.check_weights(model, content["weights"], path)
    model.load_state_dict(content["weights"])
    assert same_weights(model, TinyModel())
