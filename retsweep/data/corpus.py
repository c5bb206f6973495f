"""What a corpus is: a spec that reads three splits of documents and knows cheaply if they changed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retsweep.spec import SpecError
from retsweep.spec.base import spec

if TYPE_CHECKING:
    from datasets import DatasetDict

SPLITS = ("train", "valid", "test")
COLUMN = "text"
#: A file changed so recently can change again without its time showing it.
RACY_SECONDS = 2.0


@spec
class Corpus:
    """Base of every corpus's config: ``conf/corpus/<name>.yaml`` names a subclass."""

    @property
    def label(self) -> str:
        """What a row's column ``corpus`` says."""
        raise NotImplementedError(type(self).__name__)

    def stamp(self) -> str | None:
        """Changes whenever the text may have changed; found without reading the text.

        None if nothing cheap can tell. Raises SpecError if there is nothing to read.
        """
        raise NotImplementedError(type(self).__name__)

    def dataset(self, cache: Path) -> DatasetDict:
        """Splits "train", "valid", "test" of rows ``{"text": document}``, in order.

        ``cache`` is a folder for what has to be downloaded. Raises SpecError.
        """
        raise NotImplementedError(type(self).__name__)


def documents(corpus: Corpus, cache: Path) -> dict[str, list[str]]:
    """The texts of each split. Raises SpecError if one of them is empty."""
    dataset = corpus.dataset(cache)
    texts = {split: list(dataset[split][COLUMN]) for split in SPLITS}
    for split, rows in texts.items():
        if not any(row.strip() for row in rows):
            raise SpecError(f"corpus {corpus.label}: its {split} split is empty; each split needs some text")
    return texts


def content_hash(texts: Mapping[str, Sequence[str]]) -> str:
    """SHA-256 over the splits and where their documents begin and end."""
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(f"{split} {len(texts[split])}\n".encode())
        for text in texts[split]:
            data = text.encode()
            digest.update(f"{len(data)}\n".encode())
            digest.update(data)
    return digest.hexdigest()


def files_stamp(files: Iterable[Path], *extra: str) -> str | None:
    """A stamp from the names, sizes and times of ``files``; None while one was just written.

    Raises SpecError for a file that cannot be reached.
    """
    digest = hashlib.sha256("\0".join(extra).encode())
    newest = 0.0
    for file in files:
        with readable(file):
            status = file.stat()
        newest = max(newest, status.st_mtime, status.st_ctime)
        digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\n".encode())
    return digest.hexdigest() if newest < time.time() - RACY_SECONDS else None


@contextlib.contextmanager
def quiet_datasets() -> Iterator[None]:
    """No progress bars and no chatter from `datasets` and the hub's client inside the block."""
    import datasets
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    bars, hub_bars = datasets.are_progress_bars_disabled(), are_progress_bars_disabled()
    verbosity = datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    disable_progress_bars()
    datasets.logging.set_verbosity_error()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if not bars:
            datasets.enable_progress_bars()
        if not hub_bars:
            enable_progress_bars()


@contextlib.contextmanager
def readable(file: Path) -> Iterator[None]:
    """Turns an OSError inside the block into a SpecError that names ``file``."""
    try:
        yield
    except OSError as error:
        raise SpecError(f"{file} cannot be read: {os.strerror(error.errno or 0)}") from error


def check_utf8(file: Path) -> None:
    """Raises SpecError that names the file and the byte unless ``file`` is non-empty UTF-8 text."""
    with readable(file):
        data = file.read_bytes()
    if not data.strip():
        raise SpecError(f"{file} is empty; a split needs some text")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = data[error.start]
        raise SpecError(
            f"{file} is not UTF-8: byte {error.start} is 0x{byte:02x}; convert it to UTF-8"
        ) from error
