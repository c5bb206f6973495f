"""A canary password and a canary key: after sweeps that succeed, fail and are not understood, neither is in
anything that was printed or written."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

from retsweep.spec.base import spec
from retsweep.spec.secret import Hiding, hidden, hidden_in
from retsweep.sweep import planfile
from retsweep.sweep.storage import storage_url
from tests.sweep.toy import Toy

ROOT = Path(__file__).resolve().parents[2]
PASSWORD, KEY = "canary/pass@word", "canary0key0of0forty0letters0000000000000"
#: As they would stand somewhere: whole, in parts, or as a URL spells them.
TRACES = ("canary",)
URL = f"postgresql+psycopg://someone:{PASSWORD}@localhost:1/nothing"


@spec
class Blabs(Toy):
    """It says all that it knows, in every way that there is; seed 1 fails with it."""

    name: ClassVar[str] = "blabs"

    def __call__(self, run: Any, workspace: Any) -> dict[str, Any]:
        print(f"the key is {KEY},", end=" ")
        print(f"the database {URL}")
        print(f"password={PASSWORD.split('@')[0]}", file=sys.stderr)
        time.sleep(0.5)  # long enough to be looked at
        if run.seed == 1:
            raise RuntimeError(f"{KEY} was refused by {URL}\nwith api_key={KEY!r}")
        return {"valid_ppl": 10.0, "steps": 1}


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "RETSWEEP_"))}
    return {
        **kept,
        **{"PYTHONPATH": str(ROOT), "RETSWEEP_ALLOW": "tests.safety", "OMP_NUM_THREADS": "1"},
        **{"WANDB_API_KEY": KEY, "WANDB_MODE": "offline", "DATABASE_URL": URL},
    }


def call(folder: Path, *words: str, **variables: str) -> tuple[int, str, list[str]]:
    """The command's exit code, all that it printed, and the command lines that it and its workers had."""
    titles: set[str] = set()
    command = [sys.executable, "-m", "retsweep", *words]
    with (folder / "printed").open("w+") as printed:
        with subprocess.Popen(
            command, cwd=folder, env={**environment(), **variables}, stdout=printed, stderr=printed
        ) as process:
            while process.poll() is None:
                if not titles:  # workers of other studies may be among them: none of those knows them either
                    titles |= {title for title in command_lines() if "retsweep.sweep.worker" in title}
                time.sleep(0.3)
        printed.seek(0)
        return process.returncode, printed.read(), sorted(titles)


def command_lines() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


def told(text: str | bytes) -> bool:
    data = text.encode() if isinstance(text, str) else text
    return any(trace.encode() in data for trace in TRACES)


