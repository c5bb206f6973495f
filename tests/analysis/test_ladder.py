import math

import pytest

from analysis.inference import fit
from analysis.ladder import ladder, spreads
from analysis.plan import Member, Plan
from tests.analysis.rows import row, transformer, type_x

#: Of three seeds; whatever the variant, its interactions with the seeds are one of these.
NOISE = {"a": (0.01, 0.0, -0.01), "b": (0.0, -0.01, 0.01), "c": (-0.01, 0.01, 0.0)}


def runs(make, variant, nats, noise, **columns):
    return [
        make(variant_hash=variant, seed=seed, valid_ppl=math.exp(nats + error), **columns)
        for seed, error in enumerate(NOISE[noise])
    ]


def leaky(make, variant, nats, noise, as_trained, **columns):
    made = runs(make, variant, nats, noise, leaky=True, **columns)
    return [
        one | {"valid_ppl_causal_eval": one["valid_ppl"], "valid_ppl": math.exp(as_trained + error)}
        for one, error in zip(made, NOISE[noise], strict=True)
    ]


def plan(*members):
    return Plan("defects", (), {}, tuple(Member(variant, said) for variant, said in members))


def said(step, ladder="published"):
    return {"ladder": ladder, "step": step}


ROWS = [
    *leaky(transformer, "T", 6.0, "a", 1.0),
    *runs(transformer, "T causal", 4.0, "b"),
    *leaky(transformer, "T warm", 5.9, "c", 1.2),
    *runs(row, "R", 4.5, "a"),
    *runs(row, "R warm", 4.4, "b"),
    *runs(row, "R clip", 4.5, "c"),
]
PLAN = plan(
    ("T", said("as it is")),
    ("T causal", said("causal mask")),
    ("T warm", said("warm-up")),
    ("R", said("as it is")),
    ("R", said("causal mask")),
    ("R warm", said("warm-up")),
    ("R clip", said("clipping")),
    ("R clip", said("as it is", "corrected")),
    ("not run", said("clipping", "corrected")),
)


def test_each_step_stands_against_its_model_as_it_is():
    steps = ladder(ROWS, PLAN)
    assert [(one.ladder, one.architecture, one.step) for one in steps] == [
        ("published", "Transformer", "as it is"),
        ("published", "Transformer", "causal mask"),
        ("published", "Transformer", "warm-up"),
        ("published", "RetNet", "as it is"),
        ("published", "RetNet", "causal mask"),
        ("published", "RetNet", "warm-up"),
        ("published", "RetNet", "clipping"),
        ("corrected", "RetNet", "as it is"),
    ]
    base, causal, warm, retnet, same, retnet_warm, clip, corrected = steps
    assert [one.is_base for one in steps] == [True, False, False, True, False, False, False, True]
    assert base.estimate is retnet.estimate is corrected.estimate is None
    assert {one.base_hash for one in (base, causal, warm)} == {"T"}
    assert retnet_warm.base_hash == "R"
    assert corrected.base_hash == "R clip"
    assert causal.line["label"] == "Transformer (published: causal mask)"
    # the leaky base counts with what its weights are worth under a causal mask: 6.0, not 1.0
    assert causal.estimate.nats == pytest.approx(-2.0)
    assert causal.as_trained.nats == pytest.approx(3.0)
    assert causal.remark == "the base's leaky weights, evaluated under a causal mask"
    assert warm.estimate.nats == pytest.approx(-0.1)
    assert warm.as_trained.nats == pytest.approx(0.2)
    assert warm.remark == "leaky weights, evaluated under a causal mask"
    assert same.estimate is None
    assert same.why == "the same model: the step does not concern it"
    assert retnet_warm.estimate.nats == pytest.approx(-0.1)
    assert retnet_warm.as_trained is None
    assert clip.estimate.resolved is False
    assert "not resolved" in clip.estimate.words()


def test_each_model_is_judged_by_its_own_spread():
    wild = [one | {"valid_ppl": one["valid_ppl"] * (2 if one["seed"] == 1 else 1)} for one in ROWS[3:6]]
    steps = ladder([*ROWS[:3], *wild, *ROWS[6:]], PLAN)
    assert steps[1].estimate.se > 10 * steps[5].estimate.se
    assert steps[5].estimate == fit(ROWS[9:]).difference("R warm", "R")


