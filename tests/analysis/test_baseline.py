import math

import pytest

from analysis.baseline import with_differences
from analysis.inference import fit
from analysis.plan import Member, Plan
from analysis.table import build, write
from tests.analysis.rows import row, study, transformer, type_x

NOISE = ((0.01, 0.0, -0.01), (0.0, -0.01, 0.01), (-0.01, 0.01, 0.0))


def runs(make, nats, noise, seeds=3, **columns):
    return [
        make(seed=seed, valid_ppl=math.exp(nats + NOISE[noise][seed]), **columns) for seed in range(seeds)
    ]


def three(seeds=3, **columns):
    return [
        *runs(transformer, 3.0, 0, seeds, **columns),
        *runs(row, 3.2, 1, seeds, **columns),
        *runs(lambda **c: type_x("A", 10, **c), 3.005, 2, seeds, **columns),
    ]


def shown(rows, plan=None):
    """What stands in the column, by label."""
    table = with_differences(build("s", rows, plan), rows, plan)
    (column,) = [one for one in table.sections[0].columns if "against" in one.header]
    return {line["label"]: column.cell(line) for line in table.lines}


def test_every_line_is_held_against_the_transformer():
    rows = three()
    estimate = fit(rows).difference("variant of RetNet", "variant of Transformer")
    assert estimate.nats == pytest.approx(0.2)
    assert shown(rows) == {
        "Transformer": "",
        "RetNet": f"+22.1 (+{estimate.percent_low:.1f} to +{estimate.percent_high:.1f})",
        "Type A 10:2": f"not resolved ({estimate.detectable_percent:.1f})",
    }
    table = with_differences(build("s", rows), rows, None)
    assert "These intervals are many (2) and not adjusted" in table.notes[-1]
    assert table.notes[-1].endswith("Only contrasts named before the runs are judged.")
    line = table.lines[1]
    assert line["against"] == "Transformer"
    assert line["against_percent"] == pytest.approx(100 * math.expm1(0.2))
    assert line["against_percent_low"] == pytest.approx(estimate.percent_low)
    assert line["against_resolved"] is True


def test_each_width_has_a_transformer_of_its_own():
    rows = three()
    for one in three():
        wide = {"d_model": 128, "variant_hash": f"{one['variant_hash']} 128"}
        rows.append(one | wide | {"valid_ppl": one["valid_ppl"] / 2})
    found = shown(rows)
    assert found["RetNet (d 64)"] == found["RetNet (d 128)"] == shown(three())["RetNet"]
    assert found["Transformer (d 128)"] == ""


def test_steps_of_a_ladder_are_held_against_their_model_as_it_is():
    rows = [
        *runs(row, 3.0, 0, variant_hash="base"),
        *runs(row, 2.9, 1, variant_hash="warm"),
        *runs(row, 2.5, 2, variant_hash="corrected"),
        *runs(row, 2.6, 0, variant_hash="cold"),
    ]
    steps = [("base", "published", "as it is"), ("warm", "published", "warm-up")]
    steps += [("corrected", "published", "all repaired"), ("corrected", "corrected", "as it is")]
    steps += [("cold", "corrected", "warm-up")]
    plan = Plan("defects", (), {}, tuple(Member(v, {"ladder": ladder, "step": s}) for v, ladder, s in steps))
    found = shown(rows, plan)
    assert found["RetNet (published: as it is)"] == found["RetNet (corrected: as it is)"] == ""
    assert found["RetNet (published: warm-up)"].startswith("-9.5 (-")
    assert found["RetNet (corrected: warm-up)"].startswith("+10.5 (+")


def test_one_seed_or_no_transformer_leaves_the_table_as_it_is():
    for rows in (three(seeds=1), three()[3:]):
        table = build("s", rows)
        assert with_differences(table, rows, None) is table


def test_the_files_have_the_differences(tmp_path):
    folder = study(tmp_path / "s", *three(), *runs(row, 3.3, 0, variant_hash="gone", status="diverged@7"))
    table = write(folder)
    assert "against_percent_detectable" in (folder / "table.csv").read_text().splitlines()[0]
    assert "| not resolved (" in (folder / "table.md").read_text()
    assert any(note.startswith("Against the Transformer: ") for note in table.notes)
    gone = next(line for line in table.lines if line["variant_hash"] == "gone")
    assert gone.get("against") is None
