"""The reference lines are counted once for a corpus, and never taken from a damaged file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from retsweep.data import references as module
from retsweep.data.folder import TextFolder
from retsweep.data.ngrams import bigram_perplexity, unigram_perplexity
from retsweep.data.prepare import TokenisedCorpus, prepare
from retsweep.data.references import References, reference_perplexities
from retsweep.data.tokenizers import Bytes


@pytest.fixture
def corpus(make_folder: Callable[..., Path], tmp_path: Path) -> TokenisedCorpus:
    return prepare(TextFolder(path=str(make_folder())), Bytes(), 257, tmp_path / "cache")


def counted(corpus: TokenisedCorpus, end: int, vocabulary: int) -> References:
    train, valid = corpus.splits["train"].tokens[:end], corpus.splits["valid"].tokens
    return References(
        unigram_perplexity(train, valid, vocabulary), bigram_perplexity(train, valid, vocabulary)
    )


def test_what_is_read_again_is_what_was_counted_to_the_bit(
    corpus: TokenisedCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {(end, size): counted(corpus, end, size) for end in (100, 500) for size in (257, 300)}
    assert len(set(wanted.values())) == 4
    assert {key: reference_perplexities(corpus, *key) for key in wanted} == wanted
    monkeypatch.setattr(module, "_count", None)  # calling it would fail
    assert {key: reference_perplexities(corpus, *key) for key in wanted} == wanted


def test_a_damaged_file_is_counted_again(corpus: TokenisedCorpus) -> None:
    found = reference_perplexities(corpus, 200, 257)
    (path,) = corpus.folder.glob("references-200-257-*.json")
    path.write_text(path.read_text().replace(str(found.unigram), "1.0"))
    assert reference_perplexities(corpus, 200, 257) == found


def test_a_folder_that_cannot_be_written_costs_only_time(
    corpus: TokenisedCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "write_checked", refuse)
    assert reference_perplexities(corpus, 200, 257) == counted(corpus, 200, 257)
    assert not list(corpus.folder.glob("references-*.json"))
