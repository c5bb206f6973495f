"""torchrun -m retsweep: two processes on this CPU, one of which dies; and what it is not for."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from retsweep.__main__ import main
from retsweep.launch.torchrun import EXIT_LOST, Here, Torchrun
from retsweep.spec import SpecError, load_spec
from retsweep.sweep.storage import storage_url
from retsweep.sweep.study import Study
from retsweep.sweep.variants import wanted
from retsweep.tasks.base import Workspace
from tests.sweep.test_engine import until
from tests.tasks.corpora import write_corpus
from tests.train.together import free_port, nursery

TINY = ("scale=tiny", "tracker=none", "device=cpu", "study=s")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("+sweep=smoke",), "torchrun shares one run among 2 processes, and this command lists"),
        (("seeds=3",), "this command lists 3; accepted: no sweep, no seeds"),
        (("tune.learning_rate=[0.1,0.01]",), "tune.learning_rate asks for several"),
        (("task=count",), "torchrun shares a training, and task=count is none"),
        (
            ("protocol.batch=5",),
            "cannot be shared by 2 processes; accepted: a multiple of 2",
        ),
        (
            ("workers=2",),
            "accepted beside it: launcher=local, workers=null",
        ),
        (("launcher=slurm",), "torchrun starts processes itself"),
    ],
)
def test_what_is_not_one_training_is_refused(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(SpecError) as caught:
        Torchrun(Here(0, 2, 0, 2)).take(wanted([*TINY, *words]))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def torchrun(here: Path, world: int = 2) -> list[Any]:
    """What torchrun starts on one machine, less torchrun: ``world`` times the same command, the first of
    which is the chief, each told of its place as torchrun tells it."""
    context, port = nursery(), free_port()
    started = []
    for rank in range(world):
        process = context.Process(target=one_of, args=(rank, world, port, words(here), str(here)))
        process.start()
        started.append(process)
    return started


def one_of(rank: int, world: int, port: int, words: list[str], folder: str) -> None:
    place = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    os.environ.update({name: str(value) for name, value in {**place, **meeting}.items()})
    os.environ.pop("RETSWEEP_STORAGE", None)
    os.chdir(folder)
    sys.exit(main(words))


def words(here: Path) -> list[str]:
    text = (f"corpus.path={here / 'text'}", "tokenizer=bytes", f"cache={here / 'cache'}")
    long = ("budget.steps=60", "protocol.checkpoint_every=5", "protocol.evaluation.every=30")
    return [*TINY, "corpus=text", *text, *long]


def lines(folder: Path) -> list[dict[str, Any]]:
    found = list(folder.glob("trials/*/metrics.jsonl"))
    return [json.loads(line) for line in found[0].read_text().splitlines()] if found else []


def codes(processes: list[Any]) -> list[int | None]:
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


@pytest.mark.slow
def test_a_run_in_two_processes_survives_the_death_of_one(tmp_path: Path) -> None:
    write_corpus(tmp_path / "text")
    study = tmp_path / "runs" / "s"

    chief, other = torchrun(tmp_path)
    until(lambda: len(lines(study)) > 7 or not chief.is_alive())
    other.kill()
    assert codes([chief, other]) == [EXIT_LOST, -signal.SIGKILL]
    (entry,) = Study(storage_url(None, study), "s").entries()
    assert (entry.state, entry.attempt) == ("waiting", 0), "it was released"
    assert 7 < len(lines(study)) < 60

    assert codes(torchrun(tmp_path)) == [0, 0]
    (file,) = study.glob("trials/*/row.json")
    row = json.loads(file.read_text())
    assert (row["world_size"], row["status"], row["steps"]) == (2, "ok", 60)
    assert [line["step"] for line in lines(study)] == list(range(1, 61))

    spec = load_spec(words(tmp_path))
    alone = tmp_path / "alone" / "trials" / "it"
    alone.mkdir(parents=True)
    expected = spec.task(spec, Workspace(alone, "cpu", tmp_path / "cache"))
    assert "world_size" not in expected
    ours, theirs = ([line["loss"] for line in lines(folder)] for folder in (study, tmp_path / "alone"))
    assert ours[:20] == pytest.approx(theirs[:20], rel=1e-5)
    # From there on AdamW makes much of little: two micro-batches in one process end as far from one.
    assert ours == pytest.approx(theirs, rel=2e-2)
    for column in ("train_ppl", "valid_ppl", "test_ppl", "best_valid_ppl", "tokens"):
        assert row[column] == pytest.approx(expected[column], rel=2e-2)
