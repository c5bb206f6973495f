"""Every YAML of conf/corpus: it loads, and what it names can be prepared and cut into windows."""

from __future__ import annotations

from pathlib import Path

import pytest

from retsweep.data.batches import windows
from retsweep.data.corpus import SPLITS, Corpus
from retsweep.data.prepare import prepare, require_chunk
from retsweep.data.tokenizers import Bpe
from retsweep.spec import load_spec
from retsweep.spec.compose import choices

TEXTS = {
    "train": "This is what the model learns from, a line after the other.\n" * 30,
    "valid": "This is what it has not read before.\n\nIt is short.\n",
    "test": "And this is what it is tested on.\n" * 3,
}


@pytest.mark.parametrize("name", choices("corpus"))
def test_corpus(name: str, tmp_path: Path, pydocs_cache: Path) -> None:
    """Corpora with a path are given a folder: what is on the hub is not fetched in a test."""
    key = f"corpus.path={tmp_path}/{name}"
    has_path = name == "text" or hasattr(load_spec([f"corpus={name}"]).corpus, "path")
    for split, text in TEXTS.items() if has_path else ():
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / f"{split}.txt").write_text(text)
    spec = load_spec([f"corpus={name}", *([key] if has_path else [])])
    assert isinstance(spec.corpus, Corpus)
    cache, vocabulary = (tmp_path / "cache", 280) if has_path else (pydocs_cache, 512)
    corpus = prepare(spec.corpus, Bpe(), vocabulary, cache)
    require_chunk(corpus, 5)
    assert corpus.name.startswith(name)
    assert corpus.vocabulary == vocabulary
    for split in SPLITS:
        tokens = corpus.splits[split].tokens
        assert int(tokens.max()) < vocabulary
        assert sum(targets.size for _, targets in windows(tokens, 63)) == len(tokens) - 1
        assert corpus.splits[split].bytes > 0
    again = prepare(spec.corpus, Bpe(), vocabulary, cache)
    assert again.data_hash == corpus.data_hash
