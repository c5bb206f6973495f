"""launcher=slurm: workers as jobs of a Slurm cluster, through submitit, which writes the sbatch script,
submits arrays, and asks sacct and scancel. Which trial runs where is said by the storage alone.

A job is pickled by submitit into ``runs/STUDY/jobs``, a folder that the nodes share, and runs the same loop
as any worker: it takes trials until none waits. It outlives its parent. Signals to it (Slurm's at the end of
its time and before it is preempted, scancel's) let the trial save, and put it back to wait. Passwords
in the URLs of the storage and of ``checkpoint.dir`` are left out of the pickle: jobs find them in the
environment, which sbatch hands on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from retsweep.spec import Settings, SpecError
from retsweep.spec.base import spec
from retsweep.spec.secret import Hiding, carries_secret, hidden
from retsweep.sweep.processes import JOB
from retsweep.sweep.workers import ENVIRONMENT, Refused
from retsweep.train.atomic import is_full

#: What a job may be told to stop by: scancel and preemption, a local controller, Slurm's warnings.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
#: Seconds between two looks at whether a job has left its result, and between two questions to sacct, which
#: knows of those that left none: as a rule, and when all have been told to stop.
LOOK_SECONDS = 1.0
ASK_SECONDS, ASK_SECONDS_STOPPING = 30.0, 2.0
HERE = ("localhost", "ip6-localhost", "::1")
#: Variables by which a job gets what stands in no file: libpq's own for a password (it has none for that of
#: a client's key), and two of ours: that one, and the URL of checkpoints where it holds a secret.
PASSWORD, SSL_PASSWORD, CHECKPOINTS = "PGPASSWORD", "RETSWEEP_SSL_PASSWORD", "RETSWEEP_CHECKPOINTS"
HANDED_ON = "sbatch has to hand it on (--export=ALL, the default)"


@spec
class Slurm:
    """Fields are submitit's parameters of the same names; None leaves one to the cluster. ``cluster`` local
    is submitit's executor on this machine, which knows of them timeout, GPUs and ``setup``."""

    cluster: Literal["slurm", "local"] = "slurm"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    timeout_min: PositiveInt = 240
    signal_delay_s: NonNegativeInt = 90
    cpus_per_task: PositiveInt = 1
    gpus_per_node: Annotated[int, Field(ge=0, le=1)] = 0
    """A worker computes on one device, and a job is one worker."""
    mem_gb: PositiveFloat | None = None
    array_parallelism: PositiveInt = 256
    setup: tuple[str, ...] = ()
    additional_parameters: Mapping[str, str | int | bool] = dataclasses.field(default_factory=dict)

    def places(self, settings: Settings) -> Jobs:
        """Raises SpecError if jobs cannot be submitted here, or so."""
        if settings.workers is None:
            raise SpecError("launcher=slurm submits as many jobs as workers=N says, and none was given")
        if settings.device == "cuda" and not self.gpus_per_node:
            raise SpecError("device=cuda wants a GPU in every job; accepted: launcher.gpus_per_node=1")
        if 60 * self.timeout_min <= self.signal_delay_s:
            raise SpecError(
                f"launcher.signal_delay_s={self.signal_delay_s} is all of launcher.timeout_min="
                f"{self.timeout_min}; accepted: less"
            )
        try:
            import submitit  # noqa: F401
        except ImportError as error:
            raise SpecError(
                f"launcher=slurm: {error.name} is missing; pip install 'retsweep[slurm]'"
            ) from error
        missing = [name for name in ("sbatch", "srun", "sacct", "scancel") if shutil.which(name) is None]
        if self.cluster == "slurm" and missing:
            raise SpecError(
                f"launcher=slurm: there is no {missing[0]} on this machine; accepted here: launcher=local, "
                "launcher.cluster=local"
            )
        device = "cuda" if self.gpus_per_node and settings.device != "cpu" else "cpu"
        return Jobs(self, device, settings.workers)

    @property
    def parameters(self) -> dict[str, Any]:
        """As submitit's AutoExecutor takes them: those of one cluster carry its name."""
        shared = {
            "name": "retsweep",
            "timeout_min": self.timeout_min,
            "cpus_per_task": self.cpus_per_task,
            "gpus_per_node": self.gpus_per_node or None,
            "mem_gb": self.mem_gb,
        }
        slurm: dict[str, Any] = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "signal_delay_s": self.signal_delay_s,
            "array_parallelism": self.array_parallelism,
            "setup": list(self.setup) or None,
            "additional_parameters": dict(self.additional_parameters) or None,
        }
        local: dict[str, Any] = {"setup": list(self.setup) or None}
        named = {"slurm": slurm, "local": local}[self.cluster]
        return shared | {f"{self.cluster}_{name}": value for name, value in named.items()}


