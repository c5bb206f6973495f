from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from retsweep.data.batches import TrainBatches
from retsweep.spec.protocol import Protocol
from retsweep.train import checkpoint, loop
from retsweep.train.loop import Interrupted, train
from retsweep.train.reproducible import step_seed
from retsweep.train.state import Outcome
from tests.train.tiny import TIME, VOCABULARY, TinyModel, batch_at, protocol, same_weights


def run(
    folder: Path, model: nn.Module | None = None, steps: int = 40, **arguments
) -> tuple[Outcome, nn.Module]:
    folder.mkdir(exist_ok=True)
    model = TinyModel(dropout=0.2) if model is None else model
    settings = {"protocol": protocol(), "seed": 3, "batches": batch_at, **arguments}
    return train(model, steps=steps, folder=folder, **settings), model


def run_to(step: int, folder: Path, batches=batch_at, **arguments) -> None:
    """Interrupts a run, or one that goes on, before it begins the step after ``step``."""
    begun = 0

    def counted(index: int, micro: int):
        nonlocal begun
        begun = index + 1
        return batches(index, micro)

    with pytest.raises(Interrupted, match=f"after step {step} "):
        run(folder, stop=lambda: begun == step, batches=counted, **arguments)


def lines(folder: Path) -> list[dict]:
    return [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]


def without_clock(folder: Path) -> list[dict]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines(folder)]


def numbers(outcome: Outcome) -> Outcome:
    """An outcome without what a clock or a memory meter says."""
    return replace(outcome, seconds=0, tokens_per_second=0, peak_memory_bytes=0)


def valid_loss(model: nn.Module) -> float:
    model.eval()
    with torch.no_grad():
        inputs, targets = batch_at(10_000, batch=16)
        return nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).item()


