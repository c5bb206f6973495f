"""W&B may be absent, slow, broken or gone: a run notices nothing but a warning."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from retsweep.spec import load_run
from retsweep.tracking import (
    Auto,
    Mirror,
    NoTracker,
    Silence,
    TrackedRun,
    Wandb,
    find_key,
    mirror,
    reach_server,
    session,
)


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch, tmp_path):
    """No key, no mode, no server but a dead port of this machine."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_SWEEP_ID", "WANDB_RUN_ID", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    (tmp_path / "home").mkdir()
    monkeypatch.setattr(Mirror, "hung", threading.Event())


def tracked(folder: Path) -> TrackedRun:
    return TrackedRun("0123abcd", "Type A 3:1", "a-study", folder, {"seed": 1})


class FakeSession:
    """Keeps what it hears; ``line`` may raise or wait."""

    def __init__(self, on_line=lambda: None) -> None:
        self.heard: list = []
        self.on_line = on_line

    def line(self, line) -> None:
        self.on_line()
        self.heard.append(line)

    def row(self, row) -> None:
        self.heard.append(row)

    def finish(self, ok) -> None:
        self.heard.append(f"finished, ok={ok}")

    def abandon(self) -> None:
        self.heard.append("abandoned")


# ---- which tracker --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("mode", "key", "auto", "wandb"),
    [
        (None, None, "none: wandb is not configured (no key, no WANDB_MODE)", "wandb, offline: no key"),
        (None, "k" * 40, "wandb, online: a key in WANDB_API_KEY", "wandb, online: a key in WANDB_API_KEY"),
        ("offline", None, "wandb, offline: WANDB_MODE=offline", "wandb, offline: WANDB_MODE=offline"),
        ("offline", "k" * 40, "wandb, offline: WANDB_MODE=offline", "wandb, offline: WANDB_MODE=offline"),
        ("disabled", "k" * 40, "none: WANDB_MODE=disabled", "none: WANDB_MODE=disabled"),
        ("online", "k" * 40, "wandb, online: WANDB_MODE=online", "wandb, online: WANDB_MODE=online"),
        (
            "online",
            None,
            "wandb, offline: no key, in spite of WANDB_MODE=online",
            "wandb, offline: no key, in spite of WANDB_MODE=online",
        ),
    ],
)
def test_a_tracker_says_what_it_is_and_why(monkeypatch, mode, key, auto, wandb):
    if mode:
        monkeypatch.setenv("WANDB_MODE", mode)
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    assert str(Auto().resolve()) == auto
    assert str(Wandb().resolve()) == wandb
    assert str(NoTracker().resolve()) == "none: tracker=none"


