"""task=mirror: a finished study arrives whole, once; what is no study, or nothing to send, is one line."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from retsweep.spec import SpecError, load_spec
from retsweep.spec.base import spec
from retsweep.spec.configs import plain_file
from retsweep.sweep import backfill, command, dashboard, tracked, trial
from retsweep.sweep.plan import Job, plan
from retsweep.sweep.reconcile import open_and_reconcile
from retsweep.sweep.variants import wanted
from retsweep.tasks.base import Workspace
from retsweep.tracking import NoTracker, TrackedRun, content, is_written
from tests.test_tracking_table import Heard
from tests.wandb_server import Server

ROOT = Path(__file__).resolve().parents[2]
STUDY = "a-study"
LINES = [{"step": step, "loss": 5.0 - step / 7, "learning_rate": 1e-3 / step} for step in (1, 2, 3)]


@spec
class Learns:
    """It leaves the metrics of a training; ``fails_at`` a seed that raises. It has no use for its key."""

    name: ClassVar[str] = "learns"
    reads_data: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    computes: ClassVar[bool] = False

    fails_at: int | None = None
    api_key: str = ""

    def __call__(self, run: Any, workspace: Workspace) -> dict[str, Any]:
        with (workspace.folder / "metrics.jsonl").open("w") as file:
            for line in LINES:
                file.write(json.dumps(line) + "\n")
                workspace.metrics(line)
        if run.seed == self.fails_at:
            raise ValueError("broken")
        return {"valid_ppl": 12.0 + run.seed, "macs_decode_2048": 900_001}


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")] + ["RETSWEEP_STORAGE"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def carry_out(tmp_path: Path) -> Callable[..., Job]:
    """A study whose waiting runs, ``limit`` at most, are carried out here."""

    def carry_out(*overrides: str, tracker: Any = None, limit: int = 9) -> Job:
        words = ("scale=tiny", "tracker=none", "device=cpu", f"study={STUDY}", f"runs={tmp_path}", "~task")
        asked = wanted([*words, "+task._target_=tests.sweep.test_backfill.Learns", *overrides])
        job = dataclasses.replace(command._job(asked, plan(asked)), tracker=tracker or NoTracker())
        study = open_and_reconcile(job.url, job.study, job.labels)
        for _ in range(limit):
            taken = study.claim(job.runs)
            if taken is None:
                break
            trial.run_trial(job, study, taken, lambda: False)
        return job

    return carry_out


# ---- to a server -----------------------------------------------------------------------------
SEND = """
import contextlib, io, json, os, pathlib, sys
from retsweep.__main__ import main
from tests.wandb_server import Server

folder, told = pathlib.Path(sys.argv[1]), []
with Server() as server:
    os.environ.update(server.environment(folder))
    for mode in ("online", "online", "offline"):
        os.environ["WANDB_MODE"] = mode
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            code = main(["task=mirror", "study=a-study", f"runs={folder}"])
        written = sorted(str(path.relative_to(folder)) for path in folder.rglob("offline-run-*"))
        seen = {name: [*run.content, run.exit_code] for name, run in server.runs.items()}
        calls, said = len(server.calls), text.getvalue()
        told.append(dict(code=code, said=said, seen=seen, calls=calls, written=written))
        server.calls.clear()
