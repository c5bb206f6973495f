"""How a model is trained and evaluated: everything between an initial model and its perplexity."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from retsweep.spec.base import LABEL, SpecError, spec

Fraction = Annotated[float, Field(ge=0, lt=1)]


@spec
class Evaluation:
    """``train_ppl``: ``slice`` is the beginning of the train split, as long as valid (or as
    ``train_chunks``, if they are less), ``whole`` all of the chunks trained on, ``first_batches`` the
    published exp(mean loss of the first ``train_batches`` training batches)."""

    train_ppl: Literal["slice", "whole", "first_batches"] = "slice"
    train_batches: PositiveInt = 40
    batch: PositiveInt = 64
    """Windows read at once; fewer where their logits would take too much memory."""
    every: NonNegativeInt = 0
    """Optimiser steps between validation passes during training; 0 for none but the last, after the
    last step, which there always is."""

    @property
    def idle(self) -> tuple[str, ...]:
        """Fields without effect beside the others."""
        return () if self.train_ppl == "first_batches" else ("train_batches",)


@spec
class Protocol:
    """Lengths count optimiser steps, batches sequences of ``scale.context`` tokens; perplexities are
    exp of nats a token. Defaults are torch's; conf/protocol/ gives the two that mean something."""

    name: str = dataclasses.field(metadata=LABEL)
    # length: exactly one of the two
    steps: PositiveInt | None = None
    epochs: PositiveInt | None = None
    batch: PositiveInt
    """Sequences a micro-batch; the optimiser sees ``batch * accumulate``."""
    accumulate: PositiveInt = 1
    shuffle: bool = True
    train_chunks: PositiveInt | None = None
    """Train on the first so many chunks of the corpus only; None for all."""
    chunking: Literal["context", "context_plus_one"] = "context"
    """Stride of training chunks. ``context``: every target once. ``context_plus_one``: the
    published disjoint chunks of inputs and their last target, whose joints are never targets."""
    # optimiser
    learning_rate: PositiveFloat
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup: Fraction = 0.0
    """Linear warm-up, as a fraction of all optimiser steps."""
    final_learning_rate: Fraction = 0.1
    """Where the cosine ends, as a fraction of ``learning_rate``."""
    weight_decay: NonNegativeFloat = 0.0
    decay: Literal["matrices", "everything"] = "matrices"
    """``matrices`` leaves norms and biases out of weight decay."""
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    clip: PositiveFloat | None = None
    precision: Literal["fp32", "bf16", "tf32"] = "fp32"
    """Of training; ``retsweep/layers/precision.py`` says what each is, tf32 needs a GPU. Whatever it is,
    weights are float32 and perplexities are read in fp32."""
    compile: bool = False
    head_tokens: PositiveInt | None = None
    """Tokens whose logits training holds at once; None for all of a micro-batch. The loss is the same
    function, summed in another order: its last digits change, and so a run's identity."""
    divergence: Literal["non_finite", "above_unigram"] = "above_unigram"
    """When a run is over as ``diverged@STEP``: a loss that is not a number, or also one that
    stays far above the unigram entropy of the corpus."""
    checkpoint_every: NonNegativeInt = dataclasses.field(default=0, metadata=LABEL)
    """Optimiser steps between checkpoints; 0 lets the loop choose. Changes no number."""
    evaluation: Evaluation = dataclasses.field(default_factory=Evaluation)

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise SpecError("protocol: give either protocol.steps or protocol.epochs, the other null")

    def check_device(self, device: str) -> None:
        """Raises SpecError if ``device`` ("cpu", "cuda", "cuda:0") cannot compute in ``precision``."""
        if self.precision == "tf32" and not device.startswith("cuda"):
            raise SpecError(
                f"protocol.precision=tf32 is of a GPU's tensor cores, and this run is on {device}; accepted "
                "there: fp32, bf16"
            )

    @property
    def idle(self) -> tuple[str, ...]:
        """Fields without effect beside the others."""
        return ("final_learning_rate",) if self.schedule == "constant" else ()
