"""The reference lines of a corpus, counted once: a trial after the first reads them from its cache."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from retsweep.data import ngrams
from retsweep.data.cache import DamagedCacheError, read_checked, write_checked
from retsweep.data.prepare import TokenisedCorpus

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class References:
    """Perplexities on the valid split of :class:`ngrams.Unigram` and :class:`ngrams.Bigram`."""

    unigram: float
    bigram: float


def reference_perplexities(corpus: TokenisedCorpus, end: int, vocabulary: int) -> References:
    """Of n-grams of the first ``end`` train tokens, for a model with ``vocabulary`` rows.

    They lie in the folder of the tokenised corpus, under a name with ``end``, ``vocabulary`` and a
    hash of the code that counts. One process counts, others wait; where that folder cannot be
    written, each counts for itself.
    """
    from filelock import FileLock

    code = hashlib.sha256(Path(ngrams.__file__).read_bytes()).hexdigest()[:8]
    path = corpus.folder / f"references-{end}-{vocabulary}-{code}.json"
    found = _read(path)
    if found is not None:
        return found
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # it only saves time
            held.enter_context(FileLock(path.with_suffix(".lock")))
        found = _read(path)
        if found is None:
            found = _count(corpus, end, vocabulary)
            with contextlib.suppress(OSError):
                write_checked(path, {"name": path.name, "unigram": found.unigram, "bigram": found.bigram})
    return found


def _read(path: Path) -> References | None:
    try:
        content = read_checked(path)
        if content.get("name", path.name) != path.name:
            raise DamagedCacheError(f"it was written as {content['name']}")
        return References(float(content["unigram"]), float(content["bigram"]))
    except (DamagedCacheError, KeyError, TypeError, ValueError) as error:
        if path.exists():
            log.warning("%s is damaged (%s): it is counted again", path, error)
        return None


def _count(corpus: TokenisedCorpus, end: int, vocabulary: int) -> References:
    train, valid = corpus.splits["train"].tokens[:end], corpus.splits["valid"].tokens
    return References(
        ngrams.unigram_perplexity(train, valid, vocabulary),
        ngrams.bigram_perplexity(train, valid, vocabulary),
    )
