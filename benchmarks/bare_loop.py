"""The same models, trained one after another by the least code that gives the same perplexities.

No study, no rows, no checkpoints, no checks, no progress: what a sweep costs beyond this is retsweep's own.
``benchmarks/sweep.py`` runs it in a process of its own and compares.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from retsweep.data.batches import TrainBatches, windows
from retsweep.data.prepare import TokenisedCorpus, prepare
from retsweep.evaluate.perplexity import affordable_batch
from retsweep.model import build
from retsweep.spec import RunSpec
from retsweep.sweep.plan import cache_folder
from retsweep.sweep.variants import wanted
from retsweep.train.optimiser import adamw
from retsweep.train.schedule import learning_rate


@dataclass(frozen=True)
class Trained:
    """One model's: ``training`` are seconds of steps, ``evaluation`` those of reading three splits."""

    label: str
    training: float
    evaluation: float
    valid_ppl: float


def main(overrides: Sequence[str]) -> None:
    """Prints a line of JSON a model. ``overrides`` as on retsweep's command line."""
    for trained in loop(overrides):
        print(json.dumps(vars(trained)), flush=True)


def loop(overrides: Sequence[str]) -> Iterator[Trained]:
    """Trains what ``overrides`` ask for: on the CPU, in fp32, a micro-batch a step. What else a protocol may
    ask for, ``benchmarks.sweep.check`` refuses."""
    asked = wanted(overrides)
    corpora: dict[Any, TokenisedCorpus] = {}
    for run in asked.runs:
        spec = run.spec
        key = (spec.corpus, spec.tokenizer, spec.scale.vocabulary)
        if key not in corpora:
            corpora[key] = prepare(*key, cache_folder(asked.settings.cache))
        yield train(run.label, spec, corpora[key])


def train(label: str, spec: RunSpec, corpus: TokenisedCorpus) -> Trained:
    protocol, context = spec.protocol, spec.scale.context
    model = build(spec)
    batches = TrainBatches(corpus.splits["train"].tokens, protocol, context, spec.seed)
    optimiser = adamw(model, protocol)
    # In the order of training: a norm that is summed in another one differs in its last digits, and a
    # RetNet's 350 steps make one percent of perplexity of that.
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    steps = protocol.steps or (protocol.epochs or 0) * batches.steps_per_epoch
    began = time.perf_counter()
    for step in range(1, steps + 1):
        inputs, targets = batches.batch_at(step - 1, 0)
        loss = functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        if protocol.clip is not None:
            nn.utils.clip_grad_norm_(parameters, protocol.clip)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(protocol, step, steps)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    trained = time.perf_counter()
    batch = affordable_batch(protocol.evaluation.batch, context, spec.scale.vocabulary)
    perplexities = [
        perplexity(model, part, context, batch)
        for part in (corpus.splits["valid"], corpus.splits["test"], corpus.train_slice)
    ]
    return Trained(label, trained - began, time.perf_counter() - trained, perplexities[0])


@torch.no_grad()
def perplexity(model: nn.Module, part: Any, context: int, batch: int) -> float:
    """exp of the mean loss over all targets of a split."""
    model.eval()
    nats = targets = 0.0
    for pair in windows(part.tokens, context):
        for first in range(0, len(pair[0]), batch):
            x, y = (torch.from_numpy(side[first : first + batch].astype(np.int64)) for side in pair)
            nats += functional.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="sum").item()
            targets += y.numel()
    return float(np.exp(nats / targets))


if __name__ == "__main__":
    main(sys.argv[1:])
