from __future__ import annotations

import json

import pytest

from retsweep.train.metrics import MetricsFile, log_every


def steps(path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("tail", ["", '{"step": 6, "lo', "garbage\n", '{"loss": 1}\n', "[1]\n", "\x00\x00"])
def test_lines_after_the_checkpoint_and_what_was_half_written_go(tmp_path, tail):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in range(1, 6)) + tail)
    file = MetricsFile(path, step=3)
    file.write({"step": 4, "loss": 0.5})
    file.close()
    assert steps(path) == [1, 2, 3, 4]


def test_a_line_can_be_read_before_the_file_is_closed(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl", step=0)
    file.write({"step": 1})
    assert steps(tmp_path / "metrics.jsonl") == [1]
    file.close()


def test_what_is_no_number_is_refused(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl", step=0)
    with pytest.raises(ValueError, match="JSON"):
        file.write({"step": 1, "loss": float("nan")})
    file.close()


def test_a_curve_has_a_few_hundred_points():
    assert [log_every(steps) for steps in (1, 30, 800, 100_000)] == [1, 1, 4, 500]
