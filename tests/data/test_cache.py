from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retsweep.data import cache
from retsweep.data.cache import (
    DamagedCacheError,
    read_folder,
    remove_scratch,
    write_atomically,
    write_folder,
)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(*arguments: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(cache.os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    write_folder(folder, {"a.bin": b"first", "b.bin": np.arange(4, dtype=np.uint16)}, {"number": 1})
    assert read_folder(folder)["number"] == 1
    assert (folder / "b.bin").read_bytes() == np.arange(4, dtype=np.uint16).tobytes()
    write_folder(folder, {"a.bin": b"second"}, {"number": 2})
    assert read_folder(folder)["number"] == 2
    assert sorted(file.name for file in folder.iterdir()) == ["a.bin", "meta.json"]
    assert [file.name for file in tmp_path.iterdir()] == ["store"]


def test_every_flipped_byte_of_a_small_folder_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    write_folder(folder, {"a.bin": b"some bytes"}, {"number": 1})
    for file in folder.iterdir():
        sound = file.read_bytes()
        for place in range(len(sound)):
            if sound[place : place + 1].isspace():
                continue  # JSON reads the same with another white space
            file.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
            with pytest.raises(DamagedCacheError):
                read_folder(folder)
        file.write_bytes(sound)
        read_folder(folder)


def test_every_byte_of_a_file_of_many_blocks_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "BLOCK", 8)
    folder = tmp_path / "store"
    content = bytes(range(100))
    write_folder(folder, {"a.bin": content}, {})
    for place in range(100):
        (folder / "a.bin").write_bytes(content[:place] + b"\xff" + content[place + 1 :])
        with pytest.raises(DamagedCacheError, match=r"a\.bin"):
            read_folder(folder)
    (folder / "a.bin").write_bytes(content + b"!")
    with pytest.raises(DamagedCacheError, match=r"a\.bin"):
        read_folder(folder)


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".key.ab12").mkdir()
    (tmp_path / ".key.ab12" / "train.bin").write_bytes(b"half")
    (tmp_path / ".key.cd34").write_bytes(b"half")
    (tmp_path / ".other.ab12").mkdir()
    write_folder(tmp_path / "key", {"a.bin": b"whole"}, {})
    remove_scratch(tmp_path / "key")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.ab12", "key"]
    read_folder(tmp_path / "key")
