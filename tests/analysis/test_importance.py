"""What an architecture's features are, and that importance finds the rule that made the rows."""

import math
import random

import pytest

pytest.importorskip("sklearn", reason="importance needs the extra [report]")

from analysis import features, importance
from analysis.figures.source import MissingError, open_source
from analysis.report.importance import verdict
from tests.analysis.hybrids import LAYERS, hybrid, patterns, ruled
from tests.analysis.rows import study, transformer, type_x


@pytest.fixture(autouse=True)
def _small_forests(monkeypatch):
    monkeypatch.setattr(importance, "RESAMPLES", 10)
    monkeypatch.setattr(importance, "TREES", 24)


def test_features_of_whole_layers():
    one = hybrid("RRARRRRARRRR")
    assert features.depths(one) == {2: 8.0, 7: 8.0}
    assert features.first_depth(one) == pytest.approx(2 / 11)
    assert features.mean_depth(one) == pytest.approx(4.5 / 11)
    assert features.spacing(one) == 5
    assert features.split_share(one) == 0
    assert features.has_placement(one)


def test_features_of_split_layers():
    """One layer of attention, and two of which each has two of its eight heads."""
    one = hybrid("RHRARRRRRRRH", attention_heads=12, retention_heads=84)
    assert features.depths(one) == {1: 2.0, 3: 8.0, 11: 2.0}
    assert features.split_share(one) == pytest.approx(4 / 12)
    assert features.mean_depth(one) == pytest.approx((2 * 1 + 8 * 3 + 2 * 11) / 12 / 11)


def test_a_single_layer_of_attention_is_a_depth_from_the_next():
    assert features.spacing(hybrid("RRRRRARRRRRR")) == LAYERS


@pytest.mark.parametrize(
    "one", [transformer(heads=8), hybrid("R" * 12), type_x("A", 6)], ids=["all", "none", "unknown layers"]
)
def test_where_nothing_was_placed_there_is_no_placement(one):
    assert not features.has_placement(one)


def _of(tmp_path, rows):
    return open_source(study(tmp_path / "s", *rows))


def _by_share(pattern):
    return 3.4 - 0.3 * pattern.count("A") / LAYERS


def _by_depth(pattern):
    places = [place for place, letter in enumerate(pattern) if letter == "A"]
    return 3.4 - 0.2 * sum(places) / len(places) / (LAYERS - 1)


def test_the_ratio_is_found_where_it_made_the_difference(tmp_path):
    rows = ruled(_by_share)
    source, turned = _of(tmp_path, rows), _of(tmp_path / "turned", rows[::-1])
    found = importance.importance(source)
    assert found.weights[0].name == "share of attention"
    assert found.weights[0].part > 0.8
    assert found.trends["share of attention"] == pytest.approx(-1, abs=0.01)
    assert found.fit > 0.8
    assert found.alone["ratio"] > 0.8 > found.alone["placement"]
    assert (found.rows, found.models, found.left_out) == (30, 30, {})
    assert verdict(found).startswith("Ratio or placement: the ratio matters more")
    assert importance.importance(turned) == found, "the same rows, the same numbers"


def test_the_placement_is_found_where_it_made_the_difference(tmp_path):
    one_of_a_kind = [transformer(heads=8, valid_ppl=20.0), *(hybrid("R" * 12, seed=s) for s in (0, 1))]
    gone = hybrid("RARARARARARA", status="diverged@3", valid_ppl=None)
    found = importance.importance(_of(tmp_path, [*ruled(_by_depth), *one_of_a_kind, gone]))
    assert found.kinds[0].name == "placement"
    assert verdict(found).startswith("Ratio or placement: the placement matters more")
    assert sorted(found.left_out.values()) == [1, 3]
    assert 0 <= found.combined < 0.3


def _noise(count=30):
    draw = random.Random(3)
    return [hybrid(p, valid_ppl=math.exp(3 + 0.1 * draw.random())) for p in patterns(count)]


def test_noise_is_no_importance(tmp_path):
    with pytest.raises(MissingError, match="does not predict the perplexity of models that were held out"):
        importance.importance(_of(tmp_path, _noise()))


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (ruled(_by_share, 19), "19 hybrids, where 20 are the least for 4 features"),
        ([hybrid("R" * 12, valid_ppl=30.0), transformer(valid_ppl=25.0)], "no row is of a hybrid"),
        (
            [one | {"protocol": f"p{place % 2}"} for place, one in enumerate(ruled(_by_share))],
            "its rows differ in protocol",
        ),
        ([one | {"valid_ppl": None} for one in ruled(_by_share)], "no line has a valid_ppl"),
    ],
)
def test_what_cannot_bear_it_is_refused_and_says_why(tmp_path, rows, why):
    with pytest.raises(MissingError, match=why):
        importance.importance(_of(tmp_path, rows))


def test_seeds_of_one_model_are_one_model(tmp_path):
    """Twenty rows of ten models are ten models."""
    rows = [hybrid(p, seed, valid_ppl=30.0 + seed) for p in patterns(10) for seed in (0, 1)]
    with pytest.raises(MissingError, match="10 hybrids"):
        importance.importance(_of(tmp_path, rows))


def test_words_that_some_rows_lack_are_features_and_numbers_are_not(tmp_path):
    """Rows without a split layer have no form of one; rows of an older version no number of heads."""
    made = ruled(_by_share)
    rows = [one | {"decay": "retnet" if place % 2 else "log_spaced"} for place, one in enumerate(made)]
    del rows[0]["decay"]
    rows[0]["ffn"], rows[1]["ffn"] = 64, 128
    kept, _ = importance._usable(_of(tmp_path, rows))
    names = [feature.name for feature in importance._data(kept).features]
    assert "decay schedule" in names
    assert "FFN width" not in names
