from __future__ import annotations

import os

import pytest
import torch

from retsweep.train import checkpoint
from retsweep.train.atomic import write_atomically
from retsweep.train.checkpoint import BrokenCheckpoint
from tests.train.tiny import TinyModel, same_weights


def content(model: TinyModel) -> dict:
    return {"weights": model.state_dict(), "step": 7}


def test_weights_come_back_as_they_were(tmp_path):
    model, other = TinyModel(seed=1), TinyModel(seed=2)
    checkpoint.save(tmp_path / "last.pt", content(model))
    assert checkpoint.load_weights(other, tmp_path / "last.pt") == 7
    assert same_weights(model, other)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_a_writer_that_dies_leaves_the_old_file(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save(path, content(TinyModel()))
    before = path.read_bytes()

    def die(file):
        file.write(b"half of it")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        write_atomically(path, die)
    assert path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_what_a_killed_training_left_is_removed_and_a_row_that_is_being_written_is_not(tmp_path):
    (tmp_path / ".last.pt.0123.tmp").touch()
    checkpoint.save(tmp_path / "last.pt", content(TinyModel()))

    def write(file):
        file.write(b"row")
        checkpoint.remove_leftovers(tmp_path)

    write_atomically(tmp_path / "row.json", write)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "row.json"]


def test_a_single_flipped_bit_anywhere_in_the_weights_is_found(tmp_path):
    path = tmp_path / "last.pt"
    model = TinyModel()
    checkpoint.save(path, content(model))
    data = bytearray(path.read_bytes())
    needle = model.head.weight.detach().numpy().tobytes()
    data[data.index(needle) + 5] ^= 1
    path.write_bytes(data)
    torch.load(path, weights_only=True)  # torch itself does not notice
    with pytest.raises(BrokenCheckpoint, match="checksum"):
        checkpoint.load(path)


@pytest.mark.parametrize("data", [b"", b"not a zip", None])
def test_what_is_no_checkpoint_is_said_in_one_line(tmp_path, data):
    path = tmp_path / "last.pt"
    checkpoint.save(path, content(TinyModel()))
    path.write_bytes(path.read_bytes()[: os.path.getsize(path) // 2] if data is None else data)  # noqa: PTH202
    with pytest.raises(BrokenCheckpoint) as told:
        checkpoint.load(path)
    assert str(path) in str(told.value)
    assert "\n" not in str(told.value)


def test_another_format_and_another_model_are_refused(tmp_path):
    path = tmp_path / "last.pt"
    torch.save({"format": checkpoint.FORMAT + 1, **content(TinyModel())}, path)
    with pytest.raises(BrokenCheckpoint, match="format"):
        checkpoint.load(path)
    checkpoint.save(path, {"weights": {"head.weight": torch.zeros(2, 2)}, "step": 1})
    model = TinyModel()
    with pytest.raises(BrokenCheckpoint, match="another model"):
        checkpoint.load_weights(model, path)
    assert same_weights(model, TinyModel())


def test_a_missing_file_is_not_a_broken_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path / "last.pt")
