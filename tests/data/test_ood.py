"""Which texts the probe ``ood`` reads, what they are called, and what they are in tokens."""

from __future__ import annotations

import re
from importlib.metadata import requires
from pathlib import Path

import numpy as np
import pytest

from retsweep.data import ood
from retsweep.data.bundled import MOST, PACKAGES, bundled
from retsweep.data.folder import TextFolder
from retsweep.data.ood import content_hash, read, tokenised
from retsweep.data.prepare import TokenisedCorpus, prepare
from retsweep.data.tokenizers import Bytes
from retsweep.spec import SpecError
from retsweep.spec.evaluate import Ood


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(
        tmp_path / "texts", {"PG Alice.txt": "Alice", "pg_time.txt": "the machine", "state.txt": "a union"}
    )


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def named(path: Path, **domains: object) -> dict[str, tuple[str, ...]]:
    return {text.name: text.domains for text in read(Ood(path=str(path), domains=domains or None))}


def corpus(tmp_path: Path) -> TokenisedCorpus:
    """Any one in bytes."""
    written(tmp_path / "corpus", {f"{split}.txt": "some words" for split in ("train", "valid", "test")})
    return prepare(TextFolder(path=str(tmp_path / "corpus")), Bytes(), 257, tmp_path / "cache")


def test_files_are_named_for_columns_in_order(folder: Path) -> None:
    assert named(folder) == {"pg_alice": (), "pg_time": (), "state": ()}


def test_subfolders_are_domains(folder: Path) -> None:
    written(folder, {"talk/one.txt": "x y", "talk/deep/two.txt": "x y", "law/act.txt": "x y"})
    found = named(folder)
    assert (found["one"], found["two"], found["act"], found["state"]) == (("talk",), ("talk",), ("law",), ())


def test_globs_are_domains_that_may_overlap(folder: Path) -> None:
    written(folder, {"talk/one.txt": "x y"})
    found = named(folder, books=["pg_*.txt", "PG*"], short="PG*.txt", talk=["talk/*"])
    assert found == {"pg_alice": ("books", "short"), "one": ("talk",), "pg_time": ("books",), "state": ()}


@pytest.mark.parametrize(
    ("files", "domains", "complaint"),
    [
        ({"a/x.txt": "1", "b/x.txt": "2"}, {}, r"a/x\.txt and .*b/x\.txt would share the column ood_ppl_x;"),
        ({"A b.txt": "1", "a-b.txt": "2"}, {}, r"would share the column ood_ppl_a_b; rename one"),
        ({"domain_x.txt": "1", "x/y.txt": "2"}, {}, r"and domain x would share the column ood_ppl_domain_x;"),
        ({"A/y.txt": "1", "a/z.txt": "2"}, {}, r"domain A and domain a would share the column"),
        ({"é.txt": "1"}, {}, r"é\.txt has no letter or digit \(a to z\)"),
        ({"é/x.txt": "1"}, {}, r"domain é has no letter or digit"),
        ({"x.md": "1"}, {}, r"has no \.txt file; accepted: a folder of \.txt files$"),
        ({"x.txt": " \n"}, {}, r"x\.txt is empty"),
        ({"x.txt": "1"}, {"books": ["pg*"]}, r"domains\.books: 'pg\*' finds no \.txt file in"),
        ({"x.txt": "1"}, {"books": []}, r"domains\.books is empty; accepted: globs"),
        ({"x.txt": "1"}, {"books": "/x*"}, r"domains\.books: '/x\*' is no glob"),
    ],
)
def test_what_cannot_be_columns_is_told_in_one_line(tmp_path: Path, files, domains, complaint) -> None:
    with pytest.raises(SpecError, match=complaint) as told:
        named(written(tmp_path / "texts", files), **domains)
    assert "\n" not in str(told.value)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"evaluate\.ood\.path=.*/no is not a folder; accepted"):
        named(tmp_path / "no")
    (tmp_path / "no").mkdir()
    (tmp_path / "no" / "x.txt").write_bytes(b"a\xff")
    with pytest.raises(SpecError, match=r"x\.txt is not UTF-8: byte 1 is 0xff"):
        named(tmp_path / "no")
    with pytest.raises(SpecError, match=r"evaluate\.ood\.domains are of a folder's files; give"):
        read(Ood(domains={"a": ["*"]}))


