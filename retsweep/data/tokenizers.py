"""The tokenizers that ``conf/tokenizer`` names, all byte-level: any text can be encoded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from retsweep.data.corpus import quiet_datasets, readable
from retsweep.data.encoder import BYTES, END_OF_TEXT, Encoder, byte_characters, pieces
from retsweep.data.network import first_line, require_hub
from retsweep.spec import SpecError
from retsweep.spec.base import LABEL, spec

if TYPE_CHECKING:
    from tokenizers import Tokenizer

GPT2_SIZE = 50_257
GPT2_REPOSITORY = "openai-community/gpt2"
GPT2_FILES = ("vocab.json", "merges.txt")
#: What tells GPT-2's merges from any others.
GPT2_CHECK = ("Hello world", [15496, 995])


@spec
class TokenizerSpec:
    """Base of every tokenizer's config: ``conf/tokenizer/<name>.yaml`` names a subclass."""

    name: ClassVar[str]

    def check(self, vocabulary: int) -> None:
        """Raises SpecError unless a model with ``vocabulary`` rows can hold every token."""
        raise NotImplementedError(type(self).__name__)

    def stamp(self) -> str | None:
        """Changes whenever :meth:`make` may give another encoder; None if nothing cheap can tell."""
        raise NotImplementedError(type(self).__name__)

    def make(self, train: Sequence[str], vocabulary: int, cache: Path) -> Encoder:
        """The encoder, learnt from the ``train`` documents alone if it is learnt. Raises SpecError."""
        raise NotImplementedError(type(self).__name__)


@spec
class Bpe(TokenizerSpec):
    """Byte-level BPE trained on the train split, exactly ``scale.vocabulary`` tokens."""

    name: ClassVar[str] = "bpe"

    def check(self, vocabulary: int) -> None:
        if vocabulary <= BYTES:
            raise SpecError(
                f"scale.vocabulary={vocabulary} is too small for tokenizer bpe; accepted: {BYTES + 1} or "
                "more (every byte, the end of a text, and merges)"
            )

    def stamp(self) -> str | None:
        return self.name

    def make(self, train: Sequence[str], vocabulary: int, cache: Path) -> Encoder:
        from tokenizers import pre_tokenizers, trainers

        tokenizer = _byte_level({}, [])
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator((piece for text in train for piece in pieces(text)), trainer=trainer)
        encoder = Encoder(tokenizer.to_str())
        if encoder.size != vocabulary:
            raise SpecError(
                f"scale.vocabulary={vocabulary} is more than the train split can fill with tokenizer bpe; "
                f"accepted: {BYTES + 1} to {encoder.size}"
            )
        return encoder


@spec
class Bytes(TokenizerSpec):
    """A token a byte, its number the byte's value, and one more for the end of a text."""

    name: ClassVar[str] = "bytes"

    def check(self, vocabulary: int) -> None:
        _check_fixed(self.name, vocabulary, BYTES + 1)

    def stamp(self) -> str | None:
        return self.name

    def make(self, train: Sequence[str], vocabulary: int, cache: Path) -> Encoder:
        tokenizer = _byte_level({character: byte for byte, character in enumerate(byte_characters())}, [])
        tokenizer.add_special_tokens([END_OF_TEXT])
        return Encoder(tokenizer.to_str())


@spec
class Gpt2(TokenizerSpec):
    """GPT-2's own byte-level BPE from the hub, or from a folder with vocab.json and merges.txt."""

    name: ClassVar[str] = "gpt2"
    path: str | None = dataclasses.field(default=None, metadata=LABEL)

    def check(self, vocabulary: int) -> None:
        _check_fixed(self.name, vocabulary, GPT2_SIZE)

    def stamp(self) -> str | None:
        if self.path is None:
            return f"hub:{GPT2_REPOSITORY}"
        digest = hashlib.sha256()
        for file in _gpt2_folder(self.path):
            with readable(file):
                digest.update(file.read_bytes())
        return digest.hexdigest()

    def make(self, train: Sequence[str], vocabulary: int, cache: Path) -> Encoder:
        vocabulary_file, merges_file = _gpt2_hub(cache) if self.path is None else _gpt2_folder(self.path)
        try:
            entries = json.loads(vocabulary_file.read_text(encoding="utf-8"))
            lines = merges_file.read_text(encoding="utf-8").split("\n")
            rules = [line.split(" ") for line in lines if line and not line.startswith("#version:")]
            tokenizer = _byte_level(entries, [(left, right) for left, right in rules])
        except Exception as error:  # `tokenizers` raises bare Exceptions
            why = first_line(error)
            raise SpecError(
                f"{vocabulary_file.parent} has no BPE in vocab.json and merges.txt: {why}"
            ) from error
        tokenizer.add_special_tokens([END_OF_TEXT])
        encoder = Encoder(tokenizer.to_str())
        text, expected = GPT2_CHECK
        found = encoder.encode(text).tolist()
        if found != expected or encoder.size != GPT2_SIZE:
            raise SpecError(
                f"{vocabulary_file.parent} is not GPT-2's tokenizer: {text!r} gives {found}, not {expected}, "
                f"of {encoder.size} tokens, not {GPT2_SIZE}"
            )
        return encoder


def _check_fixed(name: str, vocabulary: int, size: int) -> None:
    if vocabulary < size:
        raise SpecError(
            f"scale.vocabulary={vocabulary} is too small for tokenizer {name}; accepted: {size} or more "
            f"(scale.vocabulary={size} fits exactly)"
        )


def _byte_level(entries: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(vocab=entries, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _gpt2_folder(path: str) -> tuple[Path, Path]:
    folder = Path(path).expanduser()
    for name in GPT2_FILES:
        if not (folder / name).is_file():
            raise SpecError(
                f"tokenizer.path={path} has no {name}; accepted: a folder with {' and '.join(GPT2_FILES)}"
            )
    vocabulary, merges = (folder / name for name in GPT2_FILES)
    return vocabulary, merges


def _gpt2_hub(cache: Path) -> tuple[Path, Path]:
    instead = f"give a folder with {' and '.join(GPT2_FILES)}: tokenizer.path=FOLDER (tokenizer gpt2)"
    require_hub("tokenizer gpt2 is read from the hub", instead)
    from huggingface_hub import hf_hub_download

    try:
        with quiet_datasets():
            vocabulary, merges = (
                Path(hf_hub_download(GPT2_REPOSITORY, name, cache_dir=cache / "hub")) for name in GPT2_FILES
            )
    except Exception as error:  # the hub's client raises whatever its transport raises
        why = first_line(error)
        raise SpecError(f"{GPT2_REPOSITORY} cannot be read from the hub ({why}); {instead}") from error
    return vocabulary, merges
