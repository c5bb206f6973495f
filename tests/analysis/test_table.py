import contextlib
import fcntl
import io
import json
import math
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pandas as pd
import pytest

from analysis.columns import number
from analysis.plan import Member, Plan
from analysis.rows import TableError, csv_of, find_study, write_atomically
from analysis.table import build, main, show, write
from tests.analysis.rows import row, study, transformer, type_x


@pytest.fixture
def folder(tmp_path):
    reference = row("FFN only", layout="pattern", reference=True, valid_ppl=61.5)
    diverged = type_x("B", 1, seed=1, status="diverged@90")
    failed = type_x("A", 2, status="failed", error="boom & 5% of <it>", valid_ppl=None)
    rows = [
        transformer(valid_ppl=30.0),
        transformer(seed=1, valid_ppl=31.0),
        row(),
        type_x("B", 1),
        diverged,
        failed,
    ]
    return study(tmp_path / "my_study", *rows, reference)


def test_csv_has_everything_in_full_precision(folder):
    table = write(folder)
    frame = pd.read_csv(folder / "table.csv")
    assert list(frame["label"]) == ["Transformer", "RetNet", "Type A 2:10", "Type B 1:11", "FFN only"]
    assert list(frame["reference"]) == [False] * 4 + [True]
    assert frame["macs_fvcore"].dtype.kind == "i"
    text = (folder / "table.csv").read_text()
    assert ",31000003," in text
    assert "31000003.0" not in text
    transformer_line = frame.iloc[0]
    assert transformer_line["valid_ppl"] == 30.5
    assert transformer_line["valid_ppl_ci95"] == pytest.approx(12.706205 / 2, rel=1e-6)
    assert transformer_line["n"] == 2
    assert frame.iloc[3]["valid_ppl"] == math.inf
    assert math.isnan(frame.iloc[1]["valid_ppl_ci95"])
    assert transformer_line["report_gmacs"] == 10.305
    assert list(table.frame().columns) == list(frame.columns)
    costs = [column for column in frame.columns if column.startswith("macs_")]
    assert costs[0] == "macs_fvcore"


def test_markdown_is_a_table_of_equal_rows(folder):
    write(folder)
    text = (folder / "table.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in rows}) == 1
    assert "# my\\_study" in text
    assert "boom & 5% of \\<it\\>" in text
    assert "30.50 ± 6.35" in text
    assert [line.split("|")[1].strip() for line in rows[2:]][-3:] == ["*FFN only*", "*bigram*", "*unigram*"]
    assert "194.0" in rows[-1]
    assert "GMACs (fvcore)" in rows[0]
    assert rows[0].index("GMACs (fvcore)") < rows[0].index("decode")


def test_tex_escapes_what_tex_would_read(folder):
    write(folder)
    text = (folder / "table.tex").read_text()
    assert r"\caption{my\_study}" in text
    assert r"boom \& 5\% of \textless{}it\textgreater{}" in text
    assert r"30.50 $\pm$ 6.35" in text
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)
    assert columns is not None
    assert all(len(re.findall(r"(?<!\\)&", line)) == len(columns[1]) - 1 for line in rows)
    assert text.count(r"\begin") == text.count(r"\end")


def test_terminal_table_fits_120_columns_and_names_what_went_wrong(folder, capsys):
    show(write(folder))
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 120
    assert "1/2 ok" in printed
    assert "Type A 2:10 (boom & 5% of <it>)" in printed
    assert printed.index("Transformer") < printed.index("FFN only") < printed.index("bigram")


