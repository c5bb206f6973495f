"""The libraries that the page carries: plotly draws, DataTables (as itables ships it) sorts.

These packages, and those that numbers of the page need, are the extra ``report``; what is missing is one
line.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.rows import TableError

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
NEEDED = ("jinja2", "plotly", "itables", "moocore", "sklearn")


def require() -> None:
    """Raises TableError, in one line, if a package of the extra is missing."""
    missing = [name for name in NEEDED if not _is_there(name)]
    if missing:
        raise TableError(f"a report needs {', '.join(missing)}: pip install 'retsweep[report]'")


def _is_there(name: str) -> bool:
    """Not by importing it: scikit-learn takes a second, and few pages need it."""
    return find_spec(name) is not None


def plotly_js() -> str:
    """plotly.js, to stand in a script element."""
    from plotly.offline import get_plotlyjs

    return in_script(str(get_plotlyjs()))


@cache
def _bundle() -> Path:
    from itables import options

    return Path(str(options.dt_bundle))


def datatables_js() -> str:
    """DataTables as an ES module, whose default export is its class."""
    return in_script(_bundle().read_text(encoding="utf-8"))


def datatables_css() -> str:
    return _bundle().with_suffix(".css").read_text(encoding="utf-8").replace("</style", "<\\/style")


def in_script(text: str) -> str:
    """JavaScript or JSON such that no part of it ends, or comments out, the element it stands in."""
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def in_data(json_text: str) -> str:
    """JSON in a script element: no character of it can be read as HTML."""
    for character in "<>&":
        json_text = json_text.replace(character, f"\\u{ord(character):04x}")
    return json_text


def environment() -> Environment:
    """jinja2 with autoescape: what comes from rows reaches the page as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def template_text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def as_json(figure: Any) -> str:
    """A plotly figure as JSON for its script element; infinities become null."""
    return in_data(str(figure.to_json()))
