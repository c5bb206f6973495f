import math
import subprocess
import sys

import numpy as np
import pytest

from analysis.inference import Estimate, NoInference, differences, fit, percent, together
from analysis.rows import TableError
from tests.analysis.rows import row

# nats of three variants (down) in three seeds (across) = variants' 3.0, 3.2, 3.5 + seeds' 0, 0.06, -0.03
# + residuals 0.01 * (1 0 -1; 0 -1 1; -1 1 0), whose squares add up to 0.0006. By hand:
TABLE = {"a": (3.01, 3.06, 2.96), "b": (3.20, 3.25, 3.18), "c": (3.49, 3.57, 3.47)}
VARIANCE = 0.0006 / 4  # on (3-1)(3-1) degrees of freedom
SE = math.sqrt(2 * VARIANCE / 3)  # of a difference: 0.01
T_975, T_80 = 2.776445, 0.940965  # Student's with 4 degrees


def rows(table=TABLE, column="valid_ppl", **columns):
    return [
        row(variant_hash=variant, seed=seed, **({column: math.exp(nats)} | columns))
        for variant, values in table.items()
        for seed, nats in enumerate(values)
        if nats is not None
    ]


def test_a_balanced_study_is_the_two_way_analysis_by_hand():
    model = fit(rows())
    assert model.freedom == 4
    assert model.residual_sd == pytest.approx(math.sqrt(VARIANCE))
    found = model.difference("b", "a")
    assert found.nats == pytest.approx(0.2)
    assert found.se == pytest.approx(SE)
    assert found.low == pytest.approx(0.2 - T_975 * SE, abs=1e-6)
    assert found.high == pytest.approx(0.2 + T_975 * SE, abs=1e-6)
    assert found.detectable == pytest.approx((T_975 + T_80) * SE, abs=1e-6)
    assert found.resolved
    angle = math.atan(0.2 / SE / 2)  # Abramowitz & Stegun 26.7.4 for 4 degrees
    assert found.p == pytest.approx(1 - math.sin(angle) * (1 + math.cos(angle) ** 2 / 2), rel=1e-6)
    assert model.shares() == pytest.approx(dict.fromkeys("abc", 1 / 3))


def test_a_contrast_of_means_has_the_variance_of_its_weights():
    found = fit(rows()).difference({"b": 0.5, "c": 0.5}, {"a": 1.0})
    assert found.nats == pytest.approx((0.2 + 0.5) / 2)
    assert found.se == pytest.approx(math.sqrt(VARIANCE / 3 * (0.25 + 0.25 + 1)))


def test_seeds_are_blocks_and_may_be_missing():
    # b lacks the seed in which everything is worse by 1: its own mean would flatter it
    table = {"a": (3.0, 3.02, 4.0), "b": (3.1, 3.1, None), "c": (3.2, 3.21, 4.22)}
    found = fit(rows(table)).difference("b", "a")
    assert found.nats == pytest.approx(0.09, abs=0.01)
    assert fit(rows(table)).freedom == 8 - (3 + 2)


def test_a_variant_of_one_run_adds_no_freedom_and_has_a_wider_interval():
    table = TABLE | {"single": (3.3, None, None)}
    model = fit(rows(table))
    assert model.freedom == 4
    assert model.residual_sd == pytest.approx(math.sqrt(VARIANCE))
    assert model.difference("single", "a").se > model.difference("b", "a").se


def test_no_inference_where_there_is_none():
    with pytest.raises(NoInference, match="one run a variant"):
        fit(rows({"a": (3.0,), "b": (3.1,)}))
    with pytest.raises(NoInference, match="too few runs"):
        fit(rows({"a": (3.0, 3.1), "b": (3.1,)})[:3])
    apart = rows({"a": (3.0, 3.1, None, None), "b": (3.0, 3.2, None, None)})
    apart += rows({"c": (None, None, 3.1, 3.3), "d": (None, None, 3.1, 3.2)})
    model = fit(apart)
    assert model.difference("a", "b").freedom == 2
    with pytest.raises(NoInference, match="no seed in common"):
        model.difference("a", "c")
    with pytest.raises(NoInference, match="came out the same"):
        fit(rows({"a": (3.0, 3.0), "b": (3.5, 3.5)})).difference("a", "b")
    with pytest.raises(TableError, match="unknown quantity 'ppl'; known: train nll"):
        fit(rows(), "ppl")
    with pytest.raises(TableError, match="two rows of variant a and seed 0"):
        fit([*rows(), *rows({"a": (3.0,)})])


