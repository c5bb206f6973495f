"""A corpus and a cache that the tests of a module share, specs on them, and how they are run."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from retsweep.spec import RunSpec, load_spec
from retsweep.tasks.base import Workspace
from retsweep.tasks.train import PublishedDefectWarning
from tests.tasks.corpora import write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("text") / "corpus0")


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def spec_of(corpus):
    def compose(*overrides: str) -> RunSpec:
        return load_spec(
            ["scale=tiny", "corpus=text", f"corpus.path={corpus}", "tokenizer=bytes", *overrides]
        )

    return compose


@pytest.fixture
def run(cache, tmp_path):
    def execute(spec: RunSpec, folder: Path = tmp_path, **workspace) -> dict:
        folder.mkdir(exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PublishedDefectWarning)
            return spec.task(spec, Workspace(folder, "cpu", cache, **workspace))

    return execute
