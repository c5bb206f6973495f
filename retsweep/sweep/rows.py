"""The columns of a row that every task shares: what was run, on what, by which code."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from retsweep import __version__
from retsweep.spec import RunSpec
from retsweep.spec.identity import spec_hash, variant_hash


def describe(spec: RunSpec, data_hash: str, device: str) -> dict[str, Any]:
    """A run's own columns and its provenance. ``device`` is a torch device ("cpu", "cuda")."""
    attention_heads, retention_heads = spec.heads_by_kind
    columns = {
        "architecture": spec.layout.architecture(spec.layers, spec.scale.heads),
        "layout": spec.layout.kind,
        "ar_ratio": spec.layout.ar_ratio(spec.layers, spec.scale.heads),
        "pattern": spec.pattern,
        "mixer": mixer(spec),
        "attention_heads": attention_heads,
        "retention_heads": retention_heads,
        "layers": spec.scale.layers,
        "heads": spec.scale.heads,
        "d_model": spec.scale.d_model,
        "ffn": spec.scale.ffn,
        "context": spec.scale.context,
        "vocabulary": spec.scale.vocabulary,
        "seed": spec.seed,
        "learning_rate": spec.protocol.learning_rate,
        "precision": spec.protocol.precision,
        "planned_steps": spec.protocol.steps,  # None where epochs decide
        "epochs": spec.protocol.epochs,
        "batch": spec.protocol.batch,
        "accumulate": spec.protocol.accumulate,
        "schedule": spec.protocol.schedule,
        "warmup": spec.protocol.warmup,
        "weight_decay": spec.protocol.weight_decay,
        "clip": spec.protocol.clip,
        "beta2": spec.protocol.beta2,
        "weight_decay_of": spec.protocol.decay,
        "shuffle": spec.protocol.shuffle,
        "train_chunks": spec.protocol.train_chunks,  # None: all of the corpus
        "chunking": spec.protocol.chunking,
        "dropout": spec.model.dropout,
        "final_norm": spec.model.final_norm,
        "model_start": spec.model.start,
        "branches": spec.model.branches,
        "train_ppl_of": spec.protocol.evaluation.train_ppl,  # what the column train_ppl is of
        "leaky": spec.leaky,
        "protocol": spec.protocol.name,
        "scale": spec.scale.name,
        "task": spec.task.name,
    }
    data = {}
    if spec.task.reads_data:
        data = {"corpus": spec.corpus.label, "tokenizer": spec.tokenizer.name, "data_hash": data_hash}
    return {
        **columns,
        **spec.layout.columns(),
        **_layer_columns(spec),
        **data,
        "git_commit": git_commit(),
        "version": __version__,
        "spec_hash": spec_hash(spec, data_hash),
        "variant_hash": variant_hash(spec, data_hash),
        "torch_version": version("torch"),
        "device": device_name(device),
    }


def costs(spec: RunSpec) -> dict[str, Any]:
    """What every row carries of the run's costs: closed forms, and the fvcore trace that a task
    which reads data does not make itself. Raises CensusError if trace and census disagree."""
    from retsweep.costs import cost_columns

    columns: dict[str, Any] = dict(cost_columns(spec))
    if spec.task.reads_data:
        from retsweep.costs.fvcore_trace import trace

        columns["macs_fvcore"] = trace(spec).macs
    return columns


def mixer(spec: RunSpec) -> str:
    """What stands beside attention in this network; "attention" or "none" if nothing does."""
    kinds = dict.fromkeys(layer.kind for layer in spec.layers)
    beside = [spec.layout.mixer if kind == "hybrid" else kind for kind in kinds if kind != "attention"]
    return _joined(beside) or "attention"


@functools.cache
def git_commit() -> str | None:
    """:func:`commit_of` this package. Asked once a process: that is the code which it has loaded."""
    return commit_of(Path(__file__).resolve().parents[1])


def commit_of(package: Path) -> str | None:
    """The commit of the checkout that holds ``package``, "-dirty" if the package or the conf/
    beside it was edited or added to since (nothing else changes a number); None for an installed
    package."""
    if not _git(package, "ls-files", "__init__.py"):
        return None  # inside somebody else's repository, or none
    commit = _git(package, "rev-parse", "HEAD")
    sources = [str(package), str(package.parent / "conf")]
    edited = _git(package, "status", "--porcelain", "--untracked-files=normal", "--", *sources)
    return f"{commit}-dirty" if edited else commit


def code(row: Mapping[str, Any]) -> str:
    """Which code wrote ``row``, in short: "commit 1a2b3c4d5e", or the version of a package."""
    commit, _, edited = str(row.get("git_commit") or "").partition("-")
    if not commit:
        return f"version {row.get('version')}"
    return f"commit {commit[:10]}{' with edits' if edited else ''}"


def code_here() -> str:
    """:func:`code` of the rows that this process would write."""
    return code({"git_commit": git_commit(), "version": __version__})


@functools.cache
def device_name(device: str) -> str:
    """The hardware behind a torch device: the GPU's name, or the processor's."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "cpu"
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"cpu ({models[0]})" if models else "cpu"


def _layer_columns(spec: RunSpec) -> dict[str, str]:
    """``position``, ``hybrid_form`` ...: what the layers say, distinct values joined by "+"."""
    said: dict[str, list[Any]] = {}
    for layer in dict.fromkeys(spec.settled_layers):
        for column, value in layer.columns().items():
            said.setdefault(column, []).append(value)
    return {column: _joined(values) for column, values in said.items()}


def _joined(values: Iterable[Any]) -> str:
    return "+".join(dict.fromkeys(str(value) for value in values))


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