json.dump(told, sys.stdout)
"""


def test_a_finished_study_arrives_whole_and_once(carry_out: Callable[..., Job], tmp_path: Path) -> None:
    """Online, and again; then offline, where all of it has been told already."""
    carry_out("seeds=3", "+task.fails_at=1", limit=2)
    known = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SEND, str(tmp_path)], env=known, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second, offline = json.loads(done.stdout)
    assert [one["code"] for one in (first, second, offline)] == [0, 0, 0]
    assert "2 runs, tracker wandb, online" in first["said"]
    assert "not finished, left out: 1 of 3" in first["said"]

    assert second["seen"] == first["seen"]

    rows = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("*/trials/*/row.json")}
    assert {*first["seen"]} == {*rows, dashboard.run_id(STUDY)}
    for name, row in rows.items():
        group, family, shown, config, summary, history, code = first["seen"][name]
        assert (group, family, code) == (STUDY, "Type A", int(row["status"] == "failed"))
        assert shown == f"Type A 2:2 seed {row['seed']} ({name[:6]})"
        assert config["scale"]["name"] == "tiny"
        assert config["architecture"] == "Type A 2:2"
        assert {key: summary.get(key) for key in row} == row  # W&B keeps no None
        assert [{"step": line.pop("_step"), **line} for line in history] == LINES
    *_, summary, history, _ = first["seen"][dashboard.run_id(STUDY)]
    assert "table" in history[0]
    assert (offline["written"], offline["calls"]) == ([], 0)
    assert "wandb sync" not in offline["said"]


# ---- what is sent ----------------------------------------------------------------------------
def test_afterwards_a_run_is_what_it_was_live(carry_out: Callable[..., Job]) -> None:
    live, later = Heard(), Heard()
    job = carry_out("layout=type_c", "+task.api_key=canary", tracker=live)
    (entry,) = backfill._entries(job.url, job.study).values()
    folder = job.trial_folder(entry.hash)
    backfill.send(entry, STUDY, folder, dataclasses.replace(_decided(), open=later.open))
    (told,), (told_later,) = live.runs, later.runs
    assert told_later == dataclasses.replace(told, live=False)
    assert later.heard == live.heard == [*LINES, entry.row]


def test_what_is_tracked_and_kept_of_a_run_has_no_keys(carry_out: Callable[..., Job], tmp_path: Path) -> None:
    heard = Heard()
    keys = ("'canary one'", "canary2")
    for key in keys:
        carry_out(f"+task.api_key={key}", tracker=heard)
    assert [run.config["task"]["api_key"] for run in heard.runs] == ["..."] * 2
    for path in tmp_path.glob(f"{STUDY}/trials/*/config.yaml"):
        assert plain_file(path)["task"]["api_key"] == "..."
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"config.yaml", "row.json", "study.db"} <= {path.name for path in files}
    assert not [path for path in files if b"canary" in path.read_bytes()]


def _decided() -> Any:
    @dataclasses.dataclass(frozen=True)
    class Opens:
        resolution: Any
        open: Any = None

    return Opens(Heard().resolve())


def test_grouping_by_row_and_by_spec_agree(carry_out: Callable[..., Job]) -> None:
    job = carry_out("layout=type_b", "layout.attention=1")
    (entry,) = backfill._entries(job.url, job.study).values()
    spec = load_spec(["scale=tiny", "layout=type_b", "layout.attention=1"])
    assert entry.row is not None
    assert dashboard.grouping_of(entry.row) == dashboard.grouping(spec)


def test_a_run_of_another_machine_has_what_its_row_says(carry_out: Callable[..., Job]) -> None:
    job = carry_out()
    (entry,) = backfill._entries(job.url, job.study).values()
    nowhere = job.folder / "elsewhere"
    run = tracked.finished(entry, STUDY, nowhere)
    assert run.config["architecture"] == "Type A 2:2"
    assert "scale" not in run.config
    assert tracked.history(nowhere) == []


def test_an_offline_run_that_was_told_the_same_is_known(tmp_path: Path) -> None:
    run = TrackedRun("abc", "n", "g", tmp_path, {"seed": 1})
    digest = content(run.config, LINES, {"valid_ppl": 12.0})
    folder = tmp_path / "wandb" / "offline-run-20260101_000000-abc"
    folder.mkdir(parents=True)
    (folder / "run-abc.wandb").touch()
    assert not is_written(run, digest)
    (folder / "retsweep.sha256").write_text(digest)
    assert is_written(run, digest)
    assert not is_written(run, content(run.config, LINES, {"valid_ppl": 12.5}))
    assert not is_written(run, content(run.config, LINES[:2], {"valid_ppl": 12.0}))
    assert not is_written(dataclasses.replace(run, id="other"), digest)


# ---- a run that goes on ----------------------------------------------------------------------
def test_a_run_that_goes_on_is_told_from_its_first_step(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES) + '{"ste')
    for told, expected in [
        (lambda whole: whole.metrics({"step": 3, "loss": 9.0}), [*LINES[:2], {"step": 3, "loss": 9.0}]),
        (lambda whole: whole.row({"valid_ppl": 1.0}), [*LINES, {"valid_ppl": 1.0}]),
        (lambda whole: None, LINES),
    ]:
        heard = Heard()
        whole = tracked.Whole(heard, tmp_path)
        told(whole)
        assert whole.close() == "offline"
        assert heard.heard == expected


# ---- under an agent --------------------------------------------------------------------------
@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "agent-7")
    return "agent-7"


def test_a_run_that_is_finished_answers_the_agent(carry_out: Callable[..., Job], agent: str) -> None:
    heard = Heard()
    job = dataclasses.replace(carry_out(), tracker=heard)
    backfill.answer_agent(job)
    (run,) = heard.runs
    assert (run.id, run.job_type) == (agent, "answered")
    assert heard.heard[:3] == LINES
    assert heard.heard[3]["valid_ppl"] == 12.0
    # The row says which W&B run holds it, for whoever sends the study later.
    assert heard.heard[3]["wandb_run"] == agent


def test_a_run_that_this_agent_carried_out_is_told_once(carry_out: Callable[..., Job], agent: str) -> None:
    heard = Heard()
    job = dataclasses.replace(carry_out(), tracker=heard)
    (spec_hash,) = job.runs
    folder = job.trial_folder(spec_hash) / "wandb" / "run-20260101_000000-agent-7"
    folder.mkdir(parents=True)
    (folder / f"run-{agent}.wandb").touch()
    backfill.answer_agent(job)
    assert heard.runs == []


# ---- what is refused -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["study=nothing"], "no study nothing: there is no "),
        ([], "task=mirror needs the name of a study; accepted: study=NAME"),
        (["study=a", "layout=type_b"], "whatever layout=type_b says; accepted beside it: study, runs"),
        (["study=a", "+sweep=smoke"], "whatever +sweep=smoke says"),
        (["study=a", "tracker=none"], "accepted: tracker=wandb, tracker=auto"),
    ],
)
def test_what_cannot_be_sent_is_one_line_and_leaves_nothing(
    words: list[str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=r"^.*$") as told:
        command.run(["task=mirror", f"runs={tmp_path}", *words])
    assert said in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_with_wandb_disabled_or_under_an_agent_nothing_is_sent(
    monkeypatch: pytest.MonkeyPatch, agent: str
) -> None:
    with pytest.raises(SpecError, match="no run of a W&B sweep"):
        command.run(["task=mirror", "study=a"])
    monkeypatch.delenv("WANDB_SWEEP_ID")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with pytest.raises(SpecError, match="WANDB_MODE=disabled; unset it"):
        command.run(["task=mirror", "study=a"])


@pytest.mark.parametrize("words", [["seeds=2"], ["tune.learning_rate=[0.1,0.2]"]])
def test_an_agent_asks_for_one_run(words: list[str], agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(SpecError, match="`wandb agent` asks for one run at a time"):
        command.run(["scale=tiny", *words])


def test_a_study_without_a_finished_run_has_nothing_to_send(
    carry_out: Callable[..., Job], tmp_path: Path
) -> None:
    carry_out(limit=0)
    with pytest.raises(SpecError, match="has no finished run yet"):
        command.run(["task=mirror", f"study={STUDY}", f"runs={tmp_path}"])


def test_the_server_of_the_tests_keeps_lines_at_their_offsets() -> None:
    server = Server()
    server._upsert_run({"name": "a", "project": "p"})
    for offset in (0, 0, 2):
        server.streamed("a", {"files": {"wandb-history.jsonl": {"offset": offset, "content": ["{}", "{}"]}}})
    assert sorted(server.runs["a"].lines) == [0, 1, 2, 3]
    server._http.server_close()
