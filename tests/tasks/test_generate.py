"""task=generate: a model is trained from the command line, and speaks from it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from retsweep.__main__ import main
from retsweep.data.prepare import prepare
from retsweep.spec import load_spec
from retsweep.sweep import command
from retsweep.tasks.evaluation import with_weights
from retsweep.train import checkpoint
from tests.sweep.test_tune_command import Inline
from tests.tasks.corpora import write_corpus

PROMPT = "the state"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def keys(home: Path) -> list[str]:
    """The keys of the run, with which it was trained: 12 steps, validated after the eighth too."""
    corpus = write_corpus(home / "corpus", train_sentences=200)
    keys = [
        "scale=tiny", "layout=type_c", "corpus=text", f"corpus.path={corpus}", "tokenizer=bytes",
        "protocol.steps=12", "protocol.evaluation.every=8", f"cache={home / 'cache'}",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr(command, "Engine", Inline)
        assert main([*keys, "study=first", "tracker=none", "device=cpu"]) == 0
    return [*keys, "device=cpu"]


@pytest.fixture
def speak(home: Path, keys: list[str], tmp_path: Path, monkeypatch, capfd):
    """Calls the command in a copy of what was trained: (exit code, printed, said beside it)."""
    shutil.copytree(home / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)

    def call(*words: str, first: list[str] = keys) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main([*first, "task=generate", *words])
        return code, *capfd.readouterr()

    return call


def trial() -> Path:
    (folder,) = Path("runs").glob("first/trials/*")
    return folder


def greedy(keys: list[str], home: Path, weights: str, tokens: int) -> str:
    """What the saved weights say, by a full forward pass for each token."""
    spec = load_spec(keys)
    model = with_weights(spec, checkpoint.load(trial() / weights)["weights"]).eval()
    corpus = prepare(spec.corpus, spec.tokenizer, spec.scale.vocabulary, home / "cache")
    encoder = corpus.encoder()
    read = torch.from_numpy(encoder.encode(PROMPT))[None]
    with torch.no_grad():
        for _ in range(tokens):
            best = model(read)[:, -1, : encoder.size].argmax(-1)
            read = torch.cat([read, best[:, None]], 1)
    return encoder.decode(read[0].tolist())


def said_in_one_line(done: tuple[int, str, str], what: str) -> None:
    code, printed, said = done
    assert (code, printed) == (2, "")
    assert said.startswith("retsweep: ")
    assert said.count("\n") == 1
    assert what in said


@pytest.mark.parametrize("weights", ["best", "last"])
def test_it_prints_the_prompt_and_what_the_trained_weights_go_on_with(speak, keys, home, weights):
    words = (f"prompt={PROMPT}", "task.temperature=0", "task.tokens=40", f"task.checkpoint={weights}")
    before = sorted(Path("runs").rglob("*"))
    code, printed, said = speak(*words)
    assert code == 0
    assert printed == greedy(keys, home, f"{weights}.pt", 40) + "\n"
    assert said == f"retsweep: Type C 2:2, {trial()}/{weights}.pt\n"
    assert sorted(Path("runs").rglob("*")) == before, "it writes nothing"


def test_a_trials_config_says_which_run_speaks(speak, keys):
    words = ("prompt=the", "task.tokens=9", "task.seed=5")
    config = str(trial() / "config.yaml")
    cache = [word for word in keys if word.startswith("cache=")]
    code, printed, _ = speak(*words, first=[config, *cache, "device=cpu"])
    assert (code, printed) == (0, speak(*words)[1])
    assert printed.startswith("the")
    Path("runs").rename("elsewhere")
    config = config.replace("runs", "elsewhere", 1)
    assert speak(*words, first=[config, *cache, "device=cpu"])[1] == printed


def test_draws_are_the_seeds_and_follow_the_options(speak):
    drawn = [speak("prompt=the", "task.tokens=30", f"task.seed={seed}")[1] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    likeliest = [
        speak("prompt=the", "task.tokens=30", *options)[1]
        for options in (["task.temperature=0"], ["task.top_k=1"], ["task.top_p=0.0001"])
    ]
    assert likeliest[0] == likeliest[1] == likeliest[2]


def test_a_prompt_file_holds_what_hydra_does_not_read(speak):
    text = 'Who, "what": ${why}? = the\n'
    Path("prompt.txt").write_text(text, encoding="utf-8")
    code, printed, _ = speak("prompt_file=prompt.txt", "task.tokens=3")
    assert code == 0
    assert printed.startswith(text)


def test_a_text_is_begun_by_an_empty_prompt(speak):
    code, printed, _ = speak("prompt=", "task.tokens=20")
    assert code == 0
    assert printed.strip()


def test_a_text_that_ends_is_over(speak):
    """Once weights say so: the head's bias of the end is raised above all others."""
    path = trial() / "last.pt"
    content = checkpoint.load(path)
    content["weights"]["head.bias"][256] += 100
    del content["format"]
    checkpoint.save(path, content)
    assert speak(f"prompt={PROMPT}", "task.checkpoint=last")[:2] == (0, PROMPT + "\n")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ([], 'task=generate needs what to go on from; accepted: prompt="...", prompt_file=FILE'),
        (["prompt=a", "prompt_file=b"], "two prompts; accepted: one of them"),
        (["prompt_file=no.txt"], "prompt_file=no.txt cannot be read: No such file or directory"),
        (["prompt=a,b"], "or a file: prompt_file=FILE"),
        (["prompt=a", "seeds=2"], "task=generate speaks for one run, and this command lists 2"),
        (["prompt=a", "+sweep=smoke"], "task=generate speaks for one run"),
        (["prompt=a", "tune.learning_rate=[1,2]"], "task=generate chooses no learning rate"),
        (["prompt=a", "task.tokens=0"], "task.tokens=0 is not accepted"),
        (["prompt=a", "task.top_p=2.0"], "task.top_p=2.0 is not accepted"),
        (["prompt=a", "task.checkpoint=first"], "accepted: 'best' or 'last'"),
        (["prompt=a", "task=train"], "prompt is of task=generate, not of task=train"),
    ],
)
def test_what_cannot_be_is_one_line(speak, words, what):
    said_in_one_line(speak(*words), what)


