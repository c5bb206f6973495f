from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from retsweep.costs import macs_train_forward
from retsweep.data.prepare import prepare
from retsweep.evaluate import perplexity
from retsweep.model import build
from retsweep.spec import RunSpec, SpecError
from retsweep.tasks.base import InterruptedRun, Workspace
from retsweep.tasks.train import PublishedDefectWarning, published_defects
from retsweep.train import checkpoint

#: What a clock or a memory meter says, and so differs between runs of one spec.
MEASURED = {
    "seconds",
    "trial_training_seconds",
    "tokens_per_second",
    "peak_memory_bytes",
    "gemm_flops_per_second",
    "mfu",
}
CONTEXT = 31


def overrides_of(corpus: Path, *more: str) -> list[str]:
    return ["scale=tiny", "corpus=text", f"corpus.path={corpus}", "tokenizer=bytes", *more]


def numbers(row: dict) -> dict:
    return {key: value for key, value in row.items() if key not in MEASURED}


def trained(spec: RunSpec, folder: Path) -> torch.nn.Module:
    model = build(spec).eval()
    checkpoint.load_weights(model, folder / "last.pt")
    return model


def losses_by_hand(model: torch.nn.Module, tokens, stride: int = CONTEXT) -> list[float]:
    """The loss of each target, one window of the context after the other."""
    found: list[float] = []
    for start in range(0, len(tokens) - 1, stride):
        piece = torch.tensor(tokens[start : start + CONTEXT + 1].astype("int64"))
        if len(piece) > 1:
            with torch.no_grad():
                logits = model(piece[None, :-1])[0]
            found += functional.cross_entropy(logits, piece[1:], reduction="none").tolist()
    return found


def mean_perplexity(losses: list[float]) -> float:
    return math.exp(math.fsum(losses) / len(losses))


def test_a_row_has_its_columns_and_the_model_has_learnt(run, spec_of):
    row = run(spec_of())
    assert set(row) == {
        "status",
        "steps",
        "tokens",
        "last_loss",
        "best_valid_ppl",
        "best_step",
        "best_test_ppl",
        *MEASURED,
        *(f"{split}_{what}" for split in ("train", "valid", "test") for what in ("ppl", "bits_per_byte")),
        "unigram_valid_ppl",
        "bigram_valid_ppl",
        "text_form",
    }
    assert row["text_form"] == "raw"
    assert (row["status"], row["steps"], row["tokens"]) == ("ok", 30, 30 * 8 * CONTEXT)
    assert row["bigram_valid_ppl"] < row["unigram_valid_ppl"]
    assert row["valid_ppl"] < row["unigram_valid_ppl"] < 30


def test_perplexities_are_those_of_the_saved_weights_over_the_whole_split(run, spec_of, cache, tmp_path):
    spec = spec_of()
    row = run(spec)
    model = trained(spec, tmp_path)
    data = prepare(spec.corpus, spec.tokenizer, spec.scale.vocabulary, cache)
    length = len(data.splits["valid"].tokens)
    for name, tokens in (
        ("valid", data.splits["valid"].tokens),
        ("test", data.splits["test"].tokens),
        ("train", data.splits["train"].tokens[:length]),  # a slice as long as valid
    ):
        losses = losses_by_hand(model, tokens)
        assert len(losses) == len(tokens) - 1
        assert row[f"{name}_ppl"] == pytest.approx(mean_perplexity(losses), rel=1e-5)
        in_text = sum(1 for token in tokens[1:] if token < 256)  # the end of a text is no byte
        assert row[f"{name}_bits_per_byte"] == pytest.approx(sum(losses) / math.log(2) / in_text, rel=1e-5)


