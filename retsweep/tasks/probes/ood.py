"""Out of domain: perplexity and bits per byte of text that is not of the corpus, by file and by domain.

The text goes through the run's own tokenizer and is read in non-overlapping windows of
``scale.context``, every target once (Sun et al. 2023, "Retentive Network", table 3, do as much with
books, meetings, reports and screenplays). A domain is all targets of its files together: its
perplexity is no mean of perplexities. Perplexities of different tokenizers do not compare, bits per
byte do.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from retsweep.spec.base import SpecError
from retsweep.spec.evaluate import Evaluate
from retsweep.tasks.base import InterruptedRun
from retsweep.tasks.evaluation import Evaluation, likelihood_columns

if TYPE_CHECKING:
    from torch import nn

    from retsweep.evaluate.perplexity import Likelihood

#: A file's or a domain's likelihood, and the bytes that its targets stand for.
Measured = tuple["Likelihood", int]


def pin(evaluate: Evaluate) -> Evaluate:
    from retsweep.data.ood import content_hash, read

    return dataclasses.replace(
        evaluate, ood=dataclasses.replace(evaluate.ood, text=content_hash(read(evaluate.ood)))
    )


def columns(evaluation: Evaluation, model: nn.Module) -> dict[str, Any]:
    """``ood_ppl_<file>``, ``ood_bits_per_byte_<file>``, the same of ``domain_<domain>``, the text's
    hash, and ``ood_tokens`` where only the first so many tokens of a file were read.

    A perplexity that is no finite number is None. Raises SpecError for text that is not the one
    planned with, InterruptedRun between two files.
    """
    from retsweep.data.ood import column_name, content_hash, read, tokenised

    options = evaluation.spec.evaluate.ood
    texts = read(options)
    found_hash = content_hash(texts)
    if options.text not in (None, found_hash):
        raise SpecError(
            "the text of evaluate.ood has changed since the sweep was planned; start the sweep again"
        )
    measured: dict[str, Measured] = {}
    members: dict[str, list[Measured]] = {}
    for text in texts:
        if evaluation.workspace.stop():
            raise InterruptedRun(f"stopped before {text.file} of the probe ood")
        part = tokenised(text, evaluation.corpus, evaluation.workspace.cache, options.tokens)
        found = evaluation.likelihood(model, evaluation.windows_of(part.tokens)), part.target_bytes
        measured[text.name] = found
        for domain in text.domains:
            members.setdefault(f"domain_{column_name(domain)}", []).append(found)
    measured |= {name: pooled(files) for name, files in sorted(members.items())}
    row: dict[str, Any] = {"ood_hash": found_hash}
    if options.tokens is not None:
        row["ood_tokens"] = options.tokens
    for name, (likelihood, text_bytes) in measured.items():
        values = likelihood_columns("ood", likelihood, text_bytes)
        row |= {
            f"{column}_{name}": value if math.isfinite(value) else None for column, value in values.items()
        }
    return row


def pooled(files: Iterable[Measured]) -> Measured:
    """All targets of ``files`` as if they were one text's."""
    from retsweep.evaluate.perplexity import Likelihood

    parts = list(files)
    nats = math.fsum(likelihood.nats for likelihood, _ in parts)
    targets = sum(likelihood.targets for likelihood, _ in parts)
    return Likelihood(nats, targets), sum(text_bytes for _, text_bytes in parts)
