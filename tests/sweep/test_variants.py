"""A sweep's YAML and a command line together give the list of runs."""

from __future__ import annotations

import pytest

from retsweep.spec import SpecError, load_spec
from retsweep.sweep.blocks import key_of
from retsweep.sweep.plan import NO_DATA, identify
from retsweep.sweep.variants import Wanted, wanted, wanted_from

TOY = ("~task", "+task._target_=tests.sweep.toy.Toy")


def patterns(found: Wanted) -> list[tuple[str, str]]:
    return [(run.spec.layout.kind, run.spec.pattern) for run in found.runs]


def test_the_report_has_31_models_and_one_line_beside_them() -> None:
    found = wanted(["+sweep=ar_ratio", *TOY])
    runs = [run for run in found.runs if not run.reference]
    assert len(runs) == 31
    assert [run.label for run in runs[:3]] == ["Transformer", "RetNet", "Type A 1:11"]
    assert {run.label for run in runs} == {
        "Transformer",
        "RetNet",
        *(f"Type {letter} {k}:{12 - k}" for letter in "AB" for k in range(1, 12)),
        *(f"Type C {k}:{8 - k}" for k in range(1, 8)),
    }
    assert [run.label for run in found.runs if run.reference] == ["FFN only"]
    assert found.study == "ar_ratio-toy-small-corrected"


def test_a_variant_is_the_run_that_its_overrides_give() -> None:
    run = next(run for run in wanted(["+sweep=ar_ratio", *TOY]).runs if run.label == "Type B 4:8")
    assert run.spec == load_spec(["layout=type_b", "layout.attention=4", *TOY])


def test_a_sweep_may_set_the_scale_and_the_command_line_wins() -> None:
    assert {run.spec.scale.name for run in wanted(["+sweep=smoke", *TOY]).runs} == {"tiny"}
    assert {run.spec.scale.name for run in wanted(["+sweep=smoke", "scale=small", *TOY]).runs} == {"small"}


def test_the_command_line_takes_a_key_away_from_the_sweep() -> None:
    found = wanted(["+sweep=ar_ratio", "scale=tiny", "layout.attention=3", "layout=type_b", *TOY])
    assert set(patterns(found)) == {("type_b", "RAAA")}
    of_b = {("type_b", "RRRA"), ("type_b", "RRAA"), ("type_b", "RAAA")}
    assert set(patterns(wanted(["+sweep=ar_ratio", "scale=tiny", "layout=type_b", *TOY]))) == of_b
    assert len(identify(found.runs, None)) == 1  # type: ignore[arg-type]  # no data, no cache


def test_seeds_count_up_from_the_seed_and_names_tell_them_apart() -> None:
    found = wanted(["seed=5", "seeds=3", "scale=tiny", *TOY])
    assert [run.spec.seed for run in found.runs] == [5, 6, 7]
    assert [run.config["seed"] for run in found.runs] == [5, 6, 7]
    assert [run.label for run in found.runs] == [f"Type A 2:2 seed {n}" for n in (5, 6, 7)]
    assert found.study == "single-toy-tiny-corrected"


def section(*blocks: dict[str, object], **more: object) -> Wanted:
    from retsweep.spec.compose import compose

    overrides = ["scale=tiny", *TOY]
    config = compose([*overrides, "+sweep={name:own}"])
    from omegaconf import OmegaConf

    OmegaConf.update(config, "sweep", {"name": "own", "variants": list(blocks), **more}, force_add=True)
    return wanted_from(config, overrides)


def test_names_that_tell_values_apart_tell_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "0.0625")
    labels = [run.label for run in section({"model.dropout": [0.0625, 0.125]}).runs]
    assert [label.rpartition("=")[2] for label in labels] == ["...)", "0.125)"]


def test_blocks_multiply_and_equal_variants_are_run_once() -> None:
    found = section(
        {"layout": ["type_a", "type_b"], "layout.attention": {"from": 1, "below": 3}},
        {"layout": "type_a", "layout.attention": 1},
        references=[{"layout": "type_a", "layout.attention": 2}],
    )
    kinds = [("type_a", "ARRR"), ("type_a", "AARR"), ("type_b", "RRRA"), ("type_b", "RRAA")]
    assert patterns(found)[:4] == kinds
    planned = identify(found.runs, None)  # type: ignore[arg-type]
    assert [(p.spec.layout.kind, p.spec.pattern) for p in planned.values()] == kinds
    assert not any(p.run.reference for p in planned.values())
    assert {p.data_hash for p in planned.values()} == {NO_DATA}


