import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.aggregate import is_quality, line_of, lines_of, may_rank
from analysis.statistics import ci95
from tests.analysis.rows import row, transformer, type_x


def seeds(*valid, **columns):
    return [row(seed=seed, valid_ppl=value, **columns) for seed, value in enumerate(valid)]


def test_one_line_a_variant_with_mean_and_interval_over_its_seeds():
    line = line_of(seeds(30.0, 33.0, 36.0))
    assert line["valid_ppl"] == pytest.approx(33.0)
    assert line["valid_ppl_ci95"] == pytest.approx(ci95([30.0, 33.0, 36.0]))
    assert (line["n"], line["ok"], line["status"], line["seeds"]) == (3, 3, "ok", "0 1 2")


def test_no_interval_of_one_run():
    line = line_of([row()])
    assert line["valid_ppl"] == 33.25
    assert line["valid_ppl_ci95"] is None


def test_two_models_are_never_averaged():
    lines = lines_of([row(variant_hash="a", valid_ppl=10.0), row(variant_hash="b", valid_ppl=20.0)])
    assert [line["valid_ppl"] for line in lines] == [10.0, 20.0]


def test_divergence_gives_a_median_with_infinities_and_no_interval():
    rows = seeds(30.0, 33.0, 36.0)
    rows[0] |= {"status": "diverged@90", "valid_ppl": 5.0}  # its last good number must not count
    line = line_of(rows)
    assert line["valid_ppl"] == 36.0
    assert line["valid_ppl_ci95"] is None
    assert (line["n"], line["ok"], line["status"]) == (3, 2, "2/3 ok, diverged@90")
    rows[1]["status"] = "diverged@7"
    assert line_of(rows)["valid_ppl"] == math.inf


def test_a_diverged_run_without_a_perplexity_is_infinite_too():
    gone = row(status="diverged@3")
    del gone["valid_ppl"]
    assert line_of([gone, row(seed=1), row(seed=2)])["valid_ppl"] == 33.25
    alone = lines_of([gone, transformer()])[0]
    assert alone["valid_ppl"] == math.inf