def test_what_stands_in_the_way_is_said():
    gone = [one | {"status": "diverged@7"} for one in ROWS[:3]]
    steps = ladder([*gone, *ROWS[3:]], PLAN)
    assert steps[1].estimate is None
    assert steps[1].why == "the base diverged at step 7"
    steps = ladder([*ROWS[:3], *(one | {"status": "diverged@7"} for one in ROWS[3:6]), *ROWS[6:]], PLAN)
    assert steps[1].why == "diverged at step 7"
    assert steps[2].estimate is not None
    single = [one for one in ROWS if one["seed"] == 0]
    assert ladder(single, PLAN)[1].why.startswith("one run a variant")
    silent = [{name: value for name, value in one.items() if "causal_eval" not in name} for one in ROWS]
    assert ladder(silent, PLAN)[1].why.startswith("the base leaks: its perplexity is no likelihood")
    assert "no run of the step 'as it is'" in ladder(ROWS[3:6], PLAN)[0].why


def test_the_other_protocol_sets_no_steps_variance():
    wild = [one | {"valid_ppl": one["valid_ppl"] * (3 if one["seed"] == 1 else 1)} for one in ROWS[-3:]]
    wild = [one | {"variant_hash": "R repaired"} for one in wild]
    both = Plan("defects", (), {}, (*PLAN.members, Member("R repaired", said("all repaired"))))
    without = {one.variant_hash: one for one in ladder(ROWS, PLAN) if one.ladder == "published"}
    found = {one.variant_hash: one for one in ladder([*ROWS, *wild], both) if one.ladder == "published"}
    for variant in ("R warm", "R clip"):
        assert found[variant].estimate == without[variant].estimate
    repaired = found["R repaired"]
    assert repaired.estimate == fit([*ROWS[9:], *wild]).difference("R repaired", "R")
    assert repaired.estimate.se > 10 * found["R warm"].estimate.se
    assert repaired.share is None


def test_what_leaky_steps_and_a_single_one_bring_to_the_variance():
    steps = ladder(ROWS, PLAN)
    shares = {one.variant_hash: one.share for one in steps if one.ladder == "published"}
    assert shares["T"] + shares["T causal"] + shares["T warm"] == pytest.approx(1)
    assert shares["R"] + shares["R warm"] + shares["R clip"] == pytest.approx(1)
    leaks = f"{100 * (shares['T'] + shares['T warm']):.0f} %"
    of_leaky = (
        f"Transformer (published): 2 leaky of 3 steps bring {leaks} of the variance behind its intervals."
    )
    assert spreads(steps) == [of_leaky]
    wild = [one | {"valid_ppl": one["valid_ppl"] * (2 if one["seed"] == 1 else 1)} for one in ROWS[-3:]]
    (first, second) = spreads(ladder([*ROWS[:-3], *wild], PLAN))
    assert first == of_leaky
    assert second.startswith("RetNet (published): 'clipping' alone brings 6")


def test_models_of_one_architecture_climb_ladders_of_their_own():
    """As in a sweep that asks why Type C diverges: forms and rates are varied on purpose."""
    rows, members = [], []
    for form in ("direct", "two_stage"):
        for rate in (1e-3, 2e-3):
            for index, step in enumerate(("as it is", "warm-up", "clipping")):
                variant = f"{form} {rate} {step}"
                columns = {"hybrid_form": form, "learning_rate": rate}
                rows += runs(
                    lambda **c: type_x("C", 2, **c),
                    variant,
                    4.0 - index * rate * 100,
                    "abc"[index],
                    **columns,
                )
                members.append((variant, {"step": step}))
    steps = ladder(rows, plan(*members))
    assert {one.ladder for one in steps} == {"defects"}
    assert list(dict.fromkeys(one.architecture for one in steps)) == [
        "Type C 2:6 (direct, lr 0.001)",
        "Type C 2:6 (direct, lr 0.002)",
        "Type C 2:6 (two_stage, lr 0.001)",
        "Type C 2:6 (two_stage, lr 0.002)",
    ]
    assert [one.estimate.nats for one in steps if one.step == "clipping"] == pytest.approx(
        [-0.2, -0.4, -0.2, -0.4]
    )


def test_rates_that_were_tuned_do_not_part_a_step_from_its_base():
    tuned = [one | {"learning_rate": 1e-3 if one["variant_hash"] == "R" else 2e-3} for one in ROWS]
    assert ladder(tuned, PLAN)[5].estimate.nats == pytest.approx(-0.1)


def test_a_study_that_is_no_ladder_has_no_steps():
    assert ladder(ROWS, None) == []
    assert ladder(ROWS, plan(("R", {"placement": "first"}), ("T", {}))) == []
