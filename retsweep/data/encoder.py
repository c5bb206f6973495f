"""Text to token numbers and back: one thin shell around a byte-level `tokenizers.Tokenizer`."""

from __future__ import annotations

import codecs
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
#: Characters of a piece, and pieces encoded at once, by as many threads as `tokenizers` may use:
#: it keeps some hundred bytes a token while it works.
PIECE = 1 << 18
GROUP = 16
BYTES = 256


@dataclasses.dataclass(frozen=True)
class Encoder:
    """``serialised`` is a tokenizer.json; its tokens stand for bytes, END_OF_TEXT for none."""

    serialised: str

    @cached_property
    def tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        return Tokenizer.from_str(self.serialised)

    @cached_property
    def size(self) -> int:
        return int(self.tokenizer.get_vocab_size(with_added_tokens=True))

    @cached_property
    def end(self) -> int:
        """The token that stands between two documents."""
        number = self.tokenizer.token_to_id(END_OF_TEXT)
        assert number is not None
        return int(number)

    @property
    def content_hash(self) -> str:
        """SHA-256 of tokens, merges and special tokens: not of how a version writes its JSON."""
        content = json.loads(self.serialised)
        model = content["model"]
        merges = [rule if isinstance(rule, str) else " ".join(rule) for rule in model["merges"]]
        special = sorted((token["id"], token["content"]) for token in content["added_tokens"])
        canonical = json.dumps([sorted(model["vocab"].items()), merges, special], separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def byte_lengths(self) -> NDArray[np.int64]:
        """(size,) bytes of text that each token stands for: a character of its name is a byte."""
        lengths = np.zeros(self.size, dtype=np.int64)
        for name, number in self.tokenizer.get_vocab().items():
            lengths[number] = 0 if name == END_OF_TEXT else len(name)
        return lengths

    def encode(self, text: str) -> NDArray[np.int64]:
        """(tokens,) of one document."""
        parts = [np.zeros(0, dtype=np.int64)]
        cuts = pieces(text)
        while group := list(itertools.islice(cuts, GROUP)):
            encoded = self.tokenizer.encode_batch_fast(group, add_special_tokens=False)
            parts += [np.asarray(piece.ids, dtype=np.int64) for piece in encoded]
        return np.concatenate(parts)

    def encode_documents(self, documents: Sequence[str]) -> NDArray[np.int64]:
        """(tokens,) of ``documents`` with END_OF_TEXT between two of them.

        Where END_OF_TEXT is spelled out in a text, it becomes that token too.
        """
        parts: list[NDArray[np.int64]] = []
        for index, text in enumerate(documents):
            if index:
                parts.append(np.asarray([self.end], dtype=np.int64))
            parts.append(self.encode(text))
        return np.concatenate(parts)

    def decode(self, tokens: Sequence[int] | NDArray[Any]) -> str:
        return str(self.tokenizer.decode([int(token) for token in tokens], skip_special_tokens=False))

    def streamed(self, tokens: Iterable[int]) -> Iterator[str]:
        """Their text as it grows, of one token after the other.

        A token may end inside a character: it comes with the token that completes it, and not at all
        if none does. Bytes that are no UTF-8 become U+FFFD; END_OF_TEXT stands for no text.
        """
        text = codecs.getincrementaldecoder("utf-8")("replace")
        for token in tokens:
            name = self.tokenizer.id_to_token(int(token))
            assert name is not None, f"token {token} of {self.size}"
            grown = text.decode(b"" if name == END_OF_TEXT else bytes(map(self._bytes.__getitem__, name)))
            if grown:
                yield grown

    @cached_property
    def _bytes(self) -> dict[str, int]:
        return {character: byte for byte, character in enumerate(byte_characters())}


def pieces(text: str, size: int = PIECE) -> Iterator[str]:
    """``text`` cut where no token of a GPT-2-style tokenizer can reach across: before white space
    that follows something else."""
    start = 0
    while len(text) - start > size:
        cut = start + size
        while cut < len(text) and not (text[cut].isspace() and not text[cut - 1].isspace()):
            cut += 1
        yield text[start:cut]
        start = cut
    if start < len(text):
        yield text[start:]


def byte_characters() -> list[str]:
    """The printable character that stands for each byte in the names of byte-level tokens.

    Bytes that print in Latin-1 stand for themselves, the others for U+0100 onwards, in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(BYTES) if byte not in printable]
    return [chr(byte) if byte in printable else chr(0x100 + others.index(byte)) for byte in range(BYTES)]
