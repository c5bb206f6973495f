"""Ratio against training context: does what attention is worth change as sequences grow?"""

from __future__ import annotations

from typing import Any

from analysis.figures.against import Against, against
from analysis.figures.against import draw as draw_against
from analysis.figures.source import Source


def data(source: Source) -> Against:
    """Architectures by training context. Raises MissingError."""
    return against(source, "context", "context")


def draw(found: Against) -> Any:
    return draw_against(found, "training context, tokens")
