"""The tokenised cache: what it gives, when it is trusted, and who may use it at once."""

from __future__ import annotations

import errno
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from retsweep.data import prepare as module
from retsweep.data.corpus import files_stamp
from retsweep.data.encoder import END_OF_TEXT
from retsweep.data.folder import TextFolder
from retsweep.data.prepare import TokenisedCorpus, prepare, require_chunk
from retsweep.data.pydocs import PyDocs
from retsweep.data.tokenizers import GPT2_FILES, Bpe, Bytes, Gpt2, TokenizerSpec
from retsweep.spec import SpecError

Maker = Callable[..., Path]


@pytest.fixture(autouse=True)
def _trust_new_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retsweep.data.corpus.RACY_SECONDS", -60.0)


def open_folder(
    folder: Path, cache: Path, tokenizer: TokenizerSpec | None = None, size: int = 300
) -> TokenisedCorpus:
    return prepare(TextFolder(path=str(folder)), tokenizer or Bpe(), size, cache)


def contents(corpus: TokenisedCorpus) -> dict[str, list[int]]:
    return {name: split.tokens.tolist() for name, split in corpus.splits.items()}


def test_what_comes_out(make_folder: Maker, tmp_path: Path) -> None:
    folder = make_folder(name="tales", valid="A tale, é.\nThe end.")
    corpus = open_folder(folder, tmp_path / "cache")
    assert (corpus.name, corpus.tokenizer_name, corpus.vocabulary) == ("text:tales", "bpe", 300)
    assert list(corpus.splits) == ["train", "valid", "test"]
    for name, split in corpus.splits.items():
        text = (folder / f"{name}.txt").read_text(encoding="utf-8")
        assert isinstance(split.tokens, np.memmap)
        assert split.tokens.dtype == np.uint16
        assert corpus.encoder().decode(split.tokens) == text
        assert split.bytes == len(text.encode())
    valid = corpus.splits["valid"]
    assert valid.bytes - valid.target_bytes == len(corpus.encoder().decode(valid.tokens[:1]).encode())
    assert corpus.train_slice.tokens.tolist() == corpus.splits["train"].tokens[: len(valid.tokens)].tolist()


def test_documents_are_parted_by_the_end_of_text(make_folder: Maker, tmp_path: Path) -> None:
    folder = make_folder()
    (folder / "valid.txt").unlink()
    (folder / "valid").mkdir()
    (folder / "valid" / "1.txt").write_text("one")
    (folder / "valid" / "2.txt").write_text("two")
    valid = open_folder(folder, tmp_path / "cache", Bytes(), 257).splits["valid"]
    assert valid.tokens.tolist() == [*b"one", 256, *b"two"]
    assert valid.bytes == 6


def test_hash_is_of_text_and_tokenizer(make_folder: Maker, tmp_path: Path) -> None:
    hashes = [
        open_folder(folder, tmp_path / "cache", tokenizer, size).data_hash
        for folder, tokenizer, size in (
            (make_folder("one"), Bpe(), 300),
            (tmp_path / "one", Bpe(), 301),
            (tmp_path / "one", Bytes(), 300),
            (make_folder("two", test="It ends in another way."), Bpe(), 300),
        )
    ]
    assert len(set(hashes)) == 4
    assert open_folder(make_folder("copy"), tmp_path / "elsewhere").data_hash == hashes[0]
    # the rows of a model do not change the text: bytes are bytes
    assert open_folder(tmp_path / "one", tmp_path / "cache", Bytes(), 257).data_hash == hashes[2]


def test_golden_hash(make_folder: Maker, tmp_path: Path) -> None:
    """A later version must find these, or it orphans every study that is finished."""
    folder = make_folder(train="a text to learn from\n" * 3, valid="a text", test="another text")
    assert open_folder(folder, tmp_path / "cache", Bytes(), 257).data_hash == "5416c1bdc308e39d"
    assert open_folder(folder, tmp_path / "cache", Bpe(), 260).data_hash == "e256248c410b6637"


