"""Benches: crossings, the figures' numbers and files, the printed table, and the page."""

import pytest

from analysis import bench, crossing
from analysis.figures import decode_bench, train_bench
from analysis.figures.measured import pieces
from analysis.figures.source import MissingError, open_source
from analysis.rows import TableError
from analysis.statistics import ci95
from analysis.table import write
from tests.analysis import benches, studies
from tests.analysis.rows import row, study, transformer


@pytest.fixture(scope="module")
def decoded(tmp_path_factory):
    return benches.bench(tmp_path_factory.mktemp("benches") / "decoded")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return benches.bench(tmp_path_factory.mktemp("benches") / "trained", "train_bench", seeds=2)


# ---- where one becomes faster ------------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "context", "how"),
    [
        ([3, 3, 3], 16, "between 10 and 20"),  # the base is 1, 2, 4 at 5, 10, 20: 3 at 15
        ([9, 9, 9], None, "none up to 20"),
        ([0, 0, 0], None, "at every context measured, from 5 on"),
        ([0, 5, 3], 10 + 10 * 3 / 4, "between 10 and 20"),  # below, above by noise, below for good
        ([0, 0, 4], None, "none up to 20"),  # as fast is not faster
    ],
)
def test_a_measured_crossing_lies_between_two_measurements_and_nowhere_else(values, context, how):
    at = (5, 10, 20)
    base = dict(zip(at, [1, 2, 4], strict=True))
    found, said = crossing.cross_measured(dict(zip(at, values, strict=True)), base)
    assert said == how
    if context is None:
        assert found is None
    elif values == [3, 3, 3]:
        assert found == pytest.approx(15)
    else:
        assert found == pytest.approx(context)


def test_two_measurements_are_no_straight_line_to_be_gone_on_with():
    """As counts they would cross at 40."""
    assert crossing.cross({10: 3, 20: 3}, {10: 0, 20: 1})[0] == pytest.approx(40)
    assert crossing.cross_measured({10: 3, 20: 3}, {10: 0, 20: 1}) == (None, "none up to 20")


def test_crossings_are_of_the_latencies_and_beside_them_of_the_counts(decoded):
    found = {(one.architecture, one.batch): one for one in decode_bench.data(open_source(decoded)).crossings}
    assert len(found) == (len(benches.NAMES) - 1) * len(benches.BATCHES)
    assert found["RetNet", 1].measured is None
    assert found["RetNet", 1].how == "none up to 8,192"
    for batch in (16, 64):
        one = found["RetNet", batch]
        assert one.measured == pytest.approx(benches.CROSSINGS[batch])
        assert one.bytes == pytest.approx(576)
        assert one.macs == pytest.approx(64 / 2 + 64 / 8)
    assert found["RetNet", 16].how == "between 512 and 2,048"


def test_without_one_transformer_nothing_crosses():
    lines = [row(decode_latency_ms_128_b1=1.0)]
    assert bench.crossings(lines) == []
    two = [transformer(decode_latency_ms_128_b1=1.0), transformer(decode_latency_ms_128_b1=2.0)]
    assert bench.crossings([*lines, *two]) == []


# ---- figures -----------------------------------------------------------------------------------
def test_the_decoding_figure_has_the_rows_numbers(decoded):
    found = decode_bench.data(open_source(decoded))
    assert found.batches == benches.BATCHES
    assert (found.device, found.precision) == (benches.DEVICE, "fp32")
    for (name, batch), curves in found.curves.items():
        assert len(curves) == len(benches.NAMES)
        for curve in curves:
            ms = {n: benches.latency_ms(curve.share, n, batch) for n in benches.CONTEXTS}
            memory = {n: 10**8 + int(curve.share * n * batch * 1000) for n in ms}
            wanted = {"latency": ms, "memory": memory, "throughput": {n: 1000 * batch / ms[n] for n in ms}}
            assert curve.values == pytest.approx(wanted[name])
            assert curve.halves == {}
    assert {"Transformer", "RetNet", "Type A 3:9", "Type A 6:6"} <= set(decode_bench.chosen(found))
    assert len(decode_bench.chosen(found)) <= 6


