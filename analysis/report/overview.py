"""What was run, and where it comes from: the first section of the page and the last."""

from __future__ import annotations

from collections.abc import Sequence

from analysis import scrub
from analysis.aggregate import has_ended, is_diverged
from analysis.report.blocks import Block, Grid, Heading, Part, Words, grid
from analysis.report.studies import Study

#: What differs between conventions, and what each column of the table holds.
DEFINITIONS = (
    ("GMACs, MMACs", "10⁹, 10⁶ multiply-accumulates; one is two FLOP"),
    (
        "macs_published",
        "the convention of the report's GMACs column, a sequence of the model's context: nn.Linear and 4 per "
        "LayerNorm element; retention's own projections, every Q Kᵀ and every A V are missing",
    ),
    (
        "macs_train_forward",
        "every product of every matrix product of the parallel training forward, a sequence",
    ),
    ("macs_fvcore", "the same, traced in the built model, and 5 per normalised element (4 without affine)"),
    ("macs_train_chunkwise_n", "a training forward of n tokens, retention in chunks, attention in parallel"),
    (
        "macs_decode_n, state_bytes_n",
        "one generated token at a context of n tokens, the current one included: retention recurrent, "
        "attention with its key/value cache; and the bytes that are kept between tokens. Decoding is bound "
        "by the bytes that it moves: a count of MACs is not a time",
    ),
    (
        "bytes_decode_n_b",
        "bytes that one step of decoding b sequences at a context of n moves: every weight once, every state "
        "and cache; what a step takes at least, by the width of the memory",
    ),
    (
        "decode_latency_ms_n_b, decode_tokens_per_second_n_b",
        "measured: the median time of a step that decodes b sequences at a context of n, and the tokens of "
        "all of them a second",
    ),
    (
        "train_tokens_per_second_T, train_mfu_T",
        "measured: whole training steps on random tokens in sequences of T; their products (in the form that "
        "T takes, attention by the full square, causality ignored; backward twice the forward) by "
        "those of one large product in the same time",
    ),
    (
        "train, valid, test ppl",
        "perplexity after the last step, exp of the mean negative log-likelihood a token; of validation and "
        "test over the whole split in non-overlapping windows of the model's context, every target once",
    ),
    ("best valid ppl, test ppl best step", "the same for the weights at the step that validation chose"),
    (
        "bits/byte",
        "the negative log-likelihood in bits by the bytes of the text: comparable across tokenizers",
    ),
    (
        "±",
        "half the 95 % confidence interval of the mean over seeds (Student's t); none at one seed. Where a "
        "run diverged, the median with diverged runs as infinite, and no interval",
    ),
    (
        "leaky",
        "a position sees later ones, on purpose, as in the report: its perplexity is not a likelihood. "
        "“Causal mask”: the same weights evaluated without the leak",
    ),
    (
        "tuned",
        "the learning rate was chosen on validation from the rates in brackets, with seeds of their own",
    ),
    (
        "matched",
        "the width of the FFN was solved so that parameters or training MACs equal the Transformer's",
    ),
)


def what_was_run(studies: Sequence[Study]) -> Part:
    heads = [
        "study",
        "what varies",
        "protocol",
        "scale",
        "text of the perplexities",
        "steps x batch",
        "models",
        "runs",
        "seeds",
        "commit",
    ]
    rows = [
        [
            study.name,
            study.kind,
            ", ".join(map(str, study.values("protocol"))),
            scale_of(study),
            study.source.text if study.trained else f"none: {study.nature}" if study.ended else "none",
            study.training if study.trained else "",
            str(len(study.lines)),
            runs_of(study),
            seeds_of(study),
            commits_of(study),
        ]
        for study in studies
    ]
    blocks: list[Block] = [grid("studies", heads, rows, wide=True)]
    if len({study.data for study in studies if study.trained}) > 1:
        blocks.append(
            Words(("These studies differ in text or tokenizer: their perplexities are never on one axis.",))
        )
    doubts = tuple(f"{study.name}: {study.doubt}" for study in studies if study.doubt)
    if doubts:
        blocks.append(Words(doubts))
    commands = [
        [study.name, "\n".join(map(scrub.command, study.source.plan.commands))]
        for study in studies
        if study.source.plan and study.source.plan.commands
    ]
    if commands:
        blocks.append(grid("commands", ["study", "commands that ran, in order"], commands, code=True))
    return Part("run", "What was run", tuple(blocks))


def scale_of(study: Study) -> str:
    """ "small: 12 layers, width 64, context 63", with every value where they differ."""
    parts = [
        f"{' and '.join(map(str, study.values(column)))} {unit}"
        if unit == "layers"
        else f"{unit} {' and '.join(map(str, study.values(column)))}"
        for column, unit in (("layers", "layers"), ("d_model", "width"), ("context", "context"))
        if study.values(column)
    ]
    return f"{', '.join(map(str, study.values('scale')))}: {', '.join(parts)}"


def runs_of(study: Study) -> str:
    rows = study.source.rows
    diverged = sum(is_diverged(row) for row in rows)
    failed = sum(not has_ended(row) for row in rows)
    return ", ".join(
        [
            str(len(rows)),
            *([f"{diverged} diverged"] if diverged else []),
            *([f"{failed} failed"] if failed else []),
        ]
    )


def seeds_of(study: Study) -> str:
    """How many seeds a model has: "3", or "1 to 3" in a study that is still growing."""
    counts = [line["n"] for line in study.lines if line["n"]] or [0]
    low, high = min(counts), max(counts)
    return str(high) if low == high else f"{low} to {high}"


def commits_of(study: Study) -> str:
    """The first seven letters of each; all of every one stand in the provenance."""
    found = dict.fromkeys(str(row["git_commit"])[:7] for row in study.source.rows if row.get("git_commit"))
    return ", ".join(found)


def provenance(studies: Sequence[Study], command: str) -> Part:
    blocks: list[Block] = [
        Heading("What the columns hold"),
        grid("definitions", ["column", "what it is"], [list(each) for each in DEFINITIONS]),
        Heading("Where the numbers come from"),
    ]
    blocks += [_environment(study) for study in studies]
    for study in studies:
        if study.source.table.notes:
            notes = tuple(f"{study.name}: {note}" for note in study.source.table.notes)
            blocks.append(Words(notes, quiet=True))
    blocks.append(Words((f"This page: {command}",), quiet=True))
    return Part("provenance", "Definitions and provenance", tuple(blocks))


def _environment(study: Study) -> Grid:
    rows = study.source.rows
    facts = [
        (name, ", ".join(dict.fromkeys(str(row[column]) for row in rows if row.get(column) is not None)))
        for name, column in (
            ("commits", "git_commit"),
            ("retsweep", "version"),
            ("torch", "torch_version"),
            ("device", "device"),
            ("data hash", "data_hash"),
            ("seeds", "seed"),
        )
    ]
    environment = study.source.plan.environment if study.source.plan else {}
    for key, value in environment.items():
        known = value.items() if isinstance(value, dict) else None
        said = ", ".join(f"{name} {version}" for name, version in known) if known else str(value)
        facts.append((str(key), said))
    return grid(
        f"{study.anchor}-facts", [study.name, ""], [[name, said] for name, said in facts if said], wide=True
    )
