"""The table in W&B: what the run holds, read back from an offline run's own file; and that nothing
of it can cost a sweep more than a warning."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from analysis.rows import read_rows
from analysis.table import build
from retsweep.spec import load_spec
from retsweep.sweep import command, dashboard
from retsweep.sweep.engine import Outcome
from retsweep.sweep.plan import Job, Planned
from retsweep.sweep.trial import _tracker
from retsweep.sweep.variants import wanted
from retsweep.tracking import NoTracker, Resolution, Sent, TrackedRun, log
from tests.analysis.rows import row, study, transformer, type_x

STUDY = "ar_ratio-train-small-corrected"


@pytest.fixture(autouse=True)
def no_agent(monkeypatch):
    for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


class Heard:
    """A tracker that keeps what it hears; ``trouble`` is raised when it is opened."""

    def __init__(self, trouble: Exception | None = None) -> None:
        self.runs: list[TrackedRun] = []
        self.made: list[Any] = []
        self.digests: list[str] = []
        self.heard: list[Any] = []
        self.closed = 0
        self.trouble = trouble

    def resolve(self) -> Resolution:
        return Resolution("offline", "a test")

    def open(self, run: TrackedRun) -> Heard:
        if self.trouble:
            raise self.trouble
        self.runs.append(run)
        return self

    def metrics(self, line) -> None:
        self.heard.append(line)

    def row(self, row) -> None:
        self.heard.append(row)

    def panels(self, make, digest) -> None:
        self.made.append(make)
        self.digests.append(digest)

    def close(self) -> Sent:
        self.closed += 1
        return "offline"


def trained(folder: Path) -> Path:
    """Two seeds of five variants: one diverges once, one is leaky, one is only a reference."""
    leaky = {"layout": "type_c", "leaky": True, "valid_ppl_causal_eval": 40.0}
    rows = [
        made | {"variant_hash": f"hash-{made['architecture']}", "seed": seed}
        for seed in (0, 1)
        for made in (
            transformer(valid_ppl=24.0 + seed),
            type_x("A", 10, valid_ppl=25.0 + seed / 2, macs_train_forward=29_000_000),
            type_x("B", 6, valid_ppl=26.0),
            type_x("C", 4, valid_ppl=12.0, **leaky),
            row("FFN only", reference=True, attention_heads=0, retention_heads=0),
        )
    ]
    rows[2] |= {"status": "diverged@17", "valid_ppl": math.inf}
    rows[7] |= {"status": "diverged@17", "valid_ppl": math.inf}
    return study(folder, *rows)


def lines_of(folder: Path) -> tuple[dict[str, Any], ...]:
    return build(folder.name, read_rows(folder)).lines


# ---- what is in it ---------------------------------------------------------------------------
def test_the_table_holds_every_line_in_numbers_that_w_and_b_can_sort(tmp_path):
    lines = lines_of(trained(tmp_path / STUDY))
    names, data = dashboard.table(lines)
    cells = [dict(zip(names, found, strict=True)) for found in data]
    assert [cell["label"] for cell in cells] == [line["label"] for line in lines]
    by_family = {cell["family"]: cell for cell in cells}
    a = by_family["Type A"]
    assert (a["layout"], a["ar_ratio"], a["attention_share"]) == ("type_a", "10:2", 80 / 96)
    assert (a["gmacs_train_forward"], a["gmacs_decode_2048"]) == (0.029, 900_001 / 1e9)
    assert (a["valid_ppl"], a["n"], a["seeds"], a["leaky"]) == (25.25, 2, "0 1", False)
    assert a["valid_ppl_ci95"] == pytest.approx(12.7062 * 0.25, rel=1e-4)  # t of 1 degree, s/sqrt(2)
    assert by_family["Type B"]["valid_ppl"] is None  # infinite: both runs diverged
    assert "diverged" in by_family["Type B"]["status"]
    assert by_family["Type C"]["leaky"] is True
    assert by_family["Type C"]["valid_ppl_causal_eval"] == 40.0
    assert by_family["others"]["attention_share"] is None
    assert by_family["others"]["reference"] is True
    numbers = [value for cell in cells for value in cell.values() if isinstance(value, float)]
    assert all(map(math.isfinite, numbers))


def test_a_cost_that_commits_counted_differently_is_no_number():
    names, data = dashboard.table([{"label": "x", "macs_fvcore": "1; 2", "params": 7, "n": 1}])
    cells = dict(zip(names, data[0], strict=True))
    assert "gmacs_fvcore" not in cells
    assert cells["params"] == 7


def test_what_a_train_perplexity_is_of_stands_there_in_words():
    names, data = dashboard.table([{"label": "x", "train_ppl": 9.5, "train_ppl_of": "slice"}])
    cells = dict(zip(names, data[0], strict=True))
    assert (cells["train_ppl"], cells["train_ppl_of"]) == (9.5, "slice")


def test_the_chart_has_a_point_a_line_and_names_what_leaks(tmp_path):
    points = dashboard.chart_points(lines_of(trained(tmp_path / STUDY)), "macs_train_forward")
    assert [(label, layout) for label, layout, *_ in points] == [
        ("Transformer", "Transformer"),
        ("Type A 10:2", "Type A"),
        ("Type C 4:4 leaky", "Type C, leaky"),
    ]
    assert points[1][2:] == [0.029, 25.25]


@pytest.mark.parametrize(
    ("architecture", "family"),
    [
        ("Type A 10:2", "Type A"),
        ("Type C 4:4", "Type C"),
        ("Transformer", "Transformer"),
        ("RetNet", "RetNet"),
        ("AARR 1:1", "others"),
        ("FFN only", "others"),
    ],
)
def test_families(architecture, family):
    assert dashboard.family(architecture) == family


def test_the_run_is_the_same_for_the_same_study():
    assert dashboard.run_id(STUDY) == "table-6488adc2827e"
    assert dashboard.run_id("other") != dashboard.run_id(STUDY)


# ---- what training runs carry ----------------------------------------------------------------
def test_runs_are_grouped_by_study_and_family(tmp_path):
    heard = Heard()
    run = wanted(["layout=type_b", "layout.attention=3", "scale=tiny", "scale.layers=4"]).runs[0]
    planned = Planned(run, "d" * 16)
    job = Job({"abc": planned}, "sqlite://", "my-study", tmp_path, tmp_path, "cpu", heard)
    with _tracker(job, planned, "abc"):
        pass
    (tracked,) = heard.runs
    assert (tracked.group, tracked.job_type, heard.closed) == ("my-study", "Type B", 1)
    assert {name: tracked.config[name] for name in ("architecture", "ar_ratio", "attention_share")} == {
        "architecture": "Type B 3:1",
        "ar_ratio": "3:1",
        "attention_share": 0.75,
    }
    assert tracked.config["layout"]["attention"] == 3  # its own config is still there


def test_a_network_without_mixers_has_no_share():
    assert dashboard.grouping(load_spec(["layout=pattern", "layout.pattern=N"]))["attention_share"] is None


# ---- a mirror, never in the way --------------------------------------------------------------
def test_a_run_of_its_own_in_the_studys_group(tmp_path):
    heard, folder = Heard(), trained(tmp_path / STUDY)
    dashboard.mirror(heard, STUDY, folder, lines_of(folder))
    (run,) = heard.runs
    assert (run.id, run.name, run.group, run.job_type) == (
        dashboard.run_id(STUDY),
        "table",
        STUDY,
        "table",
    )
    assert run.folder == folder
    assert (len(heard.made), heard.closed) == (1, 1)


def test_without_a_tracker_or_under_an_agent_nothing_happens(tmp_path, monkeypatch):
    dashboard.mirror(NoTracker(), STUDY, tmp_path / "no such folder", [{"label": "x"}])
    heard = Heard()
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    dashboard.mirror(heard, STUDY, tmp_path / "no such folder", [{"label": "x"}])
    assert heard.runs == []


def test_whatever_fails_costs_one_warning(tmp_path):
    folder = trained(tmp_path / STUDY)
    with pytest.warns(UserWarning, match="no table in wandb: RuntimeError: broken") as told:
        dashboard.mirror(Heard(RuntimeError("broken")), STUDY, folder, lines_of(folder))
    assert len(told) == 1


def test_without_plotly_there_is_a_table_and_a_warning(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "plotly"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "plotly", None)
    heard, folder = Heard(), trained(tmp_path / STUDY)
    with pytest.warns(UserWarning, match=r"no Pareto figure: .*plotly.*; pip install 'retsweep\[report\]'"):
        dashboard.mirror(heard, STUDY, folder, lines_of(folder))
    assert len(heard.made) == 1


def test_a_study_of_counts_has_no_figure(tmp_path):
    counted = {key: value for key, value in row().items() if "ppl" not in key and "bits" not in key}
    assert dashboard.pareto(study(tmp_path / "counts", counted)) is None


@pytest.mark.parametrize(("ending", "sent"), [("done", 1), ("limit", 1), ("interrupted", 0)])
def test_a_command_that_prints_the_table_sends_it_too(tmp_path, monkeypatch, ending, sent):
    heard: list[Any] = []
    monkeypatch.setattr(dashboard, "mirror", lambda *given: heard.append(given))
    folder = trained(tmp_path / STUDY)
    asked = wanted(["scale=tiny", f"study={STUDY}", "tracker=none"])
    console = Console(file=io.StringIO())
    command._table(folder, Outcome(ending, ("a run",), (), ()), asked, console)
    assert [given[:3] for given in heard] == [(NoTracker(), STUDY, folder)] * sent
    labels = [line["label"] for line in lines_of(folder)]
    assert [[line["label"] for line in lines] for *_, lines in heard] == [labels] * sent


# ---- wandb itself, offline -------------------------------------------------------------------
def test_the_offline_run_holds_table_charts_and_figure(tmp_path):
    pytest.importorskip("plotly", reason="the extra report is not installed")
    folder = trained(tmp_path / STUDY)
    code = (
        "import pathlib, sys\n"
        "from analysis.rows import read_rows\n"
        "from analysis.table import build\n"
        "from retsweep.sweep import dashboard\n"
        "from retsweep.tracking import Wandb\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "dashboard.mirror(Wandb(), folder.name, folder, build(folder.name, read_rows(folder)).lines)\n"
    )
    environment = {"WANDB_MODE": "offline", "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env=environment,
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "")
    run_id = dashboard.run_id(STUDY)
    (written,) = (folder / "wandb").glob(f"offline-run-*-{run_id}")
    records = list(log.records(written / f"run-{run_id}.wandb"))
    run = next(record.run for record in records if record.WhichOneof("record_type") == "run")
    assert (run.run_group, run.job_type, run.display_name) == (STUDY, "table", "table")

    logged = history(records)
    assert {"table", "pareto/figure"} <= set(logged)
    names, data = dashboard.table(lines_of(folder))
    stored = json.loads((written / "files" / logged["table"]["path"]).read_text(), parse_constant=refuse)
    assert (stored["columns"], stored["data"]) == (names, data)

    figure = json.loads((written / "files" / logged["pareto/figure"]["path"]).read_text())
    traces = {trace["name"]: trace for trace in figure["data"]}
    assert traces["Type A"]["y"] == [25.25]
    assert "height" not in figure["layout"]  # it fills W&B's panel
    assert len({trace["marker"]["color"] for name, trace in traces.items() if "Type" in name}) >= 2

    for column in ("macs_train_forward", "macs_decode_2048"):
        chart = visualised(records)[f"pareto/{column}"]["panel_config"]
        assert chart["panelDefId"] == "wandb/area-under-curve/v0"
        assert (chart["fieldSettings"]["x"], chart["fieldSettings"]["y"]) == ("GMACs", "valid_ppl")
        assert chart["fieldSettings"]["groupKeys"] == "layout"
        backing = logged[f"Custom Chart Tables/pareto/{column}_table"]
        stored = json.loads((written / "files" / backing["path"]).read_text())
        assert stored["columns"] == ["class", "layout", "GMACs", "valid_ppl"]
        assert stored["data"] == dashboard.chart_points(lines_of(folder), column)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON that a browser reads")


def history(records: list[Any]) -> dict[str, dict[str, Any]]:
    """What was logged last, by key: a mapping where W&B keeps a file."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        if record.WhichOneof("record_type") == "history":
            for item in record.history.item:
                key, *rest = item.nested_key or [item.key]
                found.setdefault(key, {})[".".join(rest)] = json.loads(item.value_json)
    return found


def visualised(records: list[Any]) -> dict[str, Any]:
    """W&B's custom charts by key, as the run's config has them."""
    return {
        update.nested_key[2]: json.loads(update.value_json)
        for record in records
        if record.WhichOneof("record_type") == "config"
        for update in record.config.update
        if list(update.nested_key[:2]) == ["_wandb", "visualize"]
    }