@pytest.mark.parametrize(("width", "blocks"), [(30, 10), (80, 2), (200, 1)])
def test_no_terminal_is_too_narrow_for_a_label_or_a_number(tmp_path, width, blocks):
    rows = [
        type_x(
            letter, k, params=119_800_000, valid_ppl=23.984, protocol=protocol, variant_hash=f"{letter}{k}{i}"
        )
        for letter, k in (("A", 10), ("C", 3))
        for i, protocol in enumerate(("corrected", "published"))
    ]
    rows += [rows[0] | {"seed": 1, "valid_ppl": 24.5}]
    folder = study(tmp_path / "s", *rows)
    table = build("s", rows)
    printed = in_a_terminal([sys.executable, "-m", "analysis.table", str(folder)], width)
    (section,) = table.sections
    lines = [*section.lines, *section.references]
    assert len(lines) == 6
    for line in lines:
        shown = [text for text in printed.splitlines() if text.strip().startswith(f"{line['label']} ")]
        cells = {cell for text in shown for cell in re.split(r"\s{2,}", text.strip())}
        assert {column.cell(line) for column in section.columns} - {""} <= cells, line["label"]
    assert "…" not in printed
    if width >= 80:
        assert max(map(len, printed.splitlines())) <= width
    assert len(re.findall(r"^ *model ", printed, re.MULTILINE)) == blocks


