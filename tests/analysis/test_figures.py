"""The numbers behind the figures, against the rules that made the studies."""

import math
from fractions import Fraction

import pytest

from analysis import crossing
from analysis.baseline import with_differences
from analysis.figures import changes, context, curves, decode, ladder, pareto, placement, ratio, scaling
from analysis.figures.source import MissingError, open_source
from analysis.plan import read_plan
from analysis.published import retformers
from analysis.rows import read_rows
from analysis.statistics import ci95
from analysis.table import build
from tests.analysis import studies
from tests.analysis.rows import row, study, transformer, type_x
from tests.analysis.studies import gone, model, nats, noise


def expected(name, share, shift=0.0):
    """Mean perplexity over seeds, and half its interval, by the rule of tests/analysis/studies.py."""
    values = [math.exp(nats(share) + shift + noise(name, seed)) for seed in range(studies.SEEDS)]
    return math.fsum(values) / len(values), ci95(values)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Opens a study of tests/analysis/studies.py by name, made once."""
    known = {}

    def opened(name, **options):
        key = (name, *options.items())
        if key not in known:
            folder = tmp_path_factory.mktemp("studies") / name
            known[key] = open_source(getattr(studies, name)(folder, **options))
        return known[key]

    return opened


# ---- pareto ----------------------------------------------------------------------------------
def test_every_counted_convention_is_a_panel_with_every_model(made):
    panels = {panel.convention.column: panel for panel in pareto.data(made("ar_ratio"))}
    decoding = [f"macs_decode_{n}" for n in (128, 512, 2048, 8192)]
    assert list(panels) == ["macs_train_forward", "macs_published", "macs_fvcore", *decoding]
    assert all(len(panel.points) == 31 and not panel.left_out for panel in panels.values())
    point = next(p for p in panels["macs_train_forward"].points if p.architecture == "Type B 3:9")
    assert (point.x, point.family, point.share) == (30_720_000, "Type B", 0.25)
    assert (point.y, point.half) == pytest.approx(expected("Type B 3:9", 0.25, -0.05))
    assert {p.family for p in panels["macs_train_forward"].points} == {
        *("Transformer", "RetNet"),
        *("Type A", "Type B", "Type C"),
    }
    assert [line.label for line in panels["macs_train_forward"].references] == [
        "FFN only",
        "bigram",
        "unigram",
    ]


def test_the_reports_points_are_as_printed(made):
    report = {model.architecture: model for model in pareto.data(made("ar_ratio"))[0].report}
    printed = {model.architecture: model for model in retformers()}
    assert len(report) == 31
    assert len(pareto.data(made("scaling"))[0].report) == len(studies.MIXES), "one for three widths"
    assert all((m.gmacs, m.train_ppl) == (printed[n].gmacs, printed[n].train_ppl) for n, m in report.items())


def test_the_front_is_what_nothing_beats_in_both(made):
    for panel in pareto.data(made("ar_ratio")):
        front = {point.architecture for point in panel.front}
        for point in panel.points:
            beaten = any(
                other.x <= point.x and other.y <= point.y and (other.x, other.y) != (point.x, point.y)
                for other in panel.points
            )
            assert (point.architecture in front) == (not beaten), (panel.convention.column, point)
        assert [p.x for p in panel.front] == sorted(p.x for p in panel.front)
        assert [p.y for p in panel.front] == sorted((p.y for p in panel.front), reverse=True)


def test_leaky_and_diverged_models_stand_on_no_front(made):
    for panel in pareto.data(made("ar_ratio", protocol="published")):
        best = min(panel.points, key=lambda point: point.y)
        assert best.leaky, "leaking looks best, or this test proves nothing"
        assert [point.architecture for point in panel.front] == ["RetNet"]
        assert {p.architecture for p in panel.points if p.diverged} == {"Type C 2:6"}
        assert best.causal == pytest.approx(2 * best.y)


def test_one_diverged_run_of_three_is_enough_to_be_no_candidate(tmp_path):
    good, bad = model("RetNet", "a"), model("Transformer", "b", macs_train_forward=1)
    source = open_source(study(tmp_path, *good, *bad[:2], *gone(bad[2:])))
    panel = pareto.data(source)[0]
    point = next(p for p in panel.points if p.architecture == "Transformer")
    assert point.x == 1
    assert math.isfinite(point.y)
    assert point.diverged
    assert [p.architecture for p in panel.front] == ["RetNet"]


def test_lines_whose_costs_differ_between_commits_are_left_out_and_named(tmp_path):
    mixed = [row(), row(seed=1, git_commit="bbb", macs_train_forward=5)]
    panels = {
        p.convention.column: p for p in pareto.data(open_source(study(tmp_path, *mixed, transformer())))
    }
    assert [p.architecture for p in panels["macs_train_forward"].points] == ["Transformer"]
    assert panels["macs_train_forward"].left_out == ("RetNet",)
    assert len(panels["macs_decode_2048"].points) == 2


def test_units_follow_the_numbers():
    assert pareto.unit([5e6, 9.9e8]) == (1e6, "MMACs")
    assert pareto.unit([5e6, 1e9]) == (1e9, "GMACs")


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([row(), transformer(protocol="published")], "differ in protocol"),
        ([row(), transformer(context=127)], "differ in context"),
        ([row(task="count", valid_ppl=None, train_ppl=None, test_ppl=None)], "no line has a valid_ppl"),
    ],
)
def test_no_front_where_lines_cannot_be_weighed(tmp_path, rows, why):
    with pytest.raises(MissingError, match=why):
        pareto.data(open_source(study(tmp_path, *rows)))


# ---- ratio -----------------------------------------------------------------------------------
def test_ratio_has_a_rising_series_a_layout_and_its_reference_lines(made):
    found = ratio.data(made("ar_ratio"))
    assert {name: len(points) for name, points in found.series.items()} == {
        **{"Transformer": 1, "RetNet": 1},
        **{"Type A": 11, "Type B": 11, "Type C": 7},
    }
    assert [point.x for point in found.series["Type C"]] == [k / 8 for k in range(1, 8)]
    assert {line.label: line.y for line in found.references}["FFN only"] == 45.0
    point = found.series["Type A"][9]
    assert point.architecture == "Type A 10:2"
    assert (point.y, point.half) == pytest.approx(expected("Type A 10:2", 10 / 12))


def test_no_ratio_where_models_of_one_ratio_differ_or_all_have_the_same(made, tmp_path):
    with pytest.raises(MissingError, match="one layout and ratio differ"):
        ratio.data(made("scaling"))
    with pytest.raises(MissingError, match="do not differ in their share"):
        ratio.data(open_source(study(tmp_path, type_x("A", 3), type_x("B", 3))))


# ---- ladder ----------------------------------------------------------------------------------
def rungs_of(found, name, model_name):
    return {rung.step: rung for rung in found.rungs[name] if rung.model == model_name}


def test_each_step_is_measured_against_the_model_as_it_is_both_ways(made):
    found = ladder.data(made("defects"))
    assert list(found.rungs) == ["published", "corrected"]
    assert found.models == ("Transformer", "RetNet", "Type A 10:2", "Type C 4:4")
    for name, protocol, sign in (("published", "published", 1), ("corrected", "corrected", -1)):
        rungs = rungs_of(found, name, "Transformer")
        assert rungs["as it is"].change is None
        for step, shift in studies.STEPS.items():
            runs = [f"{protocol}/{own}/Transformer" for own in (step, "as it is")]
            scatter = [math.fsum(noise(run, seed) for seed in range(3)) / 3 for run in runs]
            change = rungs[step].change
            assert change.nats == pytest.approx(sign * shift + scatter[0] - scatter[1], abs=1e-9)
            assert change.low < change.nats < change.high
    assert rungs_of(found, "published", "Transformer")["all repaired"].change.nats == pytest.approx(
        -0.3, abs=0.01
    )


def test_leaky_rungs_are_marked_and_read_under_a_causal_mask(made):
    rungs = rungs_of(ladder.data(made("defects")), "published", "Transformer")
    assert rungs["as it is"].leaky
    assert not rungs["causal mask"].leaky
    # as trained, leaking halves the perplexity: repairing it would cost log 2
    assert rungs["causal mask"].change.nats == pytest.approx(-0.08, abs=0.01)


def test_a_mask_does_not_concern_a_retnet_and_divergence_has_no_number(made):
    found = ladder.data(made("defects"))
    assert rungs_of(found, "published", "RetNet")["causal mask"].same
    assert not rungs_of(found, "published", "Transformer")["causal mask"].same
    rungs = rungs_of(found, "published", "Type C 4:4")
    assert rungs["as it is"].diverged
    assert rungs["clipping"].change.nats is None
    assert rungs["warm-up"].change.nats == -math.inf
    assert not rungs["warm-up"].diverged


def test_one_seed_gives_changes_without_intervals(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "SEEDS", 1)
    runs = [(model("RetNet", "a", 0.0, 1), "as it is"), (model("RetNet", "b", 0.1, 1), "clipping")]
    members = [(rows, {"ladder": "published", "step": step}) for rows, step in runs]
    found = ladder.data(open_source(studies.planned(tmp_path / "s", "defects", members)))
    change = rungs_of(found, "published", "RetNet")["clipping"].change
    assert change.nats == pytest.approx(0.1 + noise("b", 0) - noise("a", 0))
    assert (change.low, change.high) == (None, None)
    assert "one run a variant" in change.why


def test_models_of_one_architecture_climb_a_ladder_each(made):
    found = ladder.data(made("divergence"))
    assert len(found.models) == 6
    rungs = rungs_of(found, "divergence", next(name for name in found.models if "direct, lr 0.006" in name))
    assert (rungs["as it is"].n, rungs["as it is"].ok) == (3, 2)
    assert rungs["as it is"].diverged
    assert {step for step, rung in rungs.items() if rung.change and rung.change.nats == -math.inf} == {
        *("warm-up", "clipping", "both")
    }


# ---- placement -------------------------------------------------------------------------------
def test_the_spread_of_placement_stands_beside_the_effect_of_ratio(made):
    found = placement.data(made("placement"))
    assert {kind: len(points) for kind, points in found.points.items()} == {
        **dict.fromkeys(studies.PLACEMENTS, 3),
        "random": 9,
    }
    assert [spread.share for spread in found.spreads] == [0.25, 0.5, 0.75]
    assert all(spread.count == 8 for spread in found.spreads)
    assert found.largest_spread == pytest.approx(0.09, abs=0.01)  # last -0.04, head split 0.05
    assert found.ratio_effect == pytest.approx(0.125, abs=0.004)
    assert found.effect.low < 0.125 < found.effect.high
    assert found.effect.high - found.effect.low < 0.01
    sd = changes.models(made("placement")).popitem()[1][0].residual_sd
    assert found.spreads[0].chance == pytest.approx(2.847 * sd / math.sqrt(3), rel=1e-3)  # Tippett, n = 8
    assert found.seeds == 3
    assert {end.architecture for end in found.ends} == {"Transformer", "RetNet"}


def test_a_placement_that_one_ratio_alone_has_is_in_no_span(tmp_path):
    members = [
        (model(f"Type {kind} {k}:{12 - k}", f"{kind}{k}", shift, seeds=1), {"placement": said})
        for k in (3, 6)
        for kind, said, shift in (("A", "first", 0.0), ("B", "last", 0.02))
    ]
    alone = model("Type C 2:6", "far off", 0.9, seeds=1)
    found = placement.data(
        open_source(studies.planned(tmp_path / "s", "placement", [*members, (alone, {"placement": "split"})]))
    )
    assert [spread.count for spread in found.spreads] == [2, 2]
    assert found.largest_spread < 0.05
    assert len(found.points["split"]) == 1, "it is drawn all the same"
    assert (found.seeds, found.effect.low, found.spreads[0].chance) == (1, None, None)
    assert "one run a variant" in found.effect.why


def test_labels_are_those_of_the_table_with_its_plan(made):
    source = made("defects")
    table = build(source.name, read_rows(source.folder), read_plan(source.folder))
    assert [line["label"] for line in source.table.lines] == [line["label"] for line in table.lines]
    assert any("published: causal mask" in line["label"] for line in source.table.lines)


def test_intervals_are_those_of_the_table(made):
    source = made("scaling")
    table = with_differences(source.table, source.rows, source.plan)
    wanted = {line["variant_hash"]: line for line in table.lines if line.get("against_percent") is not None}
    for series in scaling.data(source).series:
        for point, change in zip(series.points, series.changes, strict=True):
            if series.family != "Transformer":
                line = wanted[point.variant_hash]
                assert 100 * math.expm1(change.low) == pytest.approx(line["against_percent_low"])
                assert 100 * math.expm1(change.high) == pytest.approx(line["against_percent_high"])


def test_ends_that_a_sweep_brings_as_references_are_models_in_every_figure(made):
    source = made("placement")
    assert {line["label"] for line in source.references} == {"bigram", "unigram"}
    found = ratio.data(source)
    assert [found.series[end][0].x for end in ("RetNet", "Transformer")] == [0.0, 1.0]
    front = next(p for p in pareto.data(source) if p.convention.column == "macs_decode_2048").front
    assert front[0].architecture == "RetNet"
    assert {c.label: c.crossover for c in decode.data(source).costs["macs"]}["RetNet"] == 40


def test_a_leaky_placement_has_no_part_in_the_spread(tmp_path):
    runs = [(model("Type A 6:6", "a"), "first"), (model("Type B 6:6", "b", 0.1), "last")]
    runs.append((model("Type C 4:4", "c", -2.0, leaky=True), "head split"))
    members = [(rows, {"placement": kind}) for rows, kind in runs]
    found = placement.data(open_source(studies.planned(tmp_path / "s", "placement", members)))
    assert len(found.points["head split"]) == 1
    assert found.largest_spread == pytest.approx(0.1, abs=0.01)


# ---- scaling, context ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("figure", "name", "xs", "factor"),
    [
        (scaling, "scaling", [352_000, 704_000, 1_408_000], 2 / 3),
        (context, "context", [63, 127, 255], 4 / 3),
    ],
)
def test_gaps_to_the_transformer_of_the_same_place(made, figure, name, xs, factor):
    found = figure.data(made(name))
    assert [series.architecture for series in found.series] == list(studies.MIXES)
    retnet = found.series[1]
    assert [point.x for point in retnet.points] == xs
    for step, change in enumerate(retnet.changes):
        assert change.nats == pytest.approx(0.25 * factor**step, abs=0.01)
        assert change.low < change.nats < change.high
    assert all(change.nats == 0 for change in found.series[0].changes)


def test_without_a_transformer_there_is_nothing_to_differ_from(tmp_path):
    rows = [one for d in (64, 128) for one in model("RetNet", f"r{d}", d_model=d, params=10 * d)]
    found = scaling.data(open_source(study(tmp_path, *rows)))
    assert [series.changes for series in found.series] == [(None, None)]


# ---- curves ----------------------------------------------------------------------------------
def test_curves_are_means_of_blocks_and_of_seeds(tmp_path):
    folder = studies.with_metrics(study(tmp_path, *model("RetNet", "a"), *model("Transformer", "b")))
    found = curves.data(open_source(folder))
    assert found.block == {"loss": 4, "valid_loss": 1}
    curve = next(curve for curve in found.curves["loss"] if curve.label == "RetNet")
    assert curve.steps == tuple(range(4, 201, 4))
    assert curve.runs == 3
    first = 6 - 2.5 / 200  # the mean of steps 1 to 4 of seed 0
    assert (curve.low[0], curve.mean[0], curve.high[0]) == pytest.approx((first, first + 0.01, first + 0.02))
    validation = found.curves["valid_loss"][0]
    assert validation.steps == (100, 200)
    assert validation.mean == pytest.approx((5.61, 5.11))


def test_published_curves_are_read_too_and_runs_that_kept_different_steps_meet_in_blocks(tmp_path):
    source = studies.planned(tmp_path / "s", "smoke", [(model("RetNet", "a", seeds=2), {})])
    folder = studies.published(tmp_path / "results", source)
    kept = {0: (10, 20, 30), 1: (9, 18, 30)}
    lines = [
        f"a,{seed},{step},{5 - step / 100},{4 if step == 30 else ''}" for seed in kept for step in kept[seed]
    ]
    (folder / "curves.csv").write_text("\n".join(["variant_hash,seed,step,loss,valid_loss", *lines, ""]))
    found = curves.data(open_source(folder))
    assert list(found.curves) == ["loss"], "one validation, at the end, is no curve"
    (curve,) = found.curves["loss"]
    assert (curve.steps, curve.runs, found.block["loss"]) == ((10, 20, 30), 2, 10)
    assert curve.mean == pytest.approx((4.905, 4.81, 4.7))
    assert (curve.low[0], curve.high[0]) == pytest.approx((4.9, 4.91))


def test_trials_that_still_train_and_studies_without_logs_have_no_curves(tmp_path):
    folder = study(tmp_path, row(), transformer())
    (folder / "trials" / "running").mkdir()
    (folder / "trials" / "running" / "metrics.jsonl").write_text('{"step": 1, "loss": 6.0}\n')
    with pytest.raises(MissingError, match="no losses were kept"):
        curves.data(open_source(folder))


# ---- decode ----------------------------------------------------------------------------------
def test_crossovers_are_where_the_straight_lines_meet(made):
    found = decode.data(made("ar_ratio"))
    costs = {cost.label: cost for cost in found.costs["macs"]}
    # a layer: 5 d^2 + 2 d d/h against 4 d^2 + 2 n d: n = d/2 + d/h
    assert costs["RetNet"].crossover == costs["Type A 10:2"].crossover == 64 / 2 + 64 / 8
    assert costs["RetNet"].linear == (Fraction(costs["RetNet"].values[128]), 0)
    assert costs["Transformer"].crossover is None
    assert {c.label: c for c in found.costs["state"]}["RetNet"].crossover == 64 / 8 / 2
    shown = [cost.label for cost in decode.shown(found.costs["macs"])]
    assert shown == ["RetNet", "Type A 3:9", "Type A 6:6", "Type A 10:2", "Transformer"], (
        "C 4:4 costs as A 6:6"
    )
    assert found.d_model == 64


def test_counts_on_no_straight_line_cross_between_counted_contexts():
    base = {128: 100, 512: 200, 2048: 600}
    assert crossing.closed_form({128: 150, 512: 150, 2048: 450}) is None
    crossover, how = crossing.cross({128: 150, 512: 150, 2048: 450}, base)
    assert crossover == 128 + 384 * 50 / 100
    assert "between two counted contexts" in how
    assert crossing.cross({128: 150, 512: 250, 2048: 650}, base)[0] is None
    assert crossing.cross({128: 10, 512: 10}, {128: 10 + 128, 512: 10 + 512})[0] is None, "below it from 0 on"


def test_several_widths_have_several_costs(made):
    with pytest.raises(MissingError, match="costs different numbers"):
        decode.data(made("scaling"))
