"""task=train: prepares the corpus, trains the model, evaluates it; a row of perplexities."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from retsweep.spec.base import SpecError
from retsweep.spec.base import spec as make_spec
from retsweep.spec.run import RunSpec
from retsweep.tasks.base import InterruptedRun, Workspace

if TYPE_CHECKING:
    from torch import Tensor, nn

    from retsweep.data.batches import TrainBatches
    from retsweep.data.prepare import TokenisedCorpus
    from retsweep.evaluate.perplexity import Likelihood
    from retsweep.train.state import Outcome


class PublishedDefectWarning(UserWarning):
    """The run has a known defect of the published code switched on, and means to."""


@make_spec
class Train:
    name: ClassVar[str] = "train"
    reads_data: ClassVar[bool] = True

    def __call__(self, spec: RunSpec, workspace: Workspace) -> dict[str, Any]:
        """The run's columns. A diverged run has no perplexities but the best of its validations.

        Raises SpecError (corpus, tokenizer; a corpus that is not the one planned with), InterruptedRun.
        """
        from retsweep.data.batches import TrainBatches
        from retsweep.data.prepare import prepare, require_chunk

        warn_of_defects(spec)
        corpus = prepare(spec.corpus, spec.tokenizer, spec.scale.vocabulary, workspace.cache)
        if workspace.data_hash not in (None, corpus.data_hash):
            raise SpecError(
                f"the corpus {corpus.name} has changed since the sweep was planned; start the sweep again"
            )
        require_chunk(corpus, spec.scale.context)
        train_tokens = corpus.splits["train"].tokens
        batches = TrainBatches(train_tokens, spec.protocol, spec.scale.context, spec.seed)
        return _Training(spec, workspace, corpus, batches).row()


@dataclass(frozen=True)
class _Training:
    spec: RunSpec
    workspace: Workspace
    corpus: TokenisedCorpus
    batches: TrainBatches
    validations: list[Likelihood] = field(default_factory=list)
    """Those made during training in this process; the last one is of the final weights."""

    def row(self) -> dict[str, Any]:
        from retsweep.model import build

        references = self.references()
        model = build(self.spec, device=self.workspace.device)
        outcome = self.train(model, math.log(references["unigram_valid_ppl"]))
        columns = outcome_columns(outcome)
        if outcome.status == "ok":
            perplexities = self.perplexities(model)
            if not all(map(math.isfinite, perplexities.values())):
                # The last update broke the weights, and no further step was there to show it.
                columns["status"], perplexities = f"diverged@{outcome.steps}", {}
            columns |= perplexities
        return {**columns, **references}

    @property
    def steps(self) -> int:
        protocol = self.spec.protocol
        return protocol.steps or (protocol.epochs or 0) * self.batches.steps_per_epoch

    def references(self) -> dict[str, float]:
        """What no model is needed for, of the text that is trained on (not of what
        ``protocol.train_chunks`` leaves out)."""
        from retsweep.data.references import reference_perplexities

        context, stride = self.batches.context, self.batches.stride
        end = (self.batches.chunks - 1) * stride + context + 1
        found = reference_perplexities(self.corpus, end, self.spec.scale.vocabulary)
        return {"unigram_valid_ppl": found.unigram, "bigram_valid_ppl": found.bigram}

    def train(self, model: nn.Module, unigram_nats: float) -> Outcome:
        from retsweep.train.loop import Interrupted, train

        def validate(model: nn.Module) -> float:
            found = self.likelihood(model, self.windows("valid"))
            self.validations.append(found)
            return found.nats / found.targets

        try:
            return train(
                model,
                self.batches.batch_at,
                self.spec.protocol,
                steps=self.steps,
                seed=self.spec.seed,
                folder=self.workspace.folder,
                device=self.workspace.device,
                validate=validate,
                unigram_nats=unigram_nats,
                stop=self.workspace.stop,
                progress=self.workspace.progress,
                metrics=self.workspace.metrics,
            )
        except Interrupted as interrupted:
            raise InterruptedRun(str(interrupted)) from interrupted

    # ---- evaluation --------------------------------------------------------------------------
    def perplexities(self, model: nn.Module) -> dict[str, float]:
        """train, valid and test: perplexity, and bits per byte of the text of the targets."""
        columns = self.train_perplexity(model)
        # A run that had ended before this process began was validated by the one before.
        valid = self.validations[-1] if self.validations else self.likelihood(model, self.windows("valid"))
        columns |= _columns("valid", valid, self.corpus.splits["valid"].target_bytes)
        test = self.likelihood(model, self.windows("test"))
        return columns | _columns("test", test, self.corpus.splits["test"].target_bytes)

    def train_perplexity(self, model: nn.Module) -> dict[str, float]:
        """As ``protocol.evaluation.train_ppl`` defines it."""
        kind = self.spec.protocol.evaluation.train_ppl
        if kind == "slice":
            part = self.corpus.train_slice
            return _columns("train", self.likelihood(model, _windows(part.tokens, self)), part.target_bytes)
        if kind == "whole":
            text = self.batches.windows()
            text_bytes = sum(self.bytes_of(targets) for _, targets in text)
            return _columns("train", self.likelihood(model, text), text_bytes)
        return self.published_train_perplexity(model)

    def published_train_perplexity(self, model: nn.Module) -> dict[str, float]:
        """exp(mean loss of the first training batches)."""
        from retsweep.evaluate.perplexity import mean_batch_perplexity

        batches = list(self.first_batches())
        perplexity = mean_batch_perplexity(
            model, batches, device=self.workspace.device, precision=self.spec.protocol.precision
        )
        targets = sum(targets.numel() for _, targets in batches)
        text_bytes = sum(self.bytes_of(targets.numpy()) for _, targets in batches)
        bits = math.log2(perplexity) * targets / text_bytes
        return {"train_ppl": perplexity, "train_bits_per_byte": bits}

    def first_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The first ``train_batches`` micro-batches of the first epoch, or all that it has."""
        accumulate = self.spec.protocol.accumulate
        available = self.batches.steps_per_epoch * accumulate
        for index in range(min(self.spec.protocol.evaluation.train_batches, available)):
            yield self.batches.batch_at(*divmod(index, accumulate))

    def likelihood(self, model: nn.Module, text: Any) -> Likelihood:
        from retsweep.evaluate.perplexity import affordable_batch, negative_log_likelihood

        protocol, scale = self.spec.protocol, self.spec.scale
        batch = affordable_batch(protocol.evaluation.batch, scale.context, scale.vocabulary)
        return negative_log_likelihood(model, text, batch, self.workspace.device, protocol.precision)

    def windows(self, split: str) -> Any:
        return _windows(self.corpus.splits[split].tokens, self)

    def bytes_of(self, targets: Any) -> int:
        return int(self.corpus.splits["train"].byte_lengths[targets].sum())


