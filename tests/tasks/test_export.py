"""task=export: safetensors of a trained trial give the same logits, and say when they are broken."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from retsweep.__main__ import main
from retsweep.spec import SpecError, load_spec
from retsweep.sweep import command, trial
from retsweep.tasks.evaluation import with_weights
from retsweep.tasks.export import read_exported
from retsweep.train import checkpoint
from tests.sweep.test_tune_command import Inline
from tests.tasks.corpora import write_corpus


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def keys(home: Path) -> list[str]:
    """The keys of a run with every kind of layer, with which it was trained."""
    corpus = write_corpus(home / "corpus", train_sentences=120)
    keys = [
        *("scale=tiny", "layout=pattern", "layout.pattern=RAHN", "corpus=text", f"corpus.path={corpus}"),
        *("tokenizer=bytes", "protocol.steps=6", "protocol.evaluation.every=4", f"cache={home / 'cache'}"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr(command, "Engine", Inline)
        patch.setattr(command, "_table", lambda *_: None)
        patch.setattr(trial, "_checked", lambda *_: {})  # the models are not what is tested
        assert main([*keys, "study=first", "tracker=none", "device=cpu"]) == 0
    return [*keys, "device=cpu"]


@pytest.fixture
def here(home: Path, keys: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(home / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("weights", ["best", "last"])
def test_what_is_exported_gives_the_same_logits(
    weights: str, here: Path, keys: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*keys, "task=export", f"task.checkpoint={weights}"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert folder.parent.parent == Path("runs/first/trials")
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "model.safetensors"]
    content = checkpoint.load(folder.parent / f"{weights}.pt")
    model = with_weights(load_spec(keys), content["weights"]).eval()
    tokens = torch.arange(62).reshape(2, 31)
    moved = folder.rename("elsewhere")
    with torch.no_grad():
        assert torch.equal(read_exported(moved).eval()(tokens), model(tokens))
    assert not list(Path("runs").glob("first/trials/*/*.old.pt")), "a run with its row keeps no old pair"


def test_what_is_broken_is_one_line(here: Path, keys: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*keys, "task=export"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    path = folder / "model.safetensors"
    data = path.read_bytes()
    for place in (0, 9, 40, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        refused(folder, "model.safetensors")
    for broken in (b"", data[:-1], data[: len(data) // 3], b"not safetensors"):
        path.write_bytes(broken)
        refused(folder, "model.safetensors")
    path.write_bytes(data)
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("d_model: 32", "d_model: 64"))
    refused(folder, "made for another model")
    (folder / "config.yaml").unlink()
    refused(folder, "cannot be read")
    best = folder.parent / "best.pt"
    best.write_bytes(best.read_bytes()[:999])
    assert main([*keys, "task=export"]) == 2
    said = capsys.readouterr().err
    assert f"{best}: " in said
    assert said.count("\n") == 1


def refused(folder: Path, said: str) -> None:
    with pytest.raises(SpecError) as error:
        read_exported(folder)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_it_is_of_one_run(keys: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["seeds=2"], ["+sweep.variants=[{seed: 0}]"]):
        assert main([*keys, "task=export", *words]) == 2
        assert "task=export writes one trained run" in capsys.readouterr().err
    assert main([*keys, "task=export", "seed=7"]) == 2
    assert "to train it: python -m retsweep" in capsys.readouterr().err
