import json
import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.plan import Member, Plan, read_plan
from analysis.rows import TableError, csv_of, find_studies, find_study, read_rows
from tests.analysis.rows import row, study, transformer


def test_the_newest_study_is_the_one_with_the_latest_row(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("went_on", "new"), start=1):
        folder = study(tmp_path / "runs" / name, row(), transformer())
        for path in [folder / "trials", *folder.glob("trials/*/row.json")]:
            os.utime(path, (number, number))
    assert find_study(None).name == "new"
    first = next((tmp_path / "runs" / "went_on").glob("trials/*/row.json"))
    os.utime(first, (3, 3))  # a trial that was stopped ends: its folder was there
    assert find_study(None).name == "went_on"
    (tmp_path / "runs" / "begun" / "trials").mkdir(parents=True)
    assert find_study(None).name == "begun", "without a row its folder's age counts"


def test_a_folder_of_studies_stands_for_all_of_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b", "a"):
        folder = tmp_path / "results" / name
        folder.mkdir(parents=True)
        (folder / "rows.csv").write_text(csv_of([row()]))
    (tmp_path / "results" / "notes").mkdir()
    newest = study(tmp_path / "runs" / "s", row())
    assert [path.name for path in find_studies(["results"])] == ["a", "b"]
    assert [path.name for path in find_studies(["s", "results/b", "results"])] == ["s", "b", "a"]
    assert [path.resolve() for path in find_studies([])] == [newest]
    with pytest.raises(TableError, match="no study 'nothing'"):
        find_studies(["nothing"])


COLUMNS = st.from_regex(r"ood_ppl_[\w .-]{1,9}", fullmatch=True)  # named after files
VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@given(st.lists(st.dictionaries(COLUMNS, VALUES), min_size=1, max_size=4))
def test_published_rows_are_the_rows(found):
    rows = [row(seed=index, **columns) for index, columns in enumerate(found)]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "rows.csv").write_bytes(csv_of(rows).encode())
        back = read_rows(Path(folder))
    assert back == rows
    assert [{name: type(value) for name, value in r.items()} for r in back] == [
        {name: type(value) for name, value in r.items()} for r in rows
    ]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2 - 1], "rows.csv"),
        (lambda text: text.replace('"""ok"""', "ok"), "line 2, is damaged in status: 'ok' is no JSON"),
        (lambda text: text.replace("\n", ",1\n", 2).replace(",1", "", 1), "line 2, is damaged in None"),
        (lambda text: text.replace("variant_hash", "variant"), "is no row: it has no variant_hash"),
    ],
)
def test_damaged_published_rows_are_one_line(tmp_path, damage, message):
    (tmp_path / "rows.csv").write_text(damage(csv_of([row()])))
    with pytest.raises(TableError, match=re.escape(message)) as caught:
        read_rows(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_row_without_what_every_row_has_is_named(tmp_path):
    whole = row()
    del whole["status"], whole["seed"]
    with pytest.raises(TableError, match=r"row.json is no row: it has no seed, status; delete it"):
        read_rows(study(tmp_path, whole))


def test_a_plan_is_read_and_an_old_study_has_none(tmp_path):
    assert read_plan(tmp_path) is None
    members = [
        {"variant_hash": "a", "as": {"ladder": "published", "step": "as it is"}},
        {"variant_hash": "a", "as": {}, "reference": True},
    ]
    content = {
        "sweep": "defects",
        "commands": ["python -m retsweep"],
        "environment": {"python": "3.11.9"},
        "members": members,
    }
    (tmp_path / "plan.json").write_text(json.dumps(content))
    assert read_plan(tmp_path) == Plan(
        "defects",
        ("python -m retsweep",),
        {"python": "3.11.9"},
        (Member("a", {"ladder": "published", "step": "as it is"}), Member("a", {}, True)),
    )
    (tmp_path / "plan.json").write_text('{"sweep": "x", "members": [{}]}')
    with pytest.raises(TableError, match=r"plan.json is damaged \(KeyError"):
        read_plan(tmp_path)


@pytest.mark.parametrize("value", ["33.25", float("nan"), True, [1]])
@pytest.mark.parametrize("column", ["valid_ppl", "valid_ppl_causal_eval", "tokens_per_second"])
def test_a_perplexity_that_is_no_number_is_refused_in_one_line(tmp_path, value, column):
    told = rf"its {column} is .*, which is no number; "
    with pytest.raises(TableError, match=rf"0000/row.json is damaged: {told}delete it") as caught:
        read_rows(study(tmp_path / "s", row(**{column: value})))
    assert "\n" not in str(caught.value)
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "rows.csv").write_text(csv_of([row(**{column: value})]))
    with pytest.raises(TableError, match=rf"rows.csv, line 2, is damaged: {told}write it again"):
        read_rows(tmp_path / "p")


def test_a_perplexity_may_be_none_or_infinite(tmp_path):
    rows = [row(valid_ppl=None), row(seed=1, valid_ppl=float("inf")), row(seed=2, valid_ppl=33)]
    assert read_rows(study(tmp_path / "s", *rows)) == rows
