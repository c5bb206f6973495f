"""``python -m benchmarks.sweep [KEY=VALUE ...]``: a sweep's time against a bare loop over the same models.

All on the CPU, in fresh processes with one thread each, from data that is prepared before: the bare loop
(``bare_loop.py``), the sweep with one worker, and the sweep with as many as there are cores. Prints
seconds, the ratio of each to the bare loop, and the sweep's own account of where its time went; fails if
the two gave different perplexities, or if a model diverged, where the sweep stops early: they did not do
the same work then. ``make sweep``'s 31 models unless KEY=VALUE say something else.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from retsweep.spec import SpecError
from retsweep.sweep.plan import plan
from retsweep.sweep.variants import Wanted, wanted

SWEEP, SEEDS = "+sweep=ar_ratio", "seeds=1"
#: Sums in another order may differ in the last digits of a perplexity, and in nothing else.
TOLERANCE = 1e-4
#: What the bare loop does not do, by field of the protocol, and what it does instead.
DONE = {"accumulate": 1, "precision": "fp32", "compile": False, "head_tokens": None, "train_chunks": None}
DONE_EVALUATING = {"every": 0, "train_ppl": "slice"}


class Failed(Exception):
    """A process ended with an error, which it said on stderr. Its text is one line."""


def main(overrides: Sequence[str]) -> int:
    """Runs both, prints the comparison: 0, 1 if they disagree, 2 if there was nothing to compare."""
    named = any(override.startswith(("+sweep=", "sweep=")) for override in overrides)
    asked = [*([] if named else [SWEEP]), SEEDS, *overrides]
    try:
        runs = wanted(asked)
        check(runs)
        plan(runs)  # the corpora: else the bare loop, which is first, would pay for them
        return compare(asked)
    except (SpecError, Failed) as error:
        print(f"benchmarks.sweep: {error}", file=sys.stderr)
        return 2


def compare(asked: Sequence[str]) -> int:
    """0, or 1 if the two did not do the same work. Raises Failed."""
    console = Console(highlight=False, soft_wrap=True)
    cores = len(os.sched_getaffinity(0))
    bare, bare_seconds = bare_loop(asked, console)
    console.print(f"bare loop: {len(bare)} models in {bare_seconds:.0f} s, {_training(bare):.0%} of it steps")
    agree = True
    for workers in sorted({1, cores}):
        with tempfile.TemporaryDirectory() as folder:
            said, seconds = sweep([*asked, "device=cpu", f"workers={workers}"], Path(folder), console)
            agree &= same(bare, rows(Path(folder)), console)
        console.print(
            f"sweep, workers={workers}: {seconds:.0f} s, {seconds / bare_seconds:.2f}x the bare loop; {said}"
        )
    return 0 if agree else 1


def check(runs: Wanted) -> None:
    """Raises SpecError for what the bare loop would not do as the sweep does."""
    if runs.settings.device == "cuda":
        raise SpecError("device=cuda is not accepted; the bare loop and so the sweep are on the cpu")
    for run in runs.runs:
        spec, protocol = run.spec, run.spec.protocol
        if spec.task.name != "train":
            raise SpecError(f"task={spec.task.name} is not accepted; the bare loop knows: train")
        parts: tuple[tuple[str, object, dict[str, Any]], ...] = (
            ("protocol", protocol, DONE),
            ("protocol.evaluation", protocol.evaluation, DONE_EVALUATING),
        )
        for path, part, done in parts:
            for name, value in done.items():
                if (given := getattr(part, name)) != value:
                    raise SpecError(
                        f"{run.label}: {path}.{name}={given} is not accepted; the bare loop knows: {value}"
                    )


def bare_loop(asked: Sequence[str], console: Console) -> tuple[list[dict[str, Any]], float]:
    """What the bare loop printed, and its seconds from start to end. Raises Failed."""
    trained: list[dict[str, Any]] = []
    began = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.bare_loop", *asked]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_one_thread()) as process,
        Progress(*Progress.get_default_columns(), console=console, transient=True) as bar,
    ):
        assert process.stdout is not None
        shown = bar.add_task("bare loop", total=len(wanted(asked).runs))
        for line in process.stdout:
            trained.append(json.loads(line))
            bar.advance(shown)
    if process.returncode:
        raise Failed(f"the bare loop ended with status {process.returncode}; what it said is above")
    return trained, time.perf_counter() - began


def sweep(asked: Sequence[str], folder: Path, console: Console) -> tuple[str, float]:
    """What the sweep said of its time, and its seconds from start to end. Raises Failed."""
    command = [sys.executable, "-m", "retsweep", *asked, "tracker=none", "study=s", f"runs={folder}"]
    began = time.perf_counter()
    said = "it said nothing of its time"
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_one_thread()) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "were training steps" in line:
                said = line.strip()
            elif " finished, " in line:
                console.print(line.strip(), markup=False)  # its standing, with an estimate of the time left
    if process.returncode:
        raise Failed(f"the sweep ended with status {process.returncode}; what it said is above")
    return said, time.perf_counter() - began


def rows(folder: Path) -> list[dict[str, Any]]:
    """Of the study."""
    return [json.loads(path.read_text()) for path in (folder / "s" / "trials").glob("*/row.json")]


def same(bare: Sequence[dict[str, Any]], swept: Sequence[dict[str, Any]], console: Console) -> bool:
    """Whether the models ended at the same validation perplexities, all of them numbers."""
    diverged = [f"{one['label']} in the bare loop" for one in bare if not math.isfinite(one["valid_ppl"])]
    diverged += [f"{one['label']} in the sweep ({one['status']})" for one in swept if one["status"] != "ok"]
    if diverged:
        console.print(f"not the same work: no perplexity of {', '.join(diverged)}", style="red", markup=False)
        return False
    ours, theirs = sorted(one["valid_ppl"] for one in swept), sorted(one["valid_ppl"] for one in bare)
    if len(ours) == len(theirs) and all(
        math.isclose(a, b, rel_tol=TOLERANCE) for a, b in zip(ours, theirs, strict=True)
    ):
        return True
    console.print(f"not the same work: valid_ppl {ours} by the sweep, {theirs} by the bare loop", style="red")
    return False


def _training(trained: Sequence[dict[str, Any]]) -> float:
    steps = sum(one["training"] for one in trained)
    return float(steps / (steps + sum(one["evaluation"] for one in trained)))


def _one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
