"""sweeps/*.yaml: every command line that `wandb agent` makes of the grid is one of the 31, and the ends of
what a search may propose are runs."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from retsweep.spec import load_spec
from retsweep.spec.compose import compose, load_run
from retsweep.spec.identity import spec_hash
from retsweep.spec.load import load
from retsweep.sweep.variants import wanted

SWEEPS = Path(__file__).resolve().parents[2] / "sweeps"
GRID = SWEEPS / "ar_ratio.yaml"
TOY = ["~task", "+task._target_=tests.sweep.toy.Toy"]


def lines(grid: dict[str, Any]) -> list[list[str]]:
    """The argv of every run of a grid, by wandb's own code."""
    names = list(grid["parameters"])
    return argv(grid, names, product(*(grid["parameters"][name]["values"] for name in names)))


def argv(grid: dict[str, Any], names: list[str], proposals: Iterable[tuple[Any, ...]]) -> list[list[str]]:
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils", reason="wandb moved its agent's code")
    found = []
    for values in proposals:
        parameters = {name: {"value": value} for name, value in zip(names, values, strict=True)}
        arguments = utils.create_sweep_command_args({"args": parameters})
        command = utils.create_sweep_command(grid["command"])
        words: list[str] = []
        for word in command:
            words += arguments["args_no_hyphens"] if word == "${args_no_hyphens}" else [word]
        found.append(words)
    return found


def test_the_grid_is_the_sweep() -> None:
    grid = yaml.safe_load(GRID.read_text())
    commands = lines(grid)
    assert len(commands) == 31
    for words in commands:
        start = words.index("retsweep")
        assert words[start - 2 : start] == ["python", "-m"]
    overrides = [words[words.index("retsweep") + 1 :] for words in commands]
    sweep = {
        spec_hash(run.spec, ""): run.spec
        for run in wanted(["+sweep=ar_ratio", *TOY]).runs
        if not run.reference
    }
    config = compose([*overrides[0][:-1], *TOY])
    specs = []
    for *_, layout in overrides:  # what Hydra does with the word, without composing 31 times
        OmegaConf.update(config, "layout", parsed(layout), merge=True)
        specs.append(load(config)[0])
    assert {spec_hash(spec, "") for spec in specs} == set(sweep)
    for index in (0, 12, 13, 30):
        assert load_spec([*overrides[index], *TOY]) == specs[index]
    assert f"study={wanted(['+sweep=ar_ratio']).study}" in grid["command"]


@pytest.mark.parametrize("name", ["bayes", "random"])
def test_the_ends_of_what_a_search_proposes_are_runs(name: str) -> None:
    sweep = yaml.safe_load((SWEEPS / f"{name}.yaml").read_text())
    assert (sweep["method"], sweep["metric"]) == (name, {"name": "valid_ppl", "goal": "minimize"})
    assert sweep["name"] == name
    assert f"study={name}-train-small-corrected" in sweep["command"]
    parameters = sweep["parameters"]
    ends = [
        space["values"] if "values" in space else [space["min"], space["max"]]
        for space in parameters.values()
    ]
    longest = max(map(len, ends))
    proposals = [tuple(values[min(place, len(values) - 1)] for values in ends) for place in range(longest)]
    hashes = set()
    for words in argv(sweep, list(parameters), proposals):
        run, settings = load_run([*words[words.index("retsweep") + 1 :], *TOY])
        assert settings.study == f"{name}-train-small-corrected"
        hashes.add(spec_hash(run, ""))
    assert len(hashes) == len(proposals)


def parsed(word: str) -> Any:
    override = OverridesParser.create().parse_override(word)
    assert override.key_or_group == "layout"
    return override.value()