@pytest.mark.slow
def test_nothing_that_a_sweep_leaves_tells_them(tmp_path: Path) -> None:
    words = ["scale=tiny", "device=cpu", "~task", "+task._target_=tests.safety.test_secrets.Blabs", "study=s"]
    code, printed, titles = call(tmp_path, *words, "seeds=2", "workers=1", "tracker=wandb")
    assert code == 1, printed
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {
        "row.json",
        "error.txt",
        "plan.json",
        "study.db",
        "worker-0.log",
        "table.csv",
        "config.yaml",
    } <= names
    assert any("wandb" in path.parts for path in files), "W&B's own files are looked through too"
    assert "the key is ..." in (tmp_path / "runs/s/worker-0.log").read_text()
    (failed,) = tmp_path.glob("runs/s/trials/*/error.txt")
    assert "RuntimeError: ... was refused by postgresql+psycopg://...@localhost" in failed.read_text()
    assert titles
    for what in (printed, *titles, *(path.read_bytes() for path in files)):
        assert not told(what)
    with sqlite3.connect(tmp_path / "runs/s/study.db") as connection:
        assert not told("\n".join(connection.iterdump()))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([f"storage='{URL}'"], 2),  # nobody answers there
        ([f"storage={URL}?sslmode=disable"], 2),
        ([f"storage='{URL.replace('://', ':/')}'"], 2),
        ([f"storage='someone:{PASSWORD}@host'"], 2),
        ([f"storage='sqlite://someone:{PASSWORD}@host/x'"], 2),
        ([f"storage=[{KEY}]", f"api_key={KEY}"], 2),
        (["--cfg", f"storage='{URL}'"], 0),
    ],
)
def test_no_message_about_a_storage_tells_its_password(
    words: list[str],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from retsweep.__main__ import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert main(["task=count", "scale=tiny", "tracker=none", *words]) == code
    captured = capsys.readouterr()
    assert captured.err.count("\n") == (code != 0)
    assert not told(captured.out + captured.err)


def test_a_traceback_of_ours_hides_them_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from retsweep.__main__ import main
    from retsweep.sweep import command

    def fails(*_: Any, **__: Any) -> int:
        raise LookupError(f"{URL} and {PASSWORD}")

    monkeypatch.setattr(command, "run", fails)
    assert main([f"storage='{URL}'"]) == 1
    said = capsys.readouterr().err
    assert "LookupError: postgresql+psycopg://...@localhost" in said
    assert not told(said)


def test_the_recorded_command_and_what_libraries_see_of_it(tmp_path: Path) -> None:
    words = [f"storage='{URL}'", "tracker.entity=me"]
    said = planfile.command(words)
    assert not told(said)
    assert "tracker.entity=me" in said
    assert "postgresql+psycopg://...@localhost:1/nothing" in said
    code = "import sys; from retsweep.__main__ import main; main(); print(sys.argv)"
    done = subprocess.run(
        [sys.executable, "-c", code, "--version", *words], capture_output=True, text=True, check=True
    )
    assert "://...@localhost" in done.stdout
    assert not told(done.stdout)


def test_what_is_a_secret_and_what_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (
        "task.tokens=40 tokenizer=bpe head_tokens: 3, learning_rate=0.1",
        "git@github.com", "sqlite:////tmp/x.db", "https://example.org/a?b=c", "storage=sqlite:///x.db",
        "accepted: postgresql+psycopg://USER:PASSWORD@HOST/DATABASE", "key 'a' is unknown; keys: b",
    ):  # fmt: skip
        assert hidden(text) == text
    for text, left in (
        ("postgresql://u:p@ss/wo:rd@h/d", "postgresql://...@h/d"),
        ("'sqlite://u:pw@h'", "'sqlite://...@h'"),
        ("x?user=u&password=abc&y=1", "x?user=u&password=...&y=1"),
        ("x?sslpassword=abc", "x?sslpassword=..."),
        ("s3://b/c?key=abc&secret=def&sv=1&sig=g%2Fh#x", "s3://b/c?key=...&secret=...&sv=1&sig=...#x"),
        ('{"api_key": "abc", "x": 1}', '{"api_key": "...", "x": 1}'),
        ("x.api_key=null password: none, nullity", "x.api_key=null password: none, nullity"),
        ("x.api_key=nullity", "x.api_key=..."),
        ("corpus.hf_token=abc eos_token=abc", "corpus.hf_token=... eos_token=abc"),
    ):
        assert hidden(text) == left
    monkeypatch.setenv("MY_TOKEN", "0123456789")
    monkeypatch.setenv("MY_MODE", "corrected")
    monkeypatch.setenv("A_KEY", "abc")
    assert hidden("corrected 0123456789 abc") == "corrected ... abc"
    assert hidden("p%40ssword p@ssword", ["a://u:p%40ssword@h"]) == "... ..."
    assert storage_url("sqlite:///x.db", Path()) == "sqlite:///x.db"


def test_in_plain_data_all_that_stands_under_its_key_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "0123456789")
    data = {
        "api_key": "of several words, [and] more: this",
        "headers": {"x-auth-token": ["abc", {"deeper": 7}], "passwords": {"a": None, "b": True, "c": ""}},
        "path": "/data/0123456789/x",
        "count": 123456789,
        "rates": (0.1, 0.2),
    }
    assert hidden_in(data) == {
        "api_key": "...",
        "headers": {"x-auth-token": ["...", {"deeper": "..."}], "passwords": {"a": None, "b": True, "c": ""}},
        "path": "/data/.../x",
        "count": 123456789,
        "rates": [0.1, 0.2],
    }
    monkeypatch.setenv("MY_TOKEN", "123456789")
    assert hidden_in({"count": 123456789}) == {"count": "..."}
    assert hidden_in(["p%40ssword"], ["a://u:p%40ssword@h"]) == ["..."]


def test_a_stream_hides_what_comes_in_pieces(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("MY_TOKEN", "0123456789")
    stream = Hiding(sys.stdout)
    print("it is 01234", end="", file=stream)
    assert capsys.readouterr().out == ""
    print("56789, yes\nand", end="", file=stream)
    assert capsys.readouterr().out == "it is ..., yes\n"
    stream.flush()
    assert capsys.readouterr().out == "and"
