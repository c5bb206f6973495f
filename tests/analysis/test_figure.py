import math

import pytest

from analysis.figure import draw, main, write
from analysis.rows import TableError
from analysis.table import build
from tests.analysis.rows import row, study, transformer, type_x

pytest.importorskip("matplotlib", reason="matplotlib is the extra [figures]")


def rows():
    reference = row("FFN only", layout="pattern", reference=True, valid_ppl=45.0)
    return [
        transformer(),
        transformer(seed=1, valid_ppl=31.0),
        row(),
        type_x("A", 3),
        type_x("C", 3),
        reference,
    ]


def test_both_files_are_written(tmp_path, capsys):
    folder = study(tmp_path / "s", *rows())
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(folder / "figure.png"), str(folder / "figure.svg")]
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (folder / "figure.svg").read_bytes()


def test_every_line_and_reference_is_drawn_in_both_panels():
    figure = draw(build("s", rows()))
    assert len(figure.axes) == 2
    for axis, unit in zip(figure.axes, (1e6, 1e6), strict=True):
        drawn = {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        assert set(drawn) == {"Transformer", "RetNet", "Type A", "Type C"}
        (x,), (y,) = drawn["Transformer"].lines[0].get_data()
        assert y == pytest.approx(32.125)
        assert x == pytest.approx((30_000_001 if axis is figure.axes[0] else 900_001) / unit)
        assert {text.get_text() for text in axis.texts} == {"FFN only", "bigram"}


def test_lines_whose_costs_differ_between_commits_are_left_out():
    mixed = [row(), row(seed=1, git_commit="bbb", macs_train_forward=5)]
    figure = draw(build("s", [*mixed, transformer()]))
    drawn = [axis.get_legend_handles_labels()[1] for axis in figure.axes]
    assert drawn == [["Transformer"], ["Transformer", "RetNet"]]
    assert draw(build("s", mixed)).axes[0].get_legend_handles_labels()[1] == []


def test_diverged_lines_are_left_out_and_nothing_to_draw_is_one_line(tmp_path):
    gone = row(status="diverged@3")
    figure = draw(build("s", [gone, transformer()]))
    assert figure.axes[0].get_legend_handles_labels()[1] == ["Transformer"]
    with pytest.raises(TableError, match="no line with a finite valid_ppl"):
        write(study(tmp_path / "s", gone))
    with pytest.raises(TableError, match="mixes corpora"):
        write(study(tmp_path / "t", row(), transformer(corpus="wikitext2", data_hash="e" * 16)))
    assert math.isinf(build("s", [gone]).lines[0]["valid_ppl"])
