"""task=train: prepares the corpus, trains the model, evaluates it; a row of perplexities."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from retsweep.spec.base import SpecError
from retsweep.spec.base import spec as make_spec
from retsweep.spec.run import RunSpec
from retsweep.tasks import probes
from retsweep.tasks.base import InterruptedRun, Workspace
from retsweep.tasks.evaluation import Evaluation, finite

if TYPE_CHECKING:
    from torch import nn

    from retsweep.data.batches import TrainBatches
    from retsweep.data.prepare import TokenisedCorpus
    from retsweep.evaluate.perplexity import Likelihood
    from retsweep.train.state import Outcome


#: A run whose weights give no finite number here has diverged. Not so of train: one that it spoils
#: alone (a few batches, perhaps) is no reason to lose the others.
JUDGED = ("valid_ppl", "test_ppl")


class PublishedDefectWarning(UserWarning):
    """The run has a known defect of the published code switched on, and means to."""


@make_spec
class Train:
    name: ClassVar[str] = "train"
    reads_data: ClassVar[bool] = True
    trains: ClassVar[bool] = True
    computes: ClassVar[bool] = True

    def __call__(self, spec: RunSpec, workspace: Workspace) -> dict[str, Any]:
        """The run's columns. A diverged run has no perplexities but the best of its validations.

        Raises SpecError (corpus, tokenizer, a corpus or a probe's text that is not the one planned
        with, a precision that the device does not have), InterruptedRun.
        """
        from retsweep.data.batches import TrainBatches
        from retsweep.data.prepare import prepare, require_chunk

        spec.check_device(workspace.device)
        warn_of_defects(spec)
        corpus = prepare(spec.corpus, spec.tokenizer, spec.scale.vocabulary, workspace.cache)
        if workspace.data_hash not in (None, corpus.data_hash):
            raise SpecError(
                f"the corpus {corpus.name} has changed since the sweep was planned; start the sweep again"
            )
        require_chunk(corpus, spec.scale.context)
        train_tokens = corpus.splits["train"].tokens
        batches = TrainBatches(train_tokens, spec.protocol, spec.scale.context, spec.seed, workspace.device)
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
        if not self.workspace.group.chief:
            return {}
        columns = outcome_columns(outcome) | self.utilisation(outcome) | self.shared()
        if outcome.status == "ok":
            # A run that had ended before this process began was validated by the one before.
            valid = self.validations[-1] if self.validations else None
            perplexities = self.evaluation.perplexities(model, valid)
            if all(perplexities[name] is not None for name in JUDGED):
                columns |= perplexities | self.evaluation.causal(model)
                columns |= probes.columns(self.evaluation, model)
            else:  # The last update broke the weights, and no further step was there to show it.
                columns["status"] = f"diverged@{outcome.steps}"
        text = {"text_form": self.corpus.text_form}
        return {**columns, **self.evaluation.best(outcome, columns), **references, **text}

    def utilisation(self, outcome: Outcome) -> dict[str, float]:
        """``gemm_flops_per_second`` and ``mfu``; the model's MACs are those of the form it trains in."""
        from retsweep.costs import macs_as_trained
        from retsweep.train.utilisation import utilisation

        a_token = macs_as_trained(self.spec) / self.spec.scale.context
        device, precision = self.workspace.device, self.spec.protocol.precision
        on_one_device = outcome.tokens_per_second / self.workspace.group.world
        return utilisation(a_token, on_one_device, device, precision)

    def shared(self) -> dict[str, int]:
        """``world_size``: of a run that several processes trained, the last time that it was gone on with."""
        world = self.workspace.group.world
        return {"world_size": world} if world > 1 else {}

    @property
    def evaluation(self) -> Evaluation:
        return Evaluation(self.spec, self.workspace, self.corpus, self.batches)

    @property
    def steps(self) -> int:
        protocol = self.spec.protocol
        return protocol.steps or (protocol.epochs or 0) * self.batches.steps_per_epoch

    def references(self) -> dict[str, float]:
        """What no model is needed for, of the text that is trained on (not of what
        ``protocol.train_chunks`` leaves out)."""
        from retsweep.data.references import reference_perplexities

        found = reference_perplexities(self.corpus, self.batches.end, self.spec.scale.vocabulary)
        return {"unigram_valid_ppl": found.unigram, "bigram_valid_ppl": found.bigram}

    def train(self, model: nn.Module, unigram_nats: float) -> Outcome:
        from retsweep.train.distributed import LostGroup
        from retsweep.train.loop import Interrupted, train

        def validate(model: nn.Module) -> float:
            found = self.likelihood(model)
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
                saved=self.workspace.saved,
                group=self.workspace.group,
            )
        except (Interrupted, LostGroup) as interrupted:
            raise InterruptedRun(str(interrupted)) from interrupted

    def likelihood(self, model: nn.Module) -> Likelihood:
        """Of the validation split; in a group every process reads its part of the windows."""
        windows, group = self.evaluation.windows("valid"), self.workspace.group
        if group.world == 1:
            return self.evaluation.likelihood(model, windows)
        from retsweep.evaluate.perplexity import Likelihood

        own = [tuple(part[group.rank :: group.world] for part in pair) for pair in windows]
        own = [pair for pair in own if len(pair[0])]
        found = self.evaluation.likelihood(model, own) if own else Likelihood(0.0, 0)
        nats, targets = group.sums([found.nats, found.targets])
        return Likelihood(nats, round(targets))


def outcome_columns(outcome: Outcome) -> dict[str, Any]:
    """How the training went; ``best_*`` only where a validation gave a number, ``best_valid_ppl`` None
    where that is too large a loss for a perplexity."""
    from retsweep.evaluate.perplexity import safe_exp

    columns: dict[str, Any] = {
        "status": outcome.status,
        "steps": outcome.steps,
        "tokens": outcome.tokens,
        "seconds": outcome.seconds,
        "trial_training_seconds": outcome.seconds_here,
        "tokens_per_second": outcome.tokens_per_second,
        "peak_memory_bytes": outcome.peak_memory_bytes,
        "last_loss": outcome.last_loss,
    }
    if outcome.best_loss is not None:
        columns |= finite({"best_valid_ppl": safe_exp(outcome.best_loss)})
        columns["best_step"] = outcome.best_step
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