def test_diverged_variants_are_out_and_named():
    found = rows()
    found[0] |= {"status": "diverged@90"}
    model = fit(found)
    assert model.variants == ("b", "c")
    assert model.left_out == {"a": "diverged at step 90"}
    with pytest.raises(NoInference, match="diverged at step 90"):
        model.difference("b", "a")
    assert differences(found, "a") == dict.fromkeys("bc", "the base: diverged at step 90")


def test_a_run_that_failed_is_a_run_that_is_missing():
    found = rows()
    found[0] |= {"status": "failed", "valid_ppl": None}
    assert fit(found).freedom == 3
    assert fit(found).left_out == {}


def test_leaky_runs_count_with_a_causal_mask_or_as_they_are_or_not():
    found = rows()
    for one in found[:3]:
        one |= {"leaky": True, "valid_ppl": 1.5}
    assert fit(found).left_out["a"].startswith("leaks")
    for one, nats in zip(found[:3], TABLE["a"], strict=True):
        one["valid_ppl_causal_eval"] = math.exp(nats)
    assert fit(found).difference("b", "a").nats == pytest.approx(0.2)
    assert fit(found, leaky="left out").variants == ("b", "c")
    assert fit(found, leaky="as trained").difference("b", "a").nats == pytest.approx(3.21 - math.log(1.5))
    assert "a" in fit(found, "test nll", leaky="as trained").variants


def test_speeds_of_leaky_runs_count():
    found = rows(column="tokens_per_second", leaky=True)
    assert fit(found, "tokens_per_second").difference("b", "a").nats == pytest.approx(0.2)


def test_words():
    clear = Estimate(math.log(0.969), 0.005, math.log(0.958), math.log(0.98), 60, 1e-6)
    assert clear.words() == "lower by 3.1 % (2.0 to 4.2)"
    assert clear.words("slower", "faster") == "slower by 3.1 % (2.0 to 4.2)"
    open_ = Estimate(-0.005, 0.01, -0.03, 0.02, 4, 0.6)
    smallest = 100 * math.expm1((T_975 + T_80) * 0.01)
    assert open_.words() == (
        f"not resolved: smallest difference these seeds could have shown {smallest:.1f} %"
    )
    assert open_.size() == "lower by 0.50 % (-2.0 to 3.0)"
    assert [percent(value) for value in (0.123, 0.999, 12.34, 99.96, 12345)] == [
        *("0.12", "1.0", "12.3", "100", "12,345"),
    ]


def test_intervals_cover_the_truth_as_often_as_they_say():
    """And the difference that is said to be detectable is detected in 80 % of studies."""
    generator = np.random.default_rng(0)
    truth, sd, studies = np.array([3.0, 3.1, 3.1, 3.4]), 0.02, 400
    covered = detected = 0
    assert fit(_drawn(truth, sd, generator)).freedom == 6
    detectable = (2.446912 + 0.905703) * sd * math.sqrt(2 / 3)  # of the true spread, 6 degrees
    raised = truth + np.array([0, 0, detectable, 0])
    for _ in range(studies):
        model = fit(_drawn(raised, sd, generator))
        same, apart = model.difference("1", "0"), model.difference("2", "1")
        covered += same.low <= 0.1 <= same.high
        detected += apart.resolved
    assert covered / studies == pytest.approx(0.95, abs=0.033)  # three standard errors of a count
    assert detected / studies == pytest.approx(0.80, abs=0.08)  # the sum of two quantiles is near, not exact


def test_references_of_the_same_setting_tell_of_the_spread_too():
    models = rows()
    alone = rows({"ffn": (4.0, 4.02, 4.05)}, reference=True)
    wide = rows({"wide ffn": (4.0, 4.3, 4.1)}, reference=True, d_model=128)
    other = rows({"d": (4.0, 4.1, 4.1)}, protocol="published")
    everything = [*models, *alone, *wide, *other]
    assert together(everything, {"a", "b", "c"}) == [*models, *alone]
    assert together(everything, {"a"}) == [*models[:3], *alone]
    assert fit(together(everything, {"a", "b", "c"})).freedom == fit(models).freedom + 2


def _drawn(truth, sd, generator, seeds=3):
    blocks = generator.normal(0, 0.1, seeds)
    noise = generator.normal(0, sd, (len(truth), seeds))
    table = {str(index): tuple(truth[index] + blocks + noise[index]) for index in range(len(truth))}
    return rows(table)


def test_one_seed_does_not_import_statsmodels():
    code = (
        "import sys; from analysis.inference import NoInference, fit; from tests.analysis.rows import row\n"
        "try: fit([row(), row(variant_hash='b')])\n"
        "except NoInference: sys.exit('statsmodels' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
