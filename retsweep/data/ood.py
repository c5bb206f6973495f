"""Text from outside the corpus, for evaluation alone: which files there are, their domains, their tokens."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retsweep.data.bundled import bundled
from retsweep.data.cache import DamagedCacheError, read_folder, write_folder
from retsweep.data.corpus import check_utf8
from retsweep.data.prepare import Split, TokenisedCorpus
from retsweep.spec import SpecError
from retsweep.spec.evaluate import Ood

#: Of the cached tokens; raised when their meaning changes.
FORMAT = 1
HASH_LENGTH = 16
TOKENS = "tokens.bin"
FOLDER = "a folder of .txt files"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OodText:
    """A text as its user spells it: ``file`` has ``stem`` for a name, and is of ``domains``."""

    stem: str
    file: str
    domains: tuple[str, ...]
    text: str

    @property
    def name(self) -> str:
        """As columns spell it."""
        return column_name(self.stem)


def read(options: Ood) -> tuple[OodText, ...]:
    """The texts, in the order of their files' names.

    Raises SpecError, in one line, for a folder without text, a file that is not UTF-8, a glob that
    finds nothing, or two files or domains whose columns would have one name.
    """
    if options.path is None:
        if options.domains:
            raise SpecError("evaluate.ood.domains are of a folder's files; give evaluate.ood.path=FOLDER too")
        texts = tuple(OodText(name, f"{name} (bundled)", (name,), text) for name, text in bundled().items())
    else:
        texts = _of_folder(options.path, dict(options.domains))
    _check_names(texts)
    return texts


def content_hash(texts: Sequence[OodText]) -> str:
    """SHA-256, in short, over the texts, their names and their domains."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.text.encode()
        columns = [text.name, *map(column_name, text.domains)]
        digest.update(f"{' '.join(columns)} {len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()[:HASH_LENGTH]


def tokenised(text: OodText, corpus: TokenisedCorpus, cache: Path, first: int | None = None) -> Split:
    """The text in the tokens of ``corpus``, or the ``first`` so many, encoded once and then read from
    ``cache``.

    Raises SpecError for a text of fewer than two tokens, which has no target. Processes that encode
    the same text at once each put the same tokens in place.
    """
    if first is not None and first < 2:
        raise SpecError(f"evaluate.ood.tokens={first} leaves no target; accepted: 2 or more, or null")
    content = f"{FORMAT}\n{corpus.data_hash}\n{hashlib.sha256(text.text.encode()).hexdigest()}"
    folder = cache / "texts" / hashlib.sha256(content.encode()).hexdigest()[:HASH_LENGTH]
    known = corpus.splits["train"]
    try:
        if read_folder(folder).get("key", folder.name) != folder.name:
            raise DamagedCacheError("it is of another text")
        tokens = np.fromfile(folder / TOKENS, dtype=known.tokens.dtype)
    except (DamagedCacheError, OSError) as error:
        if folder.exists():
            log.warning("the cached text in %s is damaged (%s): it is encoded again", folder, error)
        tokens = corpus.encoder().encode(text.text).astype(known.tokens.dtype)
        write_folder(folder, {TOKENS: tokens}, {"key": folder.name})
    if len(tokens) < 2:
        raise SpecError(f"{text.file} has {len(tokens)} token; evaluate.ood.path needs files of two or more")
    return Split(tokens, known.byte_lengths).head(len(tokens) if first is None else first)


def column_name(said: str) -> str:
    """``said`` in the letters of a column: a to z, digits, and "_" for each run of others."""
    return re.sub(r"[^a-z0-9]+", "_", said.lower()).strip("_")


def _of_folder(path: str, domains: Mapping[str, Sequence[str]]) -> tuple[OodText, ...]:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise SpecError(f"evaluate.ood.path={path} is not a folder; accepted: {FOLDER}, or null")
    files = sorted(
        (file for file in folder.rglob("*.txt") if file.is_file()),
        key=lambda file: file.relative_to(folder).as_posix(),
    )
    if not files:
        raise SpecError(f"evaluate.ood.path={path} has no .txt file; accepted: {FOLDER}")
    matched = {name: _matched(folder, name, globs) for name, globs in domains.items()}
    texts = []
    for file in files:
        check_utf8(file)
        inside = file.relative_to(folder)
        if domains:
            own = [name for name, found in matched.items() if file in found]
        else:
            own = [inside.parts[0]] if len(inside.parts) > 1 else []
        texts.append(OodText(file.stem, str(file), tuple(own), file.read_text(encoding="utf-8")))
    return tuple(texts)


def _matched(folder: Path, name: str, globs: Sequence[str]) -> set[Path]:
    found: set[Path] = set()
    for glob in globs:
        try:
            files = {file for file in folder.glob(glob) if file.suffix == ".txt"}
        except (ValueError, NotImplementedError) as error:  # empty, or absolute
            raise SpecError(f"evaluate.ood.domains.{name}: {glob!r} is no glob: {error}") from error
        if not files:
            raise SpecError(f"evaluate.ood.domains.{name}: {glob!r} finds no .txt file in {folder}")
        found |= files
    if not found:
        raise SpecError(f"evaluate.ood.domains.{name} is empty; accepted: globs, such as [*.txt]")
    return found


def _check_names(texts: Sequence[OodText]) -> None:
    """Raises SpecError for a file or a domain that no column can be named by, and where two of them
    would share one."""
    domains = sorted({domain for text in texts for domain in text.domains})
    every = [(text.name, text.file) for text in texts]
    every += [(f"domain_{column_name(domain)}", f"domain {domain}") for domain in domains]
    known: dict[str, str] = {}
    for name, what in every:
        if name in ("", "domain_"):
            raise SpecError(f"{what} has no letter or digit (a to z) to name its columns by; rename it")
        other = known.setdefault(name, what)
        if other != what:
            raise SpecError(f"{other} and {what} would share the column ood_ppl_{name}; rename one of them")