def test_drawn_lines_cross_where_the_measurements_are_said_to(decoded):
    """Straight pieces bend on a logarithmic axis: both are read off the same ones."""
    found = decode_bench.data(open_source(decoded)).curves["latency", 16]
    lines = {curve.label: pieces(curve) for curve in found}
    assert lines["RetNet"][0] == lines["Transformer"][0]
    faster = [
        n for n, own, other in zip(*lines["RetNet"], lines["Transformer"][1], strict=True) if own < other
    ]
    assert min(faster) == pytest.approx(benches.CROSSINGS[16], rel=0.06), "within a step of the drawing"
    assert min(faster) >= benches.CROSSINGS[16]
    speeds = decode_bench.data(open_source(decoded)).curves["throughput", 16]
    rates = {curve.label: pieces(curve, rate=True)[1] for curve in speeds}
    times = [1000 * 16 / rate for rate in rates["Transformer"]]
    assert times == pytest.approx(lines["Transformer"][1]), "a rate is drawn as the time that it stands for"


def test_of_many_batches_the_ends_and_one_between_are_drawn():
    assert decode_bench.drawn([1, 4, 16, 64, 256]) == [1, 16, 256]
    assert decode_bench.drawn([1, 64]) == [1, 64]


def test_the_training_figure_has_means_and_intervals(trained):
    found = train_bench.data(open_source(trained))
    curve = next(c for c in found.curves["throughput"] if c.label == "RetNet")
    assert curve.values == pytest.approx(dict.fromkeys(benches.LENGTHS, 20_000 * 0.995))
    assert curve.halves[512] == pytest.approx(ci95([20_000, 19_800]))
    cut = next(c for c in found.curves["throughput"] if c.label == "Transformer")
    assert list(cut.values) == [128, 512, 2048]


def test_what_has_no_measurements_is_not_drawn(decoded, trained, tmp_path):
    with pytest.raises(MissingError, match="task=train_bench"):
        train_bench.data(open_source(decoded))
    with pytest.raises(MissingError, match="task=decode_bench"):
        decode_bench.data(open_source(trained))
    twice = [transformer(variant_hash=name, train_tokens_per_second_128=1.0) for name in "ab"]
    with pytest.raises(MissingError, match="Transformer was measured in several lines"):
        train_bench.data(open_source(study(tmp_path / "twice", *twice)))


def test_both_are_drawn_into_files(decoded, trained):
    pytest.importorskip("matplotlib")
    from analysis.figures.__main__ import write as draw

    for folder, name in ((decoded, "decode_bench"), (trained, "train_bench")):
        files, _ = draw(folder)
        assert [file.suffix for file in files[name]] == [".svg", ".png", ".pdf"]
        assert all(file.stat().st_size > 5000 for file in files[name])