class Exploding(TinyModel):
    """Its logits are not a number in forward pass ``at`` and from there on."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, self.passes = at, 0

    def forward(self, tokens):
        self.passes += 1
        return self.broken(super().forward(tokens)) if self.passes >= self.at else super().forward(tokens)

    def broken(self, logits):
        return logits * math.nan


class Astray(Exploding):
    """From pass ``at`` on it is sure of a wrong token, each time of another one."""

    def broken(self, logits):
        return 100 * logits.roll(1 + self.passes % 10, dims=-1)


def test_a_model_learns_and_the_outcome_says_how(tmp_path):
    heard, told = [], []
    outcome, _ = run(tmp_path, progress=lambda *x: heard.append(x), metrics=told.append)
    assert outcome.status == "ok"
    assert (outcome.steps, outcome.tokens) == (40, 40 * 4 * TIME)
    assert outcome.last_loss < 1.0 < math.log(11)
    assert outcome.seconds > 0
    assert outcome.tokens_per_second > 0
    assert outcome.peak_memory_bytes > 1 << 20
    assert (outcome.best_loss, outcome.best_step) == (None, None)
    assert heard == [(step, 40) for step in range(1, 41)]
    assert lines(tmp_path) == told
    assert [line["step"] for line in told] == list(range(1, 41))
    assert told[-1]["loss"] == outcome.last_loss


def test_a_line_holds_the_mean_loss_since_the_line_before(tmp_path, monkeypatch):
    run(tmp_path / "each", steps=40)
    monkeypatch.setattr(loop, "log_every", lambda steps: 3)
    run(tmp_path / "third", steps=40)
    losses = [line["loss"] for line in lines(tmp_path / "each")]
    third = lines(tmp_path / "third")
    assert [line["step"] for line in third] == [*range(3, 40, 3), 40]
    assert [line["loss"] for line in third[:-1]] == [
        pytest.approx(sum(losses[step - 3 : step]) / 3) for step in range(3, 40, 3)
    ]
    assert third[-1]["loss"] == losses[-1]


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
    monkeypatch.setattr(loop, "log_every", lambda steps: look_every)
    settings = protocol(**changes)
    arguments = {"protocol": settings, "validate": valid_loss, "batches": of_a_corpus(settings)}
    unbroken, model = run(tmp_path / "unbroken", **arguments)
    for stop in stops:
        run_to(stop, tmp_path / "broken", **arguments)
    resumed, other = run(tmp_path / "broken", **arguments)
    assert numbers(resumed) == numbers(unbroken)
    assert same_weights(model, other)
    assert without_clock(tmp_path / "broken") == without_clock(tmp_path / "unbroken")


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
    one, model = run(tmp_path / "one", steps=650)
    monkeypatch.setitem(loop.LOOK_EVERY, "cpu", 16)
    other, same = run(tmp_path / "other", steps=650)
    assert numbers(one) == numbers(other)
    assert same_weights(model, same)
    assert without_clock(tmp_path / "one") == without_clock(tmp_path / "other")


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


def test_the_best_validation_is_kept_and_the_last_step_is_validated(tmp_path):
    asked = iter([3.0, 1.0, math.nan, 2.0, 1.5])
    outcome, model = run(tmp_path, steps=22, protocol=protocol(every=5), validate=lambda model: next(asked))
    assert (outcome.best_loss, outcome.best_step) == (1.0, 10)
    curve = {line["step"]: line["valid_loss"] for line in lines(tmp_path) if "valid_loss" in line}
    assert curve == {5: 3.0, 10: 1.0, 15: None, 20: 2.0, 22: 1.5}
    assert outcome.status == "ok"
    best = TinyModel()
    assert checkpoint.load_weights(best, tmp_path / "best.pt") == 10
    assert not same_weights(best, model)


def test_the_best_weights_are_written_with_a_checkpoint_and_before_it(tmp_path, monkeypatch):
    written = []
    save = checkpoint.save

    def told(path, content, permit):
        written.append((path.name, content["step"]))
        save(path, content, permit)

    monkeypatch.setattr(checkpoint, "save", told)
    asked = iter([5.0, 4.0, 3.0, 6.0, 7.0, 8.0, 2.0, 9.0])
    settings = protocol(every=5, checkpoint_every=15)
    run(tmp_path, protocol=settings, validate=lambda model: next(asked))
    assert written == [("best.pt", 15), ("last.pt", 15), ("last.pt", 30), ("best.pt", 35), ("last.pt", 40)]


@pytest.mark.parametrize("stop", [7, 12])
def test_a_run_stopped_between_checkpoints_keeps_its_best_weights(tmp_path, stop):
    """Stopped after step 7 or 12 of a run that is never again as good as after step 5."""
    losses = {5: 1.0}
    taken = {}

    def validate(model: nn.Module) -> float:
        taken.setdefault(len(taken), {name: w.clone() for name, w in model.state_dict().items()})
        return losses.get(5 * len(taken), 2.0)

    arguments = {"protocol": protocol(every=5), "validate": validate}
    run_to(stop, tmp_path, **arguments)
    outcome, _ = run(tmp_path, **arguments)
    assert outcome.best_step == 5
    best = TinyModel()
    assert checkpoint.load_weights(best, tmp_path / "best.pt") == 5
    assert all(torch.equal(w, taken[0][name]) for name, w in best.state_dict().items())


def test_the_last_step_is_validated_if_no_other_is(tmp_path):
    outcome, model = run(tmp_path, validate=valid_loss)
    assert (outcome.best_loss, outcome.best_step) == (valid_loss(model), 40)
    assert [line["step"] for line in lines(tmp_path) if "valid_loss" in line] == [40]
    best = TinyModel()
    assert checkpoint.load_weights(best, tmp_path / "best.pt") == 40
    assert same_weights(best, model)


def test_evaluation_changes_no_number(tmp_path):
    one, model = run(tmp_path / "one")
    other, same = run(tmp_path / "other", protocol=protocol(every=3), validate=valid_loss)
    assert same_weights(model, same)
    assert other.last_loss == one.last_loss


def test_dropout_comes_from_the_seed_and_the_step(tmp_path):
    one, _ = run(tmp_path / "one")
    torch.manual_seed(12345)  # whatever the process did before
    assert numbers(run(tmp_path / "same")[0]) == numbers(one)
    assert run(tmp_path / "other", seed=4)[0].last_loss != one.last_loss
    seeds = {step_seed(seed, step) for seed in range(20) for step in range(500)}
    assert len(seeds) > 9_990  # 32 bits: a clash or two would be no wonder
    assert max(seeds) < 2**32


def test_the_callers_generator_and_settings_are_untouched(tmp_path):
    before = torch.random.get_rng_state()
    run(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_exception_from_stop_leaves_at_once_and_writes_nothing(tmp_path):
    def lost() -> bool:
        raise LookupError("the claim is lost")

    with pytest.raises(LookupError):
        run(tmp_path, stop=lost)
    assert not (tmp_path / "last.pt").exists()


@pytest.mark.parametrize(
    ("at", "changes"),
    [(10, {"checkpoint_every": 10}), (12, {"every": 6}), (40, {})],
    ids=["a checkpoint", "the best", "the end"],
)
def test_a_claim_lost_during_a_step_replaces_no_checkpoint(tmp_path, at, changes):
    """A process that was suspended within step ``at`` finds another one's files when it wakes."""
    lost = False

    def sleeping(step: int, micro: int):
        nonlocal lost
        lost = step + 1 == at
        if lost:
            for name in ("last.pt", "best.pt"):
                (tmp_path / name).write_bytes(b"another's")
        return batch_at(step, micro)

    def stop() -> bool:
        if lost:
            raise LookupError("the claim is lost")
        return False

    with pytest.raises(LookupError):
        run(tmp_path, batches=sleeping, stop=stop, protocol=protocol(**changes), validate=valid_loss)
    assert [(tmp_path / name).read_bytes() for name in ("last.pt", "best.pt")] == [b"another's"] * 2
    assert not list(tmp_path.glob(".*"))