@dataclass
class Jobs:
    """Places in a queue: a :class:`retsweep.sweep.workers.Crew`."""

    launcher: Slurm
    device: str
    count: int
    asked_at: float = 0.0

    def check_storage(self, url: str) -> None:
        """Raises SpecError if nodes of the cluster would not reach the storage."""
        if self.launcher.cluster == "local":
            return
        import sqlalchemy

        parsed = sqlalchemy.make_url(url)
        accepted = "accepted with launcher=slurm: storage=postgresql+psycopg://USER@HOST/DATABASE"
        if parsed.get_backend_name() != "postgresql":
            raise SpecError(f"a {parsed.get_backend_name()} file is no storage for many machines; {accepted}")
        hosts = parsed.normalized_query.get("host", ()) or (parsed.host or "",)
        for host in hosts:
            if not host or host.startswith(("/", "127.")) or host.split(":")[0] in HERE or host in HERE:
                shown = parsed.render_as_string()
                raise SpecError(f"storage {shown} is reached from this machine alone; {accepted}")

    def start(self, job: Any, places: Sequence[int]) -> Iterator[SlurmJob]:
        """Submits an array of jobs, one for each of ``places``. Raises Refused."""
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        for one in job.runs.values():  # they are written to the shared disk as they are
            if carries_secret(one.run.config, job.urls):
                raise Refused(
                    f"the config of {one.run.label} carries a secret, which would lie on the jobs' disk; "
                    "accepted: an environment variable, as HF_TOKEN"
                )
        folder = (job.folder / "jobs").resolve()
        bare, secrets = _without_secrets(job)
        far = dataclasses.replace(bare, folder=job.folder.resolve(), cache=job.cache.resolve())
        work = Work(pickle.dumps(far), tuple(secrets.keys() - {PASSWORD}))
        executor = submitit.AutoExecutor(folder=folder / "%j", cluster=self.launcher.cluster)
        try:
            executor.update_parameters(**self.launcher.parameters)
            with _environment(secrets):
                submitted = executor.submit_array([work] * len(places))
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            if is_full(error):
                raise
            said = [line for line in str(error).splitlines() if line.strip()]
            raise Refused(f"the cluster takes no job: {said[-1] if said else error}") from error
        for place, one in zip(places, submitted, strict=True):
            yield SlurmJob(self, place, one)

    def ask(self, seconds: float) -> None:
        """Has submitit ask sacct about all jobs, unless it did so ``seconds`` ago."""
        if self.launcher.cluster == "slurm" and time.monotonic() - self.asked_at > seconds:
            import submitit

            submitit.SlurmJob.watcher.update()
            self.asked_at = time.monotonic()


class SlurmJob:
    """A job as its parent sees it: a :class:`retsweep.sweep.workers.Member`."""

    def __init__(self, jobs: Jobs, place: int, submitted: Any) -> None:
        self.place, self.log = place, Path(submitted.paths.stderr)
        self._jobs, self._job = jobs, submitted
        self._code: int | None = None
        self._told, self._looked_at = False, 0.0

    @property
    def identity(self) -> Mapping[str, str | int]:
        return {"job": _name(self._jobs.launcher.cluster, self._job.job_id)}

    def ended(self) -> int | None:
        """What a worker's exit code says, 1 for a job that left none; 0 for one that was told to stop: it may
        have been pending."""
        if self._code is None and time.monotonic() - self._looked_at > LOOK_SECONDS:
            self._jobs.ask(ASK_SECONDS_STOPPING if self._told else ASK_SECONDS)
            if self._job.done():
                self._code = 0 if self._told else self._left()
            self._looked_at = time.monotonic()
        return self._code

    def stop(self) -> None:
        self._told = True
        if self._jobs.launcher.cluster == "slurm":
            self._job.cancel(check=False)
        else:  # cancel() would kill it a second later; its controller hands SIGTERM on
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(self._job.job_id), signal.SIGTERM)

    def kill(self) -> None:
        """Cancels it, and waits for nothing: how it ends is the cluster's business."""
        if self._code is None:
            self._job.cancel(check=False)
            self._code = 1

    def close(self) -> None:
        """Removes what submitit kept of a job that left well: pickles, script, logs."""
        if self._code == 0:
            shutil.rmtree(self._job.paths.folder, ignore_errors=True)

    def _left(self) -> int:
        """What :class:`Work` returned in it."""
        if not self._job.paths.result_pickle.exists() or self._job.exception() is not None:
            return 1
        return int(self._job.result())