def test_bytes_that_are_no_text_are_no_prompt(speak):
    Path("prompt.txt").write_bytes(b"\xff\xfe")
    said_in_one_line(speak("prompt_file=prompt.txt"), "cannot be read: it is no UTF-8 text")


def test_a_run_that_was_not_trained_is_told_with_its_command(speak, keys):
    done = speak("prompt=a", "layout.attention=1", "task.tokens=7", first=keys[:-1])
    said_in_one_line(done, "no run of Type C 1:3 with these keys in runs/*/trials/")
    command_line = " ".join([*keys[:-1], "layout.attention=1"])
    assert done[2].endswith(f"; to train it: python -m retsweep {command_line}\n")


def test_study_narrows_the_search(speak):
    said_in_one_line(speak("prompt=a", "study=second"), "in runs/second/trials/")
    assert speak("prompt=a", "study=first", "task.tokens=1")[0] == 0


def test_checkpoints_that_are_gone_are_told(speak):
    (trial() / "best.pt").unlink()
    said_in_one_line(speak("prompt=a"), "has no best.pt; accepted: task.checkpoint=last")
    (trial() / "last.pt").unlink()
    said_in_one_line(speak("prompt=a"), "its checkpoints were removed (keep=rows)")
    (trial() / "row.json").unlink()
    said_in_one_line(speak("prompt=a"), "has no checkpoint yet; to go on with its training: python -m")


def test_another_study_with_the_checkpoint_speaks_for_one_without(speak):
    shutil.copytree("runs/first", "runs/second")
    (trial() / "best.pt").unlink()
    code, _, said = speak("prompt=a", "task.tokens=1")
    assert code == 0
    assert "runs/second/trials/" in said


def test_a_broken_checkpoint_is_told(speak):
    (trial() / "best.pt").write_bytes(b"no archive")
    said_in_one_line(speak("prompt=a"), "best.pt: ")


def test_a_run_that_diverged_before_its_first_checkpoint_is_told(speak):
    checkpoint.save(trial() / "last.pt", {"weights": None, "step": 1})
    said_in_one_line(
        speak("prompt=a", "task.checkpoint=last"), "the run diverged before its first checkpoint"
    )