def test_what_a_killed_writer_left_is_removed(tmp_path):
    for name in (".last.pt.123.tmp", ".best.pt.123.tmp", ".metrics.jsonl.9.tmp"):
        (tmp_path / name).write_bytes(b"half")
    run(tmp_path, validate=valid_loss)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt", "metrics.jsonl"]


def test_accumulated_micro_batches_train_like_one_large_batch(tmp_path):
    def large(step: int, micro: int):
        parts = [batch_at(step, micro) for micro in range(3)]
        return tuple(torch.cat(side) for side in zip(*parts, strict=True))

    one, model = run(tmp_path / "one", TinyModel().double(), batches=large)
    other, same = run(tmp_path / "other", TinyModel().double(), protocol=protocol(accumulate=3))
    assert other.tokens == one.tokens
    for a, b in zip(model.parameters(), same.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_gradients_are_clipped_to_their_global_norm(tmp_path, monkeypatch):
    seen = []
    step = torch.optim.AdamW.step

    def spy(self, *arguments):
        gradients = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
        seen.append(torch.cat(gradients).norm().item())
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    run(tmp_path, protocol=protocol(clip=0.01))
    assert max(seen) == pytest.approx(0.01, rel=1e-3)
    run(tmp_path / "free", protocol=protocol(clip=None))
    assert max(seen) > 0.1


def test_compile_reaches_every_block_and_renames_nothing(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    _, model = run(tmp_path, protocol=protocol(compile=True))
    assert compiled == list(model.blocks)
    assert set(checkpoint.load(tmp_path / "last.pt")["weights"]) == set(TinyModel().state_dict())
    compiled.clear()
    bare = nn.Sequential(nn.Embedding(11, 11))
    run(tmp_path / "bare", bare, protocol=protocol(compile=True))
    assert compiled == [bare]


def test_bf16_trains(tmp_path):
    outcome, _ = run(tmp_path, protocol=protocol(precision="bf16"))
    assert outcome.status == "ok"
    assert outcome.last_loss < 1.2


def test_an_ordinary_run_warns_of_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(tmp_path, protocol=protocol(every=5), validate=valid_loss)


@pytest.mark.parametrize("changes", [{}, {"accumulate": 3}, {"clip": None}, {"precision": "bf16"}])
def test_no_step_waits_for_its_numbers(tmp_path, monkeypatch, changes):
    """Between looks nothing is fetched from the device, so that a GPU never runs dry."""
    monkeypatch.setitem(loop.LOOK_EVERY, "cpu", 8)
    monkeypatch.setattr(loop, "log_every", lambda steps: 8)
    fetched, steps = [], []
    settings = protocol(steps=33, **changes)
    advance = loop._Run.advance
    look = loop._Run.look

    class Fetches(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            if function is torch.ops.aten._local_scalar_dense.default:
                fetched.append(function)
            return function(*arguments, **(options or {}))

    def advanced(self):
        with Fetches():
            advance(self)

    def looked(self):
        steps.append(self.dispatched)
        look(self)

    monkeypatch.setattr(loop._Run, "advance", advanced)
    monkeypatch.setattr(loop._Run, "look", looked)
    run(tmp_path, protocol=settings, steps=33)
    assert steps == [1, 8, 16, 24, 32, 33]
    assert fetched == []
    with Fetches():
        torch.ones(1).item()
    assert len(fetched) == 1, "the mode hears what it is for"
