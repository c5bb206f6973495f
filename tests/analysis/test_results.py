"""A published study is the same study: equal rows, the same table, and nothing of the machine."""

from __future__ import annotations

import csv
import json
import math
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from analysis import scrub
from analysis.curves import csv_of_curves, read_metrics, thinned
from analysis.plan import read_plan
from analysis.results import in_order, main, publish, standing_of
from analysis.rows import TableError, read_rows
from analysis.table import build
from tests.analysis.rows import row, study, transformer, type_x

#: A value of every kind that a row may hold, and text that csv has to quote.
ODD = {"epochs": None, "clip": 1.0, "reference": True, "branches": 'a, "b"\nc', "loss_nan": math.nan}


@pytest.fixture
def undrawn(monkeypatch):
    """Figures have tests of their own, and take seconds."""
    monkeypatch.setattr("analysis.results._draw", lambda folder: "")


def metrics(folder: Path, steps: int = 350, valid_every: int = 50) -> None:
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            line = {"step": step, "loss": 6.0 / step**0.1, "learning_rate": 0.01, "tokens": step}
            if step % valid_every == 0:
                line["valid_loss"] = line["loss"] + 0.1
            file.write(json.dumps(line) + "\n")


def finished(folder: Path, seeds: int = 2) -> Path:
    """Four variants, one of them diverged with its last seed, metrics beside each row."""
    rows = [
        made | {"variant_hash": f"hash-{made['architecture']}", "seed": seed, "valid_ppl": 30.1 + 0.7 * seed}
        for seed in reversed(range(seeds))
        for made in (type_x("B", 6), row(**ODD), type_x("A", 10), transformer())
    ]
    rows[0] |= {"status": "diverged@17", "valid_ppl": math.inf}
    study(folder, *rows)
    for trial in (folder / "trials").iterdir():
        metrics(trial)
    return folder


def planned(folder: Path, **more: Any) -> Path:
    hashes = dict.fromkeys(row["variant_hash"] for row in read_rows(folder))
    content = {
        "sweep": "ar_ratio",
        "commands": ["python -m retsweep +sweep=ar_ratio corpus.path=/home/me/wikitext-2 seeds=2"],
        "environment": {"python": "3.11.9", "platform": "Linux x86_64", "packages": {"torch": "2.13.0"}},
        "members": [{"variant_hash": name, "as": {}, "reference": False} for name in hashes],
        **more,
    }
    (folder / "plan.json").write_text(json.dumps(content))
    return folder


def by_run(rows: list[dict[str, Any]]) -> dict[Any, str]:
    """Rows by variant and seed, as text: a NaN equals itself there."""
    return {(found["variant_hash"], found["seed"]): json.dumps(found, sort_keys=True) for found in rows}


# ---- there and back --------------------------------------------------------------------------
def test_rows_come_back_equal_and_give_the_same_table(tmp_path, undrawn):
    folder, target = planned(finished(tmp_path / "runs" / "s")), tmp_path / "results" / "s"
    publish(folder, target)
    rows = read_rows(target)
    assert by_run(rows) == by_run(read_rows(folder))
    assert len(rows) == 8
    ours, theirs = build("s", read_rows(folder), read_plan(folder)), build("s", rows, read_plan(target))
    assert ours.frame().equals(theirs.frame())
    assert ours.notes == theirs.notes
    assert (target / "table.csv").read_text() == ours.frame().to_csv(index=False, lineterminator="\n")


def test_order_is_the_tables_then_the_seed_whatever_the_folders_are_called(tmp_path, undrawn):
    folder = finished(tmp_path / "a")
    publish(folder, tmp_path / "one" / "name")
    for place, trial in enumerate(sorted((folder / "trials").iterdir(), reverse=True)):
        trial.rename(trial.with_name(f"x{place}"))
    publish(folder, tmp_path / "two" / "name")
    names = {path.name for path in (tmp_path / "one" / "name").iterdir()}
    assert {"rows.csv", "curves.csv", "table.csv", "table.md", "environment.txt", "command.txt"} <= names
    for name in names:
        one, two = (tmp_path / side / "name" / name for side in ("one", "two"))
        assert one.read_bytes() == two.read_bytes(), name
    found = [(one["architecture"], one["seed"]) for one in read_rows(tmp_path / "one" / "name")]
    architectures = ["Transformer", "Type A 10:2", "Type B 6:6", "RetNet"]  # a reference comes last
    assert found == [(architecture, seed) for architecture in architectures for seed in (0, 1)]


