"""A table as Markdown, LaTeX (booktabs) and terminal text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.aggregate import Line
from analysis.columns import Column

if TYPE_CHECKING:
    from rich.console import RenderableType

TERMINAL_WIDTH = 120

MARKDOWN_ESCAPES = {character: "\\" + character for character in "\\`*_|<>[]"}
TEX_ESCAPES = {
    **{character: "\\" + character for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "×": r"$\times$",
}


@dataclass(frozen=True)
class Section:
    """Lines that may be compared with each other; ``references`` stand below, unranked."""

    title: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    references: tuple[Line, ...]


def markdown(title: str, sections: Iterable[Section], notes: Iterable[str], level: int = 1) -> str:
    """``level`` is that of the title's heading; a section with a title of its own is one below."""
    parts = [f"{'#' * level} {_escape(title, MARKDOWN_ESCAPES)}"]
    for section in sections:
        if section.title:
            parts.append(f"#{'#' * level} {_escape(section.title, MARKDOWN_ESCAPES)}")
        parts.append("\n".join(_markdown_rows(section)))
    items = [f"- {_escape(note, MARKDOWN_ESCAPES)}" for note in notes]
    return "\n\n".join([*parts, *(["\n".join(items)] if items else [])]) + "\n"


def _markdown_rows(section: Section) -> list[str]:
    def row(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    def cells(line: Line) -> list[str]:
        return [_escape(column.cell(line), MARKDOWN_ESCAPES) for column in section.columns]

    return [
        row(_escape(_one_line(column.header), MARKDOWN_ESCAPES) for column in section.columns),
        row("---:" if column.numeric else "---" for column in section.columns),
        *(row(cells(line)) for line in section.lines),
        *(row(f"*{cell}*" if cell else "" for cell in cells(line)) for line in section.references),
    ]


def tex(title: str, sections: Iterable[Section], notes: Sequence[str]) -> str:
    """One table environment a section; needs ``booktabs``."""
    blocks = [_tex_table(title, section, notes) for section in sections]
    return "% needs \\usepackage{booktabs}\n" + "\n".join(blocks)


def _tex_table(title: str, section: Section, notes: Sequence[str]) -> str:
    def row(cells: Iterable[str]) -> str:
        return "  " + " & ".join(_escape(cell, TEX_ESCAPES) for cell in cells) + r" \\"

    caption = f"{title}: {section.title}" if section.title else title
    references = [row(column.cell(line) for column in section.columns) for line in section.references]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escape(caption, TEX_ESCAPES)}}}",
        rf"\begin{{tabular}}{{{''.join('r' if column.numeric else 'l' for column in section.columns)}}}",
        r"  \toprule",
        row(_one_line(column.header) for column in section.columns),
        r"  \midrule",
        *(row(column.cell(line) for column in section.columns) for line in section.lines),
        *([r"  \midrule", *references] if references else []),
        r"  \bottomrule",
        r"\end{tabular}",
        *(rf"\par\footnotesize {_escape(note, TEX_ESCAPES)}" for note in notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def terminal(
    title: str, sections: Iterable[Section], notes: Iterable[str], width: int
) -> list[RenderableType]:
    """What rich prints, tables and notes, on a terminal of ``width`` columns.

    A section that is too wide becomes several tables, each with the labels first: nothing is
    cropped. A table is wider than ``width`` only where labels and one column are already.
    """
    from rich.text import Text

    printed: list[RenderableType] = []
    for section in sections:
        heading = f"{title}: {section.title}" if section.title else title
        for index, columns in enumerate(_blocks(section, width)):
            printed += [Text()] if index else []
            printed.append(_rich_table(None if index else heading, section, columns))
    printed += [Text(note, style="dim") for note in notes]
    return printed


def needed_width(printed: RenderableType) -> int:
    """The columns of a terminal below which a table loses text; 0 for what can be wrapped."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    if not isinstance(printed, Table):
        return 0
    console = Console(width=10**4)
    return Measurement.get(console, console.options, printed).maximum


def _blocks(section: Section, width: int) -> list[list[Column]]:
    """The section's columns in groups that fit into ``width``, the labels in front of each."""
    label, *others = section.columns
    blocks = [[label]]
    for column in others:
        if len(blocks[-1]) > 1 and needed_width(_rich_table(None, section, [*blocks[-1], column])) > width:
            blocks.append([label])
        blocks[-1].append(column)
    return blocks


def _rich_table(title: str | None, section: Section, columns: Sequence[Column]) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=None if title is None else Text(title),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1),
        collapse_padding=True,
    )
    for column in columns:
        table.add_column(
            Text(column.header),
            justify="right" if column.numeric else "left",
            no_wrap=True,
            vertical="bottom",
        )
    for line in section.lines:
        table.add_row(*(Text(column.cell(line)) for column in columns))
    if section.references:
        table.add_section()
    for line in section.references:
        table.add_row(*(Text(column.cell(line)) for column in columns), style="dim")
    return table


def _escape(text: str, escapes: dict[str, str]) -> str:
    return "".join(escapes.get(character, character) for character in text)


def _one_line(header: str) -> str:
    return header.replace("/\n", "/").replace("\n", " ")
