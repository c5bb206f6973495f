"""A whole search by the command line, with a worker process."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest

from retsweep.__main__ import main
from tests.search.searches import PLAIN, TOY, here

__all__ = ["here"]

ROOT = Path(__file__).resolve().parents[2]


def test_a_search_prints_its_front_and_leaves_a_study_that_tools_can_read(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    overrides = [*TOY, *PLAIN, "search.trials=3", "search.space.letters=[A,R,N]", "workers=1"]
    assert main(overrides) == 0
    said = capsys.readouterr().out
    assert "runs/s: a search for valid_ppl against macs_decode_2048 (tpe), 3 architectures, 1 x cpu" in said
    assert "front of valid_ppl, macs_decode_2048:" in said
    rows = [json.loads(path.read_text()) for path in here.glob("runs/s/trials/*/row.json")]
    members = json.loads((here / "runs/s/plan.json").read_text())["members"]
    assert {row["variant_hash"] for row in rows} <= {member["variant_hash"] for member in members}
    assert len(members) == 3
    assert (here / "runs/s/table.md").exists()
    study = optuna.load_study(study_name="s-search", storage=f"sqlite:///{here}/runs/s/study.db")
    assert study.metric_names == ["valid_ppl", "macs_decode_2048"]
    told = [trial for trial in study.trials if trial.values is not None]
    assert len(told) == len(rows) >= 1
    assert all(set(trial.params) == {f"letter_{at:02}" for at in range(4)} for trial in study.trials)
    assert {"spec_hash", "overrides", "macs", "bucket"} <= study.trials[0].user_attrs.keys()
