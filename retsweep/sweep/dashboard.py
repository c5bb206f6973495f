"""A study's table in Weights & Biases: a run of its own, named "table", in the group of the study.

It holds the lines of the printed table as a ``wandb.Table``, perplexity against MACs as W&B's own
charts with a colour a layout, and the report's Pareto figure where plotly is installed. Like all
tracking it is a mirror: the study's files are the source, and whatever fails here costs a warning.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from retsweep.spec import RunSpec
from retsweep.tracking import Sent, TrackedRun, content, is_written

Line = Mapping[str, Any]

NAME = "table"
#: Columns of the W&B table that stand first, with what their cells hold.
FIRST: tuple[tuple[str, type], ...] = (
    *((name, str) for name in ("label", "family", "layout", "ar_ratio")),
    ("attention_share", float),
    ("params", float),
)
LAST: tuple[tuple[str, type], ...] = (
    *(("n", float), ("ok", float), ("seeds", str), ("status", str)),
    *(("train_ppl_of", str), ("leaky", bool), ("reference", bool), ("protocol", str), ("scale", str)),
    *(("corpus", str), ("tokenizer", str), ("variant_hash", str)),
)
#: W&B's only preset chart that draws points and takes their colour from a column of text
#: ("groupKeys"). It averages points that agree in x, colour and the column named "class": hence a
#: column of that name, different in every row.
PRESET = "wandb/area-under-curve/v0"
CHARTS = {
    "macs_train_forward": "GMACs of the training forward, a sequence",
    "macs_decode_2048": "GMACs of decoding at context 2,048, a token",
}


# ---- what training runs carry ------------------------------------------------------------------
def family(architecture: str) -> str:
    """What runs are grouped by: Transformer, RetNet, Type A, Type B, Type C, others."""
    name = architecture[:6] if architecture.startswith("Type ") else architecture
    return name if name in ("Transformer", "RetNet", "Type A", "Type B", "Type C") else "others"


def grouping(spec: RunSpec) -> dict[str, Any]:
    """Flat keys for a run's W&B config: its own config says the layout by class and number only."""
    attention, retention = spec.heads_by_kind
    architecture = spec.layout.architecture(spec.layers, spec.scale.heads)
    return {
        "architecture": architecture,
        "family": family(architecture),
        "ar_ratio": spec.layout.ar_ratio(spec.layers, spec.scale.heads),
        "attention_share": _share(attention, retention),
    }


def grouping_of(row: Line) -> dict[str, Any]:
    """:func:`grouping` of a run that has its row."""
    return {
        "architecture": row["architecture"],
        "family": family(row["architecture"]),
        "ar_ratio": row.get("ar_ratio"),
        "attention_share": _share(row.get("attention_heads"), row.get("retention_heads")),
    }


# ---- the table's run ---------------------------------------------------------------------------
def mirror(tracker: Any, study: str, folder: Path, lines: Sequence[Line]) -> Sent:
    """Sends the table's ``lines`` where ``tracker`` (settings.tracker) tracks to, unless they are there.
    Never raises.

    Nothing happens under `wandb agent`, whose runs are all of its own sweep: the same study's
    ``+sweep=`` command, with everything finished, sends the table afterwards.
    """
    if os.environ.get("WANDB_SWEEP_ID"):
        return "nowhere"
    try:
        mode = tracker.resolve().mode
        if mode == "none":
            return "nowhere"
        figure = pareto(folder)
        shown = digest(lines, figure)
        config = {"study": study, "lines": len(lines)}
        run = TrackedRun(run_id(study), NAME, study, folder, config, job_type=NAME, live=False)
        if mode == "offline" and is_written(run, content(config, panels=shown)):
            return "offline"
        opened = tracker.open(run)
        opened.panels(lambda: panels(lines, figure), shown)
        sent: Sent = opened.close()
        return sent
    except Exception as error:  # a mirror: the study has its table, whatever happened here
        warnings.warn(f"no table in wandb: {type(error).__name__}: {error}", stacklevel=2)
        return "nowhere"


def digest(lines: Sequence[Line], figure: Any | None) -> str:
    """Of all that the panels show: the figure is drawn from the study that the lines are of."""
    said = json.dumps([[dict(line) for line in lines], figure is not None], sort_keys=True, default=str)
    return sha256(said.encode()).hexdigest()