def in_a_terminal(command, columns):
    """What ``command`` prints on a terminal of that many columns, without its colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    environment["TERM"] = "xterm"
    process = subprocess.Popen(command, stdout=theirs, stdin=theirs, env=environment)
    os.close(theirs)
    printed = b""
    with contextlib.suppress(OSError):  # Linux ends a terminal with EIO
        while read := os.read(ours, 65536):
            printed += read
    os.close(ours)
    assert process.wait() == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", printed.decode()).replace("\r\n", "\n")


def test_costs_that_differ_between_commits_are_shown_and_named(tmp_path):
    columns = ("macs_train_forward", "macs_fvcore", "macs_decode_2048", "params")
    rows = [row(), row(seed=1, git_commit="bbb", **dict.fromkeys(columns, 5)), transformer()]
    table = write(study(tmp_path / "s", *rows))
    line = next(line for line in table.lines if line["label"] == "RetNet")
    cells = {column.header: column.cell(line) for column in table.sections[0].columns}
    assert cells["params"] == "123456; 5"
    assert cells["GMACs\n(fvcore)"] == "31000003; 5"
    assert cells["decode\nMMACs\nat 2,048"] == "900001; 5"
    assert "Costs differ between commits: RetNet." in table.notes
    show(table)
    counted = [{name: value for name, value in r.items() if "ppl" not in name} for r in rows]
    notes = " ".join(build("macs", counted).notes)
    assert "Costs differ between commits: RetNet." in notes
    assert "Costs differ" not in " ".join(build("s", [row(), row(seed=1, git_commit="bbb")]).notes)


def test_a_difference_in_training_that_no_label_shows_is_noted():
    both = build("s", [row(planned_steps=100), transformer(planned_steps=800)])
    assert [line["label"] for line in both.lines] == ["Transformer", "RetNet"]
    assert any(note.startswith("Not every line has the same steps (800, 100)") for note in both.notes)
    named = [row(planned_steps=n, variant_hash=str(n)) for n in (100, 800)]
    assert not any("same steps" in note for note in build("s", named).notes)
    assert not any("same steps" in note for note in build("s", [row(planned_steps=100), transformer()]).notes)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            {"corpus": "wikitext2", "data_hash": "e" * 16},
            f"differ in corpus (pydocs, wikitext2), data_hash ({'d' * 16}, {'e' * 16});",
        ),
        (
            {"tokenizer": "bytes", "data_hash": "e" * 16},
            f"differ in tokenizer (bpe, bytes), data_hash ({'d' * 16}, {'e' * 16});",
        ),
        ({"data_hash": "e" * 16}, f"differ in data_hash ({'d' * 16}, {'e' * 16});"),
    ],
)
def test_rows_of_different_data_share_no_table(tmp_path, capsys, columns, words):
    folder = study(tmp_path / "s", row(), transformer(), row(seed=1, **columns))
    assert main([str(folder)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: s: rows of different data share no table: ")
    assert words in error
    assert error.count("\n") == 1
    assert not (folder / "table.csv").exists()


def test_counts_read_no_data_and_may_stand_beside_runs():
    counted = {name: value for name, value in transformer().items() if name not in ("corpus", "tokenizer")}
    del counted["data_hash"]
    assert len(build("s", [row(), counted]).lines) == 2


def test_one_text_under_two_names_is_one_section():
    table = build("s", [row(corpus="wikitext2"), transformer(corpus="wikitext2:folder")])
    assert len(table.sections) == 1


def test_mixed_commits_and_devices_are_named():
    notes = " ".join(
        build("s", [row(device="cpu"), transformer(git_commit="bbb", device="NVIDIA H100")]).notes
    )
    assert "Mixed commits: aaaaaaa, bbb." in notes
    assert "Mixed devices: NVIDIA H100, cpu." in notes
    assert "Mixed" not in " ".join(build("s", [row(), transformer()]).notes)


def test_leaky_perplexities_are_named():
    assert any(note.startswith("leaky") for note in build("s", [transformer(leaky=True)]).notes)
    assert not any(note.startswith("leaky") for note in build("s", [transformer()]).notes)


@pytest.mark.parametrize(
    "make", [lambda f: None, lambda f: f.mkdir(), lambda f: (f / "trials" / "x").mkdir(parents=True)]
)
def test_missing_and_empty_studies_are_one_line(tmp_path, monkeypatch, capsys, make):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "none")
    assert main(["none"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_a_damaged_row_is_one_line(tmp_path, capsys):
    folder = study(tmp_path / "s", row())
    (folder / "trials" / "0000" / "row.json").write_text('{"architecture": "Tr')
    assert main([str(folder)]) == 1
    assert "row.json is damaged" in capsys.readouterr().err
    (folder / "trials" / "0000" / "row.json").write_text(json.dumps({"x": 1}))
    with pytest.raises(TableError, match="it has no variant_hash"):
        write(folder)


def test_the_newest_study_is_the_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TableError, match="no study"):
        find_study(None)
    for name in ("old", "new"):
        study(tmp_path / "runs" / name, row())
    os.utime(tmp_path / "runs" / "old" / "trials", (1, 1))
    assert find_study(None).name == "new"
    assert find_study("old").name == find_study("runs/old").name == "old"


def test_writing_leaves_nothing_half_done(tmp_path):
    target = tmp_path / "table.csv"
    write_atomically(target, b"one")
    write_atomically(target, b"two")
    assert target.read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_the_command_prints_the_table(folder):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "analysis.table", str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "RetNet" in done.stdout
    assert pd.read_csv(io.StringIO((folder / "table.csv").read_text())).shape[0] == 5


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (4.2514, "4.251"),
        (33.25, "33.25"),
        (206.809, "206.8"),
        (13002.3, "13,002"),
        (6e65, "6e+65"),
        (math.inf, "inf"),
        (0.031, "0.03100"),
        (0, "0"),
        (math.nan, "nan"),
        (9.99996, "10.000"),
    ],
)
def test_numbers_have_four_digits(value, text):
    assert number(value) == text


def headers(*rows):
    return [column.header.replace("\n", " ") for column in build("s", rows).sections[0].columns]


def test_the_best_step_stands_beside_the_last_where_they_differ():
    same = row(best_step=800, best_valid_ppl=33.25, best_test_ppl=34.0)
    assert not any("best" in header for header in headers(same, transformer()))
    other = transformer(best_step=600, best_valid_ppl=29.5, best_test_ppl=30.5)
    assert {"best valid ppl", "its test ppl", "best step"} <= set(headers(same, other))
    (section,) = build("s", [same, other]).sections
    cells = [{c.header.replace("\n", " "): c.cell(line) for c in section.columns} for line in section.lines]
    assert [line["best step"] for line in cells] == ["600", "800"]
    assert cells[0]["best valid ppl"] == "29.50"


def preflight(made, code="new", **columns):
    """``made``'s row as task=preflight would have written it."""
    kept = {name: made[name] for name in made if "_ppl" not in name and name not in ("corpus", "data_hash")}
    found = {"preflight": "ok", "preflight_forms_error": 1.25e-15, "preflight_seconds": 0.5}
    hashed = f"{made['variant_hash']} {code}"
    return kept | found | {"task": "preflight", "preflight_code": code, "variant_hash": hashed} | columns


