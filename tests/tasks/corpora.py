"""A small text corpus with some structure in it, written where a test wants it."""

from __future__ import annotations

import random
from pathlib import Path

TEXT = "the a retention attention head layer of and keeps reads forgets state token long short every"


def write_corpus(folder: Path, train_sentences: int = 900) -> Path:
    """train.txt (about 30 kB), valid.txt and test.txt of random sentences; returns ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    for split, count in (("train", train_sentences), ("valid", 60), ("test", 60)):
        sentences = [" ".join(draw.choices(TEXT.split(), k=draw.randint(3, 9))) + "." for _ in range(count)]
        (folder / f"{split}.txt").write_text("\n".join(sentences) + "\n", encoding="utf-8")
    return folder
