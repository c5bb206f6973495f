"""What is drawn and written: files, their sameness, names that do not overlap, and grey."""

import itertools
import os
import subprocess
import sys

import pytest

from analysis.figures import style
from analysis.figures.__main__ import main, write
from analysis.figures.catalogue import FIGURES
from analysis.figures.source import open_source
from analysis.rows import TableError
from tests.analysis import benches, studies
from tests.analysis.rows import row, study, transformer

pytest.importorskip("matplotlib", reason="matplotlib is the extra [figures]")

#: Each figure with a study that has what it needs.
DRAWN = {
    "pareto": "ar_ratio",
    "ratio": "published",
    "ladder": "defects",
    "placement": "placement",
    "scaling": "scaling",
    "context": "context",
    "curves": "ar_ratio",
    "decode": "ar_ratio",
    "decode_bench": "decode_bench",
    "train_bench": "train_bench",
}
BENCHES = {"decode_bench", "train_bench"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    made = {
        name: getattr(studies, name)(folder / name) for name in {*DRAWN.values()} - {"published", *BENCHES}
    }
    made |= {task: benches.bench(folder / task, task, seeds=2) for task in BENCHES}
    made["divergence"] = studies.divergence(folder / "divergence")
    made["published"] = studies.ar_ratio(folder / "published", protocol="published")
    studies.with_metrics(made["ar_ratio"])
    return made


def figure_of(name, sources, source=None):
    module = FIGURES[name]
    return module.draw(module.data(open_source(sources[source or DRAWN[name]])))


def test_each_figure_has_a_study_here():
    assert set(DRAWN) == set(FIGURES)


@pytest.mark.parametrize(
    ("name", "source"), [*DRAWN.items(), ("ladder", "divergence"), ("pareto", "published")]
)
def test_no_two_texts_overlap_and_none_is_cut_off(name, source, sources):
    with style.styled():
        figure = figure_of(name, sources, source)
        figure.draw_without_rendering()
        boxes = [(text, text.get_window_extent()) for text in texts(figure)]
    assert len(boxes) > 10
    for (one, box), (other, its) in itertools.combinations(boxes, 2):
        shared = box.intersection(box, its)
        overlap = 0 if shared is None else min(shared.width, shared.height)
        assert overlap < 1.5, f"{one.get_text()!r} on {other.get_text()!r}"
    page = figure.bbox
    for text, box in boxes:
        inside = box.x0 > -1 and box.y0 > -1 and box.x1 < page.x1 + 1 and box.y1 < page.y1 + 1
        assert inside, f"{text.get_text()!r} leaves the page"


def texts(figure):
    """What a reader sees: legends, titles, labels, names beside points and ticks within the axes."""
    found = [text for legend in figure.legends for text in legend.get_texts()]
    for axis in figure.axes:
        found += [*axis.texts, axis.title, axis.xaxis.label, axis.yaxis.label]
        for side in (axis.xaxis, axis.yaxis):
            low, high = sorted(side.get_view_interval())
            found += [tick.label1 for tick in side.get_major_ticks() if low <= tick.get_loc() <= high]
            found += [tick.label2 for tick in side.get_major_ticks() if tick.label2.get_visible()]
    return [text for text in found if text.get_text().strip() and text.get_visible()]


@pytest.mark.parametrize("name", ["pareto", "ratio"])
def test_what_is_drawn_is_the_data(name, sources):
    found = FIGURES[name].data(open_source(sources["ar_ratio"]))
    points = found[0].points if name == "pareto" else found.points
    scale = found[0].unit[0] if name == "pareto" else 1
    with style.styled():
        axis = FIGURES[name].draw(found).axes[0]
    drawn = {
        (round(float(x), 9), round(float(y), 9))
        for container in axis.containers
        for x, y in zip(*container.lines[0].get_data(), strict=True)
    }
    assert drawn == {(round(p.x / scale, 9), round(p.y, 9)) for p in points}


def test_leaky_points_are_hollow_and_diverged_ones_crossed_at_the_top(sources):
    with style.styled():
        axis = figure_of("ratio", sources).axes[0]
        faces = {container.lines[0].get_markerfacecolor() for container in axis.containers}
        crosses = [line for line in axis.lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert faces == {"white", style.FAMILY["RetNet"][0]}
    (cross,) = crosses
    assert list(cross.get_xdata()) == [0.25]
    assert max(p for line in axis.lines for p in line.get_ydata()) <= cross.get_ydata()[0]


def test_families_differ_in_grey_or_in_marker_and_in_colour():
    looks = list(style.FAMILY.values())
    assert len({marker for _, marker, _ in looks}) == len(looks)
    assert len({colour for colour, _, _ in looks}) == len(looks)
    assert len({marker for _, marker in style.SERIES}) == len(style.SERIES)


def test_the_scale_of_shares_darkens_steadily_in_grey():
    from matplotlib.colors import to_rgb

    greys = [
        sum(w * c for w, c in zip((0.299, 0.587, 0.114), to_rgb(style.share_colour(k / 20)), strict=True))
        for k in range(21)
    ]
    assert all(light - dark > 0.01 for light, dark in itertools.pairwise(greys))


def test_files_are_written_beside_the_rows_and_told_in_a_line(tmp_path, capsys):
    folder = study(tmp_path / "s", row(), transformer())
    assert main([str(folder)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{folder / 'figures'}: drew pareto, ratio (svg, png, pdf); not ladder: ")
    assert sorted(path.name for path in (folder / "figures").iterdir()) == [
        f"{name}.{suffix}" for name in ("pareto", "ratio") for suffix in ("pdf", "png", "svg")
    ]
    assert (folder / "figures" / "ratio.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "figures" / "ratio.pdf").read_bytes().startswith(b"%PDF")


def test_a_published_folder_gets_svg_alone(tmp_path):
    folder = studies.published(tmp_path / "results", study(tmp_path / "s", row(), transformer()))
    drawn, missing = write(folder)
    assert drawn == {"pareto": [folder / "pareto.svg"], "ratio": [folder / "ratio.svg"]}
    assert set(missing) == set(FIGURES) - set(drawn)
    assert "no losses were kept" in missing["curves"]


def test_the_same_study_gives_the_same_bytes_in_another_process(tmp_path):
    folder = study(tmp_path / "s", row(), transformer())
    write(folder)
    first = {path.name: path.read_bytes() for path in (folder / "figures").iterdir()}
    environment = os.environ | {"PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "1000000000"}
    command = [sys.executable, "-m", "analysis.figures", str(folder)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    assert {path.name: path.read_bytes() for path in (folder / "figures").iterdir()} == first
    assert len(first) == 6
    assert b"<dc:date>" not in first["pareto.svg"]


def test_a_convention_can_be_chosen_and_an_unknown_one_lists_those_counted(tmp_path, capsys):
    folder = study(tmp_path / "s", row(), transformer())
    assert main(["--convention=macs_published", str(folder)]) == 0
    assert main(["--convention=macs_moon", str(folder)]) == 1
    counted = "macs_train_forward, macs_published, macs_fvcore, macs_decode_2048"
    assert capsys.readouterr().err == f"error: no convention macs_moon in this study; counted: {counted}\n"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [row(status="failed", valid_ppl=None, train_ppl=None, test_ppl=None)],
            "nothing to draw; not pareto",
        ),
        ([row(), transformer(corpus="wikitext2", data_hash="e" * 16)], "corpus"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, rows, message):
    assert main([str(study(tmp_path / "s", *rows))]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_without_matplotlib_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main([str(study(tmp_path / "s", row(), transformer()))]) == 1
    assert capsys.readouterr().err == "error: figures need matplotlib: pip install 'retsweep[figures]'\n"
    with pytest.raises(TableError), style.styled():
        pass


def test_damaged_metrics_are_one_line(tmp_path, capsys):
    folder = studies.with_metrics(study(tmp_path / "s", row(), transformer()))
    path = next(folder.glob("trials/*/metrics.jsonl"))
    path.write_text('{"step": 1, "loss": "six"}\n')
    assert main([str(folder)]) == 1
    error = capsys.readouterr().err
    assert str(path) in error
    assert error.count("\n") == 1
