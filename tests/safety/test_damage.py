"""Databases, rows, plans and caches that are cut off, flipped or another's: named in one line, and made
again from what they came from, or left for the user to look at; never a traceback, never another number."""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.rows import TableError, read_rows
from retsweep.__main__ import main
from retsweep.data import corpus as corpus_module
from retsweep.data.bundled import bundled
from retsweep.data.folder import TextFolder
from retsweep.data.ood import OodText, tokenised
from retsweep.data.prepare import prepare
from retsweep.data.references import reference_perplexities
from retsweep.data.tokenizers import Bytes
from retsweep.spec import SpecError
from retsweep.sweep import command, engine, planfile
from retsweep.sweep.storage import check_reachable
from retsweep.sweep.study import Study
from tests.sweep.test_tune_command import Inline
from tests.tasks.corpora import write_corpus

COUNT = ("task=count", "scale=tiny", "tracker=none", "device=cpu", "study=s", "seeds=2", "task.fvcore=false")


def in_this_process(patch: pytest.MonkeyPatch) -> None:
    """Trials are run at once, and no table is drawn."""
    patch.setattr(command, "Engine", Inline)
    patch.setattr(command, "_table", lambda *_: None)
    patch.setattr(engine, "LOOK_SECONDS", 0.0)


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of counts that has ended (to be copied, not touched)."""
    folder = tmp_path_factory.mktemp("counted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        in_this_process(patch)
        assert main([*COUNT]) == 0
    return folder


@pytest.fixture
def study(counted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(counted / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    in_this_process(monkeypatch)
    return Path("runs/s")


def flipped(data: bytes, draw: st.DataObject) -> bytes:
    """``data`` with one bit the other way round, or cut off."""
    if draw.draw(st.booleans()):
        return data[: draw.draw(st.integers(0, len(data) - 1))]
    bit = draw.draw(st.integers(0, 8 * len(data) - 1))
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@settings(max_examples=60)
@given(data=st.data())
def test_a_row_is_what_was_written_or_is_named(counted: Path, data: st.DataObject) -> None:
    path = sorted(counted.glob("runs/s/trials/*/row.json"))[0]
    good, before = path.read_bytes(), json.loads(path.read_bytes())
    before.pop("check")
    try:
        path.write_bytes(flipped(good, data))
        rows = read_rows(counted / "runs" / "s")
        assert before in rows
    except TableError as error:
        assert str(path) in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
    finally:
        path.write_bytes(good)


@settings(max_examples=60)
@given(data=st.data())
def test_a_plan_is_what_was_written_or_is_named(counted: Path, data: st.DataObject) -> None:
    folder = counted / "runs" / "s"
    path = folder / planfile.NAME
    good, before = path.read_bytes(), planfile.read(folder)
    try:
        path.write_bytes(flipped(good, data))
        assert planfile.read(folder) == before
    except SpecError as error:
        assert str(path) in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
    finally:
        path.write_bytes(good)


def test_a_damaged_row_is_written_again_from_the_storage(study: Path) -> None:
    path = sorted(study.glob("trials/*/row.json"))[0]
    good = path.read_bytes()
    path.write_bytes(good.replace(b'"params": ', b'"params": 1'))
    with pytest.raises(TableError, match="its checksum is of something else"):
        read_rows(study)
    assert main([*COUNT]) == 0
    assert path.read_bytes() == good


# ---- the database ------------------------------------------------------------------------------------
def records(study: Path) -> sqlite3.Connection:
    return sqlite3.connect(study / "study.db", isolation_level=None)


def test_a_row_that_is_damaged_in_the_storage_is_made_again(study: Path) -> None:
    good = {row["spec_hash"]: row for row in read_rows(study)}
    table = "trial_user_attributes"
    with records(study) as connection:
        key, text = connection.execute(
            f"SELECT trial_user_attribute_id, value_json FROM {table} WHERE key = 'row' LIMIT 1"
        ).fetchone()
        changed = text.replace('"params": ', '"params": 1')
        assert changed != text
        connection.execute(
            f"UPDATE {table} SET value_json = ? WHERE trial_user_attribute_id = ?", (changed, key)
        )
    hashes = list(good)
    found = Study(f"sqlite:///{study}/study.db", "s").standing(hashes)
    assert sorted(entry.state for entry in found.values()) == ["complete"] * (len(hashes) - 1) + ["lost"]
    assert main([*COUNT]) == 0
    again = {row["spec_hash"]: row for row in read_rows(study)}
    for key, row in good.items():
        assert {**again[key], "trial_seconds": 0} == {**row, "trial_seconds": 0}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE trial_user_attributes SET value_json = '{\"a\": ' WHERE key = 'row'",
        "UPDATE trials SET state = 'CNMPLETE'",
        "UPDATE trial_user_attributes SET value_json = '5' WHERE key = 'steps' OR key = 'row'",
        "DROP TABLE trial_user_attributes",
    ],
)
def test_records_that_say_nothing_are_one_line(
    change: str, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with records(study) as connection:
        connection.execute(change)
    code = main([*COUNT])
    said = capsys.readouterr().err
    if code == 0:  # rows that are none are made again
        assert len(read_rows(study)) == 2
        return
    assert code in (1, 2)
    assert said.startswith("retsweep: ")
    assert said.count("\n") == 1


@settings(max_examples=25)
@given(data=st.data())
def test_a_database_is_sound_or_is_named(counted: Path, data: st.DataObject, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.getbasetemp() / "flipped-database"
    folder.mkdir(exist_ok=True)
    for left in folder.iterdir():
        left.unlink()
    path = folder / "study.db"
    path.write_bytes(flipped((counted / "runs/s/study.db").read_bytes(), data))
    try:
        check_reachable(f"sqlite:///{path}")
    except SpecError as error:
        assert f"storage {path} cannot be used: " in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "content", [b"this is no database, and never was", b"SQLite format 3\0" + b"\1" * 9000]
)
def test_a_file_that_is_no_database_is_left_alone(
    content: bytes, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for left in study.glob("study.db*"):
        left.unlink()
    (study / "study.db").write_bytes(content)
    assert main([*COUNT]) == 2
    said = capsys.readouterr().err
    assert "study.db cannot be used: " in said
    assert said.count("\n") == 1
    assert (study / "study.db").read_bytes() == content
    (study / "study.db").unlink()
    assert main([*COUNT]) == 0


#: All that a cache holds, each a file.
CACHED = [
    *(f"tokenised/*/{name}" for name in ("train.bin", "valid.bin", "test.bin", "byte_lengths.bin")),
    *(f"tokenised/*/{name}" for name in ("meta.json", "tokenizer.json", "references-*.json")),
    *("texts/*/tokens.bin", "texts/*/meta.json", "stamps/*.json"),
]


# ---- caches --------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> TextFolder:
    return TextFolder(path=str(write_corpus(tmp_path_factory.mktemp("text") / "words", 60)))


@pytest.fixture(scope="module")
def cached(corpus: TextFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache with a corpus, its references and a text (to be copied, or put right again)."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_module, "RACY_SECONDS", -60.0)  # else the texts are too new to be remembered
        read(corpus, cache)
        yield cache


def read(corpus: TextFolder, cache: Path) -> tuple[Any, ...]:
    """All that comes through the cache."""
    found = prepare(corpus, Bytes(), 288, cache)
    text = OodText("x", "x", (), bundled()["licences"][:500])
    return (
        found.data_hash,
        *(split.tokens.tobytes() for split in found.splits.values()),
        reference_perplexities(found, 500, 288),
        tokenised(text, found, cache).tokens.tobytes(),
        found.encoder().size,
    )


@settings(max_examples=20)
@given(data=st.data())
def test_a_cache_gives_what_was_put_there_or_is_made_again(
    corpus: TextFolder, cached: Path, data: st.DataObject, tmp_path_factory: Any
) -> None:
    good = read(corpus, cached)
    (path,) = cached.glob(data.draw(st.sampled_from(CACHED)))
    before = path.read_bytes()
    try:
        path.write_bytes(flipped(before, data))
        assert read(corpus, cached) == good
    finally:
        path.write_bytes(before)


def test_what_is_damaged_is_named_and_mended(
    corpus: TextFolder, cached: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(cached, tmp_path / "cache")
    good = read(corpus, tmp_path / "cache")
    for pattern in ("tokenised/*/train.bin", "tokenised/*/references-*.json", "texts/*/tokens.bin"):
        (path,) = (tmp_path / "cache").glob(pattern)
        path.write_bytes(path.read_bytes()[:-1])
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert read(corpus, tmp_path / "cache") == good
        assert "damaged" in caplog.text, pattern
        caplog.clear()
        assert read(corpus, tmp_path / "cache") == good
        assert caplog.text == ""


def test_another_corpus_under_this_ones_name_is_not_read(
    corpus: TextFolder, cached: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(cached, cache)
    good = read(corpus, cache)
    (own,) = (cache / "tokenised").iterdir()
    other = prepare(TextFolder(path=str(write_corpus(tmp_path / "other", 40))), Bytes(), 288, cache)
    shutil.rmtree(own)
    shutil.copytree(other.folder, own)
    assert read(corpus, cache) == good
