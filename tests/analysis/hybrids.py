"""Made-up studies of hybrids with known patterns, whose perplexity is a rule of the test's."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from tests.analysis.rows import row

Row = dict[str, Any]
LAYERS, HEADS = 12, 8


def hybrid(pattern: str, seed: int = 0, **columns: Any) -> Row:
    """A row of letters A and R: retention costs more in training, attention in decoding."""
    attention = pattern.count("A")
    share = Fraction(attention, len(pattern) - attention)
    return row(
        f"Pattern {share.numerator}:{share.denominator}",
        **{
            "layout": "pattern",
            "pattern": pattern,
            "ar_ratio": f"{attention}:{len(pattern) - attention}",
            "attention_heads": HEADS * attention,
            "retention_heads": HEADS * (len(pattern) - attention),
            "heads": HEADS,
            "layers": len(pattern),
            "variant_hash": f"variant {pattern}",
            "spec_hash": f"{pattern}-{seed}",
            "seed": seed,
            "macs_train_forward": 30_000_000 - 400_000 * attention,
            "macs_decode_2048": 400_000 + 250_000 * attention,
        }
        | columns,
    )


def patterns(count: int, draw: int = 0) -> list[str]:
    """Different patterns of both letters, drawn at random."""
    found: dict[str, None] = {}
    letters = random.Random(draw)
    while len(found) < count:
        attention = letters.randint(1, LAYERS - 1)
        places = letters.sample(range(LAYERS), attention)
        found["".join("A" if place in places else "R" for place in range(LAYERS))] = None
    return list(found)


def ruled(rule: Callable[[str], float], count: int = 30) -> list[Row]:
    """A run of each of ``count`` patterns, its NLL by ``rule``."""
    return [hybrid(pattern, valid_ppl=math.exp(rule(pattern))) for pattern in patterns(count)]


def with_curves(folder: Path, runs: Mapping[str, tuple[Row, Mapping[int, float | None]]]) -> Path:
    """A study of runs by spec hash, each with its row and step -> validation loss as the loop logs it."""
    for key, (one, curve) in runs.items():
        trial = folder / "trials" / key
        trial.mkdir(parents=True)
        (trial / "row.json").write_text(json.dumps(one | {"spec_hash": key}))
        lines = [{"step": step, "loss": 3.0, "valid_loss": loss} for step, loss in sorted(curve.items())]
        (trial / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
