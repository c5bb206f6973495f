"""A config from a stranger runs no code, reads no secret, and writes nowhere but into the study."""

from __future__ import annotations

import ast
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import retsweep
from retsweep.__main__ import main
from retsweep.spec import SpecError, interpolations, load_spec, trust
from retsweep.spec.compose import compose
from retsweep.spec.configs import as_yaml, from_file, run_sections
from retsweep.spec.load import load, load_resolved, resolve
from retsweep.sweep.files import check_inside

MINE = ["~task", "+task._target_=mine.tasks.Evil", "scale=tiny", "tracker=none"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(trust.VARIABLE)
    for name in ("RETSWEEP_STORAGE", "RETSWEEP_CACHE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def tree() -> dict[str, Any]:
    """A config, resolved; nobody changes it."""
    return resolve(compose(["scale=tiny", "tracker=none"]))


@pytest.fixture
def mine(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package beside the study whose import leaves a mark."""
    package = here / "packages" / "mine"
    package.mkdir(parents=True)
    mark = here / "it was imported"
    (package / "__init__.py").write_text(f"open({str(mark)!r}, 'w')\n")
    (package / "tasks.py").write_text("from tests.sweep.toy import Toy as Evil\n")
    monkeypatch.syspath_prepend(str(package.parent))
    for name in [name for name in sys.modules if trust.is_inside(name, "mine")]:
        monkeypatch.delitem(sys.modules, name)
    return mark


def test_a_class_of_elsewhere_is_not_even_imported(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cfg", *MINE]) == 2
    said = capsys.readouterr().err
    assert "mine.tasks.Evil is not of a package that may be run; accepted: retsweep; if you" in said
    assert not mine.exists()


@pytest.mark.parametrize("how", ["command line", "environment"])
def test_the_user_may_allow_a_package_by_name(
    how: str, mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if how == "environment":
        monkeypatch.setenv(trust.VARIABLE, "other, mine")
    assert main(["--cfg", *MINE, *(["allow=[mine,other]"] if how == "command line" else [])]) == 0
    assert "mine.tasks.Evil" in capsys.readouterr().out
    assert mine.exists()
    assert os.environ.get(trust.VARIABLE) == ("other, mine" if how == "environment" else None)


def test_a_config_cannot_allow_itself_anything(here: Path, mine: Path) -> None:
    for overrides in (["allow=[mine]"], ["+allow=[mine]"]):
        with pytest.raises(SpecError, match="allow"):
            load_spec([*MINE, *overrides])
    tree = {**run_sections(resolve(compose(["scale=tiny"]))), "allow": ["mine"]}
    tree["task"] = {"_target_": "mine.tasks.Evil"}
    (here / "config.yaml").write_text(as_yaml(tree))
    with pytest.raises(SpecError, match=r"mine\.tasks\.Evil is not of a package"):
        load(from_file(here / "config.yaml"))
    assert not mine.exists()


@pytest.mark.parametrize(
    ("key", "target", "said"),
    [
        ("task", "os.system", "is not of a package that may be run"),
        ("task", "retsweepish.x.Y", "is not of a package that may be run"),
        ("task", "retsweep.__main__.main", "is no class"),
        ("task", "retsweep", "is no class"),
        ("task", "retsweep..x.Y", "is no class"),
        ("task", ["retsweep.x.Y"], "is no class"),
        ("task", "retsweep.spec.load.importlib", "is no spec"),
        ("task", "retsweep.sweep.plan.Job", "is no spec"),
        ("task", "retsweep.no.such.Thing", "cannot be found"),
        ("task", "retsweep.data.pydocs.PyDocs", "is no task (it has no name, reads_data, trains, computes)"),
        ("corpus", "retsweep.data.corpus.Corpus", "is what corpora have in common"),
        ("corpus", "retsweep.data.tokenizers.Bytes", "is no corpus"),
        ("tokenizer", "retsweep.data.tokenizers.TokenizerSpec", "is no tokenizer"),
        ("tracker", "retsweep.tasks.train.Train", "is no tracker"),
    ],
)
def test_only_classes_that_serve_there(key: str, target: object, said: str, tree: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as error:
        load_resolved({**tree, key: {"_target_": target}})
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_no_module_of_retsweep_does_anything_when_it_is_imported() -> None:
    """A ``_target_`` may name, and so import, any of them: they hold definitions, and guarded programs."""
    modules = sorted(Path(retsweep.__file__).parent.rglob("*.py"))
    assert len(modules) > 50
    for path in modules:
        for node in ast.parse(path.read_text()).body:
            said = ast.unparse(node)
            harmless = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            guarded = said.startswith(("if TYPE_CHECKING:", "if __name__ == '__main__':"))
            assert isinstance(node, harmless) or docstring or guarded, f"{path}: {said}"


# ---- what is interpolated -------------------------------------------------------------------------
@pytest.mark.parametrize(
    "value",
    [
        *("${oc.env:CANARY}", "x-${oc.env:CANARY,y}", "${oc.env:RETSWEEP_STORAGE,null}", "${oc.decode:1}"),
        *("${oc.create:1}", "${${protocol.name}:1}", "${oc.env:${protocol.name}}", "${hydra:runtime.cwd}"),
    ],
)
def test_no_resolver_is_accepted(value: str) -> None:
    with pytest.raises(SpecError, match="is not accepted; accepted"):
        interpolations.check({"scale": {"name": ["x", value]}})
    interpolations.check({"storage": "${oc.env:RETSWEEP_STORAGE,null}", "x": "${scale.${name}} $"})


def test_the_environment_stays_outside(
    tree: dict[str, Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY", "a secret of the environment")
    theirs = {**run_sections(tree), "scale": {**tree["scale"], "name": "${oc.env:CANARY}"}}
    (here / "config.yaml").write_text(yaml.safe_dump(theirs))
    for read in (
        lambda: load(from_file(here / "config.yaml")),
        lambda: load_spec(["scale.name='${oc.env:CANARY}'"]),
    ):
        with pytest.raises(SpecError) as error:
            read()
        assert "is not accepted" in str(error.value)
        assert "secret" not in str(error.value)


def test_a_sweep_resolves_nothing_in_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from retsweep.sweep.variants import wanted_from

    monkeypatch.setenv("CANARY", "secret")
    config = compose(["scale=tiny", "+sweep.variants=[{protocol.name: '\\\\${oc.env:CANARY}'}]"])
    with pytest.raises(SpecError) as error:
        wanted_from(config, [])
    assert "secret" not in str(error.value)


def test_yaml_that_multiplies_itself_is_refused(here: Path) -> None:
    bomb = "a: &a [1,1]\n" + "".join(
        f"{c}: &{c} [*{p},*{p}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
    )
    for text, said in (
        (bomb, "aliases"),
        ("x: " + "[" * 500 + "]" * 500, "nested deeper"),
        ("x" * (1 << 21), "bytes"),
        ("!!python/object/apply:os.system [touch broken]", "is no config"),
        ("\x00", "cannot be read"),
    ):
        (here / "config.yaml").write_text(text)
        with pytest.raises(SpecError) as error:
            load(from_file(here / "config.yaml"))
        assert "\n" not in str(error.value)
        assert said in str(error.value) or "no YAML" in str(error.value)
    assert not (here / "broken").exists()


# ---- names and places --------------------------------------------------------------------------------
NAMES = [
    *(
        "..",
        ".",
        "a/b",
        "/tmp/x",
        "a\\b",
        "~",
        ".hidden",
        "-x",
        "con",
        "NUL.txt",
        "a b",
        "a;b",
        "$(x)",
        "x" * 201,
    ),
    *("a*", "é" * 101, "x.", "a|b", "%", "", "a\nb", "a\0b", "\ud800", "a\n"),
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_what_names_no_folder(name: str) -> None:
    with pytest.raises(SpecError, match=r"(?s)study=.* is a folder name: no slashes or spaces"):
        trust.check_name(name, "study")
    for usual in ("ar_ratio-train-small-corrected", "Größe-2", "a.b", "x" * 200, "lr=1e-3,k"):
        assert trust.check_name(usual, "study") == usual


@pytest.mark.parametrize("key", ["study", "scale.name", "protocol.name", "sweep.name"])
def test_no_name_leaves_the_runs_folder(key: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        [f"{key}=../../x"] if key != "sweep.name" else ["+sweep.variants=[{seed: 1}]", "+sweep.name=../../x"]
    )
    assert main(["task=count", "scale=tiny", "tracker=none", *words]) == 2
    said = capsys.readouterr().err
    assert "is a folder name: no slashes or spaces" in said
    assert said.count("\n") == 1
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("value", ["a\x00b", "a\nb", "a\x1b[31mb", "\ud800"], ids=ascii)
@pytest.mark.parametrize("key", ["runs", "cache", "study", "storage", "prompt_file"])
def test_text_that_no_file_system_holds(key: str, value: str, tree: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="without control characters"):
        load_resolved({**tree, key: value})
    assert load_resolved({**tree, "prompt": "two\nlines"})[1].prompt == "two\nlines"


def test_a_link_out_of_the_runs_folder_is_not_followed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside, runs = here / "outside", here / "runs"
    outside.mkdir()
    for link in ("s", "s/trials", "s/study.db", "s/worker-0.log", "s/trials/0123", "s/preflight"):
        (runs / link).parent.mkdir(parents=True)
        (runs / link).symlink_to(outside)
        with pytest.raises(SpecError, match=f"{link} leads out of .*, to {outside}"):
            check_inside(runs, runs / "s")
        if link == "s/trials":
            assert main(["task=count", "scale=tiny", "tracker=none", "study=s"]) == 2
            assert "leads out of runs" in capsys.readouterr().err
        shutil.rmtree(runs)
    assert list(outside.iterdir()) == []
    runs.symlink_to(outside)  # as its user wants it
    (outside / "s").mkdir()
    (outside / "t").symlink_to(outside / "s")
    check_inside(runs, runs / "t")


@pytest.mark.parametrize("line", ["runs: elsewhere", "storage: 'sqlite:///x.db'"])
def test_a_sweep_from_elsewhere_says_not_where_things_go(
    line: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = here / "theirs" / "sweep"
    folder.mkdir(parents=True)
    gift = f"# @package _global_\n{line}\nsweep: {{variants: [{{seed: 1}}]}}\n"
    (folder / "gift.yaml").write_text(gift)
    words = ["+sweep=gift", "task=count", "scale=tiny", "tracker=none"]
    assert main([f"hydra.searchpath=['file://{folder.parent}']", *words]) == 2
    assert "stands in a file of a config group, where it is not accepted" in capsys.readouterr().err
    assert [path.name for path in here.iterdir()] == ["theirs"]
