"""task=decode_bench: how fast, and in how much memory, a model of the spec decodes and reads prompts.

A step is measured at context n as a stand-in: states of n - 1 tokens with arbitrary contents, the
n-th token read, its logits computed and the largest chosen; the same step again and again, each fed
the token that the one before chose. Nothing that a step costs depends on what states hold, and no
32,768 tokens have to be read to have them. Weights are those that training starts from.

What is named after a context n and a batch b (``_<n>_b<b>``), decoding:

    bytes_decode                what the step moves, by the census (retsweep/costs/traffic.py)
    decode_tokens_per_second    of all sequences together: b / mean seconds of a step
    decode_latency_ms           median of the timed steps; decode_latency_p95_ms their 95th percentile
    decode_peak_memory_bytes    tensors on a GPU, weights included; on a CPU the whole process
    decode_state_bytes          of the states' tensors, full: b times state_bytes_<n>

and ``prefill_tokens_per_second_<n>``, of one sequence read at once, logits of the last token alone.
A GPU is waited for after each step, as whoever prints the token waits.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
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
#: Passes over a prompt, their median counting, where ``prefill_seconds`` leaves the time.
PASSES = 3
#: Tokens of the prompt that warms up.
SHORT = 64
#: Tensors as wide as d_model, and as the FFN, that may be alive at once in a pass of the model.
WIDE, FFN = 24, 3


class DoesNotFit(Exception):
    """A cell that is left out. Its text says why."""


@make_spec
class DecodeBench:
    """``tokens`` are timed, after ``warm_up``, at each of ``contexts`` with each of ``batches``; prompts of
    ``contexts`` tokens are read in chunks of ``chunk``. What would take more than ``memory_bytes`` (None:
    nine tenths of what is free) or, a prompt, ``prefill_seconds``, is left out and named."""

    name: ClassVar[str] = "decode_bench"
    reads_data: ClassVar[bool] = False

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
        if spec.leaky:
            raise SpecError(
                "task=decode_bench measures incremental forms, and a mask that leaks has none; accepted: "
                "layer.attention.mask=causal"
            )
        spec.protocol.check_device(workspace.device)
        import torch

        from retsweep.model import build

        model = build(spec, device=workspace.device)
        return _Bench(self, spec, workspace, model, torch.device(workspace.device)).columns()


@dataclass
class _Bench:
    task: DecodeBench
    spec: RunSpec
    workspace: Workspace
    model: LanguageModel
    device: torch.device
    skipped: list[str] = field(default_factory=list)

    def columns(self) -> dict[str, Any]:
        import torch

        from retsweep.costs import bytes_decode

        contexts, batches = sorted(set(self.task.contexts)), sorted(set(self.task.batches))
        cells = [(n, b) for n in contexts for b in batches]
        found: dict[str, Any] = {
            "decode_dtype": self.spec.protocol.precision,
            "decode_threads": torch.get_num_threads() if self.device.type == "cpu" else None,
        }
        for done, (n, b) in enumerate(cells):
            found[f"bytes_decode_{n}_b{b}"] = bytes_decode(self.spec, n, b)
            with self._cell(f"n={n} b={b}", done, len(cells) + len(contexts)):
                found |= {f"{name}_{n}_b{b}": value for name, value in self._decode(n, b).items()}
        known: tuple[int, float] | None = None  # tokens of the last prompt, and the seconds it took
        for done, n in enumerate(contexts, start=len(cells)):
            with self._cell(f"prefill n={n}", done, len(cells) + len(contexts)):
                known = n, self._prefill(n, known)
                found[f"prefill_tokens_per_second_{n}"] = n / known[1]
        return {**found, "decode_skipped": "; ".join(self.skipped)}

    @contextmanager
    def _cell(self, name: str, done: int, total: int) -> Iterator[None]:
        """What does not fit inside is named, and leaves no column."""
        if self.workspace.stop():
            raise InterruptedRun("a measurement that is stopped is begun anew")
        self.workspace.progress(done, total)
        try:
            yield
        except (DoesNotFit, RuntimeError) as error:
            if not isinstance(error, DoesNotFit) and not _out_of_memory(error):
                raise
            reason = str(error) if isinstance(error, DoesNotFit) else "the device was out of memory"
            self.skipped.append(f"{name}: {reason}")

    # ---- decoding ----------------------------------------------------------------------------
    def _decode(self, n: int, b: int) -> dict[str, float | int]:
        """The columns of one cell, without its name. Raises DoesNotFit."""
        from retsweep.decode import Decoder
        from retsweep.train.memory import PeakMemory

        self._require_memory(n, b, tokens=b)
        peak = PeakMemory(self.device)
        decoder = Decoder(self.model, b, room=n, precision=self.spec.protocol.precision, stand_in=n - 1)
        seconds = self._steps(decoder)
        return {
            "decode_tokens_per_second": b / statistics.fmean(seconds),
            "decode_latency_ms": 1e3 * statistics.median(seconds),
            "decode_latency_p95_ms": 1e3 * _percentile(seconds, 0.95),
            "decode_peak_memory_bytes": peak.bytes(),
            "decode_state_bytes": decoder.state_bytes(),
        }

    def _steps(self, decoder: Decoder) -> list[float]:
        """Seconds of each timed step, the decoder being set back to where it was after each."""
        import torch

        states, position = decoder.states, decoder.position
        chosen = torch.zeros(decoder.batch, dtype=torch.int64, device=self.device)
        seconds = []
        for index in range(self.task.warm_up + self.task.tokens):
            decoder.states, decoder.position = states, position
            began = self._now()
            chosen = decoder.step(chosen).argmax(-1)
            if index >= self.task.warm_up:
                seconds.append(self._now() - began)
        return seconds

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
        while len(seconds) < PASSES and sum(seconds) + max(seconds, default=0) <= self.task.prefill_seconds:
            seconds.append(self._read(prompt))
        return statistics.median(seconds)

    def _read(self, prompt: torch.Tensor) -> float:
        """Seconds of reading it into a fresh decoder, which is allocated beforehand."""
        from retsweep.decode import Decoder

        precision = self.spec.protocol.precision
        decoder = Decoder(self.model, 1, prompt.shape[1], self.task.chunk, precision)
        began = self._now()
        decoder.read(prompt)
        return self._now() - began

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
        limit = self.task.memory_bytes or int(SHARE * free_memory(self.device))
        if needed > limit:
            raise DoesNotFit(f"{needed / 1e6:,.2f} MB, of {limit / 1e6:,.2f} MB allowed")

    def _now(self) -> float:
        """Seconds, all that was asked of the device being done."""
        if self.device.type == "cuda":
            import torch

            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def free_memory(device: torch.device, read: Callable[[Path], str] = Path.read_text) -> int:
    """Bytes that can be allocated: of a GPU what nobody holds, of a CPU what Linux calls available, or
    what is left of the limit of its group. Raises SpecError where the system does not tell it."""
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = dict(line.split(":", 1) for line in read(Path("/proc/meminfo")).splitlines() if ":" in line)
        available = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError) as error:
        raise SpecError(
            "this system does not say how much memory is free; give task.memory_bytes=BYTES"
        ) from error
    try:
        group = Path("/sys/fs/cgroup")
        left = int(read(group / "memory.max")) - int(read(group / "memory.current"))
    except (OSError, ValueError):  # no group, or one without a limit ("max")
        return available
    return min(available, left)


def _percentile(values: list[float], share: float) -> float:
    """The smallest of ``values`` that at least so large a share of them does not exceed."""
    return sorted(values)[max(0, -int(-share * len(values) // 1) - 1)]


def _out_of_memory(error: RuntimeError) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