def test_publishing_again_replaces_and_takes_old_figures_away(tmp_path, undrawn):
    target = tmp_path / "results" / "s"
    publish(finished(tmp_path / "s"), target)
    (target / "old.svg").write_text("<svg/>")
    (target / "plan.json").write_text("{}")
    (target / "NOTES.md").write_text("mine")
    shutil.rmtree(tmp_path / "s")
    publish(finished(tmp_path / "s", seeds=1), target)
    assert len(read_rows(target)) == 4
    assert not (target / "old.svg").exists()
    assert not (target / "plan.json").exists()
    assert (target / "NOTES.md").read_text() == "mine"
    assert [path.name for path in target.parent.iterdir()] == ["s"]


# ---- nothing of the machine ------------------------------------------------------------------
def test_no_file_names_the_machine(tmp_path):
    folder = planned(finished(tmp_path / "s"))
    path = next((folder / "trials").glob("*/row.json"))
    error = f"FileNotFoundError: {folder}/x.pt"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "failed", "error": error}))
    files, _ = publish(folder, tmp_path / "results" / "s", partial=True)
    assert any(file.suffix == ".svg" for file in files)
    for file in files:
        text = file.read_text()
        assert str(tmp_path) not in text, file.name
        assert scrub.private_in(text) == [], file.name
    command = (tmp_path / "results" / "s" / "command.txt").read_text().splitlines()[-1]
    assert command == "python -m retsweep +sweep=ar_ratio corpus.path=PATH_TO/wikitext-2 seeds=2"
    plan = json.loads((tmp_path / "results" / "s" / "plan.json").read_text())
    assert plan["commands"] == [command]
    assert [member["variant_hash"] for member in plan["members"]] == list(
        dict.fromkeys(found["variant_hash"] for found in read_rows(folder))
    )


