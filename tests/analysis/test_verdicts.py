import csv
import io
import json
import math

import pytest

from analysis import contrast
from analysis.aggregate import lines_of
from analysis.contrast import FOLDER, file_of, read_contrasts, weights
from analysis.inference import fit
from analysis.order import put_in_order
from analysis.plan import Member, Plan
from analysis.rows import TableError
from analysis.statistics import t_quantile
from analysis.table import main, write
from analysis.verdicts import judge
from tests.analysis.rows import row, study, transformer, type_x

NOISE = ((0.01, 0.0, -0.01), (0.0, -0.01, 0.01), (-0.01, 0.01, 0.0))


def report(seeds=3, size=1.0, **columns):
    """The report's 31 models under rules: B is 0.05 nats below A, C 0.1 above A at equal share."""
    made = [(transformer, 3.0), (row, 3.3)]
    made += [(model("A", k), 3.3 - 0.3 * k / 12) for k in range(1, 12)]
    made += [(model("B", k), 3.25 - 0.3 * k / 12) for k in range(1, 12)]
    made += [(model("C", k), 3.4 - 0.3 * k / 8) for k in range(1, 8)]
    return [
        make(
            seed=seed,
            valid_ppl=math.exp(nats + size * NOISE[index % 3][seed]),
            tokens_per_second=5000 * math.exp(NOISE[index % 3][seed]) * (0.9 if make is row else 1),
            **columns,
        )
        for index, (make, nats) in enumerate(made)
        for seed in range(seeds)
    ]


def model(letter, attention):
    return lambda **columns: type_x(letter, attention, **columns)


def by_name(judgement):
    return {one.name: one for one in judgement.verdicts}


PLAN = Plan("ar_ratio", (), {}, ())


def plan_of(folder, plan):
    (folder / "plan.json").write_text(json.dumps({"sweep": plan.sweep, "members": []}))


def test_the_verdicts_of_a_study_of_the_report():
    rows = report()
    found = judge(rows, PLAN)
    verdicts = by_name(found)
    b = verdicts["A against B at equal ratio"]
    assert b.nats == pytest.approx(0.05, abs=0.002)
    assert b.resolved
    assert b.words.startswith("resolved: A is higher by 5.")
    model = fit(rows)
    pairs = [
        model.difference(f"variant of Type A {k}:{12 - k}", f"variant of Type B {k}:{12 - k}")
        for k in range(1, 12)
    ]
    assert b.nats == pytest.approx(sum(pair.nats for pair in pairs) / 11)
    assert b.estimate.se == pytest.approx(pairs[0].se / math.sqrt(11))
    c = verdicts["C against A at equal share of attention heads"]
    assert c.nats == pytest.approx(0.1, abs=0.01)
    time = verdicts["measured time of training"]
    assert time.nats == pytest.approx(math.log(0.9), abs=0.02)
    assert time.words.startswith("resolved: RetNet is slower by 10")
    cost = verdicts["cost of a training forward"]
    assert (cost.ratio, cost.estimate, cost.p_holm) == (1.0, None, None)
    assert cost.words == "exact: RetNet costs the same (30,000,001 against 30,000,001)"
    dearer = [
        one | {"macs_train_forward": 33_000_001} if one["architecture"] == "RetNet" else one for one in rows
    ]
    words = by_name(judge(dearer, PLAN))["cost of a training forward"].words
    assert words == "exact: RetNet costs 10.0 % more (33,000,001 against 30,000,001)"
    assert "60 degrees of freedom, 31 variants" in " ".join(found.notes)


