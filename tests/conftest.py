"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import copy
import functools
import os
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hypothesis import settings

from retsweep.data.prepare import TokenisedCorpus, prepare
from retsweep.data.pydocs import PyDocs
from retsweep.data.tokenizers import Bpe

# The classes that tests define are named in configs too, here and in processes that tests start.
os.environ["RETSWEEP_ALLOW"] = "tests"
# Alike on a machine that is slow and on one that is not: no deadline, and the same examples each time.
settings.register_profile("retsweep", deadline=None, derandomize=True)
settings.load_profile("retsweep")


def _compose_once() -> None:
    """Hydra composes the same overrides once a process, a fifth of a second each; everybody gets a copy.
    Folders of tests' own (hydra.searchpath) are read anew each time."""
    compose = hydra.compose

    @functools.lru_cache(maxsize=512)
    def composed(where: str, name: str, overrides: tuple[str, ...]) -> Any:
        return compose(name, list(overrides))

    def copied(name: str, overrides: list[str]) -> Any:
        if any("searchpath" in word for word in overrides):
            return compose(name, overrides)
        where = str(GlobalHydra.instance().config_loader().get_search_path())
        return copy.deepcopy(composed(where, name, tuple(overrides)))

    hydra.compose = copied


_compose_once()


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
