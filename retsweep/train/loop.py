"""The training loop: a model, batches and a protocol in, trained weights and an Outcome out.

Everything random in a step comes from (seed, step), so a checkpoint needs no generator's state and
a run that was killed and resumed has, on a CPU, the numbers of an unbroken one to the bit.
"""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from retsweep.layers.precision import products
from retsweep.spec.protocol import Protocol
from retsweep.train import checkpoint, resume
from retsweep.train.distributed import ALONE, Group
from retsweep.train.divergence import DivergenceWatch
from retsweep.train.gradients import optimiser_step
from retsweep.train.memory import PeakMemory
from retsweep.train.metrics import MetricsFile, log_every
from retsweep.train.optimiser import adamw
from retsweep.train.reproducible import reproducible, seed_step
from retsweep.train.schedule import learning_rate
from retsweep.train.state import Outcome, State

#: Optimiser step and micro-batch, both from 0 -> inputs and targets, (batch, time) int64 each.
Batches = Callable[[int, int], tuple[Tensor, Tensor]]
#: Model -> mean loss in nats a target over the validation split.
Validate = Callable[[nn.Module], float]

#: Steps between looks at the losses, by kind of device: a look waits until a GPU has caught up.
LOOK_EVERY = {"cpu": 1, "cuda": 16}
#: ``checkpoint_every=0``: seconds of training between checkpoints are at least these, and so many
#: times the cost of the last checkpoint that all of them stay below 2 % of a run.
CHECKPOINT_SECONDS = 5.0
CHECKPOINT_COST_FACTOR = 60


class Interrupted(Exception):
    """``stop`` answered True. The run's checkpoint is on disk."""


def train(
    model: nn.Module,
    batches: Batches,
    protocol: Protocol,
    *,
    steps: int,
    seed: int,
    folder: Path,
    device: str = "cpu",
    validate: Validate | None = None,
    unigram_nats: float | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    metrics: Callable[[Mapping[str, Any]], None] = lambda line: None,
    saved: Callable[[Path, int], None] = lambda path, step: None,
    group: Group = ALONE,
) -> Outcome:
    """Trains ``model``, which is on ``device``, in place for ``steps`` optimiser steps.

    ``folder`` exists; last.pt, best.pt and metrics.jsonl live in it, and a last.pt of the same run
    is gone on from. ``validate`` is called every ``protocol.evaluation.every`` steps and after the
    last; the weights of what was best are in best.pt from the next checkpoint on. ``unigram_nats``:
    entropy of the corpus's unigrams, for ``divergence=above_unigram``. ``stop`` is asked before each
    step, and once more before each checkpoint takes its place, where only an exception from it
    counts: that leaves at once, writing nothing. ``saved`` hears of each file that a checkpoint is made of,
    and of which step it is, when it is written: last.pt after the others. Raises Interrupted when ``stop``
    answers True before a step.

    In a ``group`` every process calls this with equal arguments, whole batches among them, of which each
    takes its part; ``validate`` gives all the same number; ``folder``, ``stop``, ``saved``, ``metrics`` and
    ``progress`` are the chief's. Raises LostGroup when another process is gone.
    """
    place = torch.device(device)
    with reproducible(place), products(protocol.precision):
        run = _Run(
            model, batches, protocol, steps, seed, folder, place, unigram_nats, stop, metrics, saved, group
        )
        try:
            if run.state.step:
                progress(run.state.step, steps)  # before a stop is asked for: that may go by it
            while not run.over:
                if group.asked(stop):
                    run.leave()
                    continue
                run.advance()
                if validate is not None and run.validation_due:
                    run.validate(validate)
                run.write_lines()
                if run.checkpoint_due:
                    run.save()
                progress(run.state.step, steps)
            run.finish()
        finally:
            run.close()
    return run.outcome()