# ---- the table ---------------------------------------------------------------------------------
def test_the_printed_table_shows_a_few_columns_and_the_csv_all(decoded):
    table = write(decoded)
    (section,) = table.sections
    heads = [column.header.replace("\n", " ") for column in section.columns]
    assert heads == [
        "model",
        "params",
        "ms a token at 2,048, batch 1",
        "ms a token at 2,048, batch 64",
        "tokens/s at 2,048, batch 64",
        "peak MB at 2,048, batch 64",
        "moved MB at 2,048, batch 1",
        "moved MB at 2,048, batch 64",
        "MMACs a token at 2,048",
        "ms at 8,192 by ms at 512, batch 1",
        "ms at 8,192 by ms at 512, batch 64",
        "faster than Transformer from, batch 1",
        "faster than Transformer from, batch 64",
        "prompt tokens/s at 2,048",
        "runs",
    ]
    retnet = next(line for line in section.lines if line["label"] == "RetNet")
    cells = [column.cell(retnet) for column in section.columns]
    assert cells[2:4] == ["2.000", "2.000"]
    assert cells[9:11] == ["1.00", "1.00"]
    assert cells[11:13] == ["none up to 8,192", "320 (between 128 and 512)"]
    header = (decoded / "table.csv").read_text().splitlines()[0].split(",")
    written = {name for line in table.lines for name in line if name.startswith(("decode_", "bytes_decode_"))}
    assert written <= set(header)
    assert sum(name.startswith("bytes_decode_") for name in header) == 12, "counts have no interval"
    assert f"measured on {benches.DEVICE}, 2 threads, products in fp32." in table.notes
    wide = "weights float32, cache float32, states float32"
    assert f"moved MB: counted, one step's, of {wide}." in table.notes
    flat = "RetNet, batch 64: a token at 8,192 takes 1.00 times as long as at 512 (target below 1.1: held); "
    assert f"{flat}states constant, 0.001 MB from 128 to 8,192." in table.notes
    assert not any(note.startswith("Transformer, batch") for note in table.notes)
    said = "batch 16: 1,280 (between 512 and 2,048); fewer bytes from 576; fewer MACs from 40."
    assert any(note.endswith(said) for note in table.notes)


def test_what_was_left_out_of_training_stands_below_its_table(trained):
    table = write(trained)
    cells = {line["label"]: table.sections[0].columns[2].cell(line) for line in table.lines}
    assert cells["RetNet"].startswith("19,900 ± ")
    assert not any("report" in note for note in table.notes)
    assert "Transformer, train skipped: 8192: a step needs about 9.0 GB of 4.0." in table.notes
    heads = [column.header.replace("\n", " ") for column in table.sections[0].columns]
    assert heads[2:] == [
        "training tokens/s at 2,048",
        "mfu at 2,048",
        "MMACs a token at 2,048",
        "training peak MB at 2,048",
        "form at 2,048",
        "runs",
    ]


def test_of_two_retnets_each_has_its_own_crossing():
    def one(name, ms, **columns):
        speeds = {f"decode_latency_ms_{n}_b1": value for n, value in ms.items()}
        return row(
            variant_hash=name, task="decode_bench", valid_ppl=None, train_ppl=None, **speeds, **columns
        )

    lines = [
        {**one("a", {512: 1.0, 2048: 3.0}), "architecture": "Transformer", "label": "Transformer"},
        {**one("b", {512: 2.0, 2048: 2.0}), "architecture": "RetNet", "label": "RetNet one"},
        {**one("c", {512: 4.0, 2048: 4.0}), "architecture": "RetNet", "label": "RetNet two"},
    ]
    faster = bench._faster(lines, 1)
    assert [faster.cell(line) for line in lines] == ["", "1,280 (between 512 and 2,048)", "none up to 2,048"]
    said = [note for note in bench.bench_notes(lines) if "decodes faster" in note]
    assert [("RetNet one" in note, "RetNet two" in note) for note in said] == [(True, False), (False, True)]


@pytest.mark.parametrize(("far", "target"), [(1.09, "held"), (1.11, "missed")])
def test_flat_is_by_the_largest_context_up_to_16384_and_of_models_without_attention(far, target):
    latency = {128: 9.0, 512: 1.0, 2048: 5.0, 16384: far, 32768: 7.0}
    line = {f"decode_latency_ms_{n}_b1": ms for n, ms in latency.items()}
    line |= {f"decode_state_bytes_{n}_b1": 1000 + (n == 32768) for n in latency}
    alone, other = bench.flatness([line | {"attention_heads": heads} for heads in (0, 1)])
    assert (alone.far, alone.value, alone.target, alone.constant) == (16384, far, target, False)
    assert (other.value, other.target) == (far, "")
    assert bench.flatness([{"decode_latency_ms_2048_b1": 1.0, "decode_latency_ms_128_b1": 1.0}]) == []


