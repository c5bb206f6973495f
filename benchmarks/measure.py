"""One group of contestants, ours first: whole training steps, and decoding behind a context."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.contestants import REQUIRED, Contestant, block_parameters, halve_matrices, parameters
from benchmarks.options import NotMeasured, Options
from benchmarks.report import Measured, Report
from benchmarks.targets import DECODE, TRAIN, UTILISATION, Judged
from benchmarks.timing import interleaved, speed_ratio
from retsweep.costs import macs_as_trained
from retsweep.layers.precision import Precision, casting, products
from retsweep.model import LanguageModel
from retsweep.spec.run import RunSpec
from retsweep.train.loss import chunked_cross_entropy, cross_entropy
from retsweep.train.utilisation import FLOP_A_MAC, PASSES, SIZE

#: The largest share by which the parameters of a peer may differ from ours, in all and in blocks alone.
UNEQUAL = 0.02
#: The turn that multiplies two square matrices so many times, for the utilisation.
PRODUCT, PRODUCTS = "matrix product", 100


@dataclass(frozen=True)
class Measure:
    options: Options
    spec: RunSpec
    contestants: list[Contestant]
    report: Report

    def train(self) -> None:
        """Forward, backward and AdamW of one batch a turn, from equal tokens."""
        options, scale = self.options, self.spec.scale
        stream = torch.Generator().manual_seed(0)
        shape = options.batch, scale.context
        inputs, targets = (
            torch.randint(scale.vocabulary, shape, generator=stream).to(options.device) for _ in range(2)
        )
        turns: dict[str, Callable[[], object]] = {}
        for one in self._taking("train"):
            with self._trying(one, "training"):
                model = self._model(one, scale.context).train()
                step = functools.partial(self._step, one, model, _optimiser(model), inputs, targets)
                self._compare(one, model)
                step()  # kernels that do not compile here say so before anyone is timed
                turns[one.name] = step
        turns[PRODUCT] = _product(self._place, options.precision)
        seconds = self._take_turns(turns, "training")
        self.report.judged.append(self._utilisation(seconds[self.ours], seconds.pop(PRODUCT), inputs.numel()))
        self._tell("train", seconds, inputs.numel(), TRAIN[self._place.type])

    def decode(self) -> None:
        """``tokens`` tokens a turn, one after the other, behind ``context`` tokens."""
        options = self.options
        room = options.context + options.tokens * (options.rounds + 1)
        stream = torch.Generator().manual_seed(0)
        prompt = torch.randint(self.spec.scale.vocabulary, (1, options.context - 1), generator=stream)
        token = prompt[:, 0].to(options.device)
        with torch.inference_mode(), self._computing():
            turns: dict[str, Callable[[], object]] = {}
            for one in self._taking("decode"):
                with self._trying(one, "decoding"):
                    model = self._model(one, room).eval()
                    if options.precision == "bf16" and one.name != self.ours:
                        halve_matrices(model)
                    step = one.decoder(model, prompt.to(options.device), room, options.precision)
                    self._check_logits(one, step(token), (1,))
                    turns[one.name] = functools.partial(_repeat, step, token, options.tokens)
            seconds = self._take_turns(turns, f"decoding at {options.context}")
        self._tell("decode", seconds, options.tokens, DECODE)

    # ---- parts -------------------------------------------------------------------------------
    @property
    def ours(self) -> str:
        return self.contestants[0].name

    def _utilisation(self, steps: list[float], products: list[float], tokens: int) -> Judged:
        """As ``retsweep.train.utilisation`` defines it, of the products of the form that is trained, but of
        the rounds: the step and the product of one round saw the same machine. The median over rounds."""
        step = PASSES * FLOP_A_MAC * macs_as_trained(self.spec) * tokens / self.spec.scale.context
        product = FLOP_A_MAC * SIZE[self._place.type] ** 3 * PRODUCTS
        shares = [step / a / (product / b) for a, b in zip(steps, products, strict=True)]
        return Judged(f"MFU {self.ours}", statistics.median(shares), UTILISATION[self._place.type])

    @property
    def _place(self) -> torch.device:
        return torch.device(self.options.device)

    def _computing(self) -> ExitStack:
        stack = ExitStack()
        stack.enter_context(products(self.options.precision))
        stack.enter_context(casting(self.options.precision, self._place))
        return stack

    def _taking(self, what: str) -> Iterator[Contestant]:
        return (one for one in self.contestants if what in one.what)

    @contextmanager
    def _trying(self, one: Contestant, what: str) -> Iterator[None]:
        """A peer that fails is left out; NotMeasured if it is required. Our own failures are raised."""
        try:
            yield
        except NotMeasured:
            raise
        except Exception as error:  # a peer may fail in any way: a kernel, a driver, memory
            if one.name == self.ours:
                raise
            why = f"{one.name} fails in {what}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            if one.name in REQUIRED[self.options.kind]:
                raise NotMeasured(why) from error
            self.report.leave_out(one.name, why)

    def _model(self, one: Contestant, positions: int) -> nn.Module:
        return one.build(self.spec, positions).to(self._place)

    def _compare(self, one: Contestant, model: nn.Module) -> None:
        """Its parameters into the report. Raises NotMeasured for a peer that is not of our size."""
        vocabulary = self.spec.scale.vocabulary
        self.report.parameters[one.name] = parameters(model)
        self.report.blocks[one.name] = block_parameters(model, vocabulary)
        sizes = {"parameters": self.report.parameters, "parameters in blocks": self.report.blocks}
        for what, known in sizes.items():
            ours, theirs = known[self.ours], known[one.name]
            if abs(theirs / ours - 1) > UNEQUAL:
                raise NotMeasured(
                    f"{one.name} has {theirs:,} {what} and ours {ours:,}: that is no equal work"
                )

    def _check_logits(self, one: Contestant, logits: Tensor, shape: tuple[int, ...]) -> None:
        """Raises NotMeasured."""
        if logits.shape != (*shape, self.spec.scale.vocabulary):
            raise NotMeasured(f"{one.name} gave logits of {tuple(logits.shape)}: that is no equal work")

    def _step(
        self,
        one: Contestant,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        inputs: Tensor,
        targets: Tensor,
    ) -> None:
        with products(self.options.precision):
            self._loss(one, model, inputs, targets).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    def _loss(self, one: Contestant, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy over all positions."""
        parts = self.options.head_tokens
        with self._computing():
            if parts is not None and one.name == self.ours:
                assert isinstance(model, LanguageModel)
                return chunked_cross_entropy(model.hidden(inputs), model.head, targets, parts)
            logits = one.logits(model, inputs)
        self._check_logits(one, logits, tuple(inputs.shape))
        return cross_entropy(logits, targets)

    def _take_turns(self, turns: dict[str, Callable[[], object]], what: str) -> dict[str, list[float]]:
        self.report.begin(f"{', '.join(turns)}: {what}")
        options = self.options
        return interleaved(turns, options.rounds, self._place, options.clock, self.report.tick)

    def _tell(self, what: str, seconds: dict[str, list[float]], tokens: int, least: float) -> None:
        for name, times in seconds.items():
            ratio = None if name == self.ours else speed_ratio(seconds[self.ours], times)
            self.report.add(Measured(what, name, tokens / statistics.median(times), ratio))
            if ratio is not None:
                self.report.judged.append(Judged(f"{what} {self.ours}/{name}", ratio, least))


def _optimiser(model: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), weight_decay=0.05, fused=True)


def _product(place: torch.device, precision: Precision) -> Callable[[], None]:
    """PRODUCTS square products, of the size and dtype of ``retsweep.train.utilisation``."""
    size = SIZE[place.type]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    one, other = torch.randn(2, size, size, generator=torch.Generator().manual_seed(0)).to(place, dtype)

    @torch.no_grad()
    def multiply() -> None:
        with products(precision):
            for _ in range(PRODUCTS):
                torch.mm(one, other)

    return multiply


def _repeat(step: Callable[[Tensor], Tensor], token: Tensor, times: int) -> None:
    for _ in range(times):
        step(token)