def printed(table):
    (section,) = table.sections
    return [
        {column.header.replace("\n", " "): column.cell(line) for column in section.columns}
        for line in (*section.lines, *section.references)
    ]


def test_a_study_that_only_checked_speaks_of_what_was_checked(tmp_path):
    broke = {"preflight": None, "preflight_forms_error": None, "preflight_seconds": None}
    rows = [
        preflight(type_x("A", 2), status="failed", error="PreflightError: forms: x", **broke),
        preflight(transformer(leaky=True), leak_mass=0.4375),
        preflight(row("FFN only", layout="pattern", reference=True)),
    ]
    table = write(study(tmp_path / "s", *rows))
    passed = {"params": "123,456", "pre-flight": "ok", "forms error": "1.2e-15", "seconds": "0.5000"}
    assert printed(table) == [
        {"model": "Transformer leaky", **passed, "leak mass": "0.4375"},
        {"model": "Type A 2:10", **dict.fromkeys(passed, ""), "params": "123,456", "pre-flight": "failed"}
        | {"leak mass": ""},
        {"model": "FFN only", **passed, "leak mass": ""},
    ]
    text = (tmp_path / "s" / "table.md").read_text()
    assert "Type A 2:10 (PreflightError: forms: x)" in text
    assert "leak mass: the share of attention on later positions" in text
    assert "MACs" not in text


def test_of_an_edited_code_the_last_answer_is_shown():
    old, new = (preflight(row(), code=code) for code in ("old", "new"))
    before = preflight(row()) | {"preflight_code": None, "variant_hash": "before there was the column"}
    members = tuple(Member(found["variant_hash"]) for found in (new, before, old))
    assert [
        line["model"] for line in printed(build("s", [old, before, new], Plan("x", (), {}, members)))
    ] == ["RetNet"]
    assert len(printed(build("s", [old, before, new]))) == 3, "without a plan nobody knows which it is"


def test_a_few_out_of_domain_columns_are_printed_and_all_are_kept(tmp_path):
    files = {f"ood_ppl_{name}": 50.0 for name in ("one", "two")}
    assert {"one ppl", "two ppl"} <= set(headers(row(**files)))
    domains = {f"ood_ppl_domain_{name}": 60.0 for name in ("drama", "court_speech")}
    found = headers(row(**files, **domains))
    assert {"drama ppl", "court speech ppl"} <= set(found)
    assert "one ppl" not in found
    many = row(**{f"ood_ppl_{index}": 50.0 + index for index in range(7)})
    assert not any(header.endswith("6 ppl") for header in headers(many))
    table = write(study(tmp_path / "s", many))
    assert any(note.startswith("Out of domain: table.csv has all 7") for note in table.notes)
    assert pd.read_csv(tmp_path / "s" / "table.csv")["ood_ppl_6"].tolist() == [56.0]


def test_what_leaky_weights_are_worth_is_a_column_of_its_own():
    leaky = transformer(leaky=True, valid_ppl=5.0, valid_ppl_causal_eval=99.0)
    assert "valid ppl, causal mask" in headers(leaky, row())
    assert "valid ppl, causal mask" not in headers(transformer(), row())


def test_several_studies_one_after_the_other(tmp_path, capsys):
    for name in ("one", "two"):
        study(tmp_path / name, row())
    assert main([str(tmp_path / "one"), str(tmp_path / "two")]) == 0
    printed = capsys.readouterr().out
    assert printed.index("one") < printed.index("two")
    assert main([str(tmp_path)]) == 0, "a folder of studies stands for all of them"
    assert main(["--all"]) == 2


def test_a_published_study_has_the_table_of_its_rows(tmp_path):
    rows = [transformer(valid_ppl=30.0), transformer(seed=1, valid_ppl=31.0), row()]
    published = tmp_path / "results" / "s"
    published.mkdir(parents=True)
    (published / "rows.csv").write_text(csv_of(rows))
    assert write(published).frame().equals(write(study(tmp_path / "runs" / "s", *rows)).frame())
    for name in ("table.csv", "table.md", "table.tex"):
        assert (published / name).read_bytes() == (tmp_path / "runs" / "s" / name).read_bytes()
