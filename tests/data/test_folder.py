from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from retsweep.data.corpus import documents
from retsweep.data.folder import TextFolder
from retsweep.spec import SpecError, load_spec

Maker = Callable[..., Path]


def read(folder: Path) -> dict[str, list[str]]:
    return documents(TextFolder(path=str(folder)), folder)


def test_a_document_a_file_with_plain_line_ends(make_folder: Maker) -> None:
    folder = make_folder("[odd] *name?", valid="one\n\ntwo é\n")
    (folder / "test.txt").write_bytes(b"one\r\ntwo\r\n")
    texts = read(folder)
    assert texts["valid"] == ["one\n\ntwo é\n"]
    assert texts["test"] == ["one\ntwo\n"]


def test_a_folder_of_files_a_split(make_folder: Maker) -> None:
    folder = make_folder()
    (folder / "train.txt").unlink()
    (folder / "train").mkdir()
    for name in ("b", "a", "c"):
        (folder / "train" / f"{name}.txt").write_text(f"the text {name}")
    assert read(folder)["train"] == ["the text a", "the text b", "the text c"]


def test_nothing_stays_on_disk_and_nothing_is_printed(
    make_folder: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    read(make_folder())
    assert list(scratch.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_missing_folder_and_file(make_folder: Maker, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"corpus\.path is missing; give corpus\.path=FOLDER, a folder with"):
        load_spec(["corpus=text"])
    with pytest.raises(SpecError, match=r"corpus\.path= is not a folder"):
        TextFolder(path="").stamp()
    with pytest.raises(SpecError, match=r"nowhere is not a folder; accepted: a folder with train\.txt"):
        TextFolder(path=str(tmp_path / "nowhere")).stamp()
    folder = make_folder()
    (folder / "valid.txt").unlink()
    with pytest.raises(SpecError, match=r"has no valid\.txt"):
        TextFolder(path=str(folder)).stamp()


def test_empty_file_is_named(make_folder: Maker) -> None:
    with pytest.raises(SpecError, match=r"test\.txt is empty"):
        read(make_folder(test=" \n"))


def test_undecodable_byte_is_named(make_folder: Maker) -> None:
    folder = make_folder()
    (folder / "valid.txt").write_bytes(b"caf\xc3\xa9 and caf\xe9!")
    with pytest.raises(SpecError, match=r"valid\.txt is not UTF-8: byte 13 is 0xe9") as error:
        read(folder)
    assert "\n" not in str(error.value)


def test_stamp_follows_the_files(make_folder: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder()
    corpus = TextFolder(path=str(folder))
    assert corpus.stamp() is None, "files written just now may change within their time stamp"
    monkeypatch.setattr("retsweep.data.corpus.RACY_SECONDS", -60.0)
    stamp = corpus.stamp()
    assert stamp is not None
    assert corpus.stamp() == stamp
    (folder / "valid.txt").write_text("another text")
    assert corpus.stamp() != stamp
