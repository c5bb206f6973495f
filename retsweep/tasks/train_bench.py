"""task=train_bench: how fast a model trains, and in how much memory, by context; reads no data."""

from __future__ import annotations

import gc
import statistics
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import PositiveFloat, PositiveInt

from retsweep.spec.base import SpecError, spec
from retsweep.spec.forms import Chunkwise
from retsweep.spec.run import RunSpec
from retsweep.tasks.base import InterruptedRun, Workspace

CONTEXTS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384)
#: What a step is taken to reach of the device's matrix product where no shorter context was measured.
ASSUMED_MFU = 0.1
#: Of the memory that is free: other workers have theirs, and an estimate is one.
USABLE = {"cpu": 0.6, "cuda": 0.9}


@spec
class TrainBench:
    """``contexts`` T are measured one after another, each with as many sequences as make a step of
    about ``tokens`` tokens (one at least): a step that warms up, then ``steps`` that count. A context
    that is not expected to fit into ``gigabytes`` (None: what the device has free) or to take less than
    ``seconds`` is not tried, and named in ``train_skipped``."""

    name: ClassVar[str] = "train_bench"
    reads_data: ClassVar[bool] = False
    trains: ClassVar[bool] = True
    computes: ClassVar[bool] = True

    contexts: tuple[PositiveInt, ...] = CONTEXTS
    tokens: PositiveInt = 8192
    steps: PositiveInt = 5
    seconds: PositiveFloat = 60.0
    gigabytes: PositiveFloat | None = None

    def __post_init__(self) -> None:
        if not self.contexts or list(self.contexts) != sorted(set(self.contexts)):
            raise SpecError(
                f"task.contexts=[{','.join(map(str, self.contexts))}] is not accepted; "
                "accepted: one length or more, rising"
            )

    @property
    def trained_contexts(self) -> tuple[int, ...]:
        """Lengths whose form the identity of a run names: here they, not ``scale.context``, are trained."""
        return self.contexts

    def __call__(self, spec: RunSpec, workspace: Workspace) -> dict[str, Any]:
        """Of each context T: ``train_tokens_per_second_<T>`` (of the median step), ``train_mfu_<T>``,
        ``train_peak_memory_bytes_<T>`` (None where the peak of the process cannot be reset: a shorter
        context's could be the larger), ``train_batch_<T>``, ``train_form_<T>``; ``train_skipped`` says
        which were left out and why (None: none), ``gemm_flops_per_second`` what mfu is of.

        Whole steps: forward, backward, clipping and AdamW as the protocol has them, on random tokens.
        Raises SpecError (a precision that the device does not have), InterruptedRun.
        """
        from retsweep.train.utilisation import gemm_flops_per_second

        spec.check_device(workspace.device)
        rate = gemm_flops_per_second(workspace.device, spec.protocol.precision)
        return {"gemm_flops_per_second": rate, **_Bench(self, spec, workspace, rate).columns()}


