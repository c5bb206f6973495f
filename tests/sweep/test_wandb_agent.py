"""sweeps/*.yaml under a real `wandb sweep` and `wandb agent`, against a W&B server on the loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.wandb_server import ENTITY, Run, Server

ROOT = Path(__file__).resolve().parents[2]
#: Both commands in one process, and an agent that looks for news more often than every five seconds.
COMMANDS = """
import sys
from wandb.cli.cli import cli
from wandb.wandb_agent import Agent

Agent.POLL_INTERVAL = 0.2
for words in (["sweep", sys.argv[1]], ["agent", sys.argv[2]]):
    cli.main(words, standalone_mode=False)
"""
TEXT = "the quick brown fox jumps over the lazy dog\n"


def agent(server: Server, folder: Path, sweep: str, **more: str) -> None:
    """`wandb sweep` and `wandb agent` for a file of sweeps/, as it is, in ``folder``."""
    known = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RETSWEEP_CACHE": str(folder / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, str(ROOT / "sweeps" / sweep), f"{ENTITY}/retsweep/sweep0"],
        env={**known, **server.environment(folder), **more},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not server.sweeps["sweep0"].waiting, done.stdout + done.stderr


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in folder.glob("runs/*/trials/*/row.json")]


def summary(run: Run, row: dict[str, Any]) -> dict[str, Any]:
    """What W&B shows of the columns of ``row``: it keeps no None."""
    return {key: run.summary.get(key) for key in row}


@pytest.mark.slow
def test_online_an_agent_trains_what_it_is_asked_for(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text(TEXT * 30)
    small = {"scale": "tiny", "corpus": "text", "corpus.path": str(tmp_path), "tokenizer": "bytes"}
    chosen = {"layout.pattern": "RA", "scale.ffn": 64, "protocol.learning_rate": 0.00123, "seed": 1}
    with Server() as server:
        server.proposals = [{**chosen, **small, "protocol.steps": 2}]
        agent(server, tmp_path, "random.yaml")
    (row,) = rows(tmp_path)
    assert (row["pattern"], row["ffn"], row["learning_rate"], row["steps"]) == ("RARA", 64, 0.00123, 2)
    (run,) = server.runs.values()  # and none for the table: W&B would count it among the sweep's
    assert (run.name, run.sweep, run.group) == ("sweep0-run0", "sweep0", "random-train-small-corrected")
    assert row["wandb_run"] == "sweep0-run0"
    assert run.exit_code == 0
    assert summary(run, row) == row
    (metrics,) = tmp_path.glob("runs/*/trials/*/metrics.jsonl")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [{"step": line.pop("_step"), **line} for line in run.history] == lines
    assert {"Viewer", "UpsertSweep", "SweepWithRuns", "CreateAgent", "Heartbeat"} <= set(server.calls)


@pytest.mark.slow
def test_offline_an_agent_leaves_runs_that_are_synced_later(tmp_path: Path) -> None:
    chosen = {"layout.attention": 2, "protocol.learning_rate": 0.001}
    with Server() as server:
        server.proposals = [{**chosen, "scale": "tiny", "task": "count", "task.fvcore": False}]
        agent(server, tmp_path, "bayes.yaml", WANDB_MODE="offline")
        (row,) = rows(tmp_path)
        assert server.runs == {}
        left = [str(path) for path in tmp_path.glob("runs/*/trials/*/wandb/offline-run-*")]
        subprocess.run(
            [sys.executable, "-m", "wandb", "sync", *left],
            env={"PATH": os.environ["PATH"], **server.environment(tmp_path)},
            check=True,
            capture_output=True,
            cwd=tmp_path,
        )
    (run,) = server.runs.values()
    assert (run.name, run.sweep, run.job_type) == ("sweep0-run0", "sweep0", "Type A")
    assert summary(run, row) == row
