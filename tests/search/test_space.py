"""From a proposal's parameters to a run, and what of a search is refused before anything is written."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retsweep.costs import cost_columns
from retsweep.search.command import Asked, config
from retsweep.search.objectives import budgets, check_objectives, cost
from retsweep.search.settings import Search
from retsweep.spec import SpecError, load_spec
from retsweep.spec.identity import spec_hash
from retsweep.spec.load import construct, resolve
from retsweep.sweep import command

BASE = ("+sweep=pareto", "scale=tiny", "search.space.letters=[A,R,H,N]", "protocol.steps=9")


def asked(*overrides: str) -> Asked:
    arguments = [*BASE, *overrides]
    composed = command.read(arguments)
    return Asked.of(resolve(composed), command.asked(composed, arguments), arguments)


@functools.cache
def whole() -> Asked:
    """The space of conf/sweep/pareto.yaml, and something more."""
    return asked("+search.space.more={layer.msr.value_expansion:[1,2],model.final_norm:[true,false]}")


@given(st.data())
@settings(max_examples=30)
def test_whatever_is_proposed_can_be_built_as_it_says(data: st.DataObject) -> None:
    space, builder = whole().space, whole().builder
    params = {name: data.draw(st.sampled_from(found)) for name, found in space.choices.items()}
    spec, _ = builder.spec(space.values(params))
    assert spec.pattern == "".join(params[f"letter_{at:02}"] for at in range(4))
    assert (spec.scale.heads, spec.scale.ffn) == (params["heads"], params["ffn"])
    for layer in spec.layers:
        found: Any = layer
        if layer.letter == "H":
            attention, rest = layer.heads_by_kind(params["heads"])
            assert attention == params["split"] * params["heads"]
            assert rest >= 1
            assert found.form == params["form"]
            found = found.mixer
        if found.letter == "R":
            assert (found.decay, found.value_expansion) == (
                params["decay"],
                params["layer.msr.value_expansion"],
            )
    assert spec.protocol.evaluation.every == 3, "the rung"
    assert cost(spec, "macs_decode_300") > 0


@pytest.mark.parametrize("pattern", ["NANN", "HRAH"])
def test_the_overrides_of_a_proposal_compose_to_its_run(pattern: str) -> None:
    space = whole().space
    params = {name: found[-1] for name, found in space.choices.items()}
    params |= {f"letter_{at:02}": letter for at, letter in enumerate(pattern)}
    spec, _ = whole().builder.spec(space.values(params))
    composed = load_spec([*whole().base, *space.overrides(params)])
    assert spec_hash(composed, "") == spec_hash(spec, "")
    assert composed == spec


def test_a_cost_is_the_column_of_its_name() -> None:
    spec = load_spec(["scale=tiny", "layout=type_c"])
    found = cost_columns(spec)
    names = [name for name in found if name != "macs_published"]
    assert {name: cost(spec, name) for name in names} == {name: found[name] for name in names}


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"trials": None}, "a search needs an end"),
        ({"space": {"letters": ["A", "A"]}}, "different choices"),
        ({"space": {"more": {"protocol.steps": [1, 2]}}}, "accepted: keys of layer or model"),
        ({"halving": {"rungs": [4, 2]}}, "ascending numbers"),
        ({"objectives": ["valid_ppl"]}, "valid_ppl and one or two of params"),
        ({"objectives": ["params", "macs_decode_8"]}, "valid_ppl and one or two of params"),
        ({"objectives": ["valid_ppl", "macs_decode_0"]}, "no cost that the census gives"),
    ],
)
def test_a_section_that_cannot_be_is_said_in_a_line(section: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as refused:
        check_objectives(construct(Search, {"trials": 3, **section}, "search").objectives)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"macs_decode_2048": "none"}, "a number above 0"),
        ({"macs_decod_2048": 1}, "no cost that the census gives"),
    ],
)
def test_a_budget_that_cannot_be_is_said_in_a_line(section: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        budgets({"steps": 30, **section})


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["search.space.heads=[3]"], "search.space.heads=3: scale.heads=3 does not divide"),
        (["search.space.letters=[A,X]"], "search.space.letters: X: unknown layer letter"),
        (["search.halving.rungs=[3]", "protocol.evaluation.every=2"], "no validation after 3 steps"),
        (["layout=type_a"], "a search chooses the layout"),
        (["task=count"], "no valid_ppl to search by"),
        (["protocol=published", "protocol.epochs=null"], "a mask that leaks"),
        (["search.warm_start=[typo]"], "there is no study 'typo' in runs"),
        (["search.objectives=[valid_ppl,decode_latency_ms_9_b1]", "workers=2"], "accepted: workers=1"),
        (["search.objectives=[valid_ppl,decode_latency_ms]"], "no cost that the census gives"),
        (["search.objectives=[valid_ppl,decode_latency_ms_1_b1]"], "no cost that the census gives"),
        (
            ["search.objectives=[valid_ppl,decode_latency_ms_9_b1]", "launcher=slurm"],
            "accepted: launcher=local",
        ),
        (["search.warm_start=[typo]", "storage=sqlite:///new.db"], "there is no study 'typo' in the storage"),
        (["+corpus.api_key=canary"], r"^corpus\.api_key carries a secret, .* accepted: .* HF_TOKEN"),
        (["corpus=text", "corpus.path='https://me:canary@host/x'"], r"^corpus\.path carries a secret"),
        (["corpus=text", "corpus.path=/of/the/environment"], r"^corpus\.path carries a secret"),
        (["+search.space.more={layer.msr.password:[canary]}"], r"^search\.space\.more carries a secret"),
    ],
)
def test_what_cannot_be_searched_is_said_with_nothing_written(
    overrides: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_TOKEN", "of/the/environment")
    with pytest.raises(SpecError, match=said) as refused:
        config([*BASE, *overrides])
    assert "canary" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_budget_without_a_search_is_refused() -> None:
    with pytest.raises(SpecError, match=r"budget\.params is a limit of a search"):
        config(["scale=tiny", "+budget.params=5"])


def test_under_an_agent_of_wandb_one_run_is_accepted_and_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever tracks: each of the agent's commands would be a search."""
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "agent-7")
    for tracker in ("none", "wandb"):
        with pytest.raises(SpecError, match=r"^`wandb agent` asks for one run at a time, .* a whole search"):
            config([*BASE, f"tracker={tracker}"])
        assert "pattern: RRRA" in config(
            ["scale=tiny", "layout=pattern", "layout.pattern=RRRA", f"tracker={tracker}"]
        )
