"""Every file of contrasts, against the sweep of its name: nothing that it compares is missing there."""

import functools
import hashlib
import math

import pytest

from analysis.aggregate import lines_of
from analysis.contrast import FOLDER, read_contrasts, select
from analysis.ladder import ladder
from analysis.order import put_in_order
from analysis.plan import Member, Plan
from analysis.verdicts import judge
from retsweep.sweep.plan import identify
from retsweep.sweep.planfile import members
from retsweep.sweep.rows import describe
from retsweep.sweep.variants import wanted
from tests.test_every_sweep import TOY

SWEEPS = sorted(path.stem for path in FOLDER.glob("*.yaml"))


@functools.cache
def carried_out(name):
    """The rows of the sweep with two seeds, their perplexities made up, and its plan."""
    found = wanted([f"+sweep={name}", "seeds=1", *TOY])
    planned = list(identify(found.runs, None).values())
    rows = [made_up(describe(one.spec, "", "cpu"), seed) for one in planned for seed in range(2)]
    listed = [Member(one["variant_hash"], one["as"], one["reference"]) for one in members(planned)]
    return rows, Plan(found.sweep, (), {}, tuple(listed))


def made_up(row, seed):
    digest = hashlib.sha256(f"{row['variant_hash']} {seed}".encode()).hexdigest()
    perplexity = math.exp(3 + 0.1 * int(digest[:6], 16) / 16**6)
    row |= dict.fromkeys(("train_ppl", "valid_ppl", "valid_ppl_causal_eval"), perplexity)
    return row | {
        "seed": seed,
        "status": "ok",
        "tokens_per_second": 5e5 / perplexity,
        "macs_train_forward": 7,
    }


@pytest.mark.parametrize("name", SWEEPS)
def test_the_sweep_has_whatever_its_contrasts_compare(name):
    rows, plan = carried_out(name)
    assert plan.sweep == name
    judgement = judge(rows, plan)
    assert [one.words for one in judgement.verdicts if one.estimate is None and one.ratio is None] == []


@pytest.mark.parametrize("name", ["defects", "divergence"])
def test_every_step_of_a_ladder_has_a_base_and_a_difference(name):
    rows, plan = carried_out(name)
    steps = ladder(rows, plan)
    assert len(steps) == sum("step" in member.said for member in plan.members)
    for step in steps:
        place = (step.ladder, step.architecture, step.step)
        assert step.base_hash, place
        same = step.variant_hash == step.base_hash
        assert (step.estimate is None) == same, (place, step.why)
        assert sum(one.is_base and one.ladder == step.ladder and one.architecture == step.architecture
                   for one in steps) == 1, place  # fmt: skip


def test_no_contrast_of_a_ladder_takes_its_spread_from_runs_that_scatter_otherwise():
    rows, plan = carried_out("defects")
    lines = put_in_order(lines_of(rows), plan)
    said = {(one.variant_hash, one.said["ladder"], one.said["step"]) for one in plan.members}
    label = {line["variant_hash"]: line["architecture"] for line in lines}
    for one in read_contrasts(FOLDER / "defects.yaml"):
        fitted = set(select(one.within, lines, plan, one.without))
        (ladder_of,) = {selector["ladder"] for side in (one.left, one.right) for selector in side.of}
        compared = {selector["architecture"] for side in (one.left, one.right) for selector in side.of}
        assert fitted <= {variant for variant, ladder_, _ in said if ladder_ == ladder_of}, one.name
        assert compared <= {label[variant] for variant in fitted}, one.name
        others = {label[variant] for variant in fitted} - compared
        assert not any(name == "RetNet" or name.startswith("Type C") for name in others), one.name
        if ladder_of == "published":
            repaired = {variant for variant, _, step in said if step == "all repaired"}
            assert not fitted & repaired, one.name
