"""Two studies at equal trained steps; what a study trained, as its storage tells."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("moocore", reason="fronts need the extra [report]")

import optuna
from optuna.trial import TrialState

from benchmarks import fronts
from benchmarks.ledger import ledger
from retsweep.sweep.storage import open_study, storage_url
from tests.analysis.hybrids import hybrid, patterns, with_curves

BEGAN = datetime.datetime(2026, 1, 1)


def _study(folder: Path, trials: Sequence[tuple[TrialState, dict[str, Any]]]) -> Path:
    """A study whose n-th trial ended, or was last taken up, n minutes after the first."""
    folder.mkdir(parents=True)
    (folder / "trials").mkdir()
    made = open_study(storage_url(None, folder), folder.name, create=True)
    for place, (state, said) in enumerate(trials):
        when = BEGAN + datetime.timedelta(minutes=place)
        made.add_trial(
            optuna.trial.FrozenTrial(
                number=place,
                trial_id=place,
                state=state,
                value=1.0 if state == TrialState.COMPLETE else None,
                datetime_start=when,
                datetime_complete=when if state.is_finished() else None,
                params={},
                distributions={},
                user_attrs=said,
                system_attrs={},
                intermediate_values={},
            )
        )
    return folder


def _whole(pattern: str, ppl: float, steps: int = 90, **columns: Any) -> tuple[TrialState, dict[str, Any]]:
    one = hybrid(pattern, valid_ppl=ppl, steps=steps, batch=4, **columns)
    return TrialState.COMPLETE, {"spec_hash": one["spec_hash"], "row": one}


def _paused(pattern: str, rung: int) -> tuple[TrialState, dict[str, Any]]:
    said = {"spec_hash": f"{pattern}-0", "rungs": {str(rung): 30.0}, "until": rung, "steps": [rung, 90]}
    return TrialState.WAITING, said


def test_a_ledger_counts_runs_that_stopped_and_attempts_once(tmp_path: Path) -> None:
    a, b, c, d = patterns(4)
    lost = (TrialState.FAIL, {"spec_hash": f"{a}-0", "steps": [40, 90]})
    broken = (TrialState.FAIL, {"spec_hash": f"{d}-0", "steps": [25, 90], "error": "ValueError"})
    never = (TrialState.WAITING, {"label": "a proposal of something else"})
    made = [lost, _paused(b, 30), broken, _whole(a, 30.0), _whole(c, 28.0), never]
    found, timed = ledger(_study(tmp_path / "s", made))
    assert timed
    assert [(one.hash[:-2], one.steps, one.row is not None) for one in found] == [
        (b, 30, False),
        (d, 25, False),
        (a, 90, True),
        (c, 90, True),
    ]


def test_a_study_without_its_storage_has_rows_alone(tmp_path: Path) -> None:
    a, b = patterns(2)
    runs = {pattern: (hybrid(pattern, steps=90), {}) for pattern in (a, b)}
    found, timed = ledger(with_curves(tmp_path / "s", runs))
    assert not timed
    assert [one.steps for one in found] == [90, 90]


def _said(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert fronts.main([*arguments, "--orders=3"]) == 0
    return capsys.readouterr().out.splitlines()


def test_a_search_that_is_better_everywhere_dominates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same models, each perplexity a tenth lower, and then runs that stopped at a rung."""
    known = patterns(16)
    grid = _study(tmp_path / "grid", [_whole(p, 30 + place) for place, p in enumerate(known[:4])])
    better = [_whole(p, 27 + 0.9 * place) for place, p in enumerate(known[:4])]
    search = _study(tmp_path / "search", [*better, *(_paused(p, 30) for p in known[4:])])
    said = _said(capsys, str(grid), str(search))
    assert said[0].startswith("grid: 360 steps; 4 whole runs; 0 without")
    assert said[1].startswith("search: 720 steps; 4 whole runs; 12 without")
    rows: dict[str, list[str]] = {}
    for line in said:
        rows.setdefault(line.partition(" ")[0], line.split()[1:])  # those of the table come first
    assert rows["after"][1:] == ["90", "180", "270", "360"], "steps that both trained"
    of_grid, of_search = ([float(cell) for cell in rows[name]] for name in ("grid", "search"))
    assert all(0 < g < s for g, s in zip(of_grid, of_search, strict=True))
    assert any(line.startswith("at 360 steps search's front dominates grid's") for line in said)
    assert "grid never is where search ends" in said
    (there,) = [line for line in said if line.startswith("search is where grid ends after")]
    assert int(there.split()[6]) <= 360


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ([(30, 2), (20, 4)], [(29, 2), (19, 4)], "search's front dominates grid's"),
        ([(29, 2), (19, 4)], [(30, 2), (20, 4)], "grid's front dominates search's"),
        ([(30, 2), (20, 4)], [(29, 2), (21, 4)], "neither front dominates the other"),
        ([(30, 2), (20, 4)], [(30, 2), (20, 4), (40, 5)], "both fronts are the same"),
        ([(30, 2)], [(30, 2), (20, 4)], "search's front dominates grid's"),
    ],
)
def test_which_front_dominates(
    first: list[tuple[float, float]], second: list[tuple[float, float]], said: str
) -> None:
    def of(name: str, points: list[tuple[float, float]]) -> fronts.Studied:
        parts = tuple(fronts.Step(10, (float(a), float(b))) for a, b in points)
        return fronts.Studied(name, parts, True, (), 0)

    around = fronts.box([(19.0, 2.0), (40.0, 5.0)])
    found = fronts.verdict(of("grid", first), of("search", second), 1000, around)
    assert said in found


def test_only_what_is_trained_by_then_counts() -> None:
    a, b = (30.0, 2.0), (20.0, 4.0)
    one = fronts.Studied("s", (fronts.Step(10, a), fronts.Step(5, None), fronts.Step(10, b)), True, (), 0)
    assert [one.points(steps) for steps in (9, 10, 24, 25)] == [[], [a], [a], [a, b]]
    around = fronts.box([a, b])
    assert "is where t ends after 10 steps" in fronts.reached(
        one, fronts.Studied("t", (fronts.Step(10, a),), True, (), 0), around
    )


def test_further_seeds_of_a_variant_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = patterns(3)
    grid = _study(tmp_path / "grid", [_whole(p, 30 + seed, seed=seed) for seed in (0, 1) for p in known])
    said = _said(capsys, str(grid), str(grid))
    assert "270 steps; 3 whole runs" in said[0]
    assert "3 runs of further seeds left out" in said[0]


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"data_hash": "e" * 16}, "their data_hash differs"),
        ({"batch": 8}, "their batch differs"),
        ({"context": 127}, "their context differs"),
    ],
)
def test_other_text_and_other_steps_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], columns: dict[str, Any], why: str
) -> None:
    (pattern,) = patterns(1)
    first = with_curves(tmp_path / "a", {"x": (hybrid(pattern, batch=4), {})})
    second = with_curves(tmp_path / "b", {"x": (hybrid(pattern, **({"batch": 4} | columns)), {})})
    assert fronts.main([str(first), str(second)]) == 2
    said = capsys.readouterr().err.strip()
    assert why in said
    assert "\n" not in said


def test_a_storage_that_knows_no_such_study_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _study(tmp_path / "s", [_whole(patterns(1)[0], math.e)])
    moved = folder.rename(tmp_path / "moved")
    assert fronts.main([str(moved), str(moved)]) == 2
    assert "the storage has no study 'moved'" in capsys.readouterr().err