def test_a_training_forward_s_products_are_those_that_its_mfu_was_reckoned_from():
    speed, macs, rate = 2e4, 3e6, 1e12
    line = {"train_mfu_128": 6 * macs * speed / rate, "gemm_flops_per_second": rate}
    line["train_tokens_per_second_128"] = speed
    assert bench._train_macs(line, 128) == pytest.approx(macs)
    assert bench._train_macs({}, 128) is None


def test_a_bench_of_which_nothing_fitted_is_one_and_says_why(tmp_path):
    why = "n=128 b=1: 9 MB, of 1 MB allowed"
    skipped = row(task="decode_bench", decode_skipped=why)
    bare = {name: value for name, value in skipped.items() if "_ppl" not in name and "_per_" not in name}
    table = write(study(tmp_path / "s", bare))
    assert any(note.endswith(f"decode skipped: {why}.") for note in table.notes)


def test_a_study_that_trained_keeps_its_table(tmp_path):
    """Speeds beside perplexities are in the csv."""
    table = write(study(tmp_path / "s", row(train_tokens_per_second_128=5.0), transformer()))
    heads = [column.header.replace("\n", " ") for column in table.sections[0].columns]
    assert "valid ppl" in heads
    assert not any("tokens/s" in head for head in heads)


# ---- the page ----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def page(decoded, trained):
    for library in ("jinja2", "plotly", "itables"):
        pytest.importorskip(library, reason="a report needs the extra [report]")
    from analysis.report import bundled
    from tests.analysis.report import pages

    with pytest.MonkeyPatch.context() as patch:
        for name in ("plotly_js", "datatables_js", "datatables_css"):
            patch.setattr(bundled, name, lambda: "")
        return pages.page(decoded, trained)


def test_a_page_of_benches_alone_draws_what_was_measured(page):
    from tests.analysis.report import pages

    charts = pages.charts(page)
    assert {f"s1-decoding-{name}-{b}" for name in decode_bench.QUANTITIES for b in benches.BATCHES} <= set(
        charts
    )
    assert {f"s2-training-{name}" for name in train_bench.QUANTITIES} <= set(charts)
    traces = charts["s1-decoding-latency-16"]["data"]
    drawn = {trace["name"]: trace for trace in traces if "name" in trace}
    assert drawn["RetNet"]["y"] == pytest.approx([2.0] * 4)
    assert drawn["Transformer"]["x"] == list(benches.CONTEXTS)
    told = pages.rows(page.id("s1-decoding-crossings"))
    (one,) = [cells for cells in told if cells["model"] == "RetNet" and cells["batch"] == "64"]
    assert one["faster than the Transformer from"] == "320 (between 128 and 512)"
    assert one["fewer bytes from"] == "576"
    flat = [cells for cells in pages.rows(page.id("s1-decoding-flatness")) if cells["batch"] == "16"]
    assert [(c["model"], c["ms by ms at 512"], c["target < 1.1"]) for c in flat] == [
        ("RetNet", "1.00", "held")
    ]
    beside = pages.rows(page.id("s1-decoding-counted"))
    assert len(beside) == len(benches.NAMES) * len(benches.CONTEXTS) * len(benches.BATCHES)
    assert all(cells["MMACs a token"] for cells in beside if cells["context"] == "2,048")
    assert "moved MB (weights float32, cache float32, states float32)" in beside[0]
    kinds = [cells["what varies"] for cells in pages.rows(page.id("studies"))]
    assert kinds == ["ratio of attention to retention, speeds only"] * 2


def test_counts_alone_are_still_no_page(tmp_path):
    from analysis.report.studies import open_studies
    from tests.analysis.report.pages import counted

    with pytest.raises(TableError, match="only counted"):
        open_studies([study(tmp_path / "counts", *counted())])


def test_a_study_that_measured_nothing_has_no_figure_of_a_bench(tmp_path):
    source = open_source(studies.scaling(tmp_path / "scaling"))
    for figure in (decode_bench, train_bench):
        with pytest.raises(MissingError):
            figure.data(source)
