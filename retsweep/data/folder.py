"""Any folder of text: ``train.txt``, ``valid.txt`` and ``test.txt``, or a folder of .txt for each."""

from __future__ import annotations

import dataclasses
import glob
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retsweep.data.corpus import SPLITS, Corpus, check_utf8, files_stamp, quiet_datasets
from retsweep.data.network import first_line
from retsweep.spec import SpecError
from retsweep.spec.base import LABEL, spec

if TYPE_CHECKING:
    from datasets import DatasetDict

LAYOUT = (
    "a folder with train.txt, valid.txt and test.txt, or with folders train, valid and test of .txt files"
)


@spec
class TextFolder(Corpus):
    """A document a file, in the order of their names."""

    path: str | None = dataclasses.field(default=None, metadata=LABEL)

    def __post_init__(self) -> None:
        if self.path is None:
            raise SpecError(f"corpus.path is missing; give corpus.path=FOLDER, {LAYOUT}")

    @property
    def label(self) -> str:
        return f"text:{folder_name(self.path)}"

    def stamp(self) -> str | None:
        return folder_stamp(self.path)

    def dataset(self, cache: Path) -> DatasetDict:
        return load_text(text_files(self.path), sample_by="document")


def folder_name(path: str | None) -> str:
    """The last part of ``path``: what of it may be seen in tables."""
    folder = Path(path or "").expanduser()
    return folder.name if folder.name not in ("", "..") else folder.resolve().name


def text_files(path: str | None) -> dict[str, list[Path]]:
    """The files of each split below ``path``. Raises SpecError if one is missing."""
    folder = Path(path or "").expanduser()
    if not path or not folder.is_dir():
        raise SpecError(f"corpus.path={path} is not a folder; accepted: {LAYOUT}")
    files = {}
    for split in SPLITS:
        single, several = folder / f"{split}.txt", sorted((folder / split).glob("*.txt"))
        if not single.is_file() and not several:
            raise SpecError(f"corpus.path={path} has no {split}.txt; accepted: {LAYOUT}")
        files[split] = [single] if single.is_file() else several
    return files


def folder_stamp(path: str | None) -> str | None:
    files = [file.resolve() for group in text_files(path).values() for file in group]
    return files_stamp(files)


def load_text(files: Mapping[str, Sequence[Path]], **options: Any) -> DatasetDict:
    """The files through the "text" loader of `datasets`, in memory: nothing of it stays on disk.

    Raises SpecError for a file that is empty or not UTF-8, or if `datasets` cannot work.
    """
    for file in _each(files):
        check_utf8(file)
    import datasets
    from datasets.exceptions import DatasetGenerationError

    names = {split: [glob.escape(str(file.resolve())) for file in group] for split, group in files.items()}
    try:
        with quiet_datasets(), tempfile.TemporaryDirectory(prefix="retsweep-text-") as scratch:
            loaded = datasets.load_dataset(
                "text", data_files=names, cache_dir=scratch, keep_in_memory=True, **options
            )
    except (OSError, DatasetGenerationError) as error:  # the latter hides what happened in its cause
        why = first_line(error.__cause__ or error)
        raise SpecError(
            f"the text cannot be copied below {tempfile.gettempdir()}: {why}; "
            "TMPDIR=FOLDER gives another folder for temporary files"
        ) from error
    assert isinstance(loaded, datasets.DatasetDict)
    return loaded


def _each(files: Mapping[str, Sequence[Path]]) -> Iterator[Path]:
    for group in files.values():
        yield from group