def run_id(study: str) -> str:
    """The same for the same study, so that a sweep which goes on updates its table."""
    return f"table-{sha256(study.encode()).hexdigest()[:12]}"


def pareto(folder: Path) -> Any | None:
    """The report's plotly figure; None where there is nothing to draw or no plotly to draw with."""
    from analysis.figures import pareto as points
    from analysis.figures.source import MissingError, open_source

    try:
        from analysis.report.charts.pareto import front_figure

        figure = front_figure(points.data(open_source(folder)))
    except MissingError:  # a study of counts
        return None
    except ImportError as error:
        warnings.warn(f"wandb gets no Pareto figure: {error}; pip install 'retsweep[report]'", stacklevel=3)
        return None
    figure.layout.height = None  # as high as W&B's panel
    return figure


def panels(lines: Sequence[Line], figure: Any | None) -> dict[str, Any]:
    """All that the run logs, by W&B's key. Imports wandb."""
    import wandb

    columns, data = table(lines)
    logged: dict[str, Any] = {NAME: wandb.Table(columns=columns, data=data)}
    if figure is not None:
        logged["pareto/figure"] = wandb.Plotly(figure)
    for column, title in CHARTS.items():
        points = chart_points(lines, column)
        if points:
            logged[f"pareto/{column}"] = wandb.plot_table(
                PRESET,
                wandb.Table(columns=["class", "layout", "GMACs", "valid_ppl"], data=points),
                {"x": "GMACs", "y": "valid_ppl", "class": "newGroupKeys", "groupKeys": "layout"},
                {
                    "title": "Validation perplexity against cost",
                    "x-axis-title": title,
                    "y-axis-title": "valid_ppl",
                },
                split_table=True,
            )
    return logged


def table(lines: Sequence[Line]) -> tuple[list[str], list[list[Any]]]:
    """Columns and cells of the W&B table: who it is, costs in GMACs (bytes for states), perplexities
    with their intervals, runs, and where it comes from. A cell is a finite number or None where the
    printed table says inf, nothing, or several values: W&B sorts numbers only, and its browser
    cannot read an Infinity."""
    present = list(dict.fromkeys(column for line in lines for column in line))
    costs = [column for column in present if column.startswith("macs_")]
    states = [column for column in present if column.startswith("state_bytes_")]
    qualities = [column for column in present if _is_quality(column)]
    kinds = {
        **dict(FIRST),
        **{f"g{column}": float for column in costs},
        **dict.fromkeys([*states, "report_gmacs", *qualities], float),
        **dict(LAST),
    }
    full = [_derived(line, costs) for line in lines]
    names = [name for name in kinds if any(line.get(name) is not None for line in full)]
    return names, [[_cell(line.get(name), kinds[name]) for name in names] for line in full]


def chart_points(lines: Sequence[Line], column: str) -> list[list[Any]]:
    """Label, layout (a leaky line says so: its perplexity is no likelihood), GMACs and valid_ppl of
    every line of the sweep that has both."""
    found = []
    for line in lines:
        cost, quality = (_cell(line.get(name), float) for name in (column, "valid_ppl"))
        if cost is not None and quality is not None and not line.get("reference"):
            layout = family(str(line.get("architecture")))
            shown = f"{layout}, leaky" if line.get("leaky") else layout
            found.append([str(line["label"]), shown, cost / 1e9, quality])
    return found


def _derived(line: Line, costs: Sequence[str]) -> dict[str, Any]:
    counted = {column: _cell(line.get(column), float) for column in costs}
    return {
        **line,
        "family": family(str(line.get("architecture"))),
        "attention_share": _share(line.get("attention_heads"), line.get("retention_heads")),
        **{f"g{column}": None if macs is None else macs / 1e9 for column, macs in counted.items()},
    }


def _is_quality(column: str) -> bool:
    name = column.removesuffix("_ci95")
    return "_ppl" in name or "_bits_per_byte" in name or name == "last_loss"


def _share(attention: Any, retention: Any) -> float | None:
    """Attention heads by all heads; None where nothing mixes."""
    if not isinstance(attention, int) or not isinstance(retention, int) or not attention + retention:
        return None
    return attention / (attention + retention)


def _cell(value: Any, kind: type) -> Any:
    if kind is float:
        known = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        return value if known else None
    return None if value is None else kind(value)
