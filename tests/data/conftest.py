from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

TEXT = "the model reads a text and says which word comes next in it or fails to do so today"
WORDS = TEXT.split()


def sentences(count: int, stride: int) -> str:
    """``count`` lines of words, another text for another ``stride``."""
    lines = [" ".join(WORDS[(i * stride + j * j) % len(WORDS)] for j in range(9)) for i in range(count)]
    return ".\n".join(lines) + ".\n"


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """``make_folder(train=..., ...)`` writes a corpus folder; splits not given get a small text."""

    def make(name: str = "corpus", **texts: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        small = {"train": sentences(40, 3), "valid": sentences(8, 5), "test": sentences(8, 7)}
        for split, text in {**small, **texts}.items():
            (folder / f"{split}.txt").write_text(text, encoding="utf-8")
        return folder

    return make
