"""A W&B server on the loopback: the few calls that runs, `wandb sync`, `wandb sweep` and `wandb agent` make.

It answers GraphQL at /graphql by the name of the operation, takes a run's lines at
/files/ENTITY/PROJECT/RUN/file_stream and files at the addresses that it hands out. What counts is
kept as a real server keeps it: a run is one record by its name, however often it is upserted, and lines
of history lie at the offsets that they are sent with, so that what is sent twice shows.

    with Server() as server:
        subprocess.run([...], env={**os.environ, **server.environment(folder)})
        server.runs["1a2b"].history          # a mapping a line

``fault`` makes it misbehave from now on: see :data:`FAULTS`. ``python -m tests.wandb_server`` starts one
and prints the environment that leads to it.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ENTITY, KEY = "tester", "k" * 40
#: What the server does with whatever it is asked: answers with the status alone, keeps the connection
#: and never answers, or closes it without a word. "hang after hello" answers HEAD, and nothing else.
FAULTS = ("401", "500", "hang", "hang after hello", "drop")


@dataclass
class Run:
    """A run as the server has it. ``upserts`` counts how often it was announced, ``lines`` the sent lines
    of history by their place, ``files`` the bytes that were uploaded by name."""

    name: str
    project: str
    group: str | None = None
    job_type: str | None = None
    display_name: str | None = None
    sweep: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    lines: dict[int, str] = field(default_factory=dict)
    events: dict[int, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    upserts: int = 0
    exit_code: int | None = None

    @property
    def history(self) -> list[dict[str, Any]]:
        """The lines in their order, W&B's own keys left out but for ``_step``."""
        read = [json.loads(self.lines[place]) for place in sorted(self.lines)]
        return [
            {key: value for key, value in line.items() if key[0] != "_" or key == "_step"} for line in read
        ]

    @property
    def values(self) -> dict[str, Any]:
        """The config as it was given: W&B wraps every value."""
        return {key: item["value"] for key, item in self.config.items() if not key.startswith("_")}

    @property
    def content(self) -> tuple[Any, ...]:
        """All that somebody sees of it in W&B, to be compared. ``_runtime`` and the like are no part."""
        own = {key: value for key, value in self.summary.items() if not key.startswith("_")}
        return (self.group, self.job_type, self.display_name, self.values, own, self.history)


@dataclass
class Sweep:
    """``waiting`` are the parameters of runs that no agent has got yet, ``started`` the names of others."""

    name: str
    config: str
    waiting: list[dict[str, Any]] = field(default_factory=list)
    started: list[str] = field(default_factory=list)


