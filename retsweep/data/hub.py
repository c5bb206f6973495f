"""Corpora of the HuggingFace hub by name, or the same text from a folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from retsweep.data.corpus import COLUMN, SPLITS, Corpus, quiet_datasets
from retsweep.data.folder import folder_name, folder_stamp, load_text, text_files
from retsweep.data.network import first_line, require_hub
from retsweep.spec import SpecError
from retsweep.spec.base import LABEL, spec

if TYPE_CHECKING:
    from datasets import DatasetDict

HUB_SPLITS = {"train": "train", "valid": "validation", "test": "test"}


@spec
class HubCorpus(Corpus):
    """Rows of ``column`` of ``repository`` (configuration ``subset``), joined with a blank line
    into one document a split, as published WikiText figures do.

    With ``path``, a folder with train, valid and test .txt, the rows are the files' lines: they
    keep their line ends, and blank ones become empty rows, as on the hub.
    """

    name: str = dataclasses.field(metadata=LABEL)
    repository: str
    subset: str | None = None
    column: str = "text"
    path: str | None = dataclasses.field(default=None, metadata=LABEL)

    @property
    def label(self) -> str:
        return self.name if self.path is None else f"{self.name}:{folder_name(self.path)}"

    def stamp(self) -> str | None:
        """The hub's text counts as unchanged once it has been read: a later run needs no network."""
        return (
            f"hub:{self.repository}:{self.subset}:{self.column}"
            if self.path is None
            else folder_stamp(self.path)
        )

    def dataset(self, cache: Path) -> DatasetDict:
        import datasets

        rows = self._from_hub(cache) if self.path is None else self._from_folder(self.path)
        joined = {split: ["\n\n".join(rows[split])] for split in SPLITS}
        return datasets.DatasetDict(
            {split: datasets.Dataset.from_dict({COLUMN: documents}) for split, documents in joined.items()}
        )

    def _from_folder(self, path: str) -> dict[str, list[str]]:
        loaded = load_text(text_files(path), sample_by="line", keep_linebreaks=True)
        return {split: [line if line.strip() else "" for line in loaded[split][COLUMN]] for split in SPLITS}

    def _from_hub(self, cache: Path) -> dict[str, list[str]]:
        instead = (
            f"give a folder with train.txt, valid.txt and test.txt: corpus.path=FOLDER (corpus {self.name})"
        )
        require_hub(f"corpus {self.name} is read from the hub", instead)
        import datasets

        try:
            with quiet_datasets():
                loaded = datasets.load_dataset(
                    self.repository, self.subset, cache_dir=str(cache / "datasets")
                )
            return {split: list(loaded[hub][self.column]) for split, hub in HUB_SPLITS.items()}
        except Exception as error:  # the hub's clients raise whatever their transport raises
            why = first_line(error)
            raise SpecError(f"{self.repository} cannot be read from the hub ({why}); {instead}") from error