def test_holm_is_over_the_file_and_counts_what_is_absent():
    verdicts = by_name(judge(report(), PLAN))
    tested = sorted((one for one in verdicts.values() if one.estimate), key=lambda one: one.estimate.p)
    assert len(tested) == 5
    adjusted = 0.0
    for place, one in enumerate(tested):
        adjusted = max(adjusted, min(1.0, (5 - place) * one.estimate.p))
        assert one.p_holm == pytest.approx(adjusted)
    without = [one for one in report() if not one["architecture"].startswith("Type C")]
    fewer = by_name(judge(without, PLAN))
    assert fewer["C against A at equal share of attention heads"].words == "absent: no run of Type C 2:6"
    smallest = min((one for one in fewer.values() if one.estimate), key=lambda one: one.estimate.p)
    assert smallest.p_holm == pytest.approx(5 * smallest.estimate.p)


def test_what_is_not_resolved_says_what_could_have_been():
    loud = by_name(judge(report(size=8.0), PLAN))["A 10:2 against Transformer"]
    assert not loud.resolved
    assert loud.words == f"not resolved: {loud.estimate.smallest}"
    assert loud.estimate.smallest.endswith(" %")
    # of five tests: held to a fifth of the 5 %
    assert "could have shown as one of 5 tests " in loud.words
    alone = fit(report(size=8.0)).difference("variant of Type A 10:2", "variant of Transformer")
    assert loud.estimate.se == pytest.approx(alone.se)
    quantiles = [t_quantile(1 - 0.05 / 5 / 2, 60) + t_quantile(0.8, 60)]
    assert loud.estimate.detectable == pytest.approx(quantiles[0] * alone.se)
    assert loud.estimate.detectable > alone.detectable
    # the interval leaves out zero, but p is doubled: that without Type C stands beside it with p = 1
    some = [one for one in report(size=2.8) if not one["architecture"].startswith("Type C")]
    between = by_name(judge(some, PLAN))["A 10:2 against Transformer"]
    assert between.estimate.resolved
    assert between.resolved is False
    assert between.p_holm == pytest.approx(2 * between.estimate.p)
    assert between.words.startswith("not resolved after Holm: A 10:2 is higher by ")
    assert between.words.endswith(between.estimate.smallest)
    assert "at 5 % / 5 (the first step of Holm)" in judge(some, PLAN).notes[0]


def test_diverged_variants_are_named_and_their_contrasts_absent():
    rows = [
        one | ({"status": "diverged@7"} if one["architecture"] == "Type C 4:4" and one["seed"] == 1 else {})
        for one in report()
    ]
    found = judge(rows, PLAN)
    words = by_name(found)["C against A at equal share of attention heads"].words
    assert words == "absent: Type C 4:4 diverged at step 7"
    assert "Not in the model of valid nll: Type C 4:4 (diverged at step 7)." in found.notes


def test_leaky_weights_are_compared_under_a_causal_mask_and_named():
    rows = [
        one | {"leaky": True, "valid_ppl": 2.0, "valid_ppl_causal_eval": one["valid_ppl"]}
        if one["attention_heads"]
        else one
        for one in report()
    ]
    verdicts = by_name(judge(rows, PLAN))
    ten = verdicts["A 10:2 against Transformer"]
    assert ten.nats == pytest.approx(0.05, abs=0.02)
    both = verdicts["A against B at equal ratio"].words
    assert both.endswith("; leaky weights of 22 variants under a causal mask")
    assert ten.words.endswith("; leaky weights under a causal mask: Type A 10:2 leaky, Transformer leaky")


def test_leaks_and_divergence_are_named_at_one_seed_too():
    rows = []
    for one in report(seeds=1):
        leak = {"leaky": True, "valid_ppl": 2.0, "valid_ppl_causal_eval": one["valid_ppl"]}
        rows.append(one | leak if one["architecture"] == "Transformer" else one)
    rows = [one | {"status": "diverged@7"} if one["architecture"] == "RetNet" else one for one in rows]
    verdicts = by_name(judge(rows, PLAN))
    ten = verdicts["A 10:2 against Transformer"].words
    assert ten.endswith("without an error bar; leaky weights under a causal mask: Transformer leaky")
    assert verdicts["RetNet against Transformer"].words == "absent: RetNet diverged at step 7"


