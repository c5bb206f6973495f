"""The figures of the RetFormers report, as facts to stand beside measured ones.

Source: Agrawal & Hu, "RetFormers: Hybrid Attention-Retention Networks for Faster Inference" (2023),
table of 31 models, and the log of the authors' notebook (exact MACs, perplexity after each epoch).
``gmacs`` is as printed, its one misprint included (9.10 for 9.106: Type A 8:4); ``macs`` is exact.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAYERS, HEADS = 12, 8


@dataclass(frozen=True)
class Published:
    """One row of the report. ``attention`` and ``mixer_units`` count layers of ``type_a`` and
    ``type_b`` (12 in all) and heads of ``type_c`` (8 in all); train perplexities by epoch."""

    architecture: str
    layout: str
    attention: int
    ar_ratio: str
    mixer_units: int
    gmacs: float
    macs: int
    train_ppl: float
    train_ppl_by_epoch: tuple[float, ...]


def retformers() -> tuple[Published, ...]:
    """The 31 rows, in the report's order."""
    with (Path(__file__).parent / "retformers.csv").open(newline="") as file:
        return tuple(_published(row) for row in csv.DictReader(file))


def _published(row: Mapping[str, str]) -> Published:
    return Published(
        architecture=row["architecture"],
        layout=row["layout"],
        attention=int(row["attention"]),
        ar_ratio=row["ar_ratio"],
        mixer_units=int(row["mixer_units"]),
        gmacs=float(row["gmacs"]),
        macs=int(row["macs"]),
        train_ppl=float(row["train_ppl"]),
        train_ppl_by_epoch=tuple(float(row[f"train_ppl_epoch{epoch}"]) for epoch in range(1, 11)),
    )


def counterpart(row: Mapping[str, Any], known: Mapping[str, Published]) -> Published | None:
    """The report's model of the same layout and AR ratio, of ``known`` by architecture.

    A row of any width qualifies if it has the report's 12 layers of 8 heads, and retention beside
    attention; None for any other.
    """
    heads = (row.get("attention_heads") or 0) + (row.get("retention_heads") or 0)
    alike = row.get("layers") == LAYERS and heads == LAYERS * HEADS
    retention = row.get("mixer") in (None, "", "msr") or row.get("architecture") == "Transformer"
    two_stage = row.get("hybrid_form") in (None, "", "two_stage")
    return known.get(str(row.get("architecture"))) if alike and retention and two_stage else None
