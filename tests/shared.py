"""Data that some tests can use when it is at hand: nothing in the suite depends on it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "RETSWEEP_TEST_DATA"


def shared(relative: str) -> Path:
    """``relative`` below the folder named by RETSWEEP_TEST_DATA; the test is skipped without it.

    The folder holds wikitext-2/, gpt2/, ood/ and published/.
    """
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"{VARIABLE} names no folder with {relative}")
    path = Path(folder) / relative
    if not path.exists():
        pytest.skip(f"{VARIABLE}={folder} has no {relative}")
    return path