def test_variants_of_one_architecture_are_named_by_what_differs() -> None:
    found = section({"layout.attention": 1, "protocol.learning_rate": [1e-3, 2e-3]})
    assert len({run.label for run in found.runs}) == 2
    assert "protocol.learning_rate=0.002" in found.runs[1].label
    assert found.runs[1].spec.protocol.learning_rate == 2e-3
    assert found.runs[0].spec.protocol.learning_rate == 1e-3


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"layout.attention": [1, 9]}, "variant layout.attention=9: layout.attention=9 is out of range"),
        ({"layout.attenton": 1}, "variant layout.attenton=1: unknown key 'layout.attenton'; accepted: "),
        ({"layout": "type_z"}, "variant layout=type_z: unknown layout 'type_z'"),
        ({"layout.attention": {"from": 1, "to": 2}}, "accepted: {from: int, below: int}"),
    ],
)
def test_one_bad_variant_is_named(block: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError) as caught:
        section({"layout.attention": 2}, block)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sweep_that_does_not_exist() -> None:
    with pytest.raises(SpecError, match=r"unknown sweep 'nope'.*ar_ratio"):
        wanted(["+sweep=nope"])


@pytest.mark.parametrize(("override", "key"), [("a.b=1", "a.b"), ("++a=b=c", "a"), ("~task", "task")])
def test_the_key_of_an_override(override: str, key: str) -> None:
    assert key_of(override) == key


def test_a_scale_on_the_command_line_leaves_the_sweep_what_it_varies() -> None:
    found = wanted(["+sweep=scaling", "scale=paper", *TOY])
    assert {run.spec.scale.d_model for run in found.runs} == {256, 512, 768}
    assert len(found.runs) == len(wanted(["+sweep=scaling", *TOY]).runs) == 18
    steps = {
        (run.spec.scale.context, run.spec.protocol.batch)
        for run in wanted(["+sweep=context", "scale=paper", "protocol=published", *TOY]).runs
    }
    assert steps == {(127, 32), (255, 16), (511, 8)}


@pytest.mark.parametrize(
    "override", ["protocol=published", "protocol.warmup=0.1", "layer.attention.mask=leaky"]
)
def test_what_a_step_is_called_after_cannot_be_taken_from_it(override: str) -> None:
    with pytest.raises(SpecError, match="is about it, the command line cannot give it"):
        wanted(["+sweep=defects", override, *TOY])


def test_a_study_is_named_by_what_its_runs_share() -> None:
    assert wanted(["+sweep=defects", *TOY]).study == "defects-toy-small"
    assert wanted(["+sweep=divergence", *TOY]).study == "divergence-toy-small-published"


@pytest.mark.parametrize("ladder", ["published", "corrected"])
def test_all_steps_of_a_ladder_together_are_the_other_protocol(ladder: str) -> None:
    """Precision and the final norm are on neither side; lengths are equal in steps."""
    from retsweep.spec.compose import compose
    from retsweep.spec.configs import set_values
    from retsweep.spec.load import resolve, sweep_section

    other = {"published": "corrected", "corrected": "published"}[ladder]
    section = sweep_section(compose(["+sweep=defects"]))
    read = {key: value for key, value in section["across"][0].items() if key.startswith("protocol.")}
    everything = dict(read)
    for block in section["variants"]:
        if block["as"]["ladder"] == ladder and block["as"]["step"] not in (
            "final LayerNorm",
            "bf16",
            "all repaired",
        ):
            everything |= {key: value for key, value in block.items() if key not in ("as", "protocol")}
    trees = []
    for protocol, values in ((ladder, everything), (other, read)):
        config = compose([f"protocol={protocol}"])
        set_values(config, values)
        tree = resolve(config)
        length = {
            key: tree["protocol"].pop(key) for key in ("steps", "epochs", "name", "final_learning_rate")
        }
        batches = (tree["protocol"]["train_chunks"] or 0) // tree["protocol"]["batch"]
        assert (length["steps"] or length["epochs"] * batches) == tree["budget"]["steps"]
        trees.append({part: tree[part] for part in ("layer", "model", "protocol")})
    assert trees[0] == trees[1]
