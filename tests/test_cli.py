"""The command line: what it answers, what it refuses, and how it leaves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from retsweep import __version__
from retsweep.__main__ import main
from retsweep.spec.compose import choices

TOY = ["~task", "+task._target_=tests.sweep.toy.Toy", "tracker=none", "scale=tiny"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RETSWEEP_TOY_LOG", str(tmp_path / "log"))
    monkeypatch.delenv("RETSWEEP_STORAGE", raising=False)
    return tmp_path


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    heavy = (
        "torch",
        "hydra",
        "omegaconf",
        "optuna",
        "pandas",
        "wandb",
        "datasets",
        "sqlalchemy",
        "rich",
        "numpy",
    )
    code = (
        "import sys; from retsweep.__main__ import main; assert main(['--help']) == 0; "
        f"print(*[name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""
    for group in ("layout", "scale", "sweep", "task"):
        for choice in choices(group):
            assert choice in done.stdout


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"retsweep {__version__}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-m", "+sweep=smoke"], "not needed: +sweep=NAME runs the whole sweep"),
        (["--frobnicate"], "unknown option --frobnicate; accepted: --help"),
        (["scael=tiny"], "'scael'"),
        (["+model.foo=3"], "unknown key 'model.foo'; accepted: dropout"),
        (["scale=huge"], "unknown scale 'huge'; known: paper"),
        (["+sweep=nothing"], "unknown sweep 'nothing'; known: ar_ratio"),
        (["layout=type_a", "layout.attention=13"], "layout.attention=13 is out of range; accepted: 0 to 12"),
        (["layout=type_c", "layout.attention=8"], "accepted: 1 to 7"),
        (["layout=pattern", "layout.pattern=RXA"], "unknown layer letter 'X'"),
        (["scale.heads=7"], "scale.heads=7 does not divide scale.d_model=64"),
        (["+sweep=ar_ratio", "scale.heads=7"], "variant layout=type_a layout.attention=12: scale.heads=7"),
        (["workers=0"], "workers=0 is not accepted"),
        (["limit.minutes=-1"], "limit.minutes"),
        (["study=a/b"], "study='a/b' is a folder name"),
        (["seed=x"], "seed='x' is not accepted"),
        ([*TOY, "storage='mysql://a/b'"], "accepted: sqlite:///FILE or postgresql"),
        ([*TOY, "storage=nonsense"], "is no database URL"),
        ([*TOY, "storage=sqlite:////dev/null/study.db"], "/dev/null cannot be written: Not a directory"),
        ([*TOY, "runs=/dev/null"], "/dev/null cannot be written: Not a directory; runs=FOLDER names another"),
        ([*TOY, "device=cuda"], "device=cuda, but torch finds no GPU"),
        (["no/such/config.yaml"], "no/such/config.yaml cannot be read: No such file"),
    ],
)
def test_what_is_not_understood_is_one_line_and_leaves_nothing(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    if "device=cuda" in words and gpu():
        words = [*words[:-1], "workers=0"]
        said = "workers=0"
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("retsweep: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err
    assert list(folder.iterdir()) == []


def gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def test_cfg_prints_the_composed_config(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    import yaml

    assert main(["--cfg", "scale=tiny", "seed=4", *TOY[:2]]) == 0
    tree = yaml.safe_load(capsys.readouterr().out)
    assert (tree["scale"]["name"], tree["seed"]) == ("tiny", 4)
    assert list(folder.iterdir()) == []


def test_a_run_from_the_command_line_and_its_exit_codes(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETSWEEP_STORAGE", f"sqlite:///{folder}/ledger, of many.db")
    words = [*TOY, "layout.attention=1", "+task.fails_at=1", "workers=1"]
    assert main([*words, "seeds=2"]) == 1
    shown = capsys.readouterr().out
    assert "Type A 1:3 seed 0  " in shown
    assert "failed: Type A 1:3 seed 1\n" in shown
    assert (folder / "runs/single-toy-tiny-corrected/table.csv").exists()
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "1 of 1 finished before" in shown
    assert not (folder / "outputs").exists()
    assert not (folder / "runs/single-toy-tiny-corrected/study.db").exists()


def test_a_corpus_shorter_than_one_chunk_is_told_before_anything_starts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RETSWEEP_CACHE", str(folder / "cache"))
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text("hi\n")
    words = ["scale=tiny", "corpus=text", f"corpus.path={folder}", "tokenizer=bytes", "tracker=none"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "its train split has 3 tokens, scale.context=31 needs 32" in said
    assert said.count("\n") == 1
    assert not (folder / "runs").exists()
