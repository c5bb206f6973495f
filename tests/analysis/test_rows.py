import os

from analysis.rows import find_study
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