def test_a_leak_is_no_remark_on_a_speed_and_no_reason_to_have_none():
    rows = [one | {"leaky": True, "valid_ppl_causal_eval": 9.0} for one in report()]
    assert "leak" not in by_name(judge(rows, PLAN))["measured time of training"].words
    mute = [{name: value for name, value in one.items() if name != "tokens_per_second"} for one in rows]
    words = by_name(judge(mute, PLAN))["measured time of training"].words
    assert words == (
        "absent: RetNet leaky no finite tokens_per_second; Transformer leaky no finite tokens_per_second"
    )


def test_no_inference_at_one_seed():
    found = judge(report(seeds=1), PLAN)
    ten = by_name(found)["A 10:2 against Transformer"]
    assert (ten.estimate, ten.p_holm, ten.resolved) == (None, None, None)
    assert ten.words.startswith("no inference: one run a variant")
    assert ten.words.endswith("A 10:2 is higher by 3.0 %, without an error bar")
    assert by_name(found)["cost of a training forward"].ratio == 1.0


def test_times_of_several_devices_are_not_compared():
    rows = [one | {"device": f"gpu {one['seed']}"} for one in report()]
    words = by_name(judge(rows, PLAN))["measured time of training"].words
    assert words.startswith("no inference: timed on several devices: gpu 0, gpu 1, gpu 2")


def test_a_study_without_contrasts_or_training_has_no_verdicts():
    assert judge(report(), None) is None
    assert judge(report(), Plan("scaling", (), {}, ())) is None
    counts = [{name: value for name, value in one.items() if "ppl" not in name} for one in report()]
    assert judge(counts, PLAN) is None
    assert judge(report(seeds=1), PLAN) is not None


def test_the_table_shows_the_contrasts_and_the_csv_has_their_numbers(tmp_path, capsys):
    folder = study(tmp_path / "x", *report())
    plan_of(folder, PLAN)
    assert main([str(folder)]) == 0
    assert "A 10:2 against Transformer" in capsys.readouterr().out
    text = (folder / "table.md").read_text()
    below = text[text.index("\n## Contrasts\n") :]
    assert "| A against B at equal ratio | valid nll | +0.05" in below
    assert "- Named in analysis/contrasts/ar\\_ratio.yaml, whose head says when" in below
    assert "contrasts" in (folder / "table.tex").read_text()
    records = list(csv.DictReader(io.StringIO((folder / "contrasts.csv").read_text())))
    verdicts = write(folder).judgement.verdicts
    assert [record["name"] for record in records] == [one.name for one in verdicts]
    for record, one in zip(records, verdicts, strict=True):
        assert record["verdict"] == one.words
        if one.estimate:
            assert float(record["low_nats"]) == one.estimate.low
            assert float(record["p_holm"]) == one.p_holm
            assert float(record["detectable_percent"]) == one.estimate.detectable_percent


# ---- the files -------------------------------------------------------------------------------
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_of_contrasts_is_read(path):
    contrasts = read_contrasts(path)
    assert len({one.name for one in contrasts}) == len(contrasts)
    assert 3 <= len(contrasts) <= 8, "a handful: each costs the others power"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("just words", "is no list of contrasts"),
        ("[{name: x, quantity: ppl, left: [a], right: [b]}]", "unknown quantity 'ppl'; known: train nll"),
        ("[{name: x, quantity: valid nll, left: [a]}]", "KeyError: 'right'"),
        ("[{name: x, quantity: valid nll, left: [a, b], right: [c]}]", "too many values"),
        ("[{name: x, quantity: valid nll, left: [a], right: [b], weigh: 1}]", "unknown weigh in 'x'"),
        ("[{name: x, quantity: valid nll, left: [{colour: red}], right: [b]}]", "selected by colour"),
        ("[{", "is no list of contrasts"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, monkeypatch, text, message):
    monkeypatch.setattr(contrast, "FOLDER", tmp_path)
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(TableError, match=message) as caught:
        judge(report(seeds=1), Plan("mine", (), {}, ()))
    assert "\n" not in str(caught.value)


