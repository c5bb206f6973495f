"""Trainings of the tiny model: run, stopped, gone on with, blown up."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from retsweep.train.loop import Interrupted, train
from retsweep.train.state import Outcome
from tests.train.tiny import TinyModel, batch_at, protocol


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
    return replace(outcome, seconds=0, seconds_here=0, tokens_per_second=0, peak_memory_bytes=0)


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
