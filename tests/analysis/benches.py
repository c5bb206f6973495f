"""Studies of benches as their tasks would leave them: measurements by formulas that a test can repeat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.analysis.studies import model, planned

CONTEXTS, BATCHES, LENGTHS = (128, 512, 2048, 8192), (1, 16, 64), (128, 512, 2048, 8192)
NAMES = ("Transformer", "RetNet", *(f"Type {x} {k}:{12 - k}" for x in "AB" for k in (3, 6, 9)), "Type C 4:4")
DEVICE = "a processor"
#: Far beyond the contexts: at batch 1 retention is slower throughout.
CROSSINGS = {1: 20_000.0, 16: 1280.0, 64: 320.0}


def latency_ms(share: float, n: int, b: int) -> float:
    """Attention: 1 + n / crossing; retention: 2. Between them by the share of attention."""
    return share * (1 + n / CROSSINGS[b]) + (1 - share) * 2.0


def decode_columns(one: dict[str, Any], speed: float = 1.0) -> dict[str, Any]:
    """What task=decode_bench adds: retention moves fewer bytes from 576 + 0 b on, whatever the batch."""
    share = one["attention_heads"] / 96
    found: dict[str, Any] = {
        "precision": "fp32",
        "decode_weight_dtype": "float32",
        "decode_cache_dtype": "float32",
        "decode_state_dtype": "float32",
        "decode_threads": 2,
        "decode_skipped": None,
    }
    for n in CONTEXTS:
        for b in BATCHES:
            ms = latency_ms(share, n, b) / speed
            attention, retention = 1_000_000 + 100 * n * b, 1_000_000 + 57_600 * b
            heads = one["attention_heads"]
            found |= {
                f"bytes_decode_{n}_b{b}": (heads * attention + (96 - heads) * retention) // 96,
                f"decode_latency_ms_{n}_b{b}": ms,
                f"decode_latency_p95_ms_{n}_b{b}": 1.2 * ms,
                f"decode_tokens_per_second_{n}_b{b}": 1000 * b / ms,
                f"decode_peak_memory_bytes_{n}_b{b}": 10**8 + int(share * n * b * 1000),
                f"decode_state_bytes_{n}_b{b}": int(share * n * b * 1000) + 1000,
            }
        found[f"prefill_tokens_per_second_{n}"] = 1e5 / (1 + share * n / 1000)
    return found


def train_columns(one: dict[str, Any], speed: float = 1.0) -> dict[str, Any]:
    """What task=train_bench adds; the Transformer's longest does not fit."""
    share = one["attention_heads"] / 96
    lengths = LENGTHS[:-1] if share == 1 else LENGTHS
    found: dict[str, Any] = {"gemm_flops_per_second": 1e11, "train_skipped": None}
    if share == 1:
        found["train_skipped"] = "8192: a step needs about 9.0 GB of 4.0"
    for n in lengths:
        found |= {
            f"train_tokens_per_second_{n}": speed * 20_000 / (1 + share * n / 1000),
            f"train_mfu_{n}": 0.2,
            f"train_peak_memory_bytes_{n}": 10**9 + int(share * n * 1e5),
            f"train_batch_{n}": max(1, 8192 // n),
            f"train_form_{n}": "parallel" if share == 1 or n < 256 else "chunkwise 64",
        }
    return found


def bench(folder: Path, task: str = "decode_bench", seeds: int = 1) -> Path:
    """The bench of a few ratios; with seeds, one runs at 99 % of the speed of the other."""
    add = {"decode_bench": decode_columns, "train_bench": train_columns}[task]
    members = []
    for name in NAMES:
        runs = []
        for seed, one in enumerate(model(name, f"{task} {name}", seeds=seeds, task=task, device=DEVICE)):
            bare = {k: v for k, v in one.items() if "_ppl" not in k and "_per_" not in k}
            runs.append(bare | {"data_hash": None} | add(one, speed=1 - 0.01 * seed))
        members.append((runs, {}))
    return planned(folder, "ar_ratio", members)
