from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retsweep.data.encoder import END_OF_TEXT, Encoder, pieces
from retsweep.data.tokenizers import Bpe, Bytes, Gpt2, byte_characters
from retsweep.spec import SpecError
from tests.data.conftest import sentences
from tests.shared import shared

NOWHERE = Path("/nowhere")


@cache
def encoders() -> tuple[Encoder, ...]:
    train = [sentences(60, 3), sentences(60, 5)]
    return Bytes().make(train, 257, NOWHERE), Bpe().make(train, 300, NOWHERE)


TEXT = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from(" \n\t'amod"))).filter(
    lambda text: END_OF_TEXT not in text
)


@given(TEXT)
def test_any_text_comes_back_and_its_bytes_are_counted(text: str) -> None:
    for encoder in encoders():
        tokens = encoder.encode(text)
        assert encoder.decode(tokens) == text
        assert encoder.byte_lengths[tokens].sum() == len(text.encode())


@given(TEXT, st.integers(1, 12))
def test_pieces_are_encoded_as_the_whole(text: str, size: int) -> None:
    cut = list(pieces(text, size))
    assert "".join(cut) == text
    assert all(cut)
    for encoder in encoders():
        parts = [encoder.encode(piece) for piece in cut]
        assert np.concatenate([*parts, np.zeros(0, np.int64)]).tolist() == encoder.encode(text).tolist()


def test_long_text_is_cut() -> None:
    text = sentences(2000, 3)
    assert max(map(len, pieces(text, 1000))) < 1100
    assert [encoder.decode(encoder.encode(text)) == text for encoder in encoders()] == [True, True]


@given(TEXT)
def test_bytes_are_their_own_tokens(text: str) -> None:
    assert encoders()[0].encode(text).tolist() == list(text.encode())


def test_byte_characters_are_those_of_the_library() -> None:
    from tokenizers import pre_tokenizers

    assert sorted(byte_characters()) == sorted(pre_tokenizers.ByteLevel.alphabet())


def test_end_of_text_stands_between_documents() -> None:
    for encoder in encoders():
        tokens = encoder.encode_documents(["one", "two", "three"])
        assert (tokens == encoder.end).sum() == 2
        assert encoder.decode(tokens) == f"one{END_OF_TEXT}two{END_OF_TEXT}three"
        assert encoder.byte_lengths[tokens].sum() == len("onetwothree")


def test_bpe_fills_its_vocabulary_and_is_the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    train = [sentences(60, 3), sentences(60, 5)]
    first = Bpe().make(train, 300, NOWHERE)
    assert first.size == 300
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    assert Bpe().make(train, 300, NOWHERE).serialised == first.serialised
    assert Bpe().make(train, 301, NOWHERE).content_hash != first.content_hash
    assert Bpe().make(train[:1], 300, NOWHERE).content_hash != first.content_hash


def test_content_hash_is_of_the_content_alone() -> None:
    encoder = encoders()[1]
    content = json.loads(encoder.serialised)
    content["model"]["merges"] = [" ".join(rule) for rule in content["model"]["merges"]]  # an older layout
    content["something_new"] = None
    assert Encoder(json.dumps(content, indent=3)).content_hash == encoder.content_hash


def test_vocabularies_that_do_not_fit() -> None:
    for tokenizer, vocabulary, accepted in (
        (Bpe(), 256, "257 or more"),
        (Bytes(), 256, "257"),
        (Gpt2(), 512, "50257"),
    ):
        with pytest.raises(
            SpecError, match=rf"scale\.vocabulary={vocabulary} is too small .* accepted: {accepted}"
        ):
            tokenizer.check(vocabulary)
    for tokenizer, vocabulary in ((Bpe(), 257), (Bytes(), 257), (Bytes(), 512), (Gpt2(), 50304)):
        tokenizer.check(vocabulary)
    with pytest.raises(
        SpecError, match=r"scale\.vocabulary=5000 is more than the train split can fill .* 257 to \d+"
    ):
        Bpe().make([sentences(20, 3)], 5000, NOWHERE)


def test_gpt2_from_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    with pytest.raises(
        SpecError, match=r"has no vocab\.json; accepted: a folder with vocab\.json and merges\.txt"
    ):
        Gpt2(path=str(tmp_path)).stamp()
    (tmp_path / "merges.txt").write_text("#version: 0.2\nH e\n")
    (tmp_path / "vocab.json").write_text("{")
    with pytest.raises(SpecError, match=r"has no BPE in vocab\.json and merges\.txt") as error:
        Gpt2(path=str(tmp_path)).make([], 50257, tmp_path)
    assert "\n" not in str(error.value)
    names = [*byte_characters(), "He", END_OF_TEXT]
    (tmp_path / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    with pytest.raises(
        SpecError, match=r"is not GPT-2's tokenizer: 'Hello world' gives \[256, .*of 258 tokens"
    ):
        Gpt2(path=str(tmp_path)).make([], 50257, tmp_path)


def test_real_gpt2() -> None:
    encoder = Gpt2(path=str(shared("gpt2"))).make([], 50257, NOWHERE)
    assert encoder.encode("Hello world").tolist() == [15496, 995]
    assert (encoder.size, encoder.end) == (50257, 50256)
    assert len(encoder.encode(shared("ood/pg_time_machine.txt").read_text(encoding="utf-8"))) == 45247


@settings(max_examples=25)
@given(st.lists(TEXT.filter(bool), min_size=1, max_size=3))
def test_documents_are_encoded_one_by_one(documents: list[str]) -> None:
    for encoder in encoders():
        tokens = encoder.encode_documents(documents).tolist()
        expected: list[int] = []
        for index, text in enumerate(documents):
            expected += [encoder.end] * bool(index) + encoder.encode(text).tolist()
        assert tokens == expected


def test_gpt2_stamp_is_of_its_files(tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_text("x")
    before = Gpt2(path=str(tmp_path)).stamp()
    (tmp_path / "merges.txt").write_text("y")
    assert Gpt2(path=str(tmp_path)).stamp() != before


def test_text_streams_whole_characters_and_leaves_an_unfinished_one_out():
    encoder = Bytes().make([], 257, Path())
    read = [*"aé€".encode(), 0xFF, 256, *"b€".encode()[:-1]]
    assert list(encoder.streamed(read)) == ["a", "é", "€", "\ufffd", "b"]


def test_text_streams_as_it_is_decoded(pydocs):
    encoder = pydocs.encoder()
    tokens = pydocs.splits["valid"].tokens[:2000]
    without_ends = [token for token in tokens.tolist() if token != encoder.end]
    assert "".join(encoder.streamed(tokens)) == encoder.decode(without_ends)