def test_a_run_of_bf16_is_read_in_fp32(run, spec_of, cache, tmp_path):
    spec = spec_of("protocol.precision=bf16", "protocol.steps=10")
    row = run(spec)
    data = prepare(spec.corpus, spec.tokenizer, spec.scale.vocabulary, cache)
    model, tokens = trained(spec, tmp_path), data.splits["valid"].tokens
    assert row["valid_ppl"] == pytest.approx(mean_perplexity(losses_by_hand(model, tokens)), rel=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = mean_perplexity(losses_by_hand(model, tokens))
    assert row["valid_ppl"] != pytest.approx(rounded, rel=1e-5)


@pytest.mark.parametrize("chunking", ["context", "context_plus_one"])
def test_the_slice_ends_where_the_chunks_trained_on_do(run, spec_of, cache, tmp_path, chunking):
    few = ("protocol.steps=3", f"protocol.chunking={chunking}")
    spec = spec_of(*few, "protocol.train_chunks=4")
    row = run(spec)
    data = prepare(spec.corpus, spec.tokenizer, spec.scale.vocabulary, cache)
    end = 4 * CONTEXT + 1 if chunking == "context" else 4 * (CONTEXT + 1)
    assert end < len(data.train_slice.tokens)
    tokens = data.splits["train"].tokens[:end]
    losses = losses_by_hand(trained(spec, tmp_path), tokens)
    assert row["train_ppl"] == pytest.approx(mean_perplexity(losses), rel=1e-5)
    in_text = sum(1 for token in tokens[1:] if token < 256)
    assert row["train_bits_per_byte"] == pytest.approx(sum(losses) / math.log(2) / in_text, rel=1e-5)


def test_many_chunks_leave_the_slice_as_it_is(run, spec_of, cache, tmp_path):
    spec = spec_of("protocol.steps=3", "protocol.train_chunks=70")
    row = run(spec)
    data = prepare(spec.corpus, spec.tokenizer, spec.scale.vocabulary, cache)
    assert len(data.train_slice.tokens) < 70 * CONTEXT
    losses = losses_by_hand(trained(spec, tmp_path), data.train_slice.tokens)
    assert row["train_ppl"] == pytest.approx(mean_perplexity(losses), rel=1e-5)


def test_the_whole_of_the_rows_trained_on(run, spec_of, cache, tmp_path):
    spec = spec_of("protocol.evaluation.train_ppl=whole", "protocol.train_chunks=20", "protocol.steps=3")
    row = run(spec)
    data = prepare(spec.corpus, spec.tokenizer, spec.scale.vocabulary, cache)
    losses = losses_by_hand(trained(spec, tmp_path), data.splits["train"].tokens[: 20 * CONTEXT + 1])
    assert len(losses) == 20 * CONTEXT
    assert row["train_ppl"] == pytest.approx(mean_perplexity(losses), rel=1e-5)
    assert row["train_bits_per_byte"] == pytest.approx(math.log2(row["train_ppl"]), rel=1e-5)


@pytest.mark.parametrize(("asked", "read"), [(3, 3), (40, 5)])
def test_the_published_train_perplexity_reads_the_first_batches(run, spec_of, cache, tmp_path, asked, read):
    spec = spec_of(
        "protocol=published",
        "protocol.batch=4",
        "protocol.train_chunks=20",
        "protocol.epochs=2",
        f"protocol.evaluation.train_batches={asked}",
    )
    row = run(spec)
    assert (row["status"], row["steps"]) == ("ok", 2 * 5)
    data = prepare(spec.corpus, spec.tokenizer, spec.scale.vocabulary, cache)
    chunks = data.splits["train"].tokens[: read * 4 * (CONTEXT + 1)]  # neighbours share no token
    model = trained(spec, tmp_path)
    losses = [
        loss
        for start in range(0, len(chunks), CONTEXT + 1)
        for loss in losses_by_hand(model, chunks[start : start + CONTEXT + 1])
    ]
    assert len(losses) == read * 4 * CONTEXT
    assert row["train_ppl"] == pytest.approx(mean_perplexity(losses), rel=1e-5)


@pytest.mark.parametrize("every", [0, 10])
def test_the_best_is_kept_and_the_last_step_is_validated_once(run, spec_of, tmp_path, monkeypatch, every):
    asked = []
    likelihood = perplexity.negative_log_likelihood
    monkeypatch.setattr(
        perplexity, "negative_log_likelihood", lambda *given: asked.append(given) or likelihood(*given)
    )
    spec = spec_of(f"protocol.evaluation.every={every}")
    row = run(spec)
    assert len(asked) == 2 + (3 if every else 1)  # train, test, and valid after steps 10, 20, 30 or 30
    assert (row["best_step"], row["best_valid_ppl"]) == (30, row["valid_ppl"])
    assert row["best_test_ppl"] == row["test_ppl"]
    assert checkpoint.load_weights(build(spec), tmp_path / "best.pt") == 30
    again = run(spec)  # it had ended, so nothing was validated while it was trained
    assert numbers(again) == numbers(row)


def test_a_corpus_that_changed_since_the_plan_is_not_trained_on(run, spec_of, cache):
    spec = spec_of()
    planned = prepare(spec.corpus, spec.tokenizer, spec.scale.vocabulary, cache).data_hash
    with pytest.raises(SpecError, match=r"text:corpus0 has changed .*; start the sweep again$"):
        run(spec, data_hash="another")
    assert run(spec_of("protocol.steps=1"), data_hash=planned)["steps"] == 1


def test_a_diverged_run_names_its_step_and_has_no_perplexities(run, spec_of):
    row = run(spec_of("protocol.learning_rate=1e20", "protocol.warmup=0.0", "protocol.evaluation.every=1"))
    step = int(row["status"].removeprefix("diverged@"))
    assert 1 < step <= 4
    assert row["steps"] == step - 1
    assert math.isfinite(row["last_loss"])
    assert not {"train_ppl", "valid_ppl", "test_ppl"} & set(row)
    assert row["unigram_valid_ppl"] > 1
    json.dumps(row, allow_nan=False)


def test_weights_that_the_last_step_broke_are_a_divergence_too(run, spec_of):
    row = run(spec_of("protocol.learning_rate=1e38", "protocol.warmup=0.0", "protocol.steps=1"))
    assert row["status"] == "diverged@1"
    assert not {"train_ppl", "valid_ppl", "test_ppl"} & set(row)


#: In the order in which a leaky run of two steps is read.
READ = ("valid", "train", "test", "valid under a causal mask")


@pytest.mark.parametrize("nats", [math.nan, math.inf, 1e9])  # the last: its exponential overflows
@pytest.mark.parametrize("broken", READ)
def test_a_number_that_is_none_reaches_no_row(run, spec_of, monkeypatch, broken, nats):
    asked = []
    likelihood = perplexity.negative_log_likelihood

    def read(*given):
        found = likelihood(*given)
        asked.append(found)
        # The best weights are the last ones: they are read on test again where those diverged.
        is_broken = len(asked) > 2 if broken == "test" else READ[len(asked) - 1] == broken
        return perplexity.Likelihood(nats, found.targets) if is_broken else found

    monkeypatch.setattr(perplexity, "negative_log_likelihood", read)
    row = run(spec_of("protocol.steps=2", "layer.attention.mask=leaky", "layout.attention=2"))
    json.dumps(row, allow_nan=False)
    if broken in ("valid", "test"):
        assert row["status"] == "diverged@2"
        assert not {"train_ppl", "valid_ppl", "test_ppl", "valid_ppl_causal_eval"} & set(row)
    else:
        column = "train_ppl" if broken == "train" else "valid_ppl_causal_eval"
        assert row["status"] == "ok"
        nothing = [name for name, value in row.items() if value is None and name != "peak_memory_bytes"]
        assert column in nothing
        assert all("train" in name or "causal" in name for name in nothing)
    if broken == "test":
        assert row["best_test_ppl"] is None
        assert row["best_valid_ppl"] > 1
    if broken == "valid" and nats == 1e9:
        assert row["best_valid_ppl"] is None
        assert row["best_test_ppl"] > 1


def test_an_interrupted_run_goes_on_with_the_same_numbers(run, spec_of, tmp_path):
    spec = spec_of("model.dropout=0.1", "layout=type_c")
    heard = [0]
    with pytest.raises(InterruptedRun, match="step 11 of 30"):
        run(
            spec,
            tmp_path / "broken",
            stop=lambda: heard[-1] == 11,
            progress=lambda done, total: heard.append(done),
        )
    assert numbers(run(spec, tmp_path / "broken")) == numbers(run(spec, tmp_path / "unbroken"))


def test_kill_9_and_resume_gives_the_same_numbers_to_the_bit(corpus, cache, tmp_path):
    overrides = overrides_of(
        corpus, "model.dropout=0.1", "protocol.checkpoint_every=8", "layout=pattern", "layout.pattern=RAH"
    )
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    victim = start_victim(broken, cache, 20, overrides)
    for line in victim.stdout:
        if line == "step 20\n":
            victim.kill()  # SIGKILL
            break
    assert victim.wait() == -9
    assert checkpoint.load(broken / "last.pt")["step"] == 16
    runs = [start_victim(folder, cache, 0, overrides) for folder in (broken, unbroken)]
    said = [process.communicate()[0].splitlines() for process in runs]
    assert [process.returncode for process in runs] == [0, 0]
    assert said[0][:2] == ["step 16", "step 17"]  # where it goes on from, and on
    resumed, whole = (json.loads(lines[-1]) for lines in said)
    assert numbers(resumed) == numbers(whole)
    assert weights_hash(broken) == weights_hash(unbroken)
    assert curve(broken) == curve(unbroken)
    assert [step for step, _ in curve(broken)] == list(range(1, 31))


def start_victim(folder: Path, cache: Path, hold: int, overrides: list[str]) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.tasks.victim", str(folder), str(cache), str(hold), *overrides]
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True)


