"""Rows as tasks would write them, for tests that train nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def row(architecture: str = "RetNet", **columns: Any) -> dict[str, Any]:
    """A trained row of the small scale; ``columns`` replace or add."""
    base: dict[str, Any] = {
        "architecture": architecture,
        "layout": "type_a",
        "ar_ratio": "0:1",
        "pattern": "R" * 12,
        "mixer": "msr",
        "attention_heads": 0,
        "retention_heads": 96,
        "layers": 12,
        "d_model": 64,
        "context": 63,
        "params": 123456,
        "seed": 0,
        "learning_rate": 3e-3,
        "precision": "fp32",
        "leaky": False,
        "protocol": "corrected",
        "scale": "small",
        "corpus": "pydocs",
        "tokenizer": "bpe",
        "git_commit": "aaaaaaa",
        "variant_hash": f"variant of {architecture}",
        "data_hash": "d" * 16,
        "torch_version": "2.13.0",
        "device": "cpu",
        "macs_published": 10_000_001,
        "macs_fvcore": 31_000_003,
        "macs_train_forward": 30_000_001,
        "macs_decode_2048": 900_001,
        "train_ppl": 30.0,
        "valid_ppl": 33.25,
        "test_ppl": 34.0,
        "valid_bits_per_byte": 2.25,
        "steps": 800,
        "status": "ok",
        "unigram_valid_ppl": 194.0,
        "bigram_valid_ppl": 38.4,
    }
    return base | columns


def transformer(**columns: Any) -> dict[str, Any]:
    heads = {"ar_ratio": "1:0", "attention_heads": 96, "retention_heads": 0, "pattern": "A" * 12}
    return row("Transformer", **(heads | columns))


def type_x(letter: str, attention: int, **columns: Any) -> dict[str, Any]:
    """Type A, B or C with ``attention`` layers of 12 (heads of 8 in C)."""
    units = 8 if letter == "C" else 12
    return row(
        f"Type {letter} {attention}:{units - attention}",
        **(
            {
                "layout": f"type_{letter.lower()}",
                "ar_ratio": f"{attention}:{units - attention}",
                "attention_heads": 96 * attention // units,
                "retention_heads": 96 - 96 * attention // units,
                "hybrid_form": "two_stage" if letter == "C" else None,
            }
            | columns
        ),
    )


def study(folder: Path, *rows: dict[str, Any]) -> Path:
    """``rows`` as the finished trials of a study in ``folder``."""
    for index, content in enumerate(rows):
        trial = folder / "trials" / f"{index:04d}"
        trial.mkdir(parents=True)
        (trial / "row.json").write_text(json.dumps(content))
    return folder
