"""How a training ends and goes on: killed, broken, finished, diverged."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from retsweep.data.batches import TrainBatches
from retsweep.spec.protocol import Protocol
from retsweep.train import checkpoint, loop
from tests.train.loops import Astray, Exploding, lines, numbers, run, run_to, valid_loss, without_clock
from tests.train.tiny import TIME, VOCABULARY, TinyModel, protocol, same_weights


def of_a_corpus(settings: Protocol):
    """Batches of 61 chunks: every few steps one straddles two epochs."""
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, 61 * TIME + 1)
    return TrainBatches(tokens, settings, TIME, seed=3).batch_at


@pytest.mark.parametrize("stops", [(1,), (17,), (17, 18, 36)])
@pytest.mark.parametrize(
    ("changes", "look_every"),
    [({}, 1), ({"every": 6}, 1), ({"accumulate": 3}, 1), ({"accumulate": 2, "every": 6}, 16), ({}, 16)],
)
def test_a_resumed_run_has_the_numbers_of_an_unbroken_one_to_the_bit(
    tmp_path, monkeypatch, stops, changes, look_every
):
    monkeypatch.setitem(loop.LOOK_EVERY, "cpu", look_every)  # 16 as on a GPU: stops are between looks
    settings = protocol(**changes)
    arguments = {"protocol": settings, "validate": valid_loss, "batches": of_a_corpus(settings)}
    unbroken, model = run(tmp_path / "unbroken", **arguments)
    for stop in stops:
        run_to(stop, tmp_path / "broken", **arguments)
    resumed, other = run(tmp_path / "broken", **arguments)
    assert numbers(resumed) == numbers(unbroken)
    assert same_weights(model, other)
    assert without_clock(tmp_path / "broken") == without_clock(tmp_path / "unbroken")


def test_a_run_that_goes_on_where_it_shall_stop_trains_no_further(tmp_path):
    """As one does that was killed between its rung and the ledger."""
    done = 0

    def heard(step: int, total: int) -> None:
        nonlocal done
        done = step

    with pytest.raises(loop.Interrupted, match="after step 20 "):
        run(tmp_path, progress=heard, stop=lambda: done >= 20)
    done = 0
    with pytest.raises(loop.Interrupted, match="after step 20 "):
        run(tmp_path, progress=heard, stop=lambda: done >= 20)
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 20


def test_lines_that_a_killed_process_wrote_after_its_checkpoint_are_written_once(tmp_path):
    class Killed(BaseException):
        pass

    def kill(done: int, total: int) -> None:
        if done == 25:
            raise Killed

    settings = protocol(checkpoint_every=10)
    with pytest.raises(Killed):
        run(tmp_path, protocol=settings, progress=kill)
    assert lines(tmp_path)[-1]["step"] == 25
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 20
    resumed, _ = run(tmp_path, protocol=settings)
    unbroken, _ = run(tmp_path / "unbroken")
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 41))
    assert numbers(resumed) == numbers(unbroken)


def test_a_broken_checkpoint_is_told_and_the_run_begins_anew(tmp_path):
    run_to(20, tmp_path)
    path = tmp_path / "last.pt"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(UserWarning, match=r"from the beginning: .*last\.pt"):
        resumed, model = run(tmp_path)
    unbroken, other = run(tmp_path / "unbroken")
    assert numbers(resumed) == numbers(unbroken)
    assert same_weights(model, other)
    assert without_clock(tmp_path) == without_clock(tmp_path / "unbroken")


@pytest.mark.parametrize("change", [{"seed": 4}, {"steps": 50}])
def test_a_checkpoint_of_another_run_is_not_resumed(tmp_path, change):
    run_to(20, tmp_path)
    with pytest.warns(UserWarning, match="other steps or seed"):
        outcome, _ = run(tmp_path, **change)
    assert outcome.steps == change.get("steps", 40)


def test_a_finished_run_is_not_trained_again_and_keeps_no_optimiser(tmp_path):
    outcome, model = run(tmp_path)
    content = checkpoint.load(tmp_path / "last.pt")
    assert content["optimiser"] is None
    before = (tmp_path / "last.pt").stat().st_mtime_ns

    def no_batches(step: int, micro: int):
        raise AssertionError("trained again")

    again, other = run(tmp_path, batches=no_batches)
    assert again == outcome
    assert same_weights(model, other)
    assert (tmp_path / "last.pt").stat().st_mtime_ns == before
    assert len(lines(tmp_path)) == 40


@pytest.mark.parametrize("look_every", [1, 16])
@pytest.mark.parametrize("at", [1, 2, 333])
def test_a_loss_that_is_no_number_ends_the_run_with_its_last_good_numbers(
    tmp_path, monkeypatch, at, look_every
):
    monkeypatch.setitem(loop.LOOK_EVERY, "cpu", look_every)  # as on a GPU
    outcome, _ = run(tmp_path, Exploding(at), steps=700)
    assert outcome.status == f"diverged@{at}"
    assert (outcome.steps, outcome.tokens) == (at - 1, (at - 1) * 4 * TIME)
    good, _ = run(tmp_path / "good", TinyModel(), steps=700)
    assert good.status == "ok"
    curve = {line["step"]: line for line in lines(tmp_path / "good")}
    last = lines(tmp_path)[-1]
    assert (last["step"], last["status"]) == (at, f"diverged@{at}")
    assert all(line["loss"] == curve[line["step"]]["loss"] for line in lines(tmp_path)[:-1])
    assert (outcome.last_loss is None) == (at == 1)
    before = lines(tmp_path)
    again, _ = run(tmp_path, Exploding(10**9), steps=700)
    assert again == outcome  # it is not trained again either
    assert lines(tmp_path) == before


def test_a_divergence_leaves_the_weights_of_the_last_checkpoint(tmp_path):
    outcome, model = run(tmp_path / "broken", Exploding(25), protocol=protocol(checkpoint_every=10))
    assert outcome.status == "diverged@25"
    assert not all(weight.isfinite().all() for weight in model.parameters())
    run_to(20, tmp_path / "good", model=TinyModel())
    kept, good = TinyModel(), TinyModel(seed=1)
    assert checkpoint.load_weights(kept, tmp_path / "broken" / "last.pt") == 20
    assert checkpoint.load_weights(good, tmp_path / "good" / "last.pt") == 20
    assert same_weights(kept, good)


def test_a_divergence_before_the_first_checkpoint_leaves_no_weights(tmp_path):
    outcome, _ = run(tmp_path, Exploding(5))
    with pytest.raises(checkpoint.BrokenCheckpoint, match="holds no weights, the run diverged"):
        checkpoint.load_weights(TinyModel(), tmp_path / "last.pt")
    again, _ = run(tmp_path)
    assert again == outcome


def test_how_often_losses_are_looked_at_changes_no_number(tmp_path, monkeypatch):
    validated = {"protocol": protocol(every=100), "validate": valid_loss, "steps": 650}
    one, model = run(tmp_path / "one", **validated)
    monkeypatch.setitem(loop.LOOK_EVERY, "cpu", 16)
    other, same = run(tmp_path / "other", **validated)
    assert numbers(one) == numbers(other)
    assert same_weights(model, same)
    assert without_clock(tmp_path / "one") == without_clock(tmp_path / "other")


def test_lines_of_one_look_share_the_seconds_since_the_look_before(tmp_path, monkeypatch):
    monkeypatch.setitem(loop.LOOK_EVERY, "cpu", 16)
    outcome, _ = run(tmp_path)
    seconds = [line["seconds"] for line in lines(tmp_path)]
    assert len(seconds) == 40
    assert seconds[-1] == round(outcome.seconds, 3)
    looks = [0, 15, 31, 39]  # after steps 1, 16, 32, 40
    for before, after in itertools.pairwise(looks):
        steps = after - before
        between = [seconds[before] + (seconds[after] - seconds[before]) * i / steps for i in range(steps + 1)]
        assert seconds[before : after + 1] == pytest.approx(between, abs=0.0021)


def test_a_run_that_stays_far_above_the_unigram_line_is_over(tmp_path):
    settings = protocol(divergence="above_unigram")
    outcome, _ = run(tmp_path, Astray(50), steps=200, protocol=settings, unigram_nats=2.4)
    assert outcome.status == "diverged@69"
    assert (outcome.steps, outcome.last_loss > 3.4) == (69, True)
    outcome, _ = run(tmp_path / "published", Astray(50), steps=200, unigram_nats=2.4)
    assert outcome.status == "ok"


def test_a_run_that_was_astray_when_it_stopped_is_over_when_it_would_have_been(tmp_path):
    arguments = {"protocol": protocol(divergence="above_unigram"), "unigram_nats": 2.4, "steps": 200}
    run_to(60, tmp_path, model=Astray(50), **arguments)
    outcome, _ = run(tmp_path, Astray(1), **arguments)
    assert outcome.status == "diverged@69"
