"""launcher=slurm: what is refused, what sbatch is told, and jobs for real in submitit's local executor."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import stat
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from retsweep.__main__ import main
from retsweep.launch.slurm import STOP_SIGNALS, Slurm, Work
from retsweep.spec import Settings, SpecError
from retsweep.sweep.plan import Job, plan
from retsweep.sweep.reconcile import open_and_reconcile
from retsweep.sweep.storage import storage_url
from retsweep.sweep.study import Study
from retsweep.sweep.variants import wanted
from retsweep.sweep.worker import EXIT_DISK_FULL
from retsweep.tracking import NoTracker
from tests.sweep.test_engine import LONG, TOY, events, meanwhile, prepare, rows, saved, until
from tests.sweep.toy import LOG, hurry
from tests.train.together import nursery

pytest.importorskip("submitit", reason="submitit is an extra: pip install 'retsweep[slurm]'")

SERVER = "postgresql+psycopg://me:secret@db.cluster/retsweep"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    prepare(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins of Slurm's commands, which write down how they were called and start nothing."""
    folder = tmp_path / "bin"
    folder.mkdir()
    answers = {"sbatch": "Submitted batch job 7", "srun": "", "sacct": "", "scancel": ""}
    for name, answer in answers.items():
        script = folder / name
        said = f'echo {name} "$@" "$PGPASSWORD" >> {tmp_path}/calls'
        script.write_text(f"#!/bin/sh\n{said}\necho {answer}\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("launcher.cluster=local",), "as many jobs as workers=N says"),
        (("workers=2",), "there is no sbatch on this machine; accepted here: launcher=local"),
        (("workers=2", "launcher.gpus_per_node=2"), "launcher.gpus_per_node=2 is not accepted"),
        (("workers=2", "launcher.timeout_min=1"), "launcher.signal_delay_s=90 is all of"),
        (("workers=2", "launcher.partiton=x"), "unknown key 'launcher.partiton'; accepted: account"),
        (("workers=2", "launcher.cluster=local", "device=cuda"), "accepted: launcher.gpus_per_node=1"),
    ],
)
def test_what_cannot_be_submitted_is_one_line(
    here: Path,
    words: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main([*TOY, "launcher=slurm", *words]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert list(here.iterdir()) == []


def test_submitit_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "submitit", None)
    with pytest.raises(SpecError, match=r"submitit is missing; pip install 'retsweep\[slurm\]'"):
        Slurm(cluster="local").places(Settings(tracker=None, workers=1))


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("sqlite:///shared/study.db", "a sqlite file is no storage for many machines"),
        ("postgresql+psycopg://me:secret@localhost/x", "is reached from this machine alone"),
        ("postgresql+psycopg://me:secret@127.0.0.1:5432/x", "is reached from this machine alone"),
        ("postgresql+psycopg://me@/x?host=/run/postgresql", "is reached from this machine alone"),
        ("postgresql+psycopg://me@/x", "is reached from this machine alone"),
        (SERVER, None),
    ],
)
def test_a_storage_that_nodes_do_not_reach_is_refused(storage: str, said: str | None) -> None:
    jobs = Slurm().places(Settings(tracker=None, workers=1))
    if said is None:
        jobs.check_storage(storage)
        return
    with pytest.raises(SpecError, match=said) as caught:
        jobs.check_storage(storage)
    assert "secret" not in str(caught.value)
    Slurm(cluster="local").places(Settings(tracker=None, workers=1)).check_storage(storage)


def test_sbatch_is_told_the_fields_and_no_file_the_password(cluster: Path) -> None:
    launcher = Slurm(
        partition="gpu",
        account="lab",
        timeout_min=60,
        gpus_per_node=1,
        mem_gb=16.0,
        array_parallelism=2,
        setup=("module load cuda",),
        additional_parameters={"gres-flags": "x"},
    )
    jobs = launcher.places(Settings(tracker=None, workers=3))
    assert (jobs.device, jobs.count) == ("cuda", 3)
    job = Job({}, SERVER, "s", cluster / "runs" / "s", cluster / "cache", "cuda", None)
    started = list(jobs.start(job, [0, 2, 3]))
    assert [one.place for one in started] == [0, 2, 3]
    assert [one.identity["job"] for one in started] == ["slurm 7_0", "slurm 7_1", "slurm 7_2"]
    (script,) = {path.resolve() for path in (cluster / "runs/s/jobs").rglob("*submission.sh")}
    told = script.read_text()
    for flag in (
        *("partition=gpu", "account=lab", "time=60", "gpus-per-node=1", "mem=16GB", "array=0-2%2"),
        *("signal=USR2@90", "gres-flags=x", "cpus-per-task=1", "job-name=retsweep"),
    ):
        assert f"#SBATCH --{flag}\n" in told
    assert "module load cuda" in told
    assert "secret\n" in (cluster / "calls").read_text(), "in the environment that sbatch hands on"
    kept = [path.read_bytes() for path in (cluster / "runs").rglob("*") if path.is_file()]
    assert not any(b"secret" in content for content in kept)
    pickled = next(iter((cluster / "runs/s/jobs").rglob("*_submitted.pkl")))
    work = pickle.loads(pickled.read_bytes()).function
    assert pickle.loads(work._job).url == "postgresql+psycopg://me@db.cluster/retsweep"
    assert [one.ended() for one in started] == [None] * 3
    started[0].stop()
    assert "scancel 7_0 " in (cluster / "calls").read_text()
    assert started[1].ended() is None
    started[1].kill()
    assert started[1].ended() == 1, "nobody waits for the cluster"
    assert "scancel 7_1 " in (cluster / "calls").read_text()


