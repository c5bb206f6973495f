"""One look for all figures: colours any eye tells apart, markers and dashes that survive grey.

matplotlib is the extra ``figures``; it is imported when something is drawn.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Any

from analysis.figures.source import OTHERS
from analysis.rows import TableError

#: Okabe & Ito's colours with a marker and a dash pattern each.
FAMILY = {
    "Transformer": ("#000000", "*", (0, ())),
    "RetNet": ("#D55E00", "P", (0, ())),
    "Type A": ("#0072B2", "o", (0, ())),
    "Type B": ("#009E73", "s", (0, (4, 1.5))),
    "Type C": ("#CC79A7", "^", (0, (1, 1))),
    OTHERS: ("#E69F00", "D", (0, (5, 1, 1, 1))),
}
#: The same for things that are no families, in this order: models of a ladder, placements.
SERIES = (
    ("#000000", "o"),
    ("#D55E00", "s"),
    ("#0072B2", "^"),
    ("#009E73", "D"),
    ("#CC79A7", "v"),
    ("#E69F00", ">"),
    ("#56B4E9", "p"),
    ("#7F7F7F", "<"),
)
DASHES = ((0, ()), (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
GREY, FAINT = "0.35", "0.6"
#: Everything that a user's own matplotlibrc could change and that shows.
SETTINGS = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same outlines on every machine
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.0,
    "errorbar.capsize": 2,
    "svg.fonttype": "path",
    "svg.hashsalt": "retsweep",
    "pdf.fonttype": 42,
    "savefig.dpi": 160,
}
#: Dates and versions would make the same figure a new file.
METADATA: dict[str, dict[str, None]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


@contextmanager
def styled() -> Iterator[None]:
    """Figures drawn and saved inside look the same on every machine. Raises TableError without
    matplotlib."""
    try:
        import matplotlib
    except ImportError as error:
        raise TableError("figures need matplotlib: pip install 'retsweep[figures]'") from error
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def new(width: float, height: float, rows: int = 1, columns: int = 1, **keywords: Any) -> tuple[Any, Any]:
    """A figure of ``width`` x ``height`` inches and its axes as an array (rows, columns)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **keywords)


def settle(figure: Any) -> None:
    """Lays the figure out once and for all: every file of it then has the same layout."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def encode(figure: Any, suffix: str) -> bytes:
    """The figure as a file's content: the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix, metadata=METADATA[suffix])
    return buffer.getvalue()


def share_colour(share: float | None) -> Any:
    """Light to dark as attention's share rises: cividis, whose order also holds in grey."""
    from matplotlib import colormaps

    return FAINT if share is None else colormaps["cividis"](0.88 * (1 - share))


def colour_and_marker(family: str, share: float | None) -> tuple[Any, str]:
    """Of a curve against context: a type's by its share of attention, so that its ratios differ."""
    colour, marker, _ = FAMILY[family]
    return share_colour(share) if family.startswith("Type") else colour, marker


def share_bar(figure: Any, axes: Any) -> None:
    """The key to :func:`share_colour` beside ``axes``."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap

    colours = ListedColormap([share_colour(step / 255) for step in range(256)])
    figure.colorbar(
        ScalarMappable(cmap=colours), ax=axes, label="attention heads / heads", aspect=30, pad=0.01
    )


def key(axis: Any, name: str, marker: str, color: Any, **look: Any) -> None:
    """An entry of the legend, for what is drawn point by point."""
    axis.plot(
        [], [], marker=marker, color=color, label=name, **({"linestyle": "none", "markersize": 5} | look)
    )


def key_leaky(axis: Any) -> None:
    key(axis, "hollow: leaky, no likelihood", "o", "0.3", markerfacecolor="white")


def key_diverged(axis: Any) -> None:
    key(axis, "a run diverged", "x", "0.1", markersize=7)


def legend(figure: Any, axes: Any) -> None:
    """One legend above the figure for what all ``axes`` name, each name once, as many beside each
    other as fit. What marks any of them (hollow, crossed) comes last."""
    named: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    if not named:
        return
    order = sorted(named, key=lambda name: name.startswith(("hollow", "dot", "a run", "no longer")))
    columns = _fitting(order, float(figure.get_size_inches()[0]))
    figure.legend([named[name] for name in order], order, loc="outside upper center", ncols=columns)


def _fitting(names: Sequence[str], width: float) -> int:
    """How many columns of a legend fit into ``width`` inches. matplotlib fills columns one by one,
    the first ones with one name more where they do not come out even."""
    inches = [0.57 + 0.065 * len(name) for name in names]  # handle, gaps, letters at this size
    for columns in range(len(names), 1, -1):
        each, more = divmod(len(names), columns)
        ends = list(accumulate(each + (place < more) for place in range(columns)))
        if sum(max(inches[start:end]) for start, end in pairwise([0, *ends])) <= width:
            return columns
    return 1


def ticks_as_numbers(axis: Any, values: list[float]) -> None:
    """The x-axis says ``values`` and nothing else: on a log axis matplotlib would write powers."""
    axis.set_xticks(values, [number(value) for value in values])
    axis.set_xticks([], minor=True)


def number(value: float) -> str:
    """A tick's text: 0.5, 20, 8,192, 1.5 M."""
    return f"{value / 1e6:,g} M" if value >= 1e6 else f"{value:,.0f}" if value >= 1e3 else f"{value:g}"


def plain_log(axis: Any, which: str = "y") -> None:
    """A logarithmic axis that writes 20, 30, 40 and not powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    getattr(axis, f"set_{which}scale")("log")
    ticks = getattr(axis, f"{which}axis")
    low, high = sorted(ticks.get_view_interval())
    spans = high / low
    subs: tuple[float, ...] = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8) if spans < 4 else (1, 1.5, 2, 3, 5, 7)
    subs = subs if spans < 15 else (1, 2, 5) if spans < 100 else (1,)
    if which == "x" and spans >= 4:  # labels stand side by side, and long ones would touch
        subs = (1, 2, 5) if spans < 100 else (1,)
    ticks.set_major_locator(LogLocator(subs=subs, numticks=12))
    ticks.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    ticks.set_minor_formatter(FuncFormatter(lambda *_: ""))
