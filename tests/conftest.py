"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from retsweep.data.prepare import TokenisedCorpus, prepare
from retsweep.data.pydocs import PyDocs
from retsweep.data.tokenizers import Bpe

# The classes that tests define are named in configs too, here and in processes that tests start.
os.environ["RETSWEEP_ALLOW"] = "tests"
# Alike on a machine that is slow and on one that is not: no deadline, and the same examples each time.
settings.register_profile("retsweep", deadline=None, derandomize=True)
settings.load_profile("retsweep")


@pytest.fixture(scope="session")
def pydocs_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the default corpus has been prepared, once a session: it takes seconds."""
    cache = tmp_path_factory.mktemp("pydocs-cache")
    prepare(PyDocs(), Bpe(), 512, cache)
    return cache


@pytest.fixture
def pydocs(pydocs_cache: Path) -> TokenisedCorpus:
    """The default corpus at the default scale's vocabulary."""
    return prepare(PyDocs(), Bpe(), 512, pydocs_cache)
