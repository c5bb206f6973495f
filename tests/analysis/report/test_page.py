import json
import math

import pytest

from analysis.inference import differences
from analysis.plan import read_plan
from analysis.published import retformers
from analysis.rows import read_rows
from analysis.table import build
from analysis.verdicts import judge
from tests.analysis import studies
from tests.analysis.report import pages
from tests.analysis.rows import row, study, transformer, type_x

pytest.importorskip("jinja2", reason="a report needs the extra [report]")
pytest.importorskip("plotly", reason="a report needs the extra [report]")
pytest.importorskip("itables", reason="a report needs the extra [report]")

from analysis.report import bundled
from analysis.report.__main__ import main
from analysis.report.page import html

pytestmark = pytest.mark.usefixtures("light")
LIBRARIES = {name: getattr(bundled, name) for name in ("plotly_js", "datatables_js", "datatables_css")}


# ---- the file --------------------------------------------------------------------------------
def test_one_study_is_written_into_its_folder_and_several_into_runs(
    ratios, ladder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("analysis.report.__main__.html", lambda folders, command: f"{len(folders)} {command}")
    assert main([str(ratios)]) == 0
    assert (ratios / "report.html").read_text() == f"1 python -m analysis.report {ratios}"
    assert main([str(ratios), str(ladder)]) == 0
    assert (tmp_path / "runs/report.html").read_text().startswith("2 ")
    assert (
        main([str(ratios), "--out", "a/b.html"]) == main([f"--out={tmp_path / 'c.html'}", str(ladder)]) == 0
    )
    assert (tmp_path / "a/b.html").is_file()
    assert (tmp_path / "c.html").is_file()
    assert capsys.readouterr().out.splitlines()[1:] == [
        "runs/report.html",
        "a/b.html",
        f"{tmp_path / 'c.html'}",
    ]


def test_nothing_outside_the_file_is_named_to_be_loaded(of_ratios):
    for element in of_ratios.every():
        for attribute in ("src", "href", "action", "poster", "data"):
            value = element.attributes.get(attribute)
            assert value is None or value.startswith(("#", "data:")), f"{element.tag} {attribute}={value}"
    assert not of_ratios.all("iframe")
    (policy,) = [one for one in of_ratios.all("meta") if one.attributes.get("http-equiv")]
    assert policy.attributes["content"].startswith("default-src 'none'")
    sources = policy.attributes["content"].split("; ")[1:]
    assert not any("http" in source or "*" in source or "self" in source for source in sources)


def test_the_libraries_stand_in_it_once_and_whole(ratios, monkeypatch):
    for name, original in LIBRARIES.items():
        monkeypatch.setattr(bundled, name, original)
    scripts = ["".join(one.parts) for one in pages.page(ratios).all("script")]
    assert sum("plotly.js v" in text[:3000] for text in scripts) == 1
    assert sum("DataTables" in text and "export{" in text for text in scripts) == 1


def test_ids_are_unique_and_the_contents_lead_to_them(of_both):
    ids = [one.attributes["id"] for one in of_both.every() if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    links = [link.attributes["href"].removeprefix("#") for link in of_both.all("a")]
    assert set(links) <= set(ids)
    assert {section.attributes["id"] for section in of_both.all("section")} == set(links)


def test_what_rows_say_is_text_and_never_markup(tmp_path):
    evil = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
    folder = study(
        tmp_path / "evil",
        *(
            row(evil, variant_hash="v", seed=seed, device=evil, corpus=evil, valid_ppl=30 + seed)
            for seed in (0, 1)
        ),
        *(transformer(seed=seed, corpus=evil) for seed in (0, 1)),
    )
    found = pages.page(folder)
    assert not found.all("img")
    assert not [
        one for one in found.all("script") if "alert(2)" in one.text and "data-chart" not in one.attributes
    ]
    assert evil in [one["model"] for one in pages.rows(found.id("s1-lines-table"))]
    for figure in pages.charts(found).values():
        drawn = [trace.get("name") or "" for trace in figure["data"]]
        drawn += [text for trace in figure["data"] for text in trace.get("hovertext") or ()]
        assert not any("<img" in text for text in drawn), "plotly reads HTML in its labels"


# ---- the table -------------------------------------------------------------------------------
def test_cells_are_sorted_by_the_values_of_the_lines(ratios, of_ratios):
    lines = build("ratios", read_rows(ratios)).lines
    table = of_ratios.id("s1-lines-table")
    heads = [head.text for head in table.all("th")]
    titles = [head.attributes.get("title", "") for head in table.all("th")]
    place = next(index for index, title in enumerate(titles) if "(valid_ppl)" in title)
    cost = next(index for index, title in enumerate(titles) if "(macs_train_forward)" in title)
    drawn = {}
    for one in table.all("tr")[1:]:
        cells = one.all("td")
        drawn[cells[heads.index("model")].text] = [
            float(cells[i].attributes["data-order"]) for i in (place, cost)
        ]
    for line in lines:
        assert drawn[line["label"]] == [line["valid_ppl"], line["macs_train_forward"]]
    assert list(drawn)[-1] == "unigram"
    assert drawn["unigram"] == [194.0, 1e308], "what is missing is sorted last"


def test_marks_say_leaky_tuned_matched_and_diverged(tmp_path):
    folder = study(
        tmp_path / "marks",
        transformer(leaky=True, variant_hash="a"),
        row(tuned_from="0.003 0.006", match="macs", ffn=72, variant_hash="b"),
        *(
            type_x("C", 4, variant_hash="c", seed=seed, status=status)
            for seed, status in ((0, "ok"), (1, "diverged@3"))
        ),
    )
    marks = {one["model"]: one["marks"] for one in pages.rows(pages.page(folder).id("s1-lines-table"))}
    assert marks["Transformer leaky"] == "leaky" or "leaky" in next(
        marks[k] for k in marks if "Transformer" in k
    )
    assert "tuned (0.003 0.006)" in next(said for label, said in marks.items() if label.startswith("RetNet"))
    assert "matched macs (ffn 72)" in next(
        said for label, said in marks.items() if label.startswith("RetNet")
    )
    assert "diverged@3" in next(said for label, said in marks.items() if label.startswith("Type C"))


def test_what_looked_ahead_is_sorted_after_every_likelihood(tmp_path):
    gone = studies.gone(studies.model("Type C 4:4", "c", seeds=1))
    ahead = [transformer(leaky=True, valid_ppl=3.0), type_x("A", 6, leaky=True, valid_ppl=2.0)]
    table = pages.page(study(tmp_path / "s", *ahead, row(valid_ppl=30.0), *gone)).id("s1-lines-table")
    place = [head.text for head in table.all("th")].index("valid ppl")
    cells = {one.all("td")[0].text: one.all("td")[place] for one in table.all("tr")[1:]}
    order = sorted(cells, key=lambda name: float(cells[name].attributes["data-order"]))
    assert [name for name in order if "gram" not in name] == [
        "RetNet",
        "Type C 4:4",
        "Type A 6:6 leaky",
        "Transformer leaky",
    ]


# ---- sections --------------------------------------------------------------------------------
def test_a_section_without_data_is_a_line_of_the_contents(of_ratios):
    sections = {section.attributes["id"] for section in of_ratios.all("section")}
    assert {
        "run",
        "claims",
        "lines",
        "pareto",
        "ratio",
        "curves",
        "decode",
        "contrasts",
        "provenance",
    } <= sections
    assert not {"ladder", "placement", "scaling", "context", "protocols"} & sections
    contents = [item.text for item in of_ratios.all("nav")[0].all("li")]
    assert any(
        item.startswith("Placement against ratio: its plan.json names no placements") for item in contents
    )


def test_contrasts_stand_as_they_were_judged(ratios, of_ratios):
    found = pages.rows(of_ratios.id("s1-contrasts"))
    section = judge(read_rows(ratios), read_plan(ratios)).section()
    assert len(found) == len(section.lines) > 4
    for one, line in zip(found, section.lines, strict=True):
        assert list(one.values()) == [" ".join(column.cell(line).split()) for column in section.columns]
    assert any("resolved: A is higher by" in one["verdict"] for one in found)


def test_the_ladder_is_drawn_and_told(of_both):
    published = {one["step"]: one for one in pages.rows(of_both.id("s2-ladder-published-table"))}
    assert published["causal mask"]["Transformer"].startswith("−7.")
    assert published["causal mask"]["RetNet"] == "does not concern it"
    assert published["warm-up"]["Type C 4:4"] == "0 of 3 diverged (as it is: 3 of 3)"
    assert published["clipping"]["Type C 4:4"] == "3 of 3 diverged (as it is: 3 of 3)"
    assert published["as it is"]["Type C 4:4"] == "as it is; 3 of 3 diverged"
    assert "many and not adjusted for their number" in of_both.id("ladder").text
    traces = pages.charts(of_both)["s2-ladder-published"]["data"]
    steps = pages.charts(of_both)["s2-ladder-published"]["layout"]["yaxis"]["ticktext"]
    drawn = [trace for trace in traces if trace["name"] == "RetNet"]
    warm = [
        x
        for trace in drawn
        for x, y in zip(trace["x"], trace["y"], strict=True)
        if round(y) == steps.index("warm-up")
    ]
    assert warm == pytest.approx([-0.05], abs=0.01)


def test_placement_sizes_and_contexts_have_their_charts(tmp_path):
    made = [
        studies.placement(tmp_path / "p"),
        studies.scaling(tmp_path / "s"),
        studies.context(tmp_path / "c"),
    ]
    found = pages.page(*made)
    drawn = pages.charts(found)
    assert {
        "s1-placement-placement",
        "s2-scaling-scaling",
        "s2-scaling-scaling-change",
        "s3-context-context",
    } <= set(drawn)
    written = [one["text"] for one in drawn["s1-placement-placement"]["layout"]["annotations"]]
    assert written == ["bigram 38.40, above the axis"]
    told = found.id("placement").text
    assert "8 placements span" in told
    assert "equally good ones would span" in told
    assert "between the means over placements: 13" in told
    assert "One seed" not in told
    gaps = next(trace for trace in drawn["s2-scaling-scaling-change"]["data"] if trace["name"] == "RetNet")
    assert gaps["y"] == pytest.approx([0.25, 0.25 * 2 / 3, 0.25 * 4 / 9], abs=0.01)


def test_crossings_are_marked_and_told(of_ratios):
    shapes = pages.charts(of_ratios)["s1-decode-macs"]["layout"]["shapes"]
    assert 40 in {shape["x0"] for shape in shapes}, "d_model / 2 + d_model / heads"
    told = pages.rows(of_ratios.id("s1-decode-crossings"))
    assert any(
        "RetNet" in one["model"] and "from a context of 40 on" in " ".join(one.values()) for one in told
    )


def test_both_protocols_stand_side_by_side(of_both):
    (table,) = [one for one in of_both.all("table") if one.attributes["id"] == "s2-protocols"]
    found = {one["model"]: one for one in pages.rows(table)}
    assert found["Type A 10:2"]["report rank"] == "1"
    assert "published rank" not in found["RetNet"], "the only one that does not leak has no rank"
    assert found["Type A 10:2"]["corrected rank"]


def test_a_study_of_both_protocols_is_its_own_counterpart_and_data_decide(ratios, ladder, tmp_path):
    headings = [head.text for head in pages.page(ratios, ladder).id("protocols").all("h3")]
    assert len(headings) == 1
    assert headings[0].startswith("ladder "), "not ratios, which has more models in common"
    models = ("Transformer", "RetNet", "Type A 6:6")
    named = [one for name in models for one in studies.model(name, name)]
    other = [one | {"protocol": "published", "data_hash": "f" * 16} for one in named]
    renamed = [one | {"protocol": "published", "corpus": "pydocs of another folder"} for one in named]
    mine = study(tmp_path / "mine", *named)
    apart, same = study(tmp_path / "apart", *other), study(tmp_path / "same", *renamed)
    assert not [one for one in pages.page(mine, apart).all("section") if one.attributes["id"] == "protocols"]
    found = pages.page(mine, same)
    assert found.id("protocols").all("h3")[0].text.startswith("same and mine ")
    assert "against-2-chart" not in pages.charts(found)
    longer = study(tmp_path / "longer", *(one | {"steps": 1600} for one in renamed))
    found = pages.page(mine, longer)
    assert "against-2-chart" in pages.charts(found), "trained longer: no chart in common"
    assert "1,600 steps against 800 steps" in found.id("protocols").all("h3")[0].text


def test_the_length_of_training_stands_in_the_first_table(tmp_path):
    runs = [one | {"steps": 350, "tokens": 352800} for one in studies.model("Transformer", "t")]
    (first,) = pages.rows(pages.page(study(tmp_path / "s", *runs)).id("studies"))
    assert first["steps x batch"] == "350 x 1,008 tokens (352,800)"


def test_models_below_the_bigram_are_warned_of_where_contrasts_stand(tmp_path):
    runs = [studies.model(name, name, bigram_valid_ppl=20.0) for name in ("Transformer", "RetNet")]
    found = pages.page(studies.planned(tmp_path / "low", "ar_ratio", [(one, {}) for one in runs]))
    for section in ("run", "contrasts"):
        assert "No model learned as much as counting pairs of tokens gives" in found.id(section).text


def test_commands_show_no_path_of_this_machine(tmp_path):
    folder = studies.planned(tmp_path / "s", "ar_ratio", [(studies.model("Transformer", "t"), {})])
    plan = json.loads((folder / "plan.json").read_text())
    plan["commands"] = ["python -m retsweep data.path=/home/someone/texts/pydocs"]
    (folder / "plan.json").write_text(json.dumps(plan))
    text = pages.read(html([folder], f"python -m analysis.report {folder}")).text
    assert "data.path=PATH_TO/pydocs" in text
    assert "/home/someone" not in text
    assert str(tmp_path) not in text


def test_studies_of_different_texts_share_no_axis(tmp_path):
    ratios = study(tmp_path / "pydocs", transformer(), row(), type_x("A", 6))
    other = studies.model("Transformer", "t", corpus="wikitext2", data_hash="e" * 16)
    other += studies.model("RetNet", "r", corpus="wikitext2", data_hash="e" * 16)
    found = pages.page(ratios, study(tmp_path / "wiki", *other))
    assert "never on one axis" in found.id("run").text
    for name, figure in pages.charts(found).items():
        words = json.dumps(figure["layout"]) + "".join(str(trace.get("name")) for trace in figure["data"])
        assert not ("pydocs" in words and "wikitext2" in words), name


def test_a_published_folder_is_a_study_too(ratios, of_ratios, tmp_path):
    folder = studies.published(tmp_path / "results" / "ratios", ratios)
    table, again = (build("x", read_rows(one)).lines for one in (ratios, folder))
    assert [line["valid_ppl"] for line in table] == [line["valid_ppl"] for line in again]
    assert pages.claims(pages.page(folder)) == pages.claims(of_ratios)


def test_counts_may_stand_beside_what_was_trained(tmp_path):
    counted = study(tmp_path / "counted", *pages.counted())
    said = pages.claims(pages.page(study(tmp_path / "trained", transformer(), row()), counted))[
        "Retention saves a third of the MACs"
    ]
    assert "counted does not hold in training" in said["counting"]
    assert "width 768" in said["counting"]
    assert "counted" not in said["corrected protocol"]


def test_infinities_reach_the_page_as_json(tmp_path):
    gone = studies.gone(studies.model("RetNet", "r"))
    found = pages.page(study(tmp_path / "gone", *studies.model("Transformer", "t"), *gone))
    figure = pages.charts(found)["s1-pareto-pareto"]
    crossed = next(trace for trace in figure["data"] if trace["name"] == "a run diverged")
    assert len(crossed["y"]) == 1
    assert math.isfinite(crossed["y"][0])
    orders = [cell.attributes.get("data-order") for cell in found.id("s1-lines-table").all("td")]
    assert "1e+307" in orders
    assert not {"inf", "nan"} & set(orders)


def test_every_model_stands_against_the_transformer_with_the_reports_own_number(ratios, ladder, of_both):
    figure = pages.charts(of_both)["against-1-chart"]
    names = figure["layout"]["yaxis"]["ticktext"]
    assert names == [model.architecture for model in retformers() if model.architecture != "Transformer"]
    drawn = {trace["name"]: trace for trace in figure["data"]}
    values = {
        names[round(y)]: x
        for x, y in zip(drawn["ratios, corrected"]["x"], drawn["ratios, corrected"]["y"], strict=True)
    }

    def placed(axis):
        return (lambda nats: math.asinh(nats / 0.1)) if "tickvals" in figure["layout"][axis] else float

    place = placed("xaxis")
    rows = read_rows(ratios)
    base = next(row["variant_hash"] for row in rows if row["architecture"] == "Transformer")
    estimates = differences(rows, base)
    for name in ("RetNet", "Type B 11:1", "Type C 4:4"):
        assert values[name] == pytest.approx(place(estimates[name].nats), rel=1e-9)
    printed = {model.architecture: model.train_ppl for model in retformers()}
    report = dict(
        zip(
            (names[round(y)] for y in drawn["the report, train"]["y"]),
            drawn["the report, train"]["x"],
            strict=True,
        )
    )
    assert report["Type A 10:2"] == pytest.approx(
        placed("xaxis2")(math.log(printed["Type A 10:2"] / printed["Transformer"]))
    )
    on_its_own = {trace["name"] for trace in figure["data"] if trace.get("xaxis") == "x2"}
    assert on_its_own == {"the report, train"}
    measured = drawn["ladder, published, train, as measured"]
    own, base = (
        [
            math.log(row["train_ppl"])
            for row in read_rows(ladder)
            if row["variant_hash"] == f"published/as it is/{name}"
        ]
        for name in ("Type A 10:2", "Transformer")
    )
    seen = dict(zip((names[round(y)] for y in measured["y"]), measured["x"], strict=True))
    assert seen["Type A 10:2"] == pytest.approx(place((sum(own) - sum(base)) / 3), rel=1e-9)
    assert drawn["ladder, published, leaky weights"]["marker"]["symbol"].endswith("-open")
    table = {one["model"]: one for one in pages.rows(of_both.id("against-1-table"))}
    assert table["Type A 10:2"]["the report, train"] == "−24.5 %"
    assert table["Type C 4:4"]["ladder, published"].startswith("diverged")
