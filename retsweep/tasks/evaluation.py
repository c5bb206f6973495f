"""What a trained model is asked: perplexities of the splits, with the weights and masks that are told."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retsweep.spec.run import RunSpec
from retsweep.tasks.base import Workspace

if TYPE_CHECKING:
    from torch import Tensor, nn

    from retsweep.data.batches import TrainBatches
    from retsweep.data.prepare import Split, TokenisedCorpus
    from retsweep.evaluate.perplexity import Likelihood
    from retsweep.train.state import Outcome


@dataclass(frozen=True)
class Evaluation:
    """Models of ``spec`` on ``corpus``; ``batches`` are those that the run was trained on."""

    spec: RunSpec
    workspace: Workspace
    corpus: TokenisedCorpus
    batches: TrainBatches

    def perplexities(self, model: nn.Module, valid: Likelihood | None) -> dict[str, float | None]:
        """train, valid and test: perplexity, and bits per byte of the text of the targets; None for
        what is no finite number.

        ``valid``: that of ``model`` on the validation split, where it is known already.
        """
        columns = self.train(model)
        columns |= self.split(model, "valid", valid)
        return finite(columns | self.split(model, "test"))

    def split(self, model: nn.Module, split: str, known: Likelihood | None = None) -> dict[str, float]:
        """``<split>_ppl`` and ``<split>_bits_per_byte`` of all of a split."""
        found = known or self.likelihood(model, self.windows(split))
        return likelihood_columns(split, found, self.corpus.splits[split].target_bytes)

    def causal(self, model: nn.Module) -> dict[str, float | None]:
        """``valid_ppl_causal_eval`` and its bits per byte: a leaky model's weights under a causal
        mask, where its perplexity is a likelihood; None for what is no finite number there, nothing
        for a model that has no leak."""
        if not self.spec.leaky:
            return {}
        layers = tuple(layer.causal() for layer in self.spec.layers)
        twin = with_weights(dataclasses.replace(self.spec, layers=layers), model.state_dict())
        found = finite(self.split(twin, "valid"))
        return {f"{name}_causal_eval": value for name, value in found.items()}

    def best(self, outcome: Outcome, columns: Mapping[str, Any]) -> dict[str, float | None]:
        """``best_test_ppl``: the test perplexity of the weights that validation chose, None if it is no
        finite number.

        ``columns``: those of the last weights, which are the best ones if the last step's are. Empty
        if no validation gave a number, and (with a warning) if best.pt is not what was validated:
        gone, broken, or a lost process's that went another way.
        """
        if outcome.best_step is None:
            return {}
        if outcome.best_step == outcome.steps and "test_ppl" in columns:
            return {"best_test_ppl": columns["test_ppl"]}
        from retsweep.train import checkpoint

        assert outcome.best_loss is not None
        try:
            _, content = checkpoint.load_best(self.workspace.folder, outcome.best_step, outcome.best_loss)
        except checkpoint.BrokenCheckpoint as error:
            warnings.warn(f"no best_test_ppl: {error}", stacklevel=2)
            return {}
        weights = {name: value.to(self.workspace.device) for name, value in content["weights"].items()}
        found = finite(self.split(with_weights(self.spec, weights), "test"))
        return {"best_test_ppl": found["test_ppl"]}

    # ---- the train split ---------------------------------------------------------------------
    def train(self, model: nn.Module) -> dict[str, float]:
        """As ``protocol.evaluation.train_ppl`` defines it."""
        kind = self.spec.protocol.evaluation.train_ppl
        if kind == "slice":
            part = self.train_slice()
            found = self.likelihood(model, self.windows_of(part.tokens))
            return likelihood_columns("train", found, part.target_bytes)
        if kind == "whole":
            text = self.batches.windows()
            text_bytes = sum(self.bytes_of(targets) for _, targets in text)
            return likelihood_columns("train", self.likelihood(model, text), text_bytes)
        return self.published_train(model)

    def train_slice(self) -> Split:
        """The corpus's, or as much of it as lies before the end of ``protocol.train_chunks``."""
        part = self.corpus.train_slice
        return part if self.spec.protocol.train_chunks is None else part.head(self.batches.end)

    def published_train(self, model: nn.Module) -> dict[str, float]:
        """exp(mean loss of the first training batches)."""
        from retsweep.evaluate.perplexity import mean_batch_perplexity

        batches = list(self.first_batches())
        perplexity = mean_batch_perplexity(model, batches, device=self.workspace.device)
        targets = sum(targets.numel() for _, targets in batches)
        text_bytes = sum(self.bytes_of(targets.cpu().numpy()) for _, targets in batches)
        bits = math.log2(perplexity) * targets / text_bytes
        return {"train_ppl": perplexity, "train_bits_per_byte": bits}

    def first_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The first ``train_batches`` micro-batches of the first epoch, or all that it has."""
        accumulate = self.spec.protocol.accumulate
        available = self.batches.steps_per_epoch * accumulate
        for index in range(min(self.spec.protocol.evaluation.train_batches, available)):
            yield self.batches.batch_at(*divmod(index, accumulate))

    # ---- parts -------------------------------------------------------------------------------
    def likelihood(self, model: nn.Module, text: Any) -> Likelihood:
        from retsweep.evaluate.perplexity import affordable_batch, negative_log_likelihood

        scale = self.spec.scale
        batch = affordable_batch(self.spec.protocol.evaluation.batch, scale.context, scale.vocabulary)
        return negative_log_likelihood(model, text, batch, self.workspace.device)

    def windows(self, split: str) -> Any:
        return self.windows_of(self.corpus.splits[split].tokens)

    def windows_of(self, tokens: Any) -> Any:
        from retsweep.data.batches import windows

        return windows(tokens, self.spec.scale.context)

    def bytes_of(self, targets: Any) -> int:
        return int(self.corpus.splits["train"].byte_lengths[targets].sum())


def likelihood_columns(name: str, found: Likelihood, text_bytes: int) -> dict[str, float]:
    return {f"{name}_ppl": found.perplexity, f"{name}_bits_per_byte": found.bits_per_byte(text_bytes)}


def finite(columns: Mapping[str, float]) -> dict[str, float | None]:
    """``columns`` with None where a number is infinite or none at all: JSON has neither."""
    return {name: value if math.isfinite(value) else None for name, value in columns.items()}


def with_weights(spec: RunSpec, weights: Mapping[str, Tensor]) -> nn.Module:
    """A model of ``spec`` that holds ``weights`` themselves: nothing is drawn and nothing copied."""
    from retsweep.model import build

    model = build(spec, device="meta")
    model.load_state_dict(weights, assign=True)
    return model
