"""The sections of a search: the front as a table, and what matters."""

import math

import pytest

pytest.importorskip("jinja2", reason="a report needs the extra [report]")
pytest.importorskip("moocore", reason="a report needs the extra [report]")
pytest.importorskip("sklearn", reason="a report needs the extra [report]")

from analysis import importance
from tests.analysis.hybrids import hybrid, patterns
from tests.analysis.report import pages
from tests.analysis.rows import row, study, transformer

pytestmark = pytest.mark.usefixtures("light")


@pytest.fixture(scope="module")
def page(tmp_path_factory, light):
    """Thirty hybrids of which the perplexity is by the share of attention."""
    rows = [
        hybrid(p, seed, valid_ppl=math.exp(3.4 - 0.02 * p.count("A") + 0.002 * seed))
        for p in patterns(30)
        for seed in (0, 1)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importance, "RESAMPLES", 6)
        patch.setattr(importance, "TREES", 16)
        return pages.page(study(tmp_path_factory.mktemp("report") / "searched", *rows))


def test_the_front_is_a_table_with_buckets(page):
    models = pages.rows(page.id("s1-front-table"))
    attention = [one["model"].count("A") for one in models]
    assert attention == sorted(attention, reverse=True), "the lowest perplexity first"
    assert all(one["seeds"] == "2" and "±" in one["valid ppl"] for one in models)
    assert {one["front of ppl, decoding at 2,048"] for one in models} == {"on it"}
    assert [one["model"] for one in models if one["front of ppl, training"]] == [models[0]["model"]], (
        "attention is cheaper in training here"
    )
    buckets = pages.rows(page.id("s1-front-buckets"))
    assert [one["bucket"] for one in buckets] == ["1", "2", "3", "4"]
    assert sum(int(one["models"]) for one in buckets) == 30
    assert sum(int(one["on the front"]) for one in buckets) == len(models)
    assert "Hypervolume 0." in page.id("front").text


def test_models_of_one_ratio_are_said_to_be_left_out_of_the_comparison_with_the_transformer(tmp_path):
    def spelt(pattern, ratio):
        return row(f"Pattern {ratio}", layout="pattern", pattern=pattern, variant_hash=pattern)

    once = [transformer(), row(), spelt("AARR", "1:1")]
    names = {line["model"] for line in against_transformer(tmp_path / "once", *once)[0]}
    assert names == {"RetNet", "Pattern 1:1"}
    lines, text = against_transformer(tmp_path / "twice", *once, spelt("RRRA", "1:3"), spelt("ARRR", "1:3"))
    assert {line["model"] for line in lines} == names
    assert "2 models are left out, whose architecture stands more than once" in text
    assert "left out" not in against_transformer(tmp_path / "again", *once)[1]


def against_transformer(folder, *rows):
    """The table's lines, and all that the section says."""
    page = pages.page(study(folder, *rows))
    return pages.rows(page.id("against-1-table")), page.id("against").text


def test_what_matters_is_told_with_what_it_rests_on(page):
    section = page.id("importance").text
    assert "Ratio or placement: the ratio matters more" in section
    assert "60 rows of 30 hybrids" in section
    features = pages.rows(page.id("s1-importance-features"))
    assert features[0]["feature"] == "share of attention"
    assert features[0]["rank correlation"].startswith("−")
    kinds = {one["kind"]: one for one in pages.rows(page.id("s1-importance-kinds"))}
    assert float(kinds["ratio"]["R², it alone"]) > 0.8


def test_few_hybrids_are_a_line_of_the_contents(tmp_path):
    found = pages.page(
        study(tmp_path / "few", *(hybrid(p, valid_ppl=30.0 + i) for i, p in enumerate(patterns(5))))
    )
    contents = [item.text for item in found.all("nav")[0].all("li")]
    assert any(item.startswith("What matters, ratio or placement: 5 hybrids, where 20") for item in contents)
