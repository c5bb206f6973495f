"""task=preflight, on whatever conf holds: a new layer, layout or protocol is checked unasked."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path

import pytest

import retsweep.preflight as module
from retsweep.__main__ import main
from retsweep.preflight import PreflightError, once
from retsweep.spec import SpecError, load_spec
from retsweep.spec.compose import choices
from retsweep.spec.run import RunSpec
from retsweep.sweep import command
from retsweep.sweep.plan import identify
from retsweep.sweep.variants import wanted
from retsweep.tasks.base import Workspace
from retsweep.tasks.preflight import Preflight
from tests.layers.checks import layer
from tests.preflight.test_checks import network
from tests.sweep.test_tune_command import Inline

TINY = ("scale=tiny", "tokenizer=bytes")


def checked(spec: RunSpec, folder) -> dict[str, object]:
    return Preflight()(spec, Workspace(folder=folder, device="cpu", cache=folder))


def test_the_task_is_what_its_yaml_names(tmp_path):
    spec = load_spec(["task=preflight", *TINY])
    assert spec.task == Preflight()
    row = spec.task(spec, Workspace(folder=tmp_path, device="cpu", cache=tmp_path))
    assert set(row) == {"preflight", "preflight_seconds", "preflight_forms_error"}
    assert list(tmp_path.iterdir()) == []


def test_another_code_is_another_trial(monkeypatch):
    found = wanted([*TINY, "task=preflight"])

    def planned(code):
        monkeypatch.setattr(once, "code_identity", lambda: code)
        ((key, one),) = identify(found.runs, None).items()
        assert one.run.extra == {"preflight_code": code}
        return key

    assert planned("before") == planned("before") != planned("after")


def test_other_code_than_the_planned_one_checks_nothing(tmp_path):
    spec = load_spec(["task=preflight", *TINY])
    assert spec.task.pinned().code == once.code_identity()
    with pytest.raises(SpecError, match=r"^the code has changed since .*; start the command again$"):
        Preflight(code="another")(spec, Workspace(folder=tmp_path, device="cpu", cache=tmp_path))
    assert Preflight().pinned()(spec, Workspace(folder=tmp_path, device="cpu", cache=tmp_path))


def test_an_edit_of_the_code_is_checked_by_the_same_command(tmp_path, monkeypatch, capsys):
    """The row of before stands in the study, and in no table."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "Engine", Inline)
    words = [*TINY, "task=preflight", "tracker=none", "device=cpu", "study=s"]
    with monkeypatch.context() as before:
        before.setattr(module, "preflight", lambda spec: 1 / 0)
        before.setattr(once, "code_identity", lambda: "before")
        assert main(words) == 1
    assert main(words) == 0
    assert main(words) == 0
    assert "1 of 1 finished before" in capsys.readouterr().out
    rows = [json.loads(path.read_text()) for path in Path("runs/s").glob("trials/*/row.json")]
    assert {(row["status"], row["preflight_code"]) for row in rows} == {
        ("failed", "before"),
        ("ok", once.code_identity()),
    }
    (line,) = csv.DictReader(io.StringIO(Path("runs/s/table.csv").read_text()))
    assert (line["label"], line["preflight"]) == ("Type A 2:2", "ok")


def test_it_reads_no_data():
    assert Preflight.reads_data is False


def test_it_has_no_options():
    with pytest.raises(SpecError, match="dropout"):
        load_spec(["task=preflight", "+task.dropout=0.1"])


@pytest.mark.parametrize("name", choices("layer"))
def test_every_layer_beside_itself_and_others(name, tmp_path):
    letter = layer(name).letter
    spec = load_spec([*TINY, "layout=pattern", f"layout.pattern={letter}{letter}AR"])
    assert checked(spec, tmp_path)["preflight"] == "ok"


@pytest.mark.parametrize("protocol", choices("protocol"))
@pytest.mark.parametrize("layout", choices("layout"))
def test_every_layout_under_every_protocol(layout, protocol, tmp_path):
    spec = load_spec([*TINY, f"layout={layout}", f"protocol={protocol}"])
    row = checked(spec, tmp_path)
    assert row["preflight"] == "ok"
    assert ("leak_mass" in row) == spec.leaky


@pytest.mark.parametrize("scale", choices("scale"))
def test_every_scale_takes_seconds(scale, tmp_path):
    began = time.process_time()
    tokenizer = ["tokenizer=bytes"] if scale == "tiny" else []
    assert checked(load_spec([f"scale={scale}", *tokenizer]), tmp_path)["preflight"] == "ok"
    assert time.process_time() - began < 30


def test_a_failure_is_one_line(tmp_path):
    with pytest.raises(PreflightError, match="causality: ") as error:
        checked(network("leaks"), tmp_path)
    assert "\n" not in str(error.value)
