"""torchrun -m retsweep, for real: two processes on this CPU; and what it is not for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from retsweep.launch.torchrun import Here, Torchrun
from retsweep.spec import SpecError, load_spec
from retsweep.sweep.storage import storage_url
from retsweep.sweep.study import Study
from retsweep.sweep.variants import wanted
from retsweep.tasks.base import Workspace
from tests.sweep.test_engine import ROOT, until
from tests.tasks.corpora import write_corpus

TINY = ("scale=tiny", "tracker=none", "device=cpu", "study=s")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("+sweep=smoke",), "torchrun shares one run among 2 processes, and this command lists"),
        (("seeds=3",), "this command lists 3; accepted: no sweep, no seeds"),
        (("tune.learning_rate=[0.1,0.01]",), "tune.learning_rate asks for several"),
        (("task=count",), "torchrun shares a training, and task=count is none"),
        (
            ("protocol.batch=5",),
            "cannot be shared by 2 processes; accepted: a multiple of 2",
        ),
        (
            ("workers=2",),
            "accepted beside it: launcher=local, workers=null",
        ),
        (("launcher=slurm",), "torchrun starts processes itself"),
    ],
)
def test_what_is_not_one_training_is_refused(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(SpecError) as caught:
        Torchrun(Here(0, 2, 0, 2)).take(wanted([*TINY, *words]))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def command(here: Path) -> list[str]:
    text = ("corpus=text", f"corpus.path={here / 'text'}", "tokenizer=bytes", f"cache={here / 'cache'}")
    long = ("budget.steps=200", "protocol.checkpoint_every=5", "protocol.evaluation.every=100")
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    return [*start, "retsweep", *TINY, *text, *long]


def lines() -> list[dict[str, Any]]:
    found = list(Path("runs/s").glob("trials/*/metrics.jsonl"))
    return [json.loads(line) for line in found[0].read_text().splitlines()] if found else []


def follower(parent: int) -> int:
    """The process of torchrun's that is not the chief."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    (found,) = [int(pid) for pid in children if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()]
    return found


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_a_run_in_two_processes_survives_the_death_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path / "text")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    with subprocess.Popen(command(tmp_path), env=environment, stderr=subprocess.PIPE, text=True) as first:
        said: list[str] = []
        assert first.stderr is not None
        reader = threading.Thread(target=lambda: said.extend(first.stderr or ()), daemon=True)
        reader.start()
        until(lambda: len(lines()) > 20 or first.poll() is not None)
        os.kill(follower(first.pid), signal.SIGKILL)
        assert first.wait(60) != 0
        reader.join(10)
    (entry,) = Study(storage_url(None, Path("runs/s")), "s").entries()
    assert entry.state == "waiting", "".join(said)
    assert len(lines()) < 200

    done = subprocess.run(command(tmp_path), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (file,) = Path("runs/s").glob("trials/*/row.json")
    row = json.loads(file.read_text())
    assert (row["world_size"], row["status"], row["steps"]) == (2, "ok", 200)
    assert [line["step"] for line in lines()] == list(range(1, 201))

    overrides = [word for word in command(tmp_path)[7:] if not word.startswith(("cache=", "study="))]
    spec = load_spec(overrides)
    alone = tmp_path / "alone"
    alone.mkdir()
    expected = spec.task(spec, Workspace(alone, "cpu", tmp_path / "cache"))
    assert "world_size" not in expected
    curve = [json.loads(line)["loss"] for line in (alone / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines()] == pytest.approx(curve, rel=1e-3)
    for column in ("train_ppl", "valid_ppl", "test_ppl", "best_valid_ppl", "tokens"):
        assert row[column] == pytest.approx(expected[column], rel=1e-3)
