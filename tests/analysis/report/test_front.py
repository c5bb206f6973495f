"""The Pareto front of the page, and what stands beside it."""

import math

import pytest

from analysis.rows import read_rows
from analysis.table import build
from tests.analysis.report import pages
from tests.analysis.rows import row, study, transformer, type_x

pytest.importorskip("jinja2", reason="a report needs the extra [report]")
pytest.importorskip("plotly", reason="a report needs the extra [report]")
pytest.importorskip("itables", reason="a report needs the extra [report]")

from analysis.report import bundled

pytestmark = pytest.mark.usefixtures("light")
LIBRARIES = {name: getattr(bundled, name) for name in ("plotly_js", "datatables_js", "datatables_css")}


def test_every_convention_of_the_drop_down_has_the_rows_numbers(ratios, of_ratios):
    lines = {
        line["label"]: line for line in build("ratios", read_rows(ratios)).lines if not line["reference"]
    }
    figure = pages.charts(of_ratios)["s1-pareto-pareto"]
    (menu,) = figure["layout"]["updatemenus"]
    columns = (
        "macs_train_forward",
        "macs_published",
        "macs_fvcore",
        *(f"macs_decode_{n}" for n in (128, 512, 2048, 8192)),
    )
    assert len(menu["buttons"]) == len(columns)
    for column, button in zip(columns, menu["buttons"], strict=True):
        changed = button["args"][0]
        drawn = set()
        for trace, xs, ys, halves in zip(
            figure["data"], changed["x"], changed["y"], changed["error_y.array"], strict=True
        ):
            if trace["name"] != "front of the means":
                drawn |= set(zip(xs, ys, halves, strict=True))
        assert drawn == {(one[column], one["valid_ppl"], one["valid_ppl_ci95"]) for one in lines.values()}


def test_leaky_points_are_hollow_and_on_no_front(tmp_path):
    folder = study(
        tmp_path / "leaky",
        transformer(leaky=True, valid_ppl=3.0, macs_train_forward=1, variant_hash="a"),
        row(valid_ppl=30.0),
        type_x("A", 6, valid_ppl=31.0, macs_train_forward=40_000_000),
    )
    figure = pages.charts(pages.page(folder))["s1-pareto-pareto"]
    traces = {trace["name"]: trace for trace in figure["data"]}
    assert traces["front of the means"]["y"] == [30.0]
    assert traces["Transformer, leaky"]["y"] == [3.0]
    assert traces["Transformer, leaky"]["marker"]["symbol"].endswith("-open")
    assert "Transformer" not in traces


@pytest.mark.parametrize("values", [(20.0, 30.0), (2.0, 30.0)])
def test_the_bigram_is_named_with_its_value_where_it_is_drawn(tmp_path, values):
    made = (make(valid_ppl=value) for make, value in zip((transformer, row), values, strict=True))
    layout = pages.charts(pages.page(study(tmp_path / "lines", *made)))["s1-ratio-ratio"]["layout"]
    (bigram,) = [one for one in layout["annotations"] if one["text"] == "bigram 38.40"]
    is_log = layout["yaxis"].get("type") == "log"
    assert is_log == (values[0] == 2.0)
    assert bigram["y"] == pytest.approx(math.log10(38.4) if is_log else 38.4)
    assert layout["yaxis"]["range"][0] < bigram["y"] < layout["yaxis"]["range"][1]


def test_leaky_points_stand_beside_their_causal_evaluation(tmp_path):
    leaky = transformer(leaky=True, valid_ppl=3.0, valid_ppl_causal_eval=50.0)
    figure = pages.charts(pages.page(study(tmp_path / "leaky", leaky, row())))["s1-ratio-ratio"]
    (dots,) = [trace for trace in figure["data"] if trace.get("name") == "leaky weights, causal mask"]
    assert dots["x"] == [1.0]
    assert dots["y"] == [50.0]
    low, high = figure["layout"]["yaxis"]["range"]
    assert low < math.log10(50.0) < high