def test_a_cluster_that_takes_no_job_is_one_line(cluster: Path) -> None:
    (cluster / "bin/sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
    jobs = Slurm().places(Settings(tracker=None, workers=1))
    job = Job({}, SERVER, "s", cluster / "runs" / "s", cluster / "cache", "cpu", None)
    with pytest.raises(SpecError, match=r"the cluster takes no job: .*invalid partition"):
        list(jobs.start(job, [0]))


SECRETS = (
    f"{SERVER}?sslmode=verify-full&sslpassword=hush-hush",
    "s3://someone:canary@bucket/retsweep?token=canary-too",
)


def job_with_secrets(folder: Path) -> Job:
    url, checkpoints = SECRETS
    planned = plan(wanted([*TOY, "+task.steps=1"]))
    return Job(planned, url, "s", folder, folder / "cache", "cpu", NoTracker(), checkpoints=checkpoints)


def test_no_file_of_a_job_has_a_secret_and_the_job_has_all(
    cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = 'env | grep -e RETSWEEP_ -e PGPASSWORD >> "$0.env"'
    (cluster / "bin/sbatch").write_text(f"#!/bin/sh\n{said}\necho Submitted batch job 7\n")
    jobs = Slurm().places(Settings(tracker=None, workers=1))
    (one,) = jobs.start(job_with_secrets(cluster / "runs" / "s"), [0])
    kept = [path.read_bytes() for path in (cluster / "runs").rglob("*") if path.is_file()]
    assert kept
    assert not any(word in content for content in kept for word in (b"secret@", b"hush", b"canary"))
    heard = dict(line.split("=", 1) for line in (cluster / "bin/sbatch.env").read_text().splitlines())
    assert heard["PGPASSWORD"] == "secret"

    worked: list[Job] = []
    monkeypatch.setattr("retsweep.sweep.worker.worked", lambda job, _: worked.append(job) or 0)
    work = pickle.loads(one._job.paths.submitted_pickle.read_bytes()).function
    with a_job(heard):
        assert work() == 0
    (job,) = worked
    assert job.url == SECRETS[0].replace(":secret@", "@")
    assert job.checkpoints == SECRETS[1]


@contextlib.contextmanager
def a_job(variables: Mapping[str, str]) -> Iterator[None]:
    """What submitit makes of a process, in this one."""
    names = {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_JOB_ID": "7"}
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    with mock.patch.dict(os.environ, {**names, **variables}):
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


@pytest.mark.usefixtures("here")
def test_a_job_that_its_secrets_do_not_reach_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with a_job({}):
        assert Work(b"", ("RETSWEEP_CHECKPOINTS",))() == 1
    said = capsys.readouterr().err
    assert said.startswith("retsweep: the job's environment has no RETSWEEP_CHECKPOINTS: sbatch has to")


def test_what_a_job_raises_is_in_its_log_without_secrets(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An exception that left it would be pickled by submitit, traceback and all."""

    def worked(job: Job, stopping: threading.Event) -> int:
        raise ValueError(f"{job.checkpoints} refused canary and canary-too")

    monkeypatch.setattr("retsweep.sweep.worker.worked", worked)
    with a_job({}):
        assert Work(pickle.dumps(job_with_secrets(here)))() == 1
    said = capsys.readouterr().err
    assert "ValueError: s3://...@bucket/retsweep?token=... refused ... and ..." in said
    assert "canary" not in said


def ledger() -> Study:
    return Study(storage_url(None, Path("runs/s")), "s")


@pytest.mark.slow
def test_jobs_carry_out_a_sweep(here: Path) -> None:
    """submitit's executor for one machine: its own controller, pickles and folders, and no Slurm."""
    workers: list[dict[str, Any]] = []

    def look(over: threading.Event) -> None:
        until(lambda: over.is_set() or events(here)["stepped"])
        workers.extend(entry.worker for entry in ledger().entries() if entry.worker)
        hurry()

    local = ("launcher=slurm", "launcher.cluster=local", "workers=1")
    with meanwhile(look):
        assert main([*TOY, *LONG, *local]) == 0
    (entry,) = ledger().entries()
    assert (entry.state, entry.attempt) == ("complete", 0)
    assert rows()[0]["status"] == "ok"
    assert workers[0]["job"].startswith("local ")
    assert workers[0]["pid"] != os.getpid()
    assert list(Path("runs/s/jobs").glob("*/*")) == [], "jobs that left well leave no files"


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_job_without_space_ends_the_sweep_as_a_worker_does(capsys: pytest.CaptureFixture[str]) -> None:
    local = ("launcher=slurm", "launcher.cluster=local", "workers=1", "retries=0")
    assert main([*TOY, "+task.full_at=0", *local]) == 1
    shown = capsys.readouterr().out
    assert "runs/s: no space left on the disk; workers save what they can" in shown
    assert "no space left in runs/s: 1 of 1 runs are left; the same command goes on" in shown
    (entry,) = ledger().entries()
    assert (entry.state, entry.attempt) == ("waiting", 0)


def one_job(folder: Path, work: Work) -> None:
    """What submitit does in a job, less its files."""
    os.environ.update({"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_JOB_ID": "7", LOG: str(folder / "log")})
    os.chdir(folder)
    sys.exit(work())


@pytest.mark.slow
def test_a_job_that_is_preempted_puts_its_trial_back(here: Path) -> None:
    planned = plan(wanted([*TOY, *LONG]))
    url = storage_url(None, here / "runs" / "s")
    job = Job(planned, url, "s", here / "runs" / "s", here / "cache", "cpu", NoTracker())
    study = open_and_reconcile(url, "s", job.labels)
    process = nursery().Process(target=one_job, args=(here, Work(pickle.dumps(job))))
    process.start()
    until(lambda: events(here)["stepped"] or not process.is_alive())
    (entry,) = study.entries()
    assert entry.worker is not None
    assert (entry.worker["pid"], entry.worker["job"]) == (process.pid, "local 7")
    os.kill(entry.worker["pid"], signal.SIGUSR2)
    process.join(60)
    assert process.exitcode == 0
    (entry,) = study.entries()
    assert (entry.state, entry.attempt, entry.worker) == ("waiting", 0, None), "it was released, not lost"
    assert saved() > 0


def test_a_job_without_space_tells_its_parent_so(here: Path) -> None:
    planned = plan(wanted([*TOY, "+task.full_at=0"]))
    url = storage_url(None, here / "runs" / "s")
    job = Job(planned, url, "s", here / "runs" / "s", here / "cache", "cpu", NoTracker())
    study = open_and_reconcile(url, "s", job.labels)
    process = nursery().Process(target=one_job, args=(here, Work(pickle.dumps(job))))
    process.start()
    process.join(60)
    assert process.exitcode == EXIT_DISK_FULL
    (entry,) = study.entries()
    assert (entry.state, entry.attempt) == ("waiting", 0)


def test_what_a_job_returned_is_its_exit_code(cluster: Path) -> None:
    jobs = Slurm().places(Settings(tracker=None, workers=2))
    job = Job({}, SERVER, "s", cluster / "runs" / "s", cluster / "cache", "cpu", None)
    full, well = jobs.start(job, [0, 1])
    for one, code in ((full, EXIT_DISK_FULL), (well, 0)):
        one._job.paths.result_pickle.write_bytes(pickle.dumps(("success", code)))
    assert (full.ended(), well.ended()) == (EXIT_DISK_FULL, 0)


def test_a_job_that_leaves_no_result_has_died_unless_it_was_told_to_stop(cluster: Path) -> None:
    (cluster / "bin/sacct").write_text("#!/bin/sh\necho 'JobID|State|NodeList'\necho '7|FAILED|n1'\n")
    jobs = Slurm().places(Settings(tracker=None, workers=1))
    job = Job({}, SERVER, "s", cluster / "runs" / "s", cluster / "cache", "cpu", None)
    (died,) = jobs.start(job, [0])
    (told,) = jobs.start(job, [0])
    told.stop()
    assert (died.ended(), told.ended()) == (1, 0)