@given(
    st.lists(st.tuples(st.floats(1, 1e6), st.booleans()), min_size=1, max_size=9).filter(
        lambda r: any(d for _, d in r)
    )
)
def test_divergence_never_makes_a_line_better(runs):
    rows = [
        row(seed=seed, valid_ppl=value, status="diverged@1" if diverged else "ok")
        for seed, (value, diverged) in enumerate(runs)
    ]
    survivors = sorted(value for value, diverged in runs if not diverged)
    reached = line_of(rows)["valid_ppl"]
    assert reached == math.inf or reached >= survivors[(len(survivors) - 1) // 2]


def test_failed_rows_take_no_part_in_the_numbers():
    line = line_of([row(), row(seed=1, status="failed", error="boom", valid_ppl=1.0)])
    assert line["valid_ppl"] == 33.25
    assert (line["n"], line["ok"], line["failed"], line["error"]) == (1, 1, 1, "boom")
    alone = line_of([row(status="failed", valid_ppl=1.0)])
    assert alone["valid_ppl"] is None
    assert alone["macs_fvcore"] == 31_000_003


def test_costs_and_descriptions_are_never_averaged():
    line = line_of([row(git_commit="aaa"), row(seed=1, git_commit="bbb")])
    assert line["macs_fvcore"] == 31_000_003
    assert isinstance(line["macs_fvcore"], int)
    assert line["git_commit"] == "aaa; bbb"
    assert line["learning_rate"] == 3e-3
    assert "learning_rate_ci95" not in line
    assert "unigram_valid_ppl_ci95" not in line
    assert line["steps"] == 800


def test_a_recipe_is_no_measurement():
    recipe = {"planned_steps": None, "epochs": 10, "batch": 32, "weight_decay": 0.05, "warmup": 0.02}
    line = line_of([row(**recipe), row(seed=1, **recipe)])
    assert {column: line[column] for column in recipe} == recipe
    assert not any(f"{column}_ci95" in line for column in recipe)


def test_costs_that_differ_are_joined():
    line = line_of([row(macs_fvcore=10, git_commit="aaa"), row(seed=1, macs_fvcore=11, git_commit="bbb")])
    assert line["macs_fvcore"] == "10; 11"


def test_columns_that_nobody_has_thought_of_are_averaged_too():
    columns = [{"ood_ppl_drama": 100.0, "decode_milliseconds": 1.0}]
    columns.append({"ood_ppl_drama": 110.0, "decode_milliseconds": 2.0})
    line = line_of([row(seed=seed, **some) for seed, some in enumerate(columns)])
    assert line["ood_ppl_drama"] == pytest.approx(105.0)
    assert line["ood_ppl_drama_ci95"] > 0
    assert line["decode_milliseconds"] == 1.5


def test_the_reports_figures_stand_beside():
    (line,) = lines_of([transformer()])
    assert (line["report_gmacs"], line["report_train_ppl"]) == (10.305, 4.251)
    (line,) = lines_of([type_x("A", 2, layers=4, attention_heads=8, retention_heads=8)])
    assert line["report_gmacs"] is None


def test_what_describes_a_run_is_never_averaged():
    told = {
        "shuffle": True,
        "train_chunks": 2048,
        "chunking": "context",
        "final_norm": False,
        "branches": "plain",
        "model_start": "torch",
        "beta2": 0.98,
        "mask": "causal",
        "placement": "spread",
        "tuned_from": "0.003 0.006",
        "tuned_steps": 100,
        "match": "macs",
        "match_target": 26_740_224,
    }
    line = line_of([row(**told), row(seed=1, **told)])
    assert {column: line[column] for column in told} == told
    assert not any(f"{column}_ci95" in line for column in told)


def test_the_step_that_validation_chose_is_not_averaged():
    chosen = [
        row(seed=seed, best_step=step, best_valid_ppl=30.0 + seed) for seed, step in enumerate((300, 350))
    ]
    line = line_of(chosen)
    assert line["best_step"] == "300; 350"
    assert line["best_valid_ppl"] == 30.5
    assert line_of(chosen[:1])["best_step"] == 300


@pytest.mark.parametrize(
    ("column", "quality"),
    [
        *[(f"{split}_ppl", True) for split in ("train", "valid", "test", "best_valid")],
        *[(name, True) for name in ("valid_ppl_causal_eval", "ood_ppl_domain_speech", "test_bits_per_byte")],
        *[(name, True) for name in ("ood_bits_per_byte_a", "ood_bits_per_byte_domain_speech", "ood_ppl_a.b")],
        *[(name, False) for name in ("bigram_valid_ppl", "report_train_ppl", "seconds", "mfu", "best_step")],
    ],
)
def test_divergence_makes_qualities_infinite_and_nothing_else(column, quality):
    assert is_quality(column) == quality
    line = line_of([row(status="diverged@3", **{column: 7.0})])
    assert line[column] == (math.inf if quality else 7.0)


def test_what_may_be_ranked():
    assert may_rank(line_of([row()]))
    for columns in ({"leaky": True}, {"reference": True}, {"status": "diverged@3"}, {"valid_ppl": None}):
        assert not may_rank(line_of([row(**columns)])), columns
    assert not may_rank(line_of([row()]), "ood_ppl_drama")
    partly = line_of([row(), row(seed=1), row(seed=2, status="diverged@3")])
    assert math.isfinite(partly["valid_ppl"])  # the median
    assert not may_rank(partly)


def test_what_only_some_runs_have_is_left_empty_and_counted():
    best = {"best_valid_ppl": 30.0, "best_test_ppl": 31.0}
    line = line_of([row(**best), row(seed=1), row(seed=2, **best)])
    assert line["best_valid_ppl"] is line["best_test_ppl"] is line["best_valid_ppl_ci95"] is None
    assert line["partly"] == "best valid ppl: 2 of 3 runs; best test ppl: 2 of 3 runs"
    assert line["valid_ppl"] == 33.25
    # a diverged run may be silent: it is infinite where it says nothing, and has no speed
    line = line_of([row(**best, mfu=0.3), row(seed=1, status="diverged@3"), row(seed=2, **best, mfu=0.3)])
    assert (line["best_valid_ppl"], line["mfu"]) == (30.0, 0.3)
    failed = line_of([row(**best), row(seed=1, status="failed")])
    assert failed["best_valid_ppl"] == 30.0
    assert "partly" not in line | failed | line_of([row(**best), row(seed=1, **best)])


def test_what_a_train_perplexity_is_of_is_a_description_not_a_quality():
    (line,) = lines_of(
        [row(train_ppl_of="slice"), row(train_ppl_of="slice", seed=1, status="diverged@3", train_ppl=None)]
    )
    assert line["train_ppl_of"] == "slice"
    assert line["train_ppl"] == math.inf
    assert "train_ppl_of_ci95" not in line