def test_a_file_that_would_name_it_stops_the_publication(tmp_path, monkeypatch, undrawn):
    monkeypatch.setattr("analysis.results.scrubbed", dict)
    folder = finished(tmp_path / "s")
    path = next((folder / "trials").glob("*/row.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"note": "/home/me/x"}))
    with pytest.raises(TableError, match="would publish '/home/me/x'"):
        publish(folder, tmp_path / "results" / "s")
    assert not (tmp_path / "results" / "s").exists()


def test_what_it_ran_on_names_every_machine_that_differs(tmp_path, undrawn):
    said, target = tmp_path / "results" / "s" / "environment.txt", tmp_path / "results" / "s"
    folder = planned(finished(tmp_path / "s"))
    publish(folder, target)
    assert "\npython: 3.11.9\nplatform: Linux x86_64\n" in said.read_text()
    assert said.read_text().endswith("package: torch 2.13.0\n")
    one, other = (
        {"python": python, "platform": "Linux x86_64", "packages": {"torch": torch}}
        for python, torch in (("3.11.9", "2.13.0"), ("3.12.1", "2.12.0"))
    )
    planned(folder, environment=other, environments=[other])
    publish(folder, target)
    assert "\npython: 3.12.1\n" in said.read_text()
    planned(folder, environment=other, environments=[one, other])
    publish(folder, target)
    assert "\npython: " not in said.read_text()
    assert said.read_text().endswith(
        "environment 1: python: 3.11.9, platform: Linux x86_64, torch 2.13.0\n"
        "environment 2: python: 3.12.1, platform: Linux x86_64, torch 2.12.0\n"
    )


# ---- unfinished ------------------------------------------------------------------------------
def test_an_unfinished_study_is_refused_and_says_so_where_it_is_published(tmp_path, undrawn):
    folder = planned(finished(tmp_path / "s"))
    shutil.rmtree(folder / "trials" / "0007")
    line = "7 of 8 runs finished; without a row: Transformer seed 0"
    assert standing_of(folder, read_rows(folder)).line == line
    with pytest.raises(TableError, match=f"{line}; --partial publishes it"):
        publish(folder, tmp_path / "results" / "s")
    publish(folder, tmp_path / "results" / "s", partial=True)
    assert f"**Unfinished: {line}.**" in (tmp_path / "results" / "s" / "table.md").read_text()
    assert f"runs: {line}" in (tmp_path / "results" / "s" / "environment.txt").read_text()


def test_members_without_any_row_and_seeds_to_come_count(tmp_path):
    folder = finished(tmp_path / "s")
    absent = {"variant_hash": "0123456789", "as": {"step": "causal mask"}}
    members = [{"variant_hash": name} for name in {row["variant_hash"] for row in read_rows(folder)}]
    planned(folder, members=[*members, absent], seeds=[0, 1, 2])
    standing = standing_of(folder, read_rows(folder))
    assert (standing.finished, standing.wanted) == (8, 15)
    assert "variant 012345 (causal mask) seed 0" in standing.missing
    assert "RetNet seed 2" in standing.missing


def test_a_trial_that_began_shows_what_no_plan_says(tmp_path):
    folder = finished(tmp_path / "s")
    (folder / "trials" / "begun").mkdir()
    (folder / "trials" / "begun" / "config.yaml").write_text("seed: 0\n")
    assert standing_of(folder, read_rows(folder)).line == "8 of 9 runs finished; without a row: trial begun"


def test_a_failed_run_is_no_finished_one(tmp_path):
    folder = study(tmp_path / "s", row(), transformer(status="failed", error="RuntimeError: x"))
    assert standing_of(folder, read_rows(folder)).line == "1 of 2 runs finished; failed: Transformer seed 0"


# ---- curves ----------------------------------------------------------------------------------
def test_curves_are_thin_keep_their_ends_and_what_was_validated(tmp_path, undrawn):
    publish(finished(tmp_path / "s"), tmp_path / "results" / "s")
    with (tmp_path / "results" / "s" / "curves.csv").open(newline="") as file:
        points = list(csv.DictReader(file))
    assert list(points[0]) == ["variant_hash", "seed", "step", "loss", "valid_loss"]
    runs = {(point["variant_hash"], point["seed"]) for point in points}
    assert len(runs) == 8
    for run in runs:
        curve = [point for point in points if (point["variant_hash"], point["seed"]) == run]
        steps = [int(point["step"]) for point in curve]
        assert 30 <= len(steps) <= 50
        assert steps == sorted(set(steps))
        assert (steps[0], steps[-1]) == (1, 350)
        assert max(later - one for one, later in pairwise(steps)) <= 12
        validated = [int(point["step"]) for point in curve if point["valid_loss"]]
        assert validated == [50, 100, 150, 200, 250, 300, 350]
        last = range(steps[-2] + 1, 351)
        assert float(curve[0]["loss"]) == 6.0
        assert float(curve[-1]["loss"]) == pytest.approx(
            sum(6.0 / step**0.1 for step in last) / len(last), rel=1e-4
        )
        assert float(curve[-1]["valid_loss"]) == pytest.approx(6.0 / 350**0.1 + 0.1, rel=1e-4)


def test_thinning_bounds_a_curve_that_is_validated_at_every_step():
    curve = [{"step": step, "loss": 1.0, "valid_loss": 2.0} for step in range(1, 1001)]
    kept = thinned(curve, 40)
    assert 20 <= len(kept) <= 40
    assert (kept[0], kept[-1]) == (curve[0], curve[-1])
    assert thinned(curve[:7], 40) == curve[:7]
    assert thinned([], 40) == []


def test_losses_that_are_no_numbers_stay_what_they_are():
    text = csv_of_curves([(row(variant_hash="v"), [{"step": 1, "loss": math.nan}, {"step": 2}])])
    assert text.splitlines()[1:] == ["v,0,1,nan,", "v,0,2,,"]


def test_metrics_may_end_in_half_a_line_but_not_be_damaged(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1, "loss": 2.0}]
    path.write_text('{"step": 1, "lo\n{"step": 2}\n')
    with pytest.raises(TableError, match="is damaged"):
        read_metrics(path)
    path.write_text('{"loss": 1}\n')
    with pytest.raises(TableError, match="line 1, is no line of metrics"):
        read_metrics(path)


def test_a_study_of_counts_has_neither_curves_nor_fronts(tmp_path):
    counts = [
        {key: value for key, value in made.items() if "ppl" not in key and "bits_per" not in key}
        for made in (row(), transformer())
    ]
    folder = study(tmp_path / "s", *counts)
    files, words = publish(folder, tmp_path / "results" / "s")
    names = {path.name for path in files}
    assert "curves.csv" not in names
    assert "pareto.svg" not in names
    assert "pareto" in words
    assert in_order(read_rows(folder))[0]["architecture"] == "Transformer"


# ---- the command -----------------------------------------------------------------------------
def test_the_command(tmp_path, monkeypatch, capsys, undrawn):
    monkeypatch.chdir(tmp_path)
    finished(tmp_path / "runs" / "mine")
    assert main(["mine", "ar_ratio"]) == 0
    assert "results/ar_ratio/rows.csv" in capsys.readouterr().out
    for arguments, code, said in (
        (["mine"], 2, "usage: python -m analysis.results STUDY NAME [--partial]"),
        (["mine", "x", "--all"], 2, "usage"),
        (["mine", "../x"], 1, "error: NAME '../x' is no plain name"),
        (["yours", "x"], 1, "error: no study 'yours'"),
        (["results/ar_ratio", "x"], 1, "error: results/ar_ratio is no study that ran here"),
    ):
        assert main(arguments) == code
        assert said in capsys.readouterr().err
