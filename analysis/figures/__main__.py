"""A study's figures: ``python -m analysis.figures [--convention=COLUMN,...] [STUDY ...]``.

Into ``runs/<study>/figures`` as svg, png and pdf; into a published folder itself, as svg alone.
``--convention`` chooses the cost columns of the Pareto figure, for instance macs_published.
matplotlib is the extra ``figures``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from analysis import command
from analysis.figures import pareto, style
from analysis.figures.catalogue import FIGURES
from analysis.figures.source import MissingError, open_source
from analysis.rows import PUBLISHED_ROWS, TableError, write_atomically

FOLDER = "figures"
SUFFIXES = ("svg", "png", "pdf")
OPTION = "--convention="


def write(study: Path, conventions: Sequence[str] = ()) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """Draws what the study has. Returns the files by figure, and why others were not drawn.

    Raises TableError if there is nothing to draw, or if ``conventions`` were not counted.
    """
    source = open_source(study)
    folder, suffixes = _place(study)
    drawn: dict[str, list[Path]] = {}
    missing: dict[str, str] = {}
    with style.styled():
        for name, module in FIGURES.items():
            try:
                found = module.data(source)
            except MissingError as reason:
                missing[name] = str(reason)
                continue
            figure = (
                pareto.draw(found, _known(found, conventions)) if name == "pareto" else module.draw(found)
            )
            drawn[name] = _save(figure, folder, name, suffixes)
    if not drawn:
        raise TableError(f"{study}: nothing to draw; {_reasons(missing)}")
    if conventions and "pareto" not in drawn:
        raise TableError(f"{study} has no Pareto front to choose conventions for: {missing['pareto']}")
    return drawn, missing


def _place(study: Path) -> tuple[Path, Sequence[str]]:
    published = (study / PUBLISHED_ROWS).is_file() and not (study / "trials").is_dir()
    return (study, SUFFIXES[:1]) if published else (study / FOLDER, SUFFIXES)


def _known(panels: Sequence[pareto.Pareto], conventions: Sequence[str]) -> Sequence[str]:
    counted = [panel.convention.column for panel in panels]
    unknown = [name for name in conventions if name not in counted]
    if unknown:
        raise TableError(f"no convention {', '.join(unknown)} in this study; counted: {', '.join(counted)}")
    return conventions


def _save(figure: Any, folder: Path, name: str, suffixes: Sequence[str]) -> list[Path]:
    folder.mkdir(exist_ok=True)
    style.settle(figure)
    files = [folder / f"{name}.{suffix}" for suffix in suffixes]
    for file, suffix in zip(files, suffixes, strict=True):
        write_atomically(file, style.encode(figure, suffix))
    return files


def _reasons(missing: dict[str, str]) -> str:
    """The figures that were not drawn, those with the same reason together."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in missing.items():
        by_reason.setdefault(reason, []).append(name)
    return "; ".join(f"not {', '.join(names)}: {reason}" for reason, names in by_reason.items())


def tell(study: Path, conventions: Sequence[str] = ()) -> None:
    """Draws, and says in one line what, where, and what not."""
    drawn, missing = write(study, conventions)
    files = next(iter(drawn.values()))
    kinds = ", ".join(file.suffix[1:] for file in files)
    parts = [f"{files[0].parent}: drew {', '.join(drawn)} ({kinds})"]
    print("; ".join([*parts, _reasons(missing)] if missing else parts))


def main(arguments: Sequence[str]) -> int:
    """The command: its exit code."""
    chosen = [argument.removeprefix(OPTION) for argument in arguments if argument.startswith(OPTION)]
    studies = [argument for argument in arguments if not argument.startswith(OPTION)]
    conventions = [name for names in chosen for name in names.split(",") if name]
    usage = "analysis.figures [--convention=COLUMN,...]"
    return command.run_each(usage, studies, partial(tell, conventions=conventions))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
