"""match=params|macs: the FFN width that gives every variant what the Transformer has."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from retsweep.costs import macs_train_forward, parameters
from retsweep.spec import SpecError, load_spec
from retsweep.spec.compose import compose
from retsweep.spec.configs import from_file
from retsweep.spec.identity import spec_hash
from retsweep.spec.load import resolve
from retsweep.sweep.command import sweep
from retsweep.sweep.match import matched, measure, solved, transformer
from retsweep.sweep.plan import NO_DATA
from retsweep.sweep.variants import Run, Wanted, wanted, wanted_from

COUNT = ("task=count", "device=cpu", "tracker=none")


@functools.cache
def matched_sweep(scale: str, how: str) -> Wanted:
    return wanted(["+sweep=ar_ratio", f"scale={scale}", f"match={how}", *COUNT])


def members(scale: str, how: str) -> dict[str, Run]:
    return {run.label: run for run in matched_sweep(scale, how).runs if not run.reference}


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_all_31_have_the_parameters_of_the_transformer(scale: str) -> None:
    runs = members(scale, "params")
    target = parameters(runs["Transformer"].spec)
    assert len(runs) == 31
    for run in runs.values():
        size = run.spec.scale
        unit = size.layers * (2 * size.d_model + 1)
        assert 2 * abs(parameters(run.spec) - target) <= unit, run.label
        assert run.extra == {"match": "params", "match_target": target}


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_all_31_have_the_macs_of_the_transformer(scale: str) -> None:
    runs = members(scale, "macs")
    target = macs_train_forward(runs["Transformer"].spec)
    assert len(runs) == 31
    for run in runs.values():
        size = run.spec.scale
        unit = size.layers * 2 * size.context * size.d_model
        assert 2 * abs(macs_train_forward(run.spec) - target) <= unit, run.label
        assert run.extra == {"match": "macs", "match_target": target}


@pytest.mark.parametrize("how", ["params", "macs"])
def test_the_transformer_stays_the_retnet_narrows_and_what_has_no_mixer_widens(how: str) -> None:
    """At paper scale a retention layer has 5 d^2 parameters where attention has 4 d^2 + 4 d."""
    plain, found = (
        {run.label: run.spec for run in matched_sweep("paper", way).runs} for way in ("none", how)
    )
    assert found["Transformer"] == plain["Transformer"]
    assert found["RetNet"].scale.ffn < plain["RetNet"].scale.ffn == 768
    assert found["FFN only"].scale.ffn > 768
    only_the_width = dataclasses.replace(found["RetNet"], scale=plain["RetNet"].scale)
    assert only_the_width == plain["RetNet"]


def test_retnet_by_hand() -> None:
    """Retention: 5 d^2 + 2 d of its group norm; attention: 4 d^2 + 4 d. An FFN unit: 2 d + 1."""
    d, ffn = 768, 768
    too_many = (5 * d * d + 2 * d) - (4 * d * d + 4 * d)
    assert members("paper", "params")["RetNet"].spec.scale.ffn == ffn - round(too_many / (2 * d + 1))


def test_none_changes_nothing_and_says_nothing() -> None:
    as_it_is = load_spec(["scale=small"]).scale
    for run in matched_sweep("small", "none").runs:
        assert run.spec.scale == as_it_is
        assert run.extra == {}


def test_the_config_of_a_run_gives_the_run_again() -> None:
    for run in members("small", "params").values():
        assert run.config["scale"]["ffn"] == run.spec.scale.ffn
    assert "match" not in next(iter(members("small", "params").values())).config


def test_each_scale_has_its_own_transformer() -> None:
    for run in wanted(["layout.attention=0", "scale.d_model=128", "match=params", *COUNT]).runs:
        assert run.extra["match_target"] == parameters(
            load_spec(["layout.attention=12", "scale.d_model=128"])
        )


@settings(max_examples=20)
@given(d=st.integers(1, 12), layers=st.integers(1, 5), ffn=st.integers(1, 300), attention=st.integers(0, 5))
def test_no_other_width_is_nearer(d: int, layers: int, ffn: int, attention: int) -> None:
    base = load_spec(["scale=tiny"])
    attends, retains = base.layers[0], base.layers[-1]
    size = dataclasses.replace(base.scale, d_model=8 * d, layers=layers, ffn=ffn, heads=4)
    count = min(attention, layers)
    spec = dataclasses.replace(base, scale=size, layers=(attends,) * count + (retains,) * (layers - count))
    reference = dataclasses.replace(spec, layers=(attends,) * layers)
    for how in ("params", "macs"):
        of, target = measure(how), measure(how)(reference)
        try:
            found = solved(spec, how, reference)
        except SpecError:
            assert of(width(spec, 1)) > target
            continue
        off = abs(of(found) - target)
        assert all(
            off <= abs(of(width(found, other)) - target)
            for other in (found.scale.ffn - 1, found.scale.ffn + 1)
            if other >= 1
        )


def width(spec, ffn: int):  # type: ignore[no-untyped-def]
    return dataclasses.replace(spec, scale=dataclasses.replace(spec.scale, ffn=ffn))


def test_what_is_too_large_without_an_ffn_is_refused_in_one_line() -> None:
    with pytest.raises(SpecError) as caught:
        wanted(["layout.attention=0", "scale.ffn=8", "match=params", *COUNT])
    said = str(caught.value)
    assert "match=params: RetNet with an FFN of width 1 has " in said
    assert "accepted: a wider scale.ffn, or match=none" in said
    assert "\n" not in said


def test_a_reference_that_is_too_large_stays_and_says_so() -> None:
    tree = resolve(compose(["layout.attention=0", "scale.ffn=8", *COUNT]))
    spec = load_spec(["layout.attention=0", "scale.ffn=8", *COUNT])
    same, config, columns = matched(spec, tree, "macs", optional=True)
    assert (same, config) == (spec, tree)
    assert columns == {"match": "none", "match_target": macs_train_forward(transformer(tree))}


def test_the_row_says_what_was_solved_and_its_config_repeats_it(tmp_path: Path) -> None:
    words = ["layout.attention=0", "scale=tiny", "match=params", "task.fvcore=false", "workers=1"]
    found = wanted([*words, *COUNT, f"runs={tmp_path}"])
    assert sweep(found, Console(file=io.StringIO()), 0.0).finished == ("RetNet",)
    (file,) = tmp_path.glob("*/trials/*/row.json")
    row = json.loads(file.read_text())
    assert row["match"] == "params"
    assert row["match_target"] == parameters(load_spec(["layout.attention=4", "scale=tiny"]))
    assert row["ffn"] < 32
    assert 2 * abs(row["params"] - row["match_target"]) <= row["layers"] * (2 * row["d_model"] + 1)
    (again,) = wanted_from(from_file(file.parent / "config.yaml"), []).runs
    assert spec_hash(again.spec, NO_DATA) == row["spec_hash"] == file.parent.name
    assert again.extra == {}, "what the config holds is solved already"


def test_a_study_with_unmatched_rows_of_a_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Transformer's width is solved to be what it was: only the columns tell the runs apart."""
    monkeypatch.chdir(tmp_path)
    words = ["layout.attention=4", "scale=tiny", *COUNT, "study=s"]
    assert sweep(wanted(words), Console(file=io.StringIO()), 0.0).finished
    (row,) = Path("runs/s/trials").glob("*/row.json")
    plan, before = Path("runs/s/plan.json").read_text(), row.read_text()
    with pytest.raises(
        SpecError, match=r"^the row of Transformer in study s has no match, where this command"
    ):
        sweep(wanted([*words, "match=params"]), Console(file=io.StringIO()), 0.0)
    assert (Path("runs/s/plan.json").read_text(), row.read_text()) == (plan, before)
    other = wanted([*words, "match=params", "study=t"])
    for _ in range(2):
        assert sweep(other, Console(file=io.StringIO()), 0.0).finished
    with pytest.raises(SpecError, match=r"says match=params, .* write match=macs; .* \(study=NAME\)$"):
        sweep(wanted([*words, "match=macs", "study=t"]), Console(file=io.StringIO()), 0.0)


def test_matched_runs_have_a_study_of_their_own() -> None:
    assert matched_sweep("small", "macs").study == "ar_ratio-count-small-corrected-match_macs"
    assert matched_sweep("small", "none").study == "ar_ratio-count-small-corrected"