def test_a_key_in_a_netrc_counts_for_its_host_only(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_BASE_URL")
    path = tmp_path / "home" / ".netrc"
    path.write_text("machine example.org login user password secret\n")
    path.chmod(0o600)
    assert find_key() is None
    path.write_text(f"machine api.wandb.ai login user password {'k' * 40}\n")
    assert find_key() == str(path)
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert find_key() is None
    monkeypatch.setenv("WANDB_BASE_URL", "http://wandb.example.org:8080")
    path.write_text(f"machine wandb.example.org:8080 login user password {'k' * 40}\n")
    assert find_key() == str(path)  # as `wandb login` writes it
    path.write_text("machine ??? nonsense")
    assert find_key() is None


def test_the_configs_make_these_trackers():
    made = {name: load_run([f"tracker={name}"])[1].tracker for name in ("auto", "none", "wandb")}
    assert made == {"auto": Auto(), "none": NoTracker(), "wandb": Wandb()}
    assert load_run(["tracker=wandb", "tracker.project=mine"])[1].tracker.project == "mine"


def test_without_a_tracker_wandb_is_not_imported(tmp_path):
    code = (
        "import sys, pathlib\n"
        "from retsweep.tracking import Auto, NoTracker, TrackedRun\n"
        "for tracker in (Auto(), NoTracker()):\n"
        f"    mirror = tracker.open(TrackedRun('i', 'n', 'g', pathlib.Path({str(tmp_path)!r}), {{}}))\n"
        "    mirror.metrics({'step': 1}), mirror.row({}), mirror.close()\n"
        "assert 'wandb' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert isinstance(Auto().open(tracked(tmp_path)), Silence)


# ---- the mirror -----------------------------------------------------------------------------
ROW = {"valid_ppl": 3.0}


def mirror_a_run(start, mode, steps: int) -> str:
    mirrored = Mirror(start, mode)
    for step in range(steps):
        mirrored.metrics({"step": step, "loss": step / 2})
    mirrored.row(ROW)
    return mirrored.close()


def test_everything_arrives_in_order():
    run = FakeSession()
    assert mirror_a_run(lambda mode: run, "offline", steps=5) == "offline"
    lines = [{"step": step, "loss": step / 2} for step in range(5)]
    assert run.heard == [*lines, ROW, "finished, ok=True"]


@pytest.mark.parametrize("row", [None, {"status": "failed", "error": "ValueError: no"}])
def test_a_run_that_is_not_over_or_failed_ends_as_failed(row):
    run = FakeSession()
    mirrored = Mirror(lambda mode: run, "offline")
    if row:
        mirrored.row(row)
    mirrored.close()
    assert run.heard[-1] == "finished, ok=False"


def test_an_init_that_raises_costs_a_warning():
    def broken(mode):
        raise RuntimeError("no such project\nand more")

    with pytest.warns(UserWarning, match="the run goes on: RuntimeError: no such project$"):
        assert mirror_a_run(broken, "offline", steps=1) == "nowhere"


def test_a_server_out_of_reach_means_offline():
    asked, run = [], FakeSession()

    def start(mode):
        asked.append(mode)
        if mode == "online":
            raise OSError("no route to host")
        return run

    with pytest.warns(UserWarning, match="tracking offline: OSError: no route to host"):
        assert mirror_a_run(start, "online", steps=1) == "offline"
    assert asked == ["online", "offline"]
    assert run.heard == [{"step": 0, "loss": 0.0}, ROW, "finished, ok=True"]


def test_an_init_that_hangs_delays_nothing_and_its_end_only_so_long():
    release = threading.Event()
    mirrored = Mirror(lambda mode: release.wait(20), "online", close_seconds=0.2)
    started = time.perf_counter()
    for step in range(1000):
        mirrored.metrics({"step": step})
    assert time.perf_counter() - started < 1.0
    with pytest.warns(UserWarning, match="did not finish within"):
        assert mirrored.close() == "nowhere"
    assert time.perf_counter() - started < 5.0
    mirrored.metrics({"step": 1001})  # still welcome, still harmless
    assert mirrored.close() == "nowhere"
    release.set()


def test_after_one_that_hung_the_next_begin_offline_and_wait_less(monkeypatch):
    monkeypatch.setattr(mirror, "CLOSE_SECONDS_AFTER_HANG", 0.2)
    release, asked, run = threading.Event(), [], FakeSession()
    hanging = Mirror(lambda mode: release.wait(20), "online", close_seconds=0.2)
    with pytest.warns(UserWarning, match="did not finish within"):
        hanging.close()
    mirror_a_run(lambda mode: asked.append(mode) or run, "online", steps=1)
    assert asked == ["offline"]
    assert run.heard == [{"step": 0, "loss": 0.0}, ROW, "finished, ok=True"]
    started = time.perf_counter()
    with pytest.warns(UserWarning, match="did not finish within"):
        Mirror(lambda mode: release.wait(20), "offline").close()
    assert time.perf_counter() - started < 5.0
    release.set()


def test_a_log_that_raises_ends_tracking_with_one_warning():
    def broken():
        raise ConnectionError("gone")

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        mirror_a_run(lambda mode: FakeSession(broken), "offline", steps=50)
    assert [str(warning.message) for warning in told] == [
        "tracking with wandb ends here, the run goes on: ConnectionError: gone"
    ]


def test_a_thread_that_does_not_keep_up_loses_its_messages_not_the_run(monkeypatch):
    monkeypatch.setattr(mirror, "QUEUE_LENGTH", 10)
    release = threading.Event()
    mirrored = Mirror(lambda mode: release.wait(20) and FakeSession(), "offline", close_seconds=0.1)
    for step in range(10):
        mirrored.metrics({"step": step})
    with pytest.warns(UserWarning, match="does not keep up"):
        mirrored.metrics({"step": 10})
    mirrored.close()
    release.set()


# ---- wandb itself ----------------------------------------------------------------------------
def test_a_dead_port_and_a_silent_server_are_out_of_reach(monkeypatch):
    monkeypatch.setattr(session, "PROBE_SECONDS", 0.3)
    with pytest.raises(OSError, match="refused"):
        reach_server()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(OSError, match="timed out"):
            reach_server()


@pytest.mark.parametrize("key", [None, "k" * 40])
def test_an_offline_run_lies_in_the_trials_folder(tmp_path, key):
    """In a process of its own, as a worker is; with a key the dead port sends it offline."""
    code = (
        "import pathlib, sys\n"
        "from retsweep.tracking import TrackedRun, Wandb\n"
        "run = TrackedRun('0123abcd', 'Type A 3:1', 'a-study', pathlib.Path(sys.argv[1]), {'seed': 1})\n"
        "mirror = Wandb().open(run)\n"
        "for step in range(3): mirror.metrics({'step': step, 'loss': 1.0})\n"
        "mirror.row({'valid_ppl': 12.5, 'status': 'ok'})\n"
        "mirror.close()\n"
    )
    environment = {"WANDB_BASE_URL": "http://127.0.0.1:9", "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    environment |= {"WANDB_API_KEY": key} if key else {}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "trial")],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert ("tracking offline" in done.stderr) == (key is not None)
    assert "Traceback" not in done.stderr
    assert "ends here" not in done.stderr
    assert done.stdout == ""
    (folder,) = (tmp_path / "trial" / "wandb").glob("offline-run-*-0123abcd")
    (data,) = folder.glob("run-0123abcd.wandb")
    written = data.read_bytes()
    for word in (b"loss", b"valid_ppl", b"12.5", b"a-study", b"Type A 3:1", b"seed"):
        assert word in written
