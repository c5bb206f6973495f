"""wandb itself against a W&B server on the loopback: what arrives, once, and what a broken one costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from retsweep.tracking import log
from tests.wandb_runs import ROW, STUDY, line
from tests.wandb_server import Server

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


def python(server: Server, folder: Path, *arguments: str) -> str:
    """What ``python ARGUMENTS`` prints, with an environment that leads to the server and nowhere else."""
    known = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**known, **server.environment(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def steps(*, below: int) -> list[dict[str, float]]:
    return [{"_step": step, "loss": line(step)["loss"]} for step in range(below)]


# ---- once, whatever happened -----------------------------------------------------------------
def test_a_run_that_was_broken_and_resumed_is_one_run_with_every_step_once(server, tmp_path):
    """Online the server says how far the run has come; offline it is seen, synced, resumed and synced
    again, with every folder that lies there given to `wandb sync` each time."""
    python(
        server,
        tmp_path,
        "-m",
        "tests.wandb_runs",
        str(tmp_path),
        *("on/online/0-5-killed", "on/online/3-6-stopped", "on/online/5-8-row"),
        *("off/offline/0-5-killed", "off/offline/3-6-stopped", "off/sync"),
        *("off/offline/4-8-row", "off/sync", "off/sync"),
    )
    assert set(server.runs) == {"on", "off"}
    for run in server.runs.values():
        assert run.history == steps(below=8)
        assert (run.group, run.job_type, run.display_name) == (STUDY, "Type A", "Type A 3:1")
        assert run.values == {"seed": 1}
        assert run.content[4] == ROW  # and not the loss of the last step
        assert run.exit_code == 0
    # The killed one's folder is superseded; the one that was synced stays, and is not sent again.
    first, second = sorted((tmp_path / "off" / "wandb").glob("offline-run-*"))
    assert [log.last_step(folder) for folder in (first, second)] == [5, 7]


def test_the_log_of_a_killed_run_is_read_as_far_as_it_goes(tmp_path):
    assert log.last_step(tmp_path) == -1
    (tmp_path / "run-a.wandb").write_bytes(b":W&B\xe1\xbe\x00")
    assert log.last_step(tmp_path) == -1
    (tmp_path / "run-a.wandb").write_bytes(b":W&B\xe1\xbe\x00" + b"\x00\x00\x00\x00\xff\x00\x01torn")
    assert log.last_step(tmp_path) == -1


# ---- a server that is broken -----------------------------------------------------------------
TELL = """
import json, os, pathlib, sys, time, warnings
import wandb
from retsweep.tracking import Mirror, TrackedRun, Wandb, choice, session
from tests.wandb_server import Server

#: Seconds: where an answer never comes, and where one does, however busy the machine is.
VAIN, ENOUGH = 1, 30

def start(mode, *of_run):
    session.INIT_SECONDS = online_seconds if mode == "online" else ENOUGH
    return begin(mode, *of_run)

begin, choice.start = choice.start, start

def tell(folder, fault, when):
    global online_seconds
    online_seconds = VAIN if when is None and fault.startswith("hang") else ENOUGH
    session.FINISH_SECONDS = VAIN if when is not None and fault != "401" else ENOUGH
    with Server() as server, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        os.environ.update(server.environment(folder))
        server.fault, server.fault_after = (None, (when, fault)) if when else (fault, None)
        began = time.perf_counter()
        tracker = Wandb().open(TrackedRun("id", "n", "g", folder))
        for step in range(4):
            tracker.metrics({"step": step, "loss": 1.0})
        heard = time.perf_counter() - began
        tracker.row({"status": "ok"})
        sent = tracker.close()
        seconds = time.perf_counter() - began
        said = [str(one.message) for one in warned if "wandb" in str(one.message)]
        left = sorted(path.name.split("-")[0] for path in (folder / "wandb").glob("*run-*-*"))
        return dict(sent=sent, said=said, heard=heard, seconds=seconds, left=left, hung=Mirror.hung.is_set())

root, faults = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
for place, (fault, when) in enumerate(faults):
    Mirror.hung.clear()
    folder = root / str(place)
    folder.mkdir()
    (root / f"{place}.json").write_text(json.dumps(tell(folder, fault, when)))
    wandb.teardown()
"""
AT_ONCE = ("401", "500", "hang after hello")
IN_THE_MIDDLE = ("401", "500", "drop", "hang")


@pytest.mark.slow
def test_a_server_that_refuses_hangs_or_dies_costs_a_warning(tmp_path):
    """Refused connections, and one that hangs before it says anything, are in test_tracking.py."""
    faults = [(fault, None) for fault in AT_ONCE] + [(fault, "UpsertBucket") for fault in IN_THE_MIDDLE]
    with Server() as elsewhere:
        python(elsewhere, tmp_path, "-c", TELL, str(tmp_path), json.dumps(faults))
    for place, (fault, when) in enumerate(faults):
        one = json.loads((tmp_path / f"{place}.json").read_text())
        (said,) = one["said"]
        assert one["heard"] < 1  # the run itself waits for nothing
        assert one["seconds"] < 15  # half of what is waited for an answer that comes: it was one
        if when is None:  # whole, on disk, for later
            assert one["sent"] == "offline"
            assert "offline" in one["left"]
            assert "wandb cannot be reached, tracking offline" in said
        else:
            assert one["sent"] == "nowhere"
            assert "tracking with wandb ends here, the run goes on" in said
            assert one["hung"] == (fault != "401")
            assert ("401 Unauthorized" in said) == (fault == "401")
