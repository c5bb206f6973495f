"""Every YAML of conf/tokenizer: it loads, encodes any text and gives it back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retsweep.data import tokenizers
from retsweep.data.encoder import END_OF_TEXT
from retsweep.data.tokenizers import TokenizerSpec, byte_characters
from retsweep.spec import SpecError, load_spec
from retsweep.spec.compose import choices

TEXT = "Every tokenizer's text comes back: naïve, 東京, 🙂, tabs\tand\n\n  spaces. "


@pytest.mark.parametrize("name", choices("tokenizer"))
def test_tokenizer(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One with a path is given a small byte-level BPE: what is on the hub is not fetched in a test."""
    overrides = [f"tokenizer={name}"]
    if hasattr(load_spec(overrides).tokenizer, "path"):
        names = [*byte_characters(), "He", END_OF_TEXT]
        (tmp_path / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
        (tmp_path / "merges.txt").write_text("#version: 0.2\nH e\n")
        overrides.append(f"tokenizer.path={tmp_path}")
        monkeypatch.setattr(tokenizers, "GPT2_SIZE", len(names))
        monkeypatch.setattr(tokenizers, "GPT2_CHECK", ("Hey", [256, ord("y")]))
    tokenizer = load_spec(overrides).tokenizer
    assert isinstance(tokenizer, TokenizerSpec)
    assert tokenizer.name == name
    with pytest.raises(SpecError, match=r"scale\.vocabulary=100 is too small .* accepted: \d+"):
        tokenizer.check(100)
    vocabulary = 260
    tokenizer.check(vocabulary)
    assert tokenizer.stamp()
    encoder = tokenizer.make([TEXT * 3], vocabulary, tmp_path)
    assert encoder.size <= vocabulary
    tokens = encoder.encode(TEXT)
    assert encoder.decode(tokens) == TEXT
    assert encoder.byte_lengths[tokens].sum() == len(TEXT.encode())
    assert encoder.end == encoder.encode_documents(["a", "b"])[1]
    assert tokenizer.make([TEXT * 3], vocabulary, tmp_path).content_hash == encoder.content_hash
