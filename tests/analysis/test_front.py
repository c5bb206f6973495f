"""Fronts and hypervolumes, against their definitions."""

import itertools
import random

import pytest

pytest.importorskip("moocore", reason="fronts need the extra [report]")

from analysis import front
from analysis.figures.source import MissingError, open_source
from analysis.hypervolume import Box, box, nondominated
from analysis.rows import TableError
from tests.analysis.hybrids import hybrid
from tests.analysis.rows import study, transformer

E = 2.718281828459045


def _counted(points, cells=12):
    """The part of the box that some point dominates, cell by cell of a grid that the points lie on."""
    inside = list(itertools.product(range(cells), repeat=len(points[0])))
    held = sum(
        any(all(p <= c for p, c in zip(point, cell, strict=True)) for point in points) for cell in inside
    )
    return held / len(inside)


@pytest.mark.parametrize("objectives", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_a_hypervolume_is_the_part_of_the_box_that_is_dominated(objectives, seed):
    draw = random.Random(seed)
    # The box from 0 to 10, a tenth beyond 11; the last cell of the grid begins at 10.
    places = [tuple(draw.randint(0, 10) for _ in range(objectives)) for _ in range(6)]
    around = Box(best=(1.0,) * objectives, worst=(E**10,) * objectives)
    points = [tuple(E**place for place in point) for point in places]
    assert around.share(points) == pytest.approx(_counted(places, cells=11))


@pytest.mark.parametrize("objectives", [2, 3])
def test_a_front_is_what_no_other_beats(objectives):
    draw = random.Random(1)
    points = [tuple(float(draw.randint(1, 6)) for _ in range(objectives)) for _ in range(40)]
    points = list(dict.fromkeys(points))
    by_definition = [
        not any(other != one and all(o <= p for o, p in zip(other, one, strict=True)) for other in points)
        for one in points
    ]
    assert nondominated(points) == by_definition


def test_what_is_infinite_is_on_no_front_and_adds_nothing():
    points = [(1.0, float("inf")), (2.0, 3.0), (0.0, 1.0)]
    assert nondominated(points) == [False, True, False]
    around = Box((1.0, 1.0), (4.0, 4.0))
    assert around.share(points) == around.share([(2.0, 3.0)]) > 0
    with pytest.raises(TableError, match="no front"):
        box([(float("inf"), 1.0)])


def test_units_do_not_count_and_better_points_do():
    points = [(30.0, 1e6), (25.0, 3e6), (24.0, 4e6)]
    in_giga = [(a, b / 1e9) for a, b in points]
    assert box(points).share(points) == pytest.approx(box(in_giga).share(in_giga))
    around = box([*points, (23.0, 3e6)])
    assert around.share([*points, (23.0, 3e6)]) > around.share(points)


def _source(tmp_path):
    return open_source(
        study(
            tmp_path / "s",
            hybrid("RRRRRRRRRRRA", valid_ppl=30.0),
            hybrid("AAAAAARRRRRR", valid_ppl=28.0),
            hybrid("RRRRRRAAAAAA", valid_ppl=26.0),
            hybrid("ARRRRRRRRRRR", valid_ppl=20.0, leaky=True),
            hybrid("AARRRRRRRRRR", valid_ppl=None, status="diverged@7"),
            transformer(heads=8, valid_ppl=25.0, macs_train_forward=25_000_000, macs_decode_2048=3_400_000),
        )
    )


def test_a_front_says_who_is_on_it_and_who_was_not_compared(tmp_path):
    found = front.front_of(_source(tmp_path), ("valid_ppl", "macs_decode_2048"), count=2)
    assert [one.label for one in found.on_front] == [
        "Transformer",
        "Pattern 1:1 (RRRRRRAAAAAA)",
        "Pattern 1:11 (RRRRRRRRRRRA)",
    ]
    assert sum(map(len, found.left_out.values())) == 2
    assert any("looks ahead" in why for why in found.left_out)
    assert any("diverged" in why for why in found.left_out)
    assert [one.bucket for one in found.members] == [0, 0, 0, 1], "one layer of attention is the dear one"
    assert 0 < found.share_of(0) < found.share


def test_of_three_objectives_more_are_on_the_front(tmp_path):
    source = _source(tmp_path)
    three = front.front_of(source, front.objectives(source))
    assert three.columns == ("valid_ppl", "macs_train_forward", "macs_decode_2048")
    for cost in three.columns[1:]:
        two = front.front_of(source, ("valid_ppl", cost))
        assert {one.label for one in two.on_front} <= {one.label for one in three.on_front}


def test_buckets_hold_equally_many_where_costs_differ():
    edges = front.bucket_edges([1.0, 2.0, 3.0, 40.0, 50.0, 60.0], 3)
    assert edges == (1.0, 3.0, 50.0, 60.0)
    assert [front.bucket_of(cost, edges) for cost in (1.0, 3.0, 40.0, 50.0, 60.0, 99.0)] == [0, 0, 1, 1, 2, 2]
    assert front.bucket_edges([5.0, 5.0], 4) == (5.0, 5.0)
    assert front.bucket_edges([5.0] * 9 + [6.0], 4) == (5.0, 5.0, 6.0), "two, where four cannot be"
    assert front.bucket_edges([]) == ()


def test_without_the_columns_there_is_no_front(tmp_path):
    source = _source(tmp_path)
    with pytest.raises(MissingError, match="no line can be ranked by valid_ppl and state_bytes_2048"):
        front.front_of(source, ("valid_ppl", "state_bytes_2048"))


@pytest.mark.parametrize("by", ["valid_ppl", "a,a", "a,b,c,d", "a,"])
def test_objectives_are_two_or_three(by, capsys):
    assert front.main([f"--by={by}"]) == 2
    said = capsys.readouterr().err.strip()
    assert "accepted: two or three columns" in said
    assert "\n" not in said


def test_the_command_prints_the_front(tmp_path, capsys):
    _source(tmp_path)
    assert front.main([str(tmp_path / "s"), "--by=valid_ppl,macs_decode_2048"]) == 0
    said = capsys.readouterr().out
    assert "3 of 4 models are on the front of valid_ppl, macs_decode_2048" in said
    assert "not compared (a run of it diverged): Pattern 1:5 (AARRRRRRRRRR)" in said
    assert front.main([str(tmp_path / "s"), "--by=valid_ppl,nothing"]) == 1
    assert "no line can be ranked" in capsys.readouterr().err