class Work:
    """What submitit calls in a job. The study is pickled within, and unpickled when threads are set;
    ``needs`` names the variables that have the rest of it."""

    def __init__(self, job: bytes, needs: Sequence[str] = ()) -> None:
        self._job, self._needs = job, needs

    def __call__(self) -> int:
        """A worker's exit code: submitit hands it to the parent, but an exception, traceback and all, to a
        file that others read."""
        import submitit

        stopping = threading.Event()
        for number in STOP_SIGNALS:  # in place of submitit's: what waits is submitted by the study's parent
            signal.signal(number, lambda *_: stopping.set())
        here = submitit.JobEnvironment()
        os.environ.update({**ENVIRONMENT, JOB: _name(here.cluster, here.job_id)})
        missing = [name for name in self._needs if name not in os.environ]
        if missing:
            print(f"retsweep: the job's environment has no {missing[0]}: {HANDED_ON}", file=sys.stderr)
            return 1
        from retsweep.sweep.worker import worked

        job = _with_secrets(pickle.loads(self._job), {name: os.environ[name] for name in self._needs})
        out, errors = Hiding(sys.stdout, job.urls), Hiding(sys.stderr, job.urls)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            try:
                return worked(job, stopping)
            except Exception:
                traceback.print_exc()
                return 1
            finally:
                with contextlib.suppress(OSError):  # a log on a full disk
                    out.flush()
                    errors.flush()


def _name(cluster: str, job_id: str) -> str:
    return f"{cluster} {job_id}"


def _without_secrets(job: Any) -> tuple[Any, dict[str, str]]:
    """``job`` as a file may have it, and the variables for the rest."""
    import sqlalchemy

    full = sqlalchemy.make_url(job.url)
    asked = {PASSWORD: full.query.get("password"), SSL_PASSWORD: full.query.get("sslpassword")}
    if full.password is not None:
        asked[PASSWORD] = full.password
    kept = {key: value for key, value in full.query.items() if key not in ("password", "sslpassword")}
    rest = sqlalchemy.URL.create(
        full.drivername, full.username, None, full.host, full.port, full.database, kept
    )
    bare = dataclasses.replace(job, url=rest.render_as_string(hide_password=False))
    if job.checkpoints is not None and hidden(job.checkpoints) != job.checkpoints:
        asked[CHECKPOINTS] = job.checkpoints
        bare = dataclasses.replace(bare, checkpoints=hidden(job.checkpoints))
    return bare, {name: str(value) for name, value in asked.items() if value is not None}


def _with_secrets(job: Any, secrets: Mapping[str, str]) -> Any:
    """What :func:`_without_secrets` was given, less the password, which libpq finds itself."""
    import sqlalchemy

    if SSL_PASSWORD in secrets:
        url = sqlalchemy.make_url(job.url).update_query_dict({"sslpassword": secrets[SSL_PASSWORD]})
        job = dataclasses.replace(job, url=url.render_as_string(hide_password=False))
    return dataclasses.replace(job, checkpoints=secrets.get(CHECKPOINTS, job.checkpoints))


@contextlib.contextmanager
def _environment(secrets: Mapping[str, str]) -> Iterator[None]:
    """What jobs take over from the process that submits them: what every worker has, where Python finds
    what this one found, and ``secrets``."""
    from submitit.core.utils import environment_variables

    path = os.pathsep.join(entry for entry in sys.path if entry)
    with environment_variables(**ENVIRONMENT, **secrets, PYTHONPATH=path):
        yield
