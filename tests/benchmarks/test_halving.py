"""Replays of successive halving, on curves whose outcome can be worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("moocore", reason="fronts need the extra [report]")

from analysis.curves import csv_of_curves, read_metrics
from analysis.rows import csv_of, read_rows
from benchmarks import halving
from benchmarks.candidates import Candidate, candidates
from benchmarks.replay import replay
from tests.analysis.hybrids import hybrid, patterns, with_curves

STEPS = 90


def _one(key: str, nats: float, macs: float = 1.0, **columns: Any) -> Candidate:
    """A run that is as good at every rung, by its rank, as at its end."""
    known = {"values": (math.exp(nats), macs), "steps": STEPS, "macs": macs, "costs": {"macs": macs}}
    curve = {10: nats + 2, 30: nats + 1, STEPS: nats}
    return Candidate(key=key, variant=key, **{**known, "curve": curve, **columns})


def _many(count: int, macs: float = 1.0, name: str = "m") -> list[Candidate]:
    return [_one(f"{name}{place:02}", 1.0 + place / 100, macs) for place in range(count)]


def _bucket(found: list[Candidate], bucket: int = 0) -> dict[str, int]:
    return {one.key: bucket for one in found}


def test_without_rungs_everything_is_trained_whole() -> None:
    found = _many(9)
    ended, steps = replay(found, _bucket(found), (), 3, workers=2)
    assert steps == 9 * STEPS
    assert [one.candidate.key for one in ended] == [one.key for one in found]
    assert [one.trained for one in ended] == [STEPS * n for n in range(1, 10)]


def test_the_best_of_each_rung_goes_on_and_its_steps_are_counted_once() -> None:
    found = _many(9)
    ended, steps = replay(found, _bucket(found), (10, 30), 3, workers=1)
    # The best come first: m00 is promoted after three looks, m01 after six, m02 after nine; m00 again
    # once three have reached 30.
    assert [one.candidate.key for one in ended] == ["m00"]
    assert steps == 9 * 10 + 3 * 20 + 60
    assert ended[0].trained == steps


@pytest.mark.parametrize("workers", [1, 2, 4, 30])
def test_every_step_of_a_run_is_trained_at_most_once(workers: int) -> None:
    found = _many(27)[::-1]
    ended, steps = replay(found, _bucket(found), (10, 30), 3, workers)
    whole = {one.candidate.key for one in ended}
    assert "m00" in whole
    assert len(whole) == len(ended) < 27
    assert 27 * 10 + len(whole) * (STEPS - 10) <= steps < 27 * STEPS
    assert (steps - 27 * 10 - len(whole) * (STEPS - 10)) % 20 == 0, "and some that stopped at 30"


def test_buckets_are_promoted_by_themselves() -> None:
    """The dear ones are all worse than the cheap ones; the best of them gets to its end all the same."""
    dear = [_one(f"d{place}", 3.0 + place, macs=5.0) for place in range(3)]
    found = [*_many(6), *dear]
    ended, _ = replay(found, {**_bucket(_many(6)), **_bucket(dear, 1)}, (30,), 3, workers=1)
    assert {one.candidate.key for one in ended} == {"m00", "m01", "d0"}


def test_no_bucket_ends_without_a_whole_run() -> None:
    found = _many(2)
    ended, steps = replay(found, {"m00": 0, "m01": 1}, (30,), 3, workers=1)
    assert {one.candidate.key for one in ended} == {"m00", "m01"}
    assert steps == 2 * STEPS


def test_what_diverges_counts_at_its_rung_and_is_never_promoted() -> None:
    gone = _one("gone", 0.1, values=None, steps=17, curve={10: 0.0})
    found = [gone, *_many(5)]
    ended, steps = replay(found, _bucket(found), (10, 30), 3, workers=1)
    # gone is the best at 10 and promoted; on its way to 30 it diverges, after 7 steps more.
    assert [one.candidate.key for one in ended if one.candidate.values is None] == ["gone"]
    whole = [one.candidate.key for one in ended if one.candidate.values]
    assert whole == ["m00"]
    assert steps == 6 * 10 + 7 + 20 + 60


def _study(folder: Path, curves: Mapping[int, float] | None = None) -> Path:
    """27 hybrids; at every step the offset is the same, so halving sees the final order."""
    runs = {}
    offsets = {20: 1.0, 40: 0.6, 60: 0.3, 80: 0.1, STEPS: 0.0} if curves is None else curves
    for place, pattern in enumerate(patterns(27)):
        nats = 3.0 + 0.01 * place
        one = hybrid(pattern, valid_ppl=math.exp(nats), steps=STEPS)
        runs[f"{place:016x}"] = (one, {step: nats + offset for step, offset in offsets.items()})
    return with_curves(folder, runs)


def test_the_command_says_what_is_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _study(tmp_path / "s")
    asked = [str(folder), "--workers=1", "--orders=5", "--rungs=20,40", "--buckets=2", "--by"]
    assert halving.main([*asked, "valid_ppl,macs_decode_2048"]) == 0
    said = capsys.readouterr().out
    assert "27 variants, 27 runs of 90 steps" in said
    assert "rungs 20, 40; one of 3 is promoted; variants by bucket of macs_decode_2048: " in said
    rows = {line.split("  ")[1]: line.split() for line in said.splitlines() if line.startswith("  ")}
    assert rows["no halving"][2] == f"{27 * STEPS:,}"
    assert int(rows["halving"][1].replace(",", "")) < 0.6 * 27 * STEPS
    assert "5 orders of the proposals" in said
    assert halving.main([*asked, "valid_ppl,macs_decode_2048"]) == 0
    assert capsys.readouterr().out == said, "the same orders, the same numbers"


def test_a_published_study_replays_as_the_one_that_ran(tmp_path: Path) -> None:
    folder, target = _study(tmp_path / "s"), tmp_path / "published"
    rows = read_rows(folder)
    curves = [(one, read_metrics(folder / "trials" / one["spec_hash"] / "metrics.jsonl")) for one in rows]
    target.mkdir()
    (target / "rows.csv").write_text(csv_of(rows))
    (target / "curves.csv").write_text(csv_of_curves(curves))
    by, ran = candidates(folder)
    by_published, published = candidates(target)
    assert by == by_published
    ours, theirs = ({one.key: one for one in found} for found in (ran, published))
    assert ours.keys() == theirs.keys()
    for key, one in ours.items():
        assert theirs[key].values == one.values
        assert theirs[key].curve == pytest.approx(one.curve, abs=1e-4)


def test_rungs_are_the_recorded_steps_nearest_to_the_ladder() -> None:
    known = [10, 20, 30, 40, 50, 60, 70, 80]
    assert halving.nearest(90, 3, known) == [10, 30]
    assert halving.nearest(90, 2, known) == [20, 50]
    assert halving.nearest(90, 9, known) == [10]


def test_ratios_are_averaged_by_their_logarithms() -> None:
    assert halving.ratio([0.5, 2.0]).startswith("100.0 % (")
    assert halving.ratio([0.25]) == "25.0 %"
    assert halving.ratio([0.4, 0.4]) == "40.0 %"
    assert halving.ratio([]) == "never"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--rungs=20,33"], "no validation after 33 steps; recorded: 20, 40, 60, 80"),
        (["--rungs=a"], "accepted: whole numbers from 1"),
        (["--eta=1"], "accepted: 2 or more"),
        (["--workers=0"], "accepted: whole numbers from 1"),
        (["--by=valid_ppl"], "accepted: two or three columns"),
        (["--by=valid_ppl,test_ppl"], "is counted before training; --bucket-by= names a cost"),
        (["--by=valid_ppl,nothing"], "has no nothing; --by= names other columns"),
        (["--bucket-by=nothing"], "have no such count"),
    ],
)
def test_what_cannot_be_replayed_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], why: str
) -> None:
    assert halving.main([str(_study(tmp_path / "s")), *options]) == 2
    said = capsys.readouterr().err.strip()
    assert why in said
    assert "\n" not in said


def test_a_study_without_curves_is_refused_and_told_how_to_record_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert halving.main([str(_study(tmp_path / "s", {STEPS: 0.0}))]) == 2
    said = capsys.readouterr().err
    assert "27 of 27 whole runs were validated at their end alone" in said
    assert "budget.validate_every=STEPS" in said