def test_second_opening_reads_no_text(
    make_folder: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, cache = make_folder(), tmp_path / "cache"
    first = open_folder(folder, cache)
    monkeypatch.setattr(module, "documents", None)  # calling it would fail
    again = open_folder(folder, cache)
    assert again.data_hash == first.data_hash
    assert contents(again) == contents(first)


def test_default_corpus_opens_in_a_moment(pydocs_cache: Path) -> None:
    best = min(_seconds(lambda: prepare(PyDocs(), Bpe(), 512, pydocs_cache)) for _ in range(5))
    assert best < 0.25, "measured at 0.02 s; building it takes several"


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def test_changed_text_is_noticed(make_folder: Maker, tmp_path: Path) -> None:
    folder, cache = make_folder(), tmp_path / "cache"
    first = open_folder(folder, cache)
    (folder / "valid.txt").write_text("Now it is another text.")
    again = open_folder(folder, cache)
    assert again.data_hash != first.data_hash
    assert again.encoder().decode(again.splits["valid"].tokens) == "Now it is another text."


def test_sources_without_a_stamp_are_read_but_not_tokenised_again(
    make_folder: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, cache = make_folder(), tmp_path / "cache"
    monkeypatch.setattr("retsweep.data.corpus.RACY_SECONDS", 3600.0)
    first = open_folder(folder, cache)
    assert not (cache / "stamps").exists()
    monkeypatch.setattr(module, "write_folder", None)  # calling it would fail
    assert contents(open_folder(folder, cache)) == contents(first)


def _truncate(folder: Path) -> None:
    (folder / "train.bin").write_bytes((folder / "train.bin").read_bytes()[:-2])


def _flip(folder: Path) -> None:
    data = bytearray((folder / "valid.bin").read_bytes())
    data[len(data) // 2] ^= 4
    (folder / "valid.bin").write_bytes(data)


def _other_meta(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "vocabulary": 5}))


def _list_meta(folder: Path) -> None:
    (folder / "meta.json").write_text("[]")


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize("damage", [_truncate, _flip, _other_meta, _list_meta, _no_tokenizer])
def test_damage_is_told_and_repaired(
    damage: Callable[[Path], None], make_folder: Maker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, cache = make_folder(), tmp_path / "cache"
    first = open_folder(folder, cache)
    expected = contents(first)
    damage(first.folder)
    with caplog.at_level(logging.WARNING):
        again = open_folder(folder, cache)
    assert len(caplog.messages) == 1
    assert "is damaged" in caplog.messages[0]
    assert (again.data_hash, contents(again)) == (first.data_hash, expected)
    caplog.clear()
    assert contents(open_folder(folder, cache)) == expected
    assert caplog.messages == []


def test_damaged_stamp_costs_a_reading(make_folder: Maker, tmp_path: Path) -> None:
    folder, cache = make_folder(), tmp_path / "cache"
    first = open_folder(folder, cache)
    for stamp in (cache / "stamps").iterdir():
        stamp.write_text('{"key"')
    assert open_folder(folder, cache).data_hash == first.data_hash


PREPARE = """
import sys, time
from pathlib import Path
from retsweep.data import prepare as module
from retsweep.data.folder import TextFolder
from retsweep.data.tokenizers import Bpe
write = module.write_folder
def slowly(*arguments):
    print("built")
    time.sleep(0.5)
    write(*arguments)
module.write_folder = slowly
print("ready", flush=True)
sys.stdin.readline()
corpus = module.prepare(TextFolder(path=sys.argv[1]), Bpe(), 300, Path(sys.argv[2]))
print(corpus.data_hash, [int(s.tokens.astype("int64").sum()) for s in corpus.splits.values()])
"""


def test_three_processes_prepare_it_once(make_folder: Maker, tmp_path: Path) -> None:
    folder, cache = make_folder(), tmp_path / "cache"
    command = [sys.executable, "-c", PREPARE, str(folder), str(cache)]
    pipe = subprocess.PIPE
    workers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(3)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    answers = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], answers
    assert [errors for _, errors in answers] == ["", "", ""]
    lines = [line for output, _ in answers for line in output.splitlines()]
    assert lines.count("built") == 1
    assert len(set(lines) - {"built"}) == 1
    assert not [path for path in (cache / "tokenised").iterdir() if path.name.startswith(".")]


def test_two_spellings_of_a_folder_are_built_once(make_folder: Maker, tmp_path: Path) -> None:
    """They are two requests, whose locks differ, for one key."""
    folder, cache = make_folder(), tmp_path / "cache"
    command = [sys.executable, "-c", PREPARE]
    paths = [folder, folder.parent / "." / ".." / folder.parent.name / folder.name]
    pipe = subprocess.PIPE
    workers = [
        subprocess.Popen([*command, str(path), str(cache)], stdin=pipe, stdout=pipe, text=True)
        for path in paths
    ]
    answers = [worker.communicate("go\n", timeout=120)[0].splitlines() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert [line for lines in answers for line in lines].count("built") == 1
    assert answers[0][-1] == answers[1][-1]
    assert len(list((cache / "locks").iterdir())) == 3


def test_what_a_killed_builder_left_is_removed(make_folder: Maker, tmp_path: Path) -> None:
    folder, cache = make_folder(), tmp_path / "cache"
    first = open_folder(folder, cache)
    left = first.folder.with_name(f".{first.folder.name}.ab12")
    left.mkdir()
    _flip(first.folder)
    open_folder(folder, cache)
    assert [path.name for path in first.folder.parent.iterdir()] == [first.folder.name]


def test_corpus_shorter_than_a_chunk(make_folder: Maker, tmp_path: Path) -> None:
    corpus = open_folder(make_folder(test="four"), tmp_path / "cache", Bytes(), 257)
    require_chunk(corpus, 3)
    with pytest.raises(SpecError, match=r"its test split has 4 tokens, scale\.context=4 needs 5"):
        require_chunk(corpus, 4)


def test_cache_that_is_no_folder(make_folder: Maker, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(SpecError, match=r"cache=.* cannot be used: .*give another folder with cache=FOLDER"):
        open_folder(make_folder(), tmp_path / "cache")


def test_a_disk_that_is_full_for_temporary_files_is_not_the_cache(
    make_folder: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(datasets, "load_dataset", full)
    with pytest.raises(SpecError, match=r"No space left on device; TMPDIR=FOLDER gives another") as told:
        open_folder(make_folder(), tmp_path / "cache")
    assert "cache=" not in str(told.value)
    assert "\n" not in str(told.value)


def test_files_that_cannot_be_read_are_named(
    make_folder: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SpecError, match=r"gone\.txt cannot be read: No such file or directory$"):
        files_stamp([tmp_path / "gone.txt"])
    folder = make_folder()
    for file in GPT2_FILES:
        (folder / file).write_text("{}")

    def refuse(self: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(SpecError, match=r"vocab\.json cannot be read: Permission denied$"):
        Gpt2(path=str(folder)).stamp()


def test_vocabulary_is_checked_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"scale\.vocabulary=100"):
        prepare(TextFolder(path="/nowhere"), Bytes(), 100, tmp_path)


def test_end_of_text_in_a_text_is_the_token(make_folder: Maker, tmp_path: Path) -> None:
    valid = open_folder(make_folder(valid=f"a{END_OF_TEXT}b"), tmp_path / "cache", Bytes(), 257).splits[
        "valid"
    ]
    assert valid.tokens.tolist() == [97, 256, 98]


@pytest.mark.parametrize("tokenizer", [Bpe(), Bytes()])
@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("a twenty @-@ year <unk> of it", "tokenised"),
        ("a twenty @-@ year rest of it", "raw"),  # as in WikiText's raw release
        ("a twenty-year <unk> of it", "raw"),
    ],
)
def test_a_text_tokenised_into_words_is_told_from_a_raw_one(
    make_folder: Maker, tmp_path: Path, tokenizer: TokenizerSpec, text: str, form: str
) -> None:
    opened = open_folder(make_folder(train=text), tmp_path / "cache", tokenizer, 260)
    assert opened.text_form == form
