from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from retsweep.train import checkpoint, loop
from retsweep.train.reproducible import step_seed
from tests.train.loops import lines, numbers, run, run_to, valid_loss
from tests.train.tiny import TIME, TinyModel, batch_at, protocol, same_weights


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
    monkeypatch.setattr(loop, "log_every", lambda steps: 3)
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