def _windows(tokens: Any, training: _Training) -> Any:
    from retsweep.data.batches import windows

    return windows(tokens, training.spec.scale.context)


def _columns(name: str, found: Likelihood, text_bytes: int) -> dict[str, float]:
    return {f"{name}_ppl": found.perplexity, f"{name}_bits_per_byte": found.bits_per_byte(text_bytes)}


def outcome_columns(outcome: Outcome) -> dict[str, Any]:
    """How the training went; ``best_*`` only where a validation gave a number."""
    from retsweep.evaluate.perplexity import safe_exp

    columns: dict[str, Any] = {
        "status": outcome.status,
        "steps": outcome.steps,
        "tokens": outcome.tokens,
        "seconds": outcome.seconds,
        "tokens_per_second": outcome.tokens_per_second,
        "peak_memory_bytes": outcome.peak_memory_bytes,
        "last_loss": outcome.last_loss,
    }
    if outcome.best_loss is not None:
        columns |= {"best_valid_ppl": safe_exp(outcome.best_loss), "best_step": outcome.best_step}
    return columns


def published_defects(spec: RunSpec) -> tuple[str, ...]:
    """The known defects of the published code that ``spec`` has switched on, each in words."""
    columns = [layer.columns() for layer in spec.layers]
    found = {
        "attention sees later tokens (mask=leaky): its perplexity is not a likelihood": spec.leaky,
        "scores depend on absolute positions (position=xpos_both_up)": any(
            "xpos_both_up" in str(column.get("position")) for column in columns
        ),
        "retention starts nearly switched off (start=inverse_hidden)": any(
            column.get("start") == "inverse_hidden" for column in columns
        ),
    }
    return tuple(words for words, on in found.items() if on)


def warn_of_defects(spec: RunSpec) -> None:
    """Says once a process what must not be overlooked."""
    defects = published_defects(spec)
    if defects:
        warnings.warn(f"PUBLISHED DEFECTS ARE ON: {'; '.join(defects)}", PublishedDefectWarning, stacklevel=2)