def test_the_hash_is_of_content_names_and_domains_and_not_of_the_place(folder: Path, tmp_path: Path) -> None:
    def of(path: Path, **domains: object) -> str:
        return content_hash(read(Ood(path=str(path), domains=domains or None)))

    other = written(tmp_path / "copy", {file.name: file.read_text() for file in folder.iterdir()})
    assert of(other) == of(folder)
    assert of(folder, pg=["pg*"]) != of(folder)
    assert of(folder, pg=["pg*"]) == of(other, pg=["pg_time.txt"])
    (other / "state.txt").rename(other / "union.txt")
    assert of(other) != of(folder)
    (other / "union.txt").rename(other / "state.txt")
    assert of(other) == of(folder)
    (other / "state.txt").write_text("A union")
    assert of(other) != of(folder)


def test_tokens_are_those_of_the_encoder_and_are_kept(folder: Path, tmp_path: Path, monkeypatch) -> None:
    text = read(Ood(path=str(folder)))[1]
    split = tokenised(text, corpus(tmp_path), tmp_path)
    assert bytes(split.tokens.tolist()) == b"the machine"
    assert split.target_bytes == len("he machine")
    first = tokenised(text, corpus(tmp_path), tmp_path, 4)
    assert bytes(first.tokens.tolist()) == b"the "
    assert first.target_bytes == 3
    monkeypatch.setattr(ood, "write_folder", None)  # as it would be called if they were not kept
    assert np.array_equal(tokenised(text, corpus(tmp_path), tmp_path).tokens, split.tokens)


def test_a_damaged_cache_is_encoded_again(folder: Path, tmp_path: Path) -> None:
    text = read(Ood(path=str(folder)))[1]
    tokenised(text, corpus(tmp_path), tmp_path)
    (kept,) = (tmp_path / "texts").glob("*/tokens.bin")
    kept.write_bytes(b"\0" * kept.stat().st_size)
    assert bytes(tokenised(text, corpus(tmp_path), tmp_path).tokens.tolist()) == b"the machine"


def test_a_text_without_a_target(tmp_path: Path) -> None:
    (text,) = read(Ood(path=str(written(tmp_path / "t", {"one.txt": "x"}))))
    with pytest.raises(SpecError, match=r"one\.txt has 1 token; evaluate\.ood\.path needs files of two"):
        tokenised(text, corpus(tmp_path), tmp_path)
    (text,) = read(Ood(path=str(written(tmp_path / "t", {"one.txt": "xy"}))))
    with pytest.raises(SpecError, match=r"evaluate\.ood\.tokens=1 leaves no target"):
        tokenised(text, corpus(tmp_path), tmp_path, 1)


def test_the_bundled_default_is_two_domains_of_prose_without_repetition() -> None:
    texts = read(Ood())
    assert [(text.name, text.domains) for text in texts] == [
        ("licences", ("licences",)),
        ("readmes", ("readmes",)),
    ]
    for text in texts:
        lines = text.text.split("\n")
        assert len(set(lines)) == len(lines) > 20
        assert 5_000 < len(text.text) <= MOST * len(PACKAGES)
        assert "://" not in text.text
    assert "without warranty" in texts[0].text.lower()
    assert "PyTorch" in texts[1].text
    assert bundled() == bundled.__wrapped__()


def test_the_bundled_default_reads_what_retsweep_needs_and_nothing_else() -> None:
    core = {re.split(r"[<>=\[;! ]", line)[0] for line in requires("retsweep") or () if "extra" not in line}
    assert set(PACKAGES) <= core
