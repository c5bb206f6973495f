import pytest

from retsweep.costs import cost_columns, macs_normalisation_fvcore, macs_train_forward
from retsweep.spec import SpecError, load_spec
from retsweep.tasks.base import Workspace
from retsweep.tasks.count import Count


def count(tmp_path, *overrides):
    spec = load_spec(["task=count", "scale=tiny", *overrides])
    assert isinstance(spec.task, Count)
    return spec, spec.task(spec, Workspace(folder=tmp_path, device="cpu", cache=tmp_path))


def test_the_row_has_every_convention_in_whole_numbers(tmp_path):
    spec, row = count(tmp_path, "layout=type_b", "layout.attention=1")
    assert row["macs_fvcore"] == macs_train_forward(spec) + macs_normalisation_fvcore(spec)
    expected = {"params", "macs_published", "macs_fvcore", "macs_train_forward"}
    expected |= {f"macs_train_chunkwise_{n}" for n in (2048, 8192)}
    expected |= {f"{kind}_{n}" for kind in ("macs_decode", "state_bytes") for n in (128, 512, 2048, 8192)}
    assert set(row) == expected
    assert all(type(value) is int for value in row.values())
    assert list(tmp_path.iterdir()) == []


def test_options(tmp_path):
    spec, row = count(
        tmp_path, "task.contexts=[9]", "task.chunkwise_tokens=[50]", "task.chunk=7", "task.fvcore=false"
    )
    assert row == cost_columns(spec, (9,), (50,), 7)


def test_published_is_empty_for_what_the_report_did_not_have(tmp_path):
    _, row = count(tmp_path, "layout=pattern", "layout.pattern=N")
    assert row["macs_published"] is None


def test_counting_reads_no_data():
    assert Count.reads_data is False


@pytest.mark.parametrize(
    "override", ["task.contexts=[0]", "task.chunk=0", "task.contexts=128", "task.fvcore=maybe"]
)
def test_bad_options_are_one_line(override):
    with pytest.raises(SpecError, match="task") as error:
        load_spec(["task=count", override])
    assert "\n" not in str(error.value)
