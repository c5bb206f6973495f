"""What a section of the page is made of. Each block names the template that draws it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from analysis.aggregate import Line
from analysis.columns import Column
from analysis.report.bundled import as_json

DIVERGED, LEAKY, LAST = 1e307, 2e307, 1e308


@dataclass(frozen=True)
class Heading:
    text: str
    small: str = ""
    anchor: str = ""
    template: ClassVar[str] = "heading.html.jinja"


@dataclass(frozen=True)
class Words:
    """One item is a paragraph, several are a list; ``quiet`` ones are for the second reading."""

    items: tuple[str, ...]
    quiet: bool = False
    template: ClassVar[str] = "words.html.jinja"


@dataclass(frozen=True)
class Chart:
    """``figure`` is a plotly Figure; ``height`` in CSS pixels."""

    anchor: str
    figure: Any
    caption: str
    template: ClassVar[str] = "chart.html.jinja"

    @property
    def json(self) -> str:
        return as_json(self.figure)

    @property
    def height(self) -> int:
        return int(self.figure.layout.height or 460)


@dataclass(frozen=True)
class Head:
    """A column: its heading's lines, and what it means, shown when pointed at."""

    text: str
    numeric: bool = False
    title: str = ""

    @property
    def lines(self) -> list[str]:
        return self.text.split("\n")


@dataclass(frozen=True)
class Said:
    """A paragraph of a cell: who says it, the verdict in a word or two, and the words for it."""

    verdict: str
    words: str = ""
    study: str = ""


@dataclass(frozen=True)
class Cell:
    """``text`` on one line, or what several studies said; ``order`` is what the column is sorted by,
    if not the text."""

    text: str = ""
    order: float | int | str | None = None
    said: tuple[Said, ...] = ()


@dataclass(frozen=True)
class GridRow:
    cells: tuple[Cell, ...]
    kind: str = ""


@dataclass(frozen=True)
class Grid:
    """An HTML table. ``wide`` fills the page, ``even`` gives its columns the same width, ``sortable``
    is sorted by clicking a heading, ``code`` sets its last column as code, its lines kept."""

    anchor: str
    heads: tuple[Head, ...]
    rows: tuple[GridRow, ...]
    caption: str = ""
    sortable: bool = False
    wide: bool = False
    even: bool = False
    code: bool = False
    template: ClassVar[str] = "grid.html.jinja"


Block = Heading | Words | Chart | Grid


@dataclass(frozen=True)
class Part:
    """A section; without blocks it is only a line of the contents, which says why: ``absent``."""

    anchor: str
    title: str
    blocks: tuple[Block, ...] = ()
    absent: str = ""


def grid(anchor: str, heads: Sequence[str], rows: Sequence[Sequence[str]], **how: Any) -> Grid:
    """A table of texts."""
    return Grid(
        anchor,
        tuple(Head(head) for head in heads),
        tuple(GridRow(tuple(Cell(text) for text in row)) for row in rows),
        **how,
    )


def printed(anchor: str, columns: Sequence[Column], lines: Sequence[Line], **how: Any) -> Grid:
    """Columns of ``analysis`` as they print their lines."""
    return Grid(
        anchor,
        tuple(Head(column.header, column.numeric) for column in columns),
        tuple(GridRow(tuple(Cell(column.cell(line)) for column in columns)) for line in lines),
        **how,
    )


def sort_key(value: Any) -> float | int | str:
    """What a cell is sorted by: the value to its last digit. Infinities come after every number, and
    what is missing after them: both finite here, since DataTables takes others for words."""
    if isinstance(value, bool) or value is None:
        return LAST
    if isinstance(value, (int, float)):
        return value if math.isfinite(value) else DIVERGED
    return str(value)
