"""plan.json: what every command on a study adds to it, and a file that is damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from retsweep.__main__ import main
from retsweep.spec import SpecError
from retsweep.sweep import planfile
from retsweep.sweep.plan import NO_DATA, Planned
from retsweep.sweep.variants import wanted

COUNT = ("task=count", "scale=tiny", "tracker=none", "device=cpu")


def noted(folder: Path, *overrides: str) -> dict[str, Any]:
    found = wanted([*COUNT, *overrides])
    runs = {str(place): Planned(run, NO_DATA, ((place, {}),)) for place, run in enumerate(found.runs)}
    planfile.note(folder, found.sweep, list(overrides), runs)
    return dict(json.loads((folder / planfile.NAME).read_text()))


def test_every_command_and_member_stands_there_once(tmp_path: Path) -> None:
    noted(tmp_path, "seed=1")
    noted(tmp_path, "seed=2")
    content = noted(tmp_path, "seed=1")
    assert content["commands"] == ["python -m retsweep seed=1", "python -m retsweep seed=2"]
    assert content["seeds"] == [1, 2]
    assert len(content["members"]) == 1


def test_the_last_environment_and_all_that_there_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = {"python": "3.11.9"}, {"python": "3.12.1"}
    for now, known in ((here, [here]), (there, [here, there]), (here, [here, there])):
        monkeypatch.setattr(planfile, "environment", lambda now=now: now)
        content = noted(tmp_path)
        assert (content["environment"], content["environments"]) == (now, known)


def test_a_file_from_before_there_was_the_list_keeps_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = {"python": "3.11.9"}, {"python": "3.12.1"}
    (tmp_path / planfile.NAME).write_text(json.dumps({"sweep": "x", "environment": there, "members": []}))
    monkeypatch.setattr(planfile, "environment", lambda: here)
    assert noted(tmp_path)["environments"] == [there, here]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "cannot be read: it is no JSON"),
        (b'{"sweep": "x", "comm', "cannot be read: it is no JSON"),
        (b"\xff", "cannot be read: it is no JSON"),
        (b"[]", "is damaged: it is no mapping"),
        (b'{"members": {}}', "is damaged: 'members' is no list"),
        (b'{"environments": null}', "is damaged: 'environments' is no list"),
    ],
)
def test_a_damaged_file_is_one_line_and_is_left_as_it_is(
    text: bytes,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("runs/s/plan.json")
    path.parent.mkdir(parents=True)
    path.write_bytes(text)
    with pytest.raises(SpecError, match=said):
        noted(path.parent)
    assert main([*COUNT, "study=s"]) == 2
    error = capsys.readouterr().err
    assert f"{path} {said}; delete it to start a new one" in error
    assert error.count("\n") == 1
    assert path.read_bytes() == text
    assert not list(path.parent.glob("trials/*"))