class Server:
    """Use it as a context manager. ``calls`` are the names of what was asked, in order."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.sweeps: dict[str, Sweep] = {}
        self.proposals: list[dict[str, Any]] = []
        """The parameters that every sweep will propose, in order."""
        self.calls: list[str] = []
        self.fault: str | None = None
        self.fault_after: tuple[str, str] | None = None
        """(operation, fault): the server breaks as soon as it has answered the operation."""
        self._lock = threading.RLock()
        self._released = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Server:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._http.shutdown()
        self._http.server_close()

    def environment(self, home: Path) -> dict[str, str]:
        """What leads wandb here, with a key, and with all that it keeps below ``home``."""
        return {
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": KEY,
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_CACHE_DIR": str(home / "cache"),
            "WANDB_CONFIG_DIR": str(home / "config"),
            "WANDB_DATA_DIR": str(home / "data"),
            "HOME": str(home),
            "NO_PROXY": "*",
            "no_proxy": "*",
        }

    # ---- what an operation answers -----------------------------------------------------------
    def answer(self, operation: str, given: Mapping[str, Any]) -> dict[str, Any]:
        with self._lock:
            answers: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
                "UpsertSweep": self._upsert_sweep,
                "SweepWithRuns": self._sweep,
                "CreateAgent": lambda _: {"createAgent": {"agent": {"id": "agent-1"}}},
                "Heartbeat": self._heartbeat,
                "UpsertBucket": self._upsert_run,
                "RunResumeStatus": self._resume,
                "CreateRunFiles": self._files,
                "ArtifactType": lambda _: {"project": {"artifact": None}},
                "CreateArtifact": lambda _: _ARTIFACT,
                "Viewer": lambda _: {"viewer": _VIEWER},
                "ServerFeaturesQuery": lambda _: {"serverInfo": {"features": []}},
            }
            return answers.get(operation, lambda _: {})(given)

    def _upsert_sweep(self, given: Mapping[str, Any]) -> dict[str, Any]:
        name = f"sweep{len(self.sweeps)}"
        self.sweeps[name] = Sweep(name, given["config"], list(self.proposals))
        project = {"id": "p", "name": given["projectName"], "entity": {"id": "e", "name": ENTITY}}
        return {"upsertSweep": {"sweep": {"name": name, "project": project}, "configValidationWarnings": []}}

    def _sweep(self, given: Mapping[str, Any]) -> dict[str, Any]:
        sweep = self.sweeps[given["sweep"]]
        found = {"id": sweep.name, "name": sweep.name, "state": "RUNNING", "config": sweep.config}
        return {"project": {"sweep": {**found, "runs": {"edges": []}}}}

    def _heartbeat(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """One run at a time, and "exit" after the last."""
        busy = json.loads(given["runState"])
        commands: list[dict[str, Any]] = []
        for sweep in self.sweeps.values():
            if not busy and not commands and sweep.waiting:
                sweep.started.append(f"{sweep.name}-run{len(sweep.started)}")
                arguments = {key: {"value": value} for key, value in sweep.waiting.pop(0).items()}
                commands.append(
                    {"type": "run", "run_id": sweep.started[-1], "args": arguments, "program": "retsweep"}
                )
        if not busy and not commands:
            commands.append({"type": "exit"})
        return {"agentHeartbeat": {"agent": {"id": given["id"]}, "commands": json.dumps(commands)}}

    def _upsert_run(self, given: Mapping[str, Any]) -> dict[str, Any]:
        name = given.get("name") or given.get("id") or "?"
        new = name not in self.runs
        run = self.runs.setdefault(name, Run(name, given.get("project") or "uncategorized"))
        run.upserts += 1
        for mine, theirs in _COLUMNS.items():
            if given.get(theirs) is not None:
                setattr(run, mine, given[theirs])
        if given.get("config"):
            run.config = json.loads(given["config"])
        if given.get("summaryMetrics"):
            run.summary = json.loads(given["summaryMetrics"])
        return {"upsertBucket": {"bucket": self._bucket(run), "inserted": new}}

    def _resume(self, given: Mapping[str, Any]) -> dict[str, Any]:
        run = self.runs.get(given["name"])
        bucket = None if run is None else self._bucket(run)
        return {"model": {"name": given.get("project"), "entity": {"name": ENTITY}, "bucket": bucket}}

    def _bucket(self, run: Run) -> dict[str, Any]:
        tail = [run.lines[max(run.lines)]] if run.lines else []
        return {
            "id": f"id-{run.name}",
            "name": run.name,
            "displayName": run.display_name or run.name,
            "description": None,
            "notes": None,
            "tags": [],
            "config": json.dumps(run.config),
            "summaryMetrics": json.dumps(run.summary),
            "sweepName": run.sweep,
            "project": {"id": "p", "name": run.project, "entity": {"id": "e", "name": ENTITY}},
            "historyLineCount": len(run.lines),
            "eventsLineCount": len(run.events),
            "logLineCount": 0,
            "historyTail": json.dumps(tail),
            "eventsTail": json.dumps([]),
            "wandbConfig": json.dumps({"t": 1}),
        }

    def _files(self, given: Mapping[str, Any]) -> dict[str, Any]:
        files = [
            {"name": name, "uploadUrl": f"{self.url}/upload/{given['run']}/{name}"} for name in given["files"]
        ]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    # ---- what a run streams ------------------------------------------------------------------
    def streamed(self, name: str, body: Mapping[str, Any]) -> None:
        with self._lock:
            run = self.runs[name]
            for file, chunk in (body.get("files") or {}).items():
                if file == "wandb-summary.json":
                    run.summary = json.loads(chunk["content"][-1])
                elif file in _STREAMS:
                    lines: dict[int, str] = getattr(run, _STREAMS[file])
                    lines.update(enumerate(chunk["content"], chunk["offset"]))
            if body.get("complete"):
                run.exit_code = body.get("exitcode")

    def uploaded(self, name: str, file: str, content: bytes) -> None:
        with self._lock:
            self.runs[name].files[file] = content

    def wait_for_the_end(self) -> None:
        """Keeps a connection that hangs until the server closes."""
        self._released.wait()


_COLUMNS = {
    "group": "groupName",
    "job_type": "jobType",
    "display_name": "displayName",
    "sweep": "sweep",
    "project": "project",
}
_STREAMS = {"wandb-history.jsonl": "lines", "wandb-events.jsonl": "events"}
_VIEWER = {
    "id": "viewer",
    "name": ENTITY,
    "entity": ENTITY,
    "username": ENTITY,
    "email": "tester@example.org",
    "admin": False,
    "flags": "{}",
    "teams": {"edges": []},
    "apiKeys": {"edges": []},
}


#: Of a wandb.Table, which is one online. A committed artifact is there already: nothing more is sent of it.
_ARTIFACT = {
    "createArtifact": {
        "artifact": {
            "id": "artifact",
            "state": "COMMITTED",
            "artifactSequence": {"id": "sequence", "latestArtifact": {"id": "artifact", "versionIndex": 0}},
        }
    }
}


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # the other end was killed, or left without a word
                super().handle()

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            if not self.misbehaves(greeted=True):
                self.send(b"")

        def do_GET(self) -> None:
            if not self.misbehaves():
                self.send(b"{}")

        def do_PUT(self) -> None:
            body = self.body()
            if not self.misbehaves():
                _, _, run, file = self.path.split("/", 3)
                server.uploaded(run, file, body)
                self.send(b"{}")

        def do_POST(self) -> None:
            asked = json.loads(self.body())
            operation = "file_stream"
            if self.path.endswith("/graphql"):
                operation = asked.get("operationName") or _operation(asked["query"])
            server.calls.append(operation)
            if self.misbehaves():
                return
            if server.fault_after and server.fault_after[0] == operation:
                server.fault, server.fault_after = server.fault_after[1], None
            if operation == "file_stream":
                server.streamed(self.path.split("/")[-2], asked)
                self.send(b"{}")
            else:
                answer = server.answer(operation, asked.get("variables") or {})
                self.send(json.dumps({"data": answer}).encode())

        def body(self) -> bytes:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(content) if self.headers.get("Content-Encoding") == "gzip" else content

        def misbehaves(self, *, greeted: bool = False) -> bool:
            fault = server.fault
            if fault is None or (fault == "hang after hello" and greeted):
                return False
            self.close_connection = True
            if fault.isdigit():
                self.send(b'{"errors":[{"message":"the test wants it so"}]}', int(fault))
            elif fault.startswith("hang"):
                server.wait_for_the_end()
            return True

        def send(self, body: bytes, status: int = 200) -> None:
            with contextlib.suppress(OSError):  # they may have gone
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

    return Handler


def _operation(query: str) -> str:
    """ "mutation UpsertSweep(" -> "UpsertSweep"."""
    words = query.split("{")[0].split("(")[0].split()
    return words[1] if len(words) > 1 else ""


def main() -> None:
    with Server() as server:
        for name, value in server.environment(Path(os.environ.get("HOME", "."))).items():
            if name.startswith("WANDB_") and not name.endswith("_DIR"):
                print(f"export {name}={value}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(1)


if __name__ == "__main__":
    main()
