"""Ratio against model size: does what attention is worth change as models grow?"""

from __future__ import annotations

from typing import Any

from analysis.figures.against import Against, against
from analysis.figures.against import draw as draw_against
from analysis.figures.source import Source


def data(source: Source) -> Against:
    """Architectures by width, placed at their parameters. Raises MissingError."""
    return against(source, "d_model", "params")


def draw(found: Against) -> Any:
    return draw_against(found, "parameters")
