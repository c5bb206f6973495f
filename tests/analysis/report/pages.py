"""Pages of the report as tests read them: what stands in the HTML, without a browser."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from tests.analysis.rows import row, transformer

EMPTY = {"meta", "link", "br", "img", "input", "hr"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    parts: list[Any] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What it says, white space as one blank."""
        words = " ".join(part if isinstance(part, str) else part.text for part in self.parts)
        return " ".join(words.split())

    def all(self, tag: str) -> list[Element]:
        own = [self] if self.tag == tag else []
        inner = [part.all(tag) for part in self.parts if isinstance(part, Element)]
        return [*own, *(found for each in inner for found in each)]

    def id(self, name: str) -> Element:
        found = [one for one in self.every() if one.attributes.get("id") == name]
        assert len(found) == 1, f"{len(found)} elements called {name}"
        return found[0]

    def every(self) -> list[Element]:
        return [self, *(one for part in self.parts if isinstance(part, Element) for one in part.every())]


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.open[-1].parts.append(element)
        if tag not in EMPTY:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes {self.open[-1].tag}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].parts.append(data)


def read(html: str) -> Element:
    """The page; fails where tags do not match."""
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == [reader.root], f"{reader.open[-1].tag} is not closed"
    return reader.root


def charts(page: Element) -> dict[str, dict[str, Any]]:
    """Every plotly figure by its id."""
    return {
        str(script.attributes["data-chart"]): json.loads("".join(script.parts))
        for script in page.all("script")
        if "data-chart" in script.attributes
    }


def rows(table: Element) -> list[dict[str, str]]:
    """The cells of a table's body, by heading."""
    heads = [head.text for head in table.all("th")]
    return [
        dict(zip(heads, (cell.text for cell in row.all("td")), strict=True)) for row in table.all("tr")[1:]
    ]


def page(*folders: Any) -> Element:
    """The report of ``folders``."""
    from analysis.report.page import html

    return read(html(folders, "the command"))


def claims(found: Element) -> dict[str, Any]:
    """claim -> what each column says."""
    return {one["claim"]: one for one in rows(found.id("claims-table"))}


def counted() -> list[dict[str, Any]]:
    """Rows that were counted and never trained."""
    bare = [transformer(d_model=768), row(d_model=768, macs_train_forward=31_000_000)]
    return [
        {name: value for name, value in one.items() if "_ppl" not in name and "_per_" not in name}
        for one in bare
    ]
