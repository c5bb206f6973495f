"""Whole study folders as sweeps would leave them, with plan.json and metrics, made of formulas.

Every perplexity is exp(nats) of a rule that a test can repeat: :func:`nats` of the share of
attention plus what the study is about, and :func:`noise` of variant and seed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.rows import csv_of
from tests.analysis.rows import row, study, transformer, type_x

Row = dict[str, Any]
SEEDS = 3
#: What repairing a defect alone changes in ``published``; the opposite in ``corrected`` (nats).
STEPS = {
    "causal mask": -0.08,
    "retention's start": -0.03,
    "warm-up": -0.05,
    "clipping": 0.004,
    "shuffling": -0.002,
}
PLACEMENTS = {"first": 0.04, "last": -0.04, "interleaved": -0.02, "spread": -0.01, "head split": 0.05}


def noise(variant_hash: str, seed: int, size: float = 0.004) -> float:
    """A number between -size and size that is always the same for the same run."""
    digest = hashlib.sha256(f"{variant_hash} {seed}".encode()).digest()
    return size * (2 * int.from_bytes(digest[:4], "big") / 2**32 - 1)


def nats(share: float) -> float:
    """Mean negative log-likelihood of a model with that share of attention: less attention, worse."""
    return 3.4 - 0.25 * share


def model(name: str, variant_hash: str, shift: float = 0.0, seeds: int = SEEDS, **columns: Any) -> list[Row]:
    """The runs of "Transformer", "RetNet" or "Type A 10:2", ``shift`` nats off the rule."""
    made = []
    for seed in range(seeds):
        common = {
            "seed": seed,
            "variant_hash": variant_hash,
            "spec_hash": f"{variant_hash} {seed}",
            **columns,
        }
        if name.startswith("Type "):
            letter, ratio = name[5:].split(" ")
            one = type_x(letter, int(ratio.partition(":")[0]), **common)
        else:
            one = transformer(**common) if name == "Transformer" else row(name, **common)
        heads = one["attention_heads"] + one["retention_heads"]
        value = nats(one["attention_heads"] / heads) + shift + noise(variant_hash, seed)
        one |= {
            "train_ppl": math.exp(value - 0.1),
            "valid_ppl": math.exp(value),
            "test_ppl": math.exp(value + 0.02),
        }
        made.append(one | decode_costs(one) | columns)
    return made


def decode_costs(one: Mapping[str, Any]) -> Row:
    """Linear in the context, as for real layers: crossing the Transformer at n = d/2 + d/heads."""
    width, retention = one["d_model"], one["retention_heads"] // 8
    attention, head = one["attention_heads"] // 8, one["d_model"] // 8
    costs: Row = {}
    for n in (128, 512, 2048, 8192):
        mixers = retention * (5 * width**2 + 2 * width * head) + attention * (4 * width**2 + 2 * n * width)
        costs[f"macs_decode_{n}"] = mixers + 1_000_000
        costs[f"state_bytes_{n}"] = 4 * (retention * width * head + attention * 2 * n * width)
    return costs | {"macs_train_forward": 30_000_000 + 10_000 * one["retention_heads"]}


def gone(rows: Iterable[Row], step: int = 7) -> list[Row]:
    """The same runs, diverged: they have no perplexity."""
    return [
        {name: value for name, value in one.items() if not name.endswith("_ppl") or "gram" in name}
        | {"status": f"diverged@{step}"}
        for one in rows
    ]


def planned(folder: Path, sweep: str, members: Sequence[tuple[list[Row], Mapping[str, str]]]) -> Path:
    """A study of ``members`` (runs and what the sweep calls them), its plan beside; a variant that is
    several members has its runs once."""
    runs = {(one["variant_hash"], one["seed"]): one for rows, _ in members for one in rows}
    study(folder, *runs.values())
    plan = {
        "sweep": sweep,
        "commands": [f"python -m retsweep +sweep={sweep} seeds=3"],
        "environment": {"python": "3.11.9", "platform": "test", "packages": {}},
        "members": [
            {
                "variant_hash": rows[0]["variant_hash"],
                "as": dict(said),
                "reference": bool(rows[0].get("reference")),
            }
            for rows, said in members
        ],
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    return folder


def published(folder: Path, source: Path) -> Path:
    """The study in ``source`` as a published folder: rows.csv, plan.json and curves.csv."""
    folder.mkdir(parents=True)
    rows = [json.loads(path.read_text()) for path in sorted(source.glob("trials/*/row.json"))]
    (folder / "rows.csv").write_text(csv_of(rows))
    if (source / "plan.json").is_file():
        (folder / "plan.json").write_text((source / "plan.json").read_text())
    return folder


def ar_ratio(folder: Path, seeds: int = SEEDS, protocol: str = "corrected") -> Path:
    """The report's 31 models and the FFN-only line. Type C is 0.1 worse, Type B 0.05 better. Published,
    attention leaks (and looks better for it: half the perplexity), and Type C 2:6 diverges."""
    names = [("Transformer", 0.0), ("RetNet", 0.0)]
    names += [(f"Type A {k}:{12 - k}", 0.0) for k in range(1, 12)]
    names += [(f"Type B {k}:{12 - k}", -0.05) for k in range(1, 12)]
    names += [(f"Type C {k}:{8 - k}", 0.1) for k in range(1, 8)]
    members = []
    for name, shift in names:
        leaky = protocol == "published" and name != "RetNet"
        runs = model(name, name, shift, seeds, protocol=protocol, leaky=leaky)
        members.append((gone(runs) if leaky and name == "Type C 2:6" else _leaking(runs), {}))
    heads = {"attention_heads": 0, "retention_heads": 0, "pattern": "N" * 12}
    reference = row("FFN only", layout="pattern", reference=True, valid_ppl=45.0, protocol=protocol, **heads)
    return planned(folder, "ar_ratio", [*members, ([reference], {})])


def _leaking(runs: list[Row]) -> list[Row]:
    """The same runs; leaky ones halve their perplexity by looking ahead."""
    for one in runs:
        if one["leaky"]:
            one |= {"valid_ppl_causal_eval": one["valid_ppl"], "valid_ppl": one["valid_ppl"] * 0.5}
    return runs


def defects(
    folder: Path, names: Sequence[str] = ("Transformer", "RetNet", "Type A 10:2", "Type C 4:4")
) -> Path:
    """The ladder both ways. Published attention leaks: its likelihood is valid_ppl_causal_eval.
    RetNet has no mask, so that step is RetNet as it is; Type C diverges unless warmed up."""
    members = []
    for ladder, sign in (("published", 1), ("corrected", -1)):
        for name in names:
            for step in ("as it is", *STEPS, *(["all repaired"] if ladder == "published" else [])):
                members.append(_step(name, ladder, step, sign))
    return planned(folder, "defects", members)


def _step(name: str, ladder: str, step: str, sign: int) -> tuple[list[Row], dict[str, str]]:
    said = {"ladder": ladder, "step": step}
    protocol = "corrected" if ladder == "corrected" or step == "all repaired" else "published"
    same = step == "all repaired" or (step == "causal mask" and name == "RetNet")
    own = "as it is" if same else step
    base = 0.3 if protocol == "published" else 0.0
    leaky = name != "RetNet" and (own == "causal mask") == (protocol == "corrected")
    shift = base + sign * STEPS.get(own, 0.0)
    runs = _leaking(model(name, f"{protocol}/{own}/{name}", shift, protocol=protocol, leaky=leaky, task=own))
    diverges = name.startswith("Type C") and protocol == "published" and own != "warm-up"
    return (gone(runs) if diverges else runs), said


def divergence(folder: Path) -> Path:
    """Type C in two forms at three rates: 0.012 diverges unless warmed up and clipped, 0.006 once."""
    members = []
    for form in ("two_stage", "direct"):
        for rate in (0.003, 0.006, 0.012):
            for index, step in enumerate(("as it is", "warm-up", "clipping", "both")):
                switches = {"warmup": 0.02 * (index % 2), "clip": 1.0 if index > 1 else None}
                kind = {"hybrid_form": form, "learning_rate": rate, "protocol": "published"}
                runs = model("Type C 2:6", f"{form} {rate} {step}", -0.05 * index, **kind, **switches)
                if rate == 0.012 and step != "both":
                    runs = gone(runs)
                elif rate == 0.006 and step == "as it is":
                    runs = [*runs[:2], *gone(runs[2:])]
                members.append((runs, {"step": step}))
    return planned(folder, "divergence", members)


def placement(folder: Path) -> Path:
    """Three ratios in five places and three random draws each, between both ends."""
    members: list[tuple[list[Row], dict[str, str]]] = []
    for attention in (3, 6, 9):
        kinds = [*PLACEMENTS.items(), *(("random", 0.015 * (draw - 1)) for draw in range(3))]
        for index, (kind, shift) in enumerate(kinds):
            heads = {"attention_heads": 8 * attention, "retention_heads": 96 - 8 * attention}
            name = {"first": "Type A", "last": "Type B", "head split": "Type C"}.get(kind, "Placed")
            units = 8 if kind == "head split" else 12
            ratio = f"{attention * units // 12}:{units - attention * units // 12}"
            runs = model("RetNet", f"{kind} {index} {attention}", 0.0, **heads)
            value = nats(attention / 12) + shift
            for one in runs:
                one["architecture"] = f"{name} {ratio}"
                one["layout"] = "placed" if name == "Placed" else name.lower().replace(" ", "_")
                one["pattern"] = f"{kind} {index}"
                one["valid_ppl"] = math.exp(value + noise(one["variant_hash"], one["seed"]))
            members.append((runs, {"placement": kind}))
    ends = [model(name, name, reference=True) for name in ("Transformer", "RetNet")]
    return planned(folder, "placement", [*members, *((runs, {}) for runs in ends)])


MIXES = ("Transformer", "RetNet", "Type A 6:6", "Type B 3:9", "Type B 6:6", "Type B 9:3")


def scaling(folder: Path, widths: Sequence[int] = (64, 128, 256)) -> Path:
    """Six ratios at each width: a doubling lowers all by 0.3, the gap to the Transformer by a third."""
    members = []
    for step, width in enumerate(widths):
        for name in MIXES:
            runs = model(name, f"{name} d{width}", -0.3 * step, d_model=width, params=5500 * width)
            members.append((_narrowed(runs, 0.3 * step, (2 / 3) ** step), {}))
    return planned(folder, "scaling", members)


def context(folder: Path, contexts: Sequence[int] = (63, 127, 255)) -> Path:
    """Six ratios at each training context: a doubling lowers all by 0.1, the gap grows by a third."""
    members = []
    for step, length in enumerate(contexts):
        for name in MIXES:
            runs = model(name, f"{name} n{length}", -0.1 * step, context=length)
            members.append((_narrowed(runs, 0.1 * step, (4 / 3) ** step), {}))
    return planned(folder, "context", members)


def _narrowed(runs: list[Row], lowered: float, factor: float) -> list[Row]:
    """The runs with their gap to the Transformer's rule multiplied by ``factor``."""
    for one in runs:
        share = one["attention_heads"] / (one["attention_heads"] + one["retention_heads"])
        gap = nats(share) - nats(1.0)
        value = nats(1.0) - lowered + factor * gap + noise(one["variant_hash"], one["seed"])
        one["valid_ppl"] = math.exp(value)
    return runs


def with_metrics(folder: Path, steps: int = 200) -> Path:
    """Adds a metrics.jsonl to every trial: the loss falls as 6 - step / steps, offset by the seed
    (0.01 a seed); validation every half."""
    for path in sorted(folder.glob("trials/*/row.json")):
        seed = json.loads(path.read_text())["seed"]
        log = []
        for step in range(1, steps + 1):
            entry = {"step": step, "loss": 6 - step / steps + 0.01 * seed, "tokens": step * 1008}
            entry |= {"learning_rate": 1e-3, "seconds": 0.1 * step}
            if step % (steps // 2) == 0:
                entry["valid_loss"] = entry["loss"] + 0.1
            log.append(json.dumps(entry) + "\n")
        path.with_name("metrics.jsonl").write_text("".join(log))
    return folder
