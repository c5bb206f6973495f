"""From a corpus and a tokenizer to memory-mapped tokens, once: afterwards from the cache.

The cache holds, below its folder, ``tokenised/<key>/`` named by content (text, tokenizer,
vocabulary), ``stamps/<request>.json`` which remembers the key that unchanged sources led to, and
``locks/``. Several processes may prepare the same corpus at once: one works, the others wait.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retsweep.data.cache import (
    DamagedCacheError,
    read_checked,
    read_folder,
    remove_scratch,
    write_checked,
    write_folder,
)
from retsweep.data.corpus import SPLITS, Corpus, content_hash, documents
from retsweep.data.encoder import Encoder
from retsweep.data.tokenizers import TokenizerSpec
from retsweep.spec import SpecError

#: Of the files below; raised when their meaning changes.
FORMAT = 1
HASH_LENGTH = 16
TOKENIZER = "tokenizer.json"
BYTE_LENGTHS = "byte_lengths.bin"
#: What stands within this many tokens of a text that was tokenised into words once.
TEXT_FORM_TOKENS = 1 << 17
TOKENISED = (" @-@ ", "<unk>")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """``tokens`` (n,) of uint16 or uint32, memory-mapped; ``byte_lengths`` (vocabulary,) says how
    many bytes of UTF-8 text each token stands for (the end of a text for none)."""

    tokens: NDArray[Any]
    byte_lengths: NDArray[np.int64] = field(repr=False)

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of the text that the tokens stand for."""
        return self._bytes(self.tokens)

    @property
    def target_bytes(self) -> int:
        """``bytes`` without those of the first token, which is never predicted."""
        return self._bytes(self.tokens[1:])

    def head(self, count: int) -> Split:
        """The first ``count`` tokens (all, if there are fewer)."""
        return Split(self.tokens[:count], self.byte_lengths)

    def _bytes(self, tokens: NDArray[Any]) -> int:
        counts = np.bincount(tokens, minlength=len(self.byte_lengths))
        return int(counts @ self.byte_lengths)


@dataclass(frozen=True)
class TokenisedCorpus:
    """``data_hash`` covers the text of all splits and the tokenizer's content; ``vocabulary`` is
    the number of tokens that the tokenizer knows (a model may have more rows)."""

    name: str
    tokenizer_name: str
    data_hash: str
    vocabulary: int
    splits: Mapping[str, Split]
    folder: Path

    @property
    def train_slice(self) -> Split:
        """The first tokens of train, as many as valid has. A run need not train on all of them: few steps,
        or shuffled ones, leave chunks out, and ``protocol.train_chunks`` may end before they do."""
        return self.splits["train"].head(len(self.splits["valid"].tokens))

    @property
    def text_form(self) -> str:
        """ "tokenised" where train begins as the releases of WikiText do that have rare words replaced
        by <unk> and hyphens set apart, else "raw": their perplexities a token are not comparable."""
        text = self.encoder().decode(self.splits["train"].tokens[:TEXT_FORM_TOKENS])
        return "tokenised" if all(mark in text for mark in TOKENISED) else "raw"

    def encoder(self) -> Encoder:
        """Text to tokens and back."""
        return Encoder((self.folder / TOKENIZER).read_text(encoding="utf-8"))


def prepare(corpus: Corpus, tokenizer: TokenizerSpec, vocabulary: int, cache: Path) -> TokenisedCorpus:
    """The corpus in tokens of a model with ``vocabulary`` rows.

    Raises SpecError for whatever is wrong with the corpus, the tokenizer, the vocabulary or
    ``cache``. Safe in several processes at once; a damaged cache is told in the log and rebuilt.
    """
    tokenizer.check(vocabulary)
    stamp = _stamp(corpus, tokenizer, vocabulary)
    found = _remembered(corpus, tokenizer, stamp, cache)
    if found is not None:
        return found
    request = _digest([repr(corpus), repr(tokenizer), vocabulary])
    with _lock(cache, request):
        return _remembered(corpus, tokenizer, stamp, cache) or _build(
            corpus, tokenizer, vocabulary, stamp, cache
        )


def require_chunk(corpus: TokenisedCorpus, context: int) -> None:
    """Raises SpecError unless every split holds at least one chunk: ``context`` inputs and the
    last one's target."""
    for name, split in corpus.splits.items():
        length = len(split.tokens)
        if length <= context:
            raise SpecError(
                f"corpus {corpus.name}: its {name} split has {length} tokens, scale.context={context} needs "
                f"{context + 1}; give a longer corpus, or scale.context={max(length - 1, 0)} or less"
            )