def weights_hash(folder: Path) -> dict[str, bytes]:
    weights = checkpoint.load(folder / "last.pt")["weights"]
    return {name: tensor.numpy().tobytes() for name, tensor in weights.items()}


def curve(folder: Path) -> list[tuple[int, float]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], line["loss"]) for line in lines]


def test_published_defects_are_named_loudly(spec_of, cache, tmp_path):
    assert published_defects(spec_of()) == ()
    found = published_defects(spec_of("protocol=published"))
    assert len(found) == 3
    assert "later tokens" in found[0]
    assert len(published_defects(spec_of("protocol=published", "layout=type_c"))) == 3
    assert len(published_defects(spec_of("protocol=published", "layout.attention=0"))) == 1
    spec = spec_of("protocol=published", "protocol.train_chunks=8", "protocol.epochs=1", "protocol.batch=8")
    with pytest.warns(PublishedDefectWarning, match="PUBLISHED DEFECTS ARE ON"):
        spec.task(spec, Workspace(tmp_path, "cpu", cache))


def test_utilisation_is_of_the_macs_that_the_row_has(run, spec_of):
    spec = spec_of("protocol.steps=3")
    row = run(spec)
    macs_a_token = macs_train_forward(spec) / CONTEXT
    assert row["mfu"] == pytest.approx(
        6 * macs_a_token * row["tokens_per_second"] / row["gemm_flops_per_second"]
    )
    assert 0 < row["mfu"] < 1


def test_a_cpu_has_no_tf32(run, spec_of, tmp_path):
    with pytest.raises(
        SpecError, match=r"^protocol\.precision=tf32 is of a GPU's tensor cores, and this run"
    ):
        run(spec_of("protocol.precision=tf32"))
    assert not (tmp_path / "last.pt").exists()