@dataclass
class _Bench:
    task: TrainBench
    spec: RunSpec
    workspace: Workspace
    rate: float
    """FLOP a second of a large product."""
    mfu: float = ASSUMED_MFU
    """Of the context measured last."""
    done: int = 0
    skipped: list[str] = field(default_factory=list)

    def columns(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for tokens in self.task.contexts:
            why = self.obstacle(tokens)
            measured = {} if why else self.measure(tokens)
            if why:
                self.skipped.append(f"{tokens}: {why}")
            found |= {f"train_{name}_{tokens}": value for name, value in measured.items()}
            self.advance_to(tokens)
        return {**found, "train_skipped": "; ".join(self.skipped) or None}

    def batch(self, tokens: int) -> int:
        return max(1, self.task.tokens // tokens)

    # ---- before anything is tried -------------------------------------------------------------
    def obstacle(self, tokens: int) -> str:
        """Why the context is not tried; "" if it is."""
        from retsweep.train.footprint import step_bytes

        seconds = self.expected_seconds(tokens)
        if seconds > self.task.seconds:
            return f"{self.task.steps + 1} steps would take about {seconds:,.0f} s of {self.task.seconds:g}"
        free = self.free_bytes()
        needed = step_bytes(self.spec, tokens, self.batch(tokens), self.workspace.device)
        if needed > free:
            return f"a step needs about {needed / 1e9:,.1f} GB of {free / 1e9:,.1f}"
        return ""

    def expected_seconds(self, tokens: int) -> float:
        from retsweep.costs import macs_as_trained
        from retsweep.train.utilisation import FLOP_A_MAC, PASSES

        flops = PASSES * FLOP_A_MAC * macs_as_trained(self.spec, tokens) * self.batch(tokens)
        return (self.task.steps + 1) * flops / (self.rate * self.mfu)

    def free_bytes(self) -> float:
        if self.task.gigabytes is not None:
            return self.task.gigabytes * 1e9
        import torch

        from retsweep.train.memory import free_memory

        place = torch.device(self.workspace.device)
        return USABLE[place.type] * free_memory(place, "task.gigabytes=GIGABYTES")

    # ---- measuring ----------------------------------------------------------------------------
    def measure(self, tokens: int) -> dict[str, Any]:
        """The columns of one context, without their prefix and suffix."""
        import torch

        from retsweep.costs import macs_as_trained
        from retsweep.train.memory import is_out_of_memory
        from retsweep.train.utilisation import utilisation

        try:
            seconds, peak = self.times(tokens)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self.skipped.append(f"{tokens}: out of memory, though a step was expected to fit")
            return {}
        finally:
            gc.collect()
            if self.workspace.device.startswith("cuda"):
                torch.cuda.empty_cache()
        speed = self.batch(tokens) * tokens / statistics.median(seconds)
        a_token = macs_as_trained(self.spec, tokens) / tokens
        precision = self.spec.protocol.precision
        self.mfu = utilisation(a_token, speed, self.workspace.device, precision)["mfu"]
        return {
            "tokens_per_second": speed,
            "mfu": self.mfu,
            "peak_memory_bytes": peak,
            "batch": self.batch(tokens),
            "form": form(self.spec, tokens),
        }

    def times(self, tokens: int) -> tuple[list[float], int | None]:
        """Seconds of each step that counts, and the peak of memory if it can be told. A fresh model for
        each context: tables of other lengths are not part of its memory."""
        import torch

        from retsweep.layers.precision import products
        from retsweep.model import build
        from retsweep.train.clock import now
        from retsweep.train.gradients import optimiser_step
        from retsweep.train.loop import compile_blocks
        from retsweep.train.memory import PeakMemory
        from retsweep.train.optimiser import adamw
        from retsweep.train.reproducible import reproducible

        place = torch.device(self.workspace.device)
        stream = torch.Generator().manual_seed(self.spec.seed)
        shape = self.batch(tokens), tokens + 1
        text = torch.randint(self.spec.scale.vocabulary, shape, generator=stream).to(place)
        batch = [(text[:, :-1], text[:, 1:])]
        with reproducible(place), products(self.spec.protocol.precision):
            memory = PeakMemory(place)
            model = build(self.spec, device=place).train()
            optimiser = adamw(model, self.spec.protocol)
            if self.spec.protocol.compile:
                compile_blocks(model)
            seconds = []
            for _ in range(self.task.steps + 1):
                self.step_begins()
                began = now(place)
                optimiser_step(model, optimiser, batch, self.spec.protocol, place)
                seconds.append(now(place) - began)
        return seconds[1:], memory.own_bytes()

    # ---- telling ------------------------------------------------------------------------------
    def step_begins(self) -> None:
        if self.workspace.stop():
            raise InterruptedRun("stopped while it was measured: it is measured anew")
        self.workspace.progress(self.done, self.total)
        self.done += 1

    def advance_to(self, tokens: int) -> None:
        """What was left out counts as done."""
        self.done = (self.task.steps + 1) * (self.task.contexts.index(tokens) + 1)
        self.workspace.progress(self.done, self.total)

    @property
    def total(self) -> int:
        return (self.task.steps + 1) * len(self.task.contexts)


def form(spec: RunSpec, tokens: int) -> str:
    """ "chunkwise 64" if any layer trains ``tokens`` tokens in chunks, else "parallel"."""
    forms = [layer.training_form(tokens) for layer in spec.layers]
    chunks = sorted({form.chunk for form in forms if isinstance(form, Chunkwise)})
    return f"chunkwise {'+'.join(map(str, chunks))}" if chunks else "parallel"
