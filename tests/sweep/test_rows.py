"""What a row says: the columns that others build on, in rows of real runs, and where the code is from."""

from __future__ import annotations

import io
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from retsweep.spec import load_spec
from retsweep.sweep.command import sweep
from retsweep.sweep.rows import commit_of, describe
from retsweep.sweep.variants import wanted
from tests.tasks.corpora import write_corpus

Row = dict[str, Any]

WHAT = """architecture layout ar_ratio pattern mixer hybrid_form position attention_heads retention_heads
    layers d_model ffn context params seed learning_rate precision leaky status protocol scale"""
TRAINING = "batch accumulate planned_steps epochs dropout weight_decay schedule warmup clip"
COSTS = """macs_published macs_train_forward macs_fvcore
    macs_decode_128 macs_decode_512 macs_decode_2048 macs_decode_8192
    macs_train_chunkwise_2048 macs_train_chunkwise_8192
    state_bytes_128 state_bytes_512 state_bytes_2048 state_bytes_8192"""
PROVENANCE = "git_commit spec_hash variant_hash torch_version device"
QUALITY = """train_ppl valid_ppl test_ppl train_bits_per_byte valid_bits_per_byte test_bits_per_byte
    unigram_valid_ppl bigram_valid_ppl"""
RUN = "steps tokens seconds tokens_per_second peak_memory_bytes corpus tokenizer data_hash"
EVERY_ROW = f"{WHAT} {TRAINING} {COSTS} {PROVENANCE}".split()
TRAINED_ROW = f"{QUALITY} {RUN}".split()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    """The rows of a sweep that trains a small model and counts it, by task."""
    folder = tmp_path_factory.mktemp("rows")
    corpus = write_corpus(folder / "corpus", train_sentences=200)
    command = [
        "+sweep={name:own,variants:[{task:[train,count]}]}", "scale=tiny", "layout=type_c",
        "layout.attention=1", "corpus=text", f"corpus.path={corpus}", "tokenizer=bytes",
        "protocol.steps=2", "tracker=none", "device=cpu", "workers=1", "study=rows",
        f"runs={folder / 'runs'}", f"cache={folder / 'cache'}",
    ]  # fmt: skip
    outcome = sweep(wanted(command), Console(file=io.StringIO()), time.monotonic())
    assert len(outcome.finished) == 2, outcome
    found = [json.loads(path.read_text()) for path in folder.glob("runs/rows/trials/*/row.json")]
    return {row["task"]: row for row in found}


@pytest.mark.parametrize("task", ["train", "count"])
def test_a_row_has_every_column_of_the_contract_where_it_applies(rows: dict[str, Row], task: str) -> None:
    row = rows[task]
    expected = [*EVERY_ROW, *(TRAINED_ROW if task == "train" else [])]
    assert [column for column in expected if column not in row] == []
    # Null means: not on this machine (memory of a CPU), not from a checkout, or given by the other.
    empty = {column for column in expected if row[column] is None}
    assert empty <= {"epochs", "peak_memory_bytes", "git_commit"}
    assert all(type(row[column]) is int for column in [*COSTS.split(), "params"])
    if task == "count":
        assert set(row) & set(TRAINED_ROW) == set()


def test_a_row_says_what_was_run(rows: dict[str, Row]) -> None:
    row = rows["train"]
    assert {column: row[column] for column in ("architecture", "layout", "ar_ratio", "pattern")} == {
        "architecture": "Type C 1:3",
        "layout": "type_c",
        "ar_ratio": "1:3",
        "pattern": "HHHH",
    }
    assert (row["attention_heads"], row["retention_heads"]) == (4, 12)
    assert (row["mixer"], row["status"]) == ("msr", "ok")
    assert (row["corpus"], row["tokenizer"]) == ("text:corpus", "bytes")
    assert row["steps"] == row["planned_steps"] == 2
    assert row["tokens"] == 2 * row["batch"] * row["accumulate"] * row["context"]


def test_epochs_stand_where_no_steps_are_planned() -> None:
    row = describe(load_spec(["protocol=published", "task=count"]), "", "cpu")
    assert (row["planned_steps"], row["epochs"], row["batch"], row["clip"]) == (None, 10, 16, None)
    assert (row["schedule"], row["warmup"], row["dropout"]) == ("constant", 0.0, 0.2)


@pytest.mark.parametrize(("protocol", "said"), [("published", "first_batches"), ("corrected", "slice")])
def test_a_row_says_what_its_train_perplexity_is_of(protocol: str, said: str) -> None:
    assert describe(load_spec([f"protocol={protocol}"]), "", "cpu")["train_ppl_of"] == said


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("retsweep/__init__.py", "retsweep/layers/msr.py", "conf/config.yaml", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("first\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "all")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("edited", "dirty"),
    [
        ("README.md", False),
        ("tests/test_new.py", False),
        ("retsweep/layers/msr.py", True),
        ("retsweep/layers/gla.py", True),  # untracked
        ("conf/config.yaml", True),
        ("conf/layer/gla.yaml", True),  # untracked
    ],
)
def test_a_commit_is_dirty_by_what_can_change_a_number(checkout: Path, edited: str, dirty: bool) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert commit_of(checkout / "retsweep") == commit
    (checkout / edited).parent.mkdir(parents=True, exist_ok=True)
    (checkout / edited).write_text("second\n")
    assert commit_of(checkout / "retsweep") == (f"{commit}-dirty" if dirty else commit)


def test_a_package_inside_somebody_elses_repository_has_no_commit(checkout: Path) -> None:
    installed = checkout / "venv" / "retsweep"
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    assert commit_of(installed) is None
