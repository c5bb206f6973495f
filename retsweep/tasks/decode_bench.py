"""task=decode_bench: how fast, and in how much memory, a model of the spec decodes and reads prompts.

A cell is measured from a stand-in: states of a past with arbitrary contents, from which ``warm_up`` tokens
are decoded (as many as the past has room for) and then those that are timed, each read, its logits computed
and the largest chosen and fed to the next. The n-th token is the first that is timed: the last one's context
is longer by ``tokens`` - 1, as in use, where every token has a position of its own. Nothing that a step
costs depends on what states hold, and no 32,768 tokens have to be read to have them. Weights are those that
training starts from.

What is named after a context n and a batch b (``_<n>_b<b>``), decoding:

    bytes_decode                what the n-th token moves, by the census (retsweep/costs/traffic.py)
    decode_tokens_per_second    of all sequences together: b / mean seconds of a step
    decode_latency_ms           median of the timed steps; decode_latency_p95_ms their 95th percentile
    decode_peak_memory_bytes    tensors on a GPU, weights and room for the timed tokens included; on a CPU
                                the whole process, None where earlier cells would count too
    decode_state_bytes          of the states' tensors, full at n: b times state_bytes_<n>

and ``prefill_tokens_per_second_<n>``, of one sequence read at once, logits of the last token alone. A GPU
is waited for after each step, as whoever prints the token waits. ``decode_weight_dtype`` (of matrices;
embedding and norms are float32), ``decode_cache_dtype`` and ``decode_state_dtype`` say what is read; None
where a model has no such thing.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from retsweep.spec.base import SpecError
from retsweep.spec.base import spec as make_spec
from retsweep.spec.run import RunSpec
from retsweep.tasks.base import InterruptedRun, Workspace

if TYPE_CHECKING:
    import torch

    from retsweep.decode import Decoder
    from retsweep.model import LanguageModel

#: Of free memory, what a cell may take unless it is told.
SHARE = 0.9
#: Passes over a prompt, their median counting, after one that warms up, where ``prefill_seconds`` leaves
#: the time; where it leaves it for one only, that one counts.
PASSES = 3
#: Tokens of the prompt that is read before: kernels are loaded, whatever the length.
SHORT = 64
#: Tensors as wide as d_model, and as the FFN, that are taken to be alive at once in a pass of the model: a
#: guess, meant to be on the safe side (q, k, v, gate, their turned, faded and scaled copies, outputs).
WIDE, FFN = 24, 3
#: An element of the weights as they are drawn, in float32 under any precision.
WEIGHT_BYTES = 4
FULL = "the device was out of memory"


class DoesNotFit(Exception):
    """A cell that is left out. Its text says why."""


@make_spec
class DecodeBench:
    """``tokens`` are timed, after ``warm_up``, at each of ``contexts`` with each of ``batches``; prompts of
    ``contexts`` tokens are read in chunks of ``chunk``. What would take more than ``memory_bytes`` (None:
    nine tenths of what is free, which the weights are held to as well) or, a prompt, ``prefill_seconds``,
    is left out and named in ``decode_skipped`` (None: nothing was)."""

    name: ClassVar[str] = "decode_bench"
    reads_data: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    computes: ClassVar[bool] = True

    contexts: tuple[PositiveInt, ...] = (128, 512, 2048, 8192, 16384, 32768)
    batches: tuple[PositiveInt, ...] = (1, 8, 64)
    tokens: PositiveInt = 32
    warm_up: NonNegativeInt = 3
    chunk: PositiveInt = 64
    memory_bytes: PositiveInt | None = None
    prefill_seconds: PositiveFloat = 120.0

    def __post_init__(self) -> None:
        if 1 in self.contexts:
            raise SpecError("task.contexts holds 1: the token there has no past; accepted: 2 and more")

    def __call__(self, spec: RunSpec, workspace: Workspace) -> dict[str, Any]:
        """The measured columns. Raises SpecError for a mask that leaks and for a precision that the device
        does not have; InterruptedRun between two cells, and the next run measures all of them."""
        place = self._place(spec, workspace)
        import torch

        from retsweep.costs import bytes_decode, macs_decode

        known = {**dtypes(spec), "decode_threads": torch.get_num_threads() if place.type == "cpu" else None}
        known |= {f"bytes_decode_{n}_b{b}": bytes_decode(spec, n, b) for n, b in self.cells}
        known |= {f"macs_decode_{n}": macs_decode(spec, n) for n, _ in self.cells}
        try:
            model = self.model(spec, place)
        except DoesNotFit as error:
            return {**known, "decode_skipped": f"weights: {error}"}
        return {**known, **_Bench(self, spec, workspace, model, place).columns(self.cells)}

    def decoding(self, spec: RunSpec, workspace: Workspace) -> dict[str, Any]:
        """The measured columns of decoding alone, and ``decode_skipped``. Raises as a call does."""
        place = self._place(spec, workspace)
        try:
            bench = _Bench(self, spec, workspace, self.model(spec, place), place)
        except DoesNotFit as error:
            return {"decode_skipped": f"weights: {error}"}
        found = bench.decoding(self.cells, len(self.cells))
        return {**found, "decode_skipped": bench.skips}

    @property
    def cells(self) -> list[tuple[int, int]]:
        """(context, sequences)."""
        return [(n, b) for n in sorted(set(self.contexts)) for b in sorted(set(self.batches))]

    def _place(self, spec: RunSpec, workspace: Workspace) -> torch.device:
        if spec.leaky:
            raise SpecError(
                "task=decode_bench measures incremental forms, and a mask that leaks has none; accepted: "
                "layer.attention.mask=causal"
            )
        spec.check_device(workspace.device)
        import torch

        return torch.device(workspace.device)

    def model(self, spec: RunSpec, place: torch.device) -> LanguageModel:
        """As it is decoded from. Raises DoesNotFit, before anything is allocated where that can be known."""
        from retsweep.costs import parameters
        from retsweep.decode import halve
        from retsweep.model import build
        from retsweep.train.memory import is_out_of_memory

        if self.memory_bytes is None:
            check_fits(WEIGHT_BYTES * parameters(spec), allowed(place))
        try:
            model = build(spec, device=place)
            return halve(model) if spec.protocol.precision == "bf16" else model
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise DoesNotFit(FULL) from error


@dataclass
class _Bench:
    task: DecodeBench
    spec: RunSpec
    workspace: Workspace
    model: LanguageModel
    device: torch.device
    skipped: list[str] = field(default_factory=list)

    def columns(self, cells: list[tuple[int, int]]) -> dict[str, Any]:
        """Those that are measured."""
        contexts = sorted({n for n, _ in cells})
        found = self.decoding(cells, len(cells) + len(contexts))
        known: tuple[int, float] | None = None  # tokens of the last prompt, and the seconds it took
        for done, n in enumerate(contexts, start=len(cells)):
            with self._cell(f"prefill n={n}", done, len(cells) + len(contexts)):
                known = n, self._prefill(n, known)
                found[f"prefill_tokens_per_second_{n}"] = n / known[1]
        return {**found, "decode_skipped": self.skips}

    @property
    def skips(self) -> str | None:
        return "; ".join(self.skipped) or None

    def decoding(self, cells: list[tuple[int, int]], total: int) -> dict[str, Any]:
        """Those of ``cells``, which are the first of ``total`` things to measure."""
        found: dict[str, Any] = {}
        for done, (n, b) in enumerate(cells):
            with self._cell(f"n={n} b={b}", done, total):
                found |= {f"{name}_{n}_b{b}": value for name, value in self._decode(n, b).items()}
        return found

    @contextmanager
    def _cell(self, name: str, done: int, total: int) -> Iterator[None]:
        """What does not fit inside is named, and leaves no column."""
        from retsweep.train.memory import is_out_of_memory

        if self.workspace.stop():
            raise InterruptedRun("a measurement that is stopped is begun anew")
        self.workspace.progress(done, total)
        try:
            yield
        except (DoesNotFit, MemoryError, RuntimeError) as error:
            if not isinstance(error, DoesNotFit) and not is_out_of_memory(error):
                raise
            reason = str(error) if isinstance(error, DoesNotFit) else FULL
            self.skipped.append(f"{name}: {reason}")

    # ---- decoding ----------------------------------------------------------------------------
    def _decode(self, n: int, b: int) -> dict[str, float | int | None]:
        """The columns of one cell, without its name. Raises DoesNotFit."""
        from retsweep.decode import Decoder
        from retsweep.train.memory import PeakMemory

        warm_up = min(self.task.warm_up, n - 1)
        room = n - 1 + self.task.tokens
        self._require_memory(room, b, tokens=b)
        precision = self.spec.protocol.precision
        state_bytes = Decoder(self.model, b, n, precision=precision).state_bytes()
        peak = PeakMemory(self.device)
        decoder = Decoder(self.model, b, room, precision=precision, stand_in=n - 1 - warm_up)
        seconds = self._steps(decoder, warm_up)
        return {
            "decode_tokens_per_second": b / statistics.fmean(seconds),
            "decode_latency_ms": 1e3 * statistics.median(seconds),
            "decode_latency_p95_ms": 1e3 * _percentile(seconds, 0.95),
            "decode_peak_memory_bytes": peak.own_bytes(),
            "decode_state_bytes": state_bytes,
        }

    def _steps(self, decoder: Decoder, warm_up: int) -> list[float]:
        """Seconds of each timed step, those that warm up being first. No position is met twice: what is
        computed for a position, and kept for the layers that ask for it next, is part of a step."""
        import torch

        from retsweep.train.clock import now

        chosen = torch.zeros(decoder.batch, dtype=torch.int64, device=self.device)
        seconds = []
        for _ in range(warm_up + self.task.tokens):
            began = now(self.device)
            chosen = decoder.step(chosen).argmax(-1)
            seconds.append(now(self.device) - began)
        return seconds[warm_up:]

    # ---- prefill -----------------------------------------------------------------------------
    def _prefill(self, n: int, known: tuple[int, float] | None) -> float:
        """Median seconds of reading ``n`` tokens. Raises DoesNotFit; how long it would take is reckoned
        from the last prompt by the multiply-accumulates of both."""
        import torch

        self._require_memory(n, 1, tokens=n)
        if known is not None:
            expected = known[1] * self._macs(n) / self._macs(known[0])
            if expected > self.task.prefill_seconds:
                raise DoesNotFit(f"about {expected:.0f} s, of {self.task.prefill_seconds:g} s allowed")
        prompt = torch.arange(n, device=self.device)[None] % self.spec.scale.vocabulary
        self._read(prompt[:, :SHORT])
        seconds: list[float] = []
        while len(seconds) <= PASSES and sum(seconds) + max(seconds, default=0) <= self.task.prefill_seconds:
            seconds.append(self._read(prompt))
        return statistics.median(seconds[1:] or seconds)

    def _read(self, prompt: torch.Tensor) -> float:
        """Seconds of reading it into a fresh decoder, which is allocated beforehand."""
        from retsweep.decode import Decoder
        from retsweep.train.clock import now

        precision = self.spec.protocol.precision
        decoder = Decoder(self.model, 1, prompt.shape[1], self.task.chunk, precision)
        began = now(self.device)
        decoder.read(prompt)
        return now(self.device) - began

    def _macs(self, n: int) -> int:
        from retsweep.costs import macs_train_chunkwise

        return macs_train_chunkwise(self.spec, n, self.task.chunk)

    # ---- limits ------------------------------------------------------------------------------
    def _require_memory(self, n: int, b: int, tokens: int) -> None:
        """Raises DoesNotFit if the states of ``b`` sequences of ``n`` tokens and the activations of a pass
        over ``tokens`` of them (the logits of the last ones included) are more than there is."""
        from retsweep.costs import state_bytes

        scale = self.spec.scale
        activations = tokens * (WIDE * scale.d_model + FFN * scale.ffn) + 3 * b * scale.vocabulary
        needed = b * state_bytes(self.spec, n) + 4 * activations
        check_fits(needed, self.task.memory_bytes or allowed(self.device))


def dtypes(spec: RunSpec) -> dict[str, str | None]:
    """The columns of what is read from memory, as retsweep/decode holds it; None: there is no such thing."""
    from retsweep.model import state_elements

    products = "bfloat16" if spec.protocol.precision == "bf16" else "float32"
    kept = state_elements(spec, 2)
    return {
        "decode_weight_dtype": products,
        "decode_cache_dtype": products if kept["cache"] else None,
        "decode_state_dtype": "float32" if kept["state"] else None,
    }


def allowed(device: torch.device) -> int:
    """Bytes that may be taken if no option says how many."""
    from retsweep.train.memory import free_memory

    return int(SHARE * free_memory(device, "task.memory_bytes=BYTES"))


def check_fits(needed: int, limit: int) -> None:
    """Raises DoesNotFit."""
    if needed > limit:
        raise DoesNotFit(f"{needed / 1e6:,.2f} MB, of {limit / 1e6:,.2f} MB allowed")


def _percentile(values: list[float], share: float) -> float:
    """The smallest of ``values`` that at least so large a share of them does not exceed."""
    return sorted(values)[max(0, -int(-share * len(values) // 1) - 1)]