def _stamp(corpus: Corpus, tokenizer: TokenizerSpec, vocabulary: int) -> str | None:
    of_corpus, of_tokenizer = corpus.stamp(), tokenizer.stamp()
    if of_corpus is None or of_tokenizer is None:
        return None
    return _digest([FORMAT, of_corpus, of_tokenizer, vocabulary])


def _remembered(
    corpus: Corpus, tokenizer: TokenizerSpec, stamp: str | None, cache: Path
) -> TokenisedCorpus | None:
    """What the same sources led to before; None if that is unknown or no longer sound."""
    if stamp is None:
        return None
    try:
        said = read_checked(_stamp_file(cache, stamp))
        if said.get("stamp") != stamp:
            return None  # another's, or of before it said so
        return _open(corpus, tokenizer, _folder(cache, str(said["key"])))
    except (OSError, ValueError, KeyError, TypeError, DamagedCacheError):
        return None  # built from the text again, which tells if something was damaged


def _build(
    corpus: Corpus, tokenizer: TokenizerSpec, vocabulary: int, stamp: str | None, cache: Path
) -> TokenisedCorpus:
    texts = documents(corpus, cache)
    text_hash = content_hash(texts)
    encoder = tokenizer.make(texts["train"], vocabulary, cache)
    key = _digest([FORMAT, text_hash, encoder.content_hash])
    folder = _folder(cache, key)
    # Its own lock: two requests (a path spelt in two ways, a copy of the text) may share a key.
    with _lock(cache, key), _usable(cache):
        remove_scratch(folder)
        opened = _sound(corpus, tokenizer, folder)
        if opened is None:
            _write(folder, texts, text_hash, encoder)
            opened = _open(corpus, tokenizer, folder)
        _remember(cache, stamp, key)
        return opened


def _sound(corpus: Corpus, tokenizer: TokenizerSpec, folder: Path) -> TokenisedCorpus | None:
    if not folder.exists():
        return None
    try:
        return _open(corpus, tokenizer, folder)
    except DamagedCacheError as error:
        log.warning("the cached corpus in %s is damaged (%s): it is built again", folder, error)
        return None


def _write(folder: Path, texts: Mapping[str, list[str]], text_hash: str, encoder: Encoder) -> None:
    dtype = np.uint16 if encoder.size <= 1 << 16 else np.uint32
    files: dict[str, bytes | NDArray[Any]] = {
        f"{split}.bin": encoder.encode_documents(texts[split]).astype(dtype) for split in SPLITS
    }
    files[TOKENIZER] = encoder.serialised.encode()
    files[BYTE_LENGTHS] = encoder.byte_lengths
    meta = {
        "format": FORMAT,
        "key": folder.name,
        "data_hash": _digest([text_hash, encoder.content_hash]),
        "dtype": np.dtype(dtype).name,
        "vocabulary": encoder.size,
    }
    write_folder(folder, files, meta)


def _open(corpus: Corpus, tokenizer: TokenizerSpec, folder: Path) -> TokenisedCorpus:
    meta = read_folder(folder)
    if meta.get("key", folder.name) != folder.name:
        raise DamagedCacheError(f"it was written as {meta['key']}")
    lengths = np.fromfile(folder / BYTE_LENGTHS, dtype=np.int64)
    splits = {
        split: Split(np.memmap(folder / f"{split}.bin", dtype=meta["dtype"], mode="r"), lengths)
        for split in SPLITS
    }
    return TokenisedCorpus(
        name=corpus.label,
        tokenizer_name=tokenizer.name,
        data_hash=meta["data_hash"],
        vocabulary=meta["vocabulary"],
        splits=splits,
        folder=folder,
    )


def _remember(cache: Path, stamp: str | None, key: str) -> None:
    """Under the lock of ``key``."""
    if stamp is not None:
        remove_scratch(_stamp_file(cache, stamp))
        write_checked(_stamp_file(cache, stamp), {"key": key, "stamp": stamp})


@contextlib.contextmanager
def _lock(cache: Path, name: str) -> Iterator[None]:
    """One process at a time inside the block. Raises SpecError for a cache that cannot be used."""
    from filelock import FileLock

    lock = FileLock(cache / "locks" / f"{name}.lock")
    with _usable(cache):
        (cache / "locks").mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _usable(cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SpecError(
            f"cache={cache} cannot be used: {error}; give another folder with cache=FOLDER"
        ) from error


def _stamp_file(cache: Path, stamp: str) -> Path:
    return cache / "stamps" / f"{stamp}.json"


def _folder(cache: Path, key: str) -> Path:
    return cache / "tokenised" / key


def _digest(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:HASH_LENGTH]
