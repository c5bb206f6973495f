"""A corpus and a cache that the tests of a module share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tasks.corpora import write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")