def test_only_the_plan_says_what_contrasts_a_study_has(tmp_path, monkeypatch):
    monkeypatch.setattr(contrast, "FOLDER", tmp_path)
    (tmp_path / "ar_ratio.yaml").write_text("[]")
    assert file_of(PLAN).stem == "ar_ratio"
    assert file_of(Plan("ar", (), {}, ())) is file_of(Plan(None, (), {}, ())) is file_of(None) is None


def test_a_study_without_a_plan_says_that_it_has_no_contrasts(tmp_path):
    folder = study(tmp_path / "ar_ratio-train-small-corrected", *report(seeds=1))
    table = write(folder)
    assert table.judgement is None
    assert table.notes[-1].startswith("No contrasts: no plan.json")
    assert not (folder / "contrasts.csv").exists()
    plan_of(folder, PLAN)
    table = write(folder)
    assert table.judgement is not None
    assert not any("No contrasts" in note for note in table.notes)


def test_what_a_model_is_fitted_to_is_chosen_by_lists_and_exceptions():
    rows = [type_x("A", k, variant_hash=f"A{k}") for k in (3, 6, 9)]
    members = [Member(f"A{k}", {"ladder": "published", "step": "as it is"}) for k in (3, 6)]
    members += [Member("A9", {"ladder": "published", "step": "all repaired"})]
    members += [Member("A9", {"ladder": "corrected", "step": "as it is"})]
    plan = Plan("defects", (), {}, tuple(members))
    lines = put_in_order(lines_of(rows), plan)
    two = {"architecture": ["Type A 3:9", "Type A 9:3"]}
    repaired = {"step": ["all repaired", "bf16"]}
    assert contrast.select(two, lines, plan) == ["A3", "A9"]
    published = {"ladder": "published", **two}
    assert contrast.select(published, lines, plan) == ["A3", "A9"]
    assert contrast.select(published, lines, plan, repaired) == ["A3"]
    # the same variant has another place, in which nothing is against it
    assert contrast.select({"ladder": "corrected"}, lines, plan, repaired) == ["A9"]
    one = contrast._side(["Type A 3:9"])
    among = contrast.Contrast("x", "valid nll", one, one, published, repaired).among
    assert among == "published; Type A 3:9, Type A 9:3; not all repaired, bf16"


def side(*selectors):
    return contrast.Side("x", tuple(contrast._selector(one) for one in selectors))


def test_variants_are_chosen_by_what_the_sweep_and_their_columns_say():
    rows = [type_x("A", k, variant_hash=f"A{k}") for k in (3, 6)]
    rows += [type_x("A", 6, variant_hash=f"draw {draw}", pattern=str(draw)) for draw in range(3)]
    members = [Member("A3", {"placement": "first"}), Member("A6", {"placement": "first"})]
    members += [
        Member("A6", {"placement": "spread"}),
        *(Member(f"draw {n}", {"placement": "random"}) for n in range(3)),
    ]
    plan = Plan("placement", (), {}, tuple(members))
    lines = put_in_order(lines_of(rows), plan)
    assert weights(side("Type A 3:9"), lines, plan) == {"A3": 1.0}
    assert weights(side({"placement": "first", "share": 0.5}), lines, plan) == {"A6": 1.0}
    assert weights(side({"placement": "spread"}), lines, plan) == {"A6": 1.0}
    both = side({"placement": "first", "share": 0.25}, {"placement": "random", "all": True})
    assert weights(both, lines, plan) == pytest.approx(
        {"A3": 1 / 2, "draw 0": 1 / 6, "draw 1": 1 / 6, "draw 2": 1 / 6}
    )
    with pytest.raises(contrast.Absent, match="random is several variants: "):
        weights(side({"placement": "random"}), lines, plan)
    with pytest.raises(contrast.Absent, match=r"no run of last, share 0.5"):
        weights(side({"placement": "last", "share": 0.5}), lines, plan)
