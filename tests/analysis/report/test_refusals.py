"""What cannot be reported is told in one line."""

import pytest

from tests.analysis.report import pages
from tests.analysis.rows import row, study, transformer

pytest.importorskip("jinja2", reason="a report needs the extra [report]")
pytest.importorskip("plotly", reason="a report needs the extra [report]")
pytest.importorskip("itables", reason="a report needs the extra [report]")

from analysis.report import bundled
from analysis.report.__main__ import main

pytestmark = pytest.mark.usefixtures("light")
LIBRARIES = {name: getattr(bundled, name) for name in ("plotly_js", "datatables_js", "datatables_css")}


def _failed():
    return pages.counted()[0] | {"status": "failed", "error": "out of memory"}


def test_a_study_that_failed_beside_another_says_so(tmp_path):
    found = pages.page(study(tmp_path / "fine", row()), study(tmp_path / "broken", _failed()))
    first = {one["study"]: one for one in pages.rows(found.id("studies"))}
    assert "no run came to an end" in first["broken"]["what varies"]
    assert first["broken"]["text of the perplexities"] == "none"


def _half_written(folder):
    study(folder, row())
    (folder / "trials/0000/row.json").write_text('{"architecture": "Tr')
    return folder


def _mixed(folder):
    return study(folder, row(), transformer(corpus="wikitext2", data_hash="e" * 16))


def _empty(folder):
    (folder / "trials").mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: study(folder, *pages.counted()), "bad only counted"),
        (_half_written, "row.json is damaged"),
        (_mixed, "corpus"),
        (_empty, "no finished trial"),
        (lambda folder: study(folder, _failed()), "no run came to an end: bad"),
    ],
)
def test_bad_studies_are_one_line(tmp_path, capsys, make, words):
    folder = make(tmp_path / "bad")
    assert main([str(folder)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert not (folder / "report.html").exists()


def test_bad_arguments_and_missing_packages_are_one_line(ratios, tmp_path, capsys, monkeypatch):
    assert main(["--ouch"]) == main([str(ratios), "--out"]) == 2
    assert main([str(tmp_path / "nowhere")]) == 1
    with monkeypatch.context() as patch:
        patch.setattr("analysis.report.__main__.html", lambda folders, command: "")
        assert main([str(ratios), "--out", str(ratios / "plan.json" / "x.html")]) == 1
    monkeypatch.setattr(bundled, "NEEDED", ("jinja2", "no_such_plotly"))
    assert main([str(ratios)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert lines[-1] == "error: a report needs no_such_plotly: pip install 'retsweep[report]'"