class _Run:
    """One process's part of a training; its methods are the sentences of :func:`train`."""

    def __init__(
        self,
        model: nn.Module,
        batches: Batches,
        protocol: Protocol,
        steps: int,
        seed: int,
        folder: Path,
        device: torch.device,
        unigram_nats: float | None,
        stop: Callable[[], bool],
        metrics: Callable[[Mapping[str, Any]], None],
        saved: Callable[[Path, int], None],
        group: Group,
    ) -> None:
        self.model, self.batches, self.protocol = model, batches, protocol
        self.steps, self.seed, self.folder, self.device = steps, seed, folder, device
        self.stop, self.tell, self.saved, self.group = stop, metrics, saved, group
        if group.chief:
            checkpoint.remove_leftovers(folder)
        self.memory = PeakMemory(device)
        self.optimiser = adamw(model, protocol)
        self.watch = DivergenceWatch.of(protocol, steps, unigram_nats)
        self.state = State()
        self.paired = self.resume()
        """Whether the checkpoints that lie there are of this run."""
        self.began_at = self.dispatched = self.saved_step = self.state.step
        self.began_seconds = self.state.seconds
        self.pending: list[tuple[Tensor, int]] = []
        self.log_every = log_every(steps)
        self.look_every = LOOK_EVERY.get(device.type, 1)
        self.first = True
        self.begun: list[dict[str, Any]] = []
        self.looked_seconds = self.state.seconds
        self.best: dict[str, Any] | None = None
        self.saved_seconds, self.save_cost = self.state.seconds, 0.0
        # A run that is over has all of its lines; the one of a divergence is a step ahead of the state.
        written = steps if self.over else self.state.step
        self.lines = MetricsFile(folder / "metrics.jsonl", written) if group.chief else None
        if protocol.compile:
            compile_blocks(model)
        model.train()
        group.adopt(model)

    # ---- where the run stands ----------------------------------------------------------------
    @property
    def over(self) -> bool:
        return self.state.status != "running" or self.state.step == self.steps

    @property
    def looked(self) -> bool:
        """Whether the state describes the weights: no step is ahead of it."""
        return not self.pending and self.state.status == "running"

    def validates_at(self, step: int) -> bool:
        every = self.protocol.evaluation.every
        return step == self.steps or (every > 0 and step % every == 0)

    @property
    def validation_due(self) -> bool:
        return self.looked and self.validates_at(self.state.step)

    @property
    def checkpoint_due(self) -> bool:
        if not self.looked or self.over:
            return False
        if self.protocol.checkpoint_every:
            return self.state.step - self.saved_step >= self.protocol.checkpoint_every
        pause = max(CHECKPOINT_SECONDS, CHECKPOINT_COST_FACTOR * self.save_cost)
        return self.state.seconds - self.saved_seconds >= pause

    # ---- steps -------------------------------------------------------------------------------
    def advance(self) -> None:
        """One optimiser step, and a look at the losses when one is due."""
        started = time.perf_counter()
        step = self.dispatched + 1
        seed_step(self.seed, step, self.device, self.group.rank)
        batches = [self.micro_batch(step, micro) for micro in range(self.protocol.accumulate)]
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.protocol, step, self.steps)
        loss = optimiser_step(self.model, self.optimiser, batches, self.protocol, self.device, self.group)
        self.dispatched = step
        self.pending.append((loss, self.group.world * sum(targets.numel() for _, targets in batches)))
        self.state.seconds += time.perf_counter() - started
        if self.look_due(step):
            self.look()

    def micro_batch(self, step: int, micro: int) -> tuple[Tensor, Tensor]:
        inputs, targets = (self.group.part(one) for one in self.batches(step - 1, micro))
        return inputs.to(self.device, non_blocking=True), targets.to(self.device, non_blocking=True)

    def look_due(self, step: int) -> bool:
        periods = (self.look_every, self.protocol.evaluation.every, self.protocol.checkpoint_every)
        return self.first or step == self.steps or any(period and step % period == 0 for period in periods)

    def look(self) -> None:
        """Fetches the losses of the steps since the last look, and judges them in order."""
        started = time.perf_counter()
        losses: list[float] = []
        if self.pending:
            losses = self.group.mean(torch.stack([loss for loss, _ in self.pending])).tolist()
        counts = [count for _, count in self.pending]
        self.pending.clear()
        self.state.seconds += time.perf_counter() - started
        if self.first and losses:
            self.first = False
            self.state.first_tokens += counts[0]
            self.state.first_seconds += self.state.seconds - self.saved_seconds
        a_step = (self.state.seconds - self.looked_seconds) / max(1, len(losses))
        for left, loss, count in zip(reversed(range(len(losses))), losses, counts, strict=True):
            if self.state.status == "running":
                self.observe(loss, count, self.state.seconds - left * a_step)
        self.looked_seconds = self.state.seconds

    def observe(self, loss: float, tokens: int, seconds: float) -> None:
        """One step's loss, in order. ``seconds`` of training by then: the steps between two looks count
        alike, since only at a look it is known what the device has done."""
        state, step = self.state, self.state.step + 1
        diverged = self.watch.diverged(step, loss)
        state.above, state.fell = self.watch.above, self.watch.fell
        if diverged:
            state.status = f"diverged@{step}"
        if math.isfinite(loss):
            state.step, state.last_loss = step, loss
            state.tokens += tokens
            state.line_sum += loss
            state.line_count += 1
        if diverged or step == self.steps or step % self.log_every == 0 or self.validates_at(step):
            self.begin_line(step, seconds)

    # ---- what is written ---------------------------------------------------------------------
    def begin_line(self, step: int, seconds: float) -> None:
        """A line: the mean loss since the line before, absent if no loss was a number."""
        state = self.state
        line: dict[str, Any] = {"step": step}
        if state.line_count:
            line["loss"] = state.line_sum / state.line_count
        line["learning_rate"] = learning_rate(self.protocol, step, self.steps)
        line |= {"tokens": state.tokens, "seconds": round(seconds, 3)}
        if state.status != "running":
            line["status"] = state.status
        self.begun.append(line)
        state.line_sum, state.line_count = 0.0, 0

    def write_lines(self) -> None:
        """Writes the lines that a look began: none, one, or on a GPU those of all its steps."""
        if self.lines is not None:
            for line in self.begun:
                self.lines.write(line)
                self.tell(line)
        self.begun.clear()

    def validate(self, validate: Validate) -> None:
        """Asks for the validation loss and keeps the weights if they are the best so far: for the next
        checkpoint, since nothing that is gone on from knows of them before it."""
        loss, step = validate(self.model), self.state.step
        self.model.train()
        finite = math.isfinite(loss)
        # The last line begun is of this step, with which a look ends: see ``look_due``, ``observe``.
        self.begun[-1]["valid_loss"] = loss if finite else None
        best = self.state.best_loss
        if finite and (best is None or loss < best):
            self.state.best_loss, self.state.best_step = loss, step
            if not self.group.chief:
                return
            weights = {name: w.to("cpu", copy=True) for name, w in self.model.state_dict().items()}
            self.best = {"weights": weights, "step": step, "valid_loss": loss}

    def save(self) -> None:
        """Writes best.pt, if it is another than it was, and last.pt; that of a run that is over holds
        no optimiser: nothing is gone on from it."""
        if self.lines is None:
            return
        started = time.perf_counter()
        self.state.peak_memory_bytes = max(self.state.peak_memory_bytes, self.memory.bytes())
        self.lines.sync()
        self.saved(self.lines.path, self.state.step)
        step, weights = self.good_weights()
        self.stop()
        (checkpoint.keep_pair if self.paired else checkpoint.remove_old_pair)(self.folder)
        if self.best is not None:  # first: a last.pt that names a best step has its weights beside it
            checkpoint.save(self.folder / checkpoint.BEST, self.best, permit=self.stop)
            self.saved(self.folder / checkpoint.BEST, self.best["step"])
            self.best = None
        content = {
            "run": self.own,
            "of": self.folder.name,  # a trial's is its spec_hash: that of a copy elsewhere says whose it is
            "step": step,
            "state": self.state.as_dict(),
            "weights": weights,
            "optimiser": self.optimiser.state_dict() if self.state.status == "running" else None,
        }
        last = self.folder / checkpoint.LAST
        checkpoint.save(last, content, permit=self.stop)
        self.saved(last, self.state.step)
        self.paired, self.saved_step, self.saved_seconds = True, self.state.step, self.state.seconds
        self.save_cost = time.perf_counter() - started

    def good_weights(self) -> tuple[int, Mapping[str, Tensor] | None]:
        """The weights, and the step they were taken after. A run that diverged leaves those of its
        last checkpoint, None if it had none: its own are no use, and often no numbers."""
        if not self.state.status.startswith("diverged"):
            return self.state.step, self.model.state_dict()
        if not self.saved_step:  # a last.pt there may be is another run's, or broken
            return 0, None
        for path in checkpoint.pairs(self.folder):
            try:
                content = checkpoint.load(path)
            except checkpoint.BrokenCheckpoint as error:
                warnings.warn(f"a diverged run leaves older weights, or none: {error}", stacklevel=2)
                continue
            return content["step"], content["weights"]
        return 0, None

    def leave(self) -> None:
        """Saves and raises Interrupted, unless the last losses show that the run is over."""
        self.look()
        self.write_lines()
        if not self.over:
            self.save()
            raise Interrupted(f"stopped after step {self.state.step} of {self.steps}")

    def finish(self) -> None:
        """Writes the final last.pt, unless the run had ended before this process began."""
        if self.dispatched > self.began_at or self.state.status == "running":
            self.state.status = "ok" if self.state.status == "running" else self.state.status
            self.save()

    def close(self) -> None:
        if self.lines is not None:
            self.lines.close()

    def outcome(self) -> Outcome:
        here = self.state.seconds - self.began_seconds
        return dataclasses.replace(self.state.outcome(), seconds_here=here)

    # ---- going on ----------------------------------------------------------------------------
    def resume(self) -> bool:
        """Takes up the latest checkpoint that is whole, which the chief finds; False if there is none.
        What is broken is told."""
        chief = self.group.chief
        found = resume.find(self.folder, self.model, self.optimiser, self.own) if chief else None
        content: dict[str, Any] | None = None
        if found is not None:
            content = {"weights": found.weights, "optimiser": found.optimiser, "state": found.state.as_dict()}
        content = self.group.share(content)
        if content is None:
            return False
        if content["weights"] is not None:  # else it diverged before its first checkpoint
            self.model.load_state_dict(content["weights"])
        if content["optimiser"] is not None:
            self.optimiser.load_state_dict(dict(content["optimiser"]))
        self.state = State(**content["state"])
        self.watch.above, self.watch.fell = self.state.above, self.state.fell
        return True

    @property
    def own(self) -> dict[str, int]:
        """What a checkpoint of this run says of the run."""
        return {"steps": self.steps, "seed": self.seed}


def compile_blocks(model: nn.Module) -> None:
    """Compiles in place, so that no parameter changes its name: each block, or else the model.

    Blocks of one kind share their compiled code, which saves most of the time that it takes.
    """
    blocks = getattr(model, "blocks", None)
    for module in blocks if isinstance(blocks, nn.ModuleList) else [model]:
        module.compile()
