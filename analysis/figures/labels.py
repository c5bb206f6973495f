"""Names beside points, where they cover neither each other nor the points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: Where a name may stand, in points from its point, best first: dx, dy, alignment.
OFFSETS = tuple(
    (dx * distance, dy * distance, horizontal, vertical)
    for distance in (1.0, 1.8, 2.8, 4.0, 5.5, 7.5, 10.0)
    for dx, dy, horizontal, vertical in (
        (-4, -4, "right", "top"),
        (4, 4, "left", "bottom"),
        (0, -6, "center", "top"),
        (0, 6, "center", "bottom"),
        (-4, 4, "right", "bottom"),
        (4, -4, "left", "top"),
    )
)
#: A name farther away than this (points) gets a thin line to its point.
NEAR = 9
PADDING = 1.02, 1.15


def place(
    axis: Any, named: Sequence[tuple[float, float, str]], obstacles: Sequence[tuple[float, float]]
) -> None:
    """Writes ``named`` (x, y, name) into ``axis``, away from ``obstacles`` (x, y; data units).

    A name without a free place is left out: its marker stays, and the table has it. Call when the
    axis has its final limits and the figure all else.
    """
    axis.figure.draw_without_rendering()  # the layout must stand before extents mean anything
    inside = axis.get_window_extent()
    taken = [_around(axis, x, y) for x, y in obstacles]
    taken += [text.get_window_extent() for text in axis.texts if text.get_text()]
    for x, y, name in (entry for entry in named if entry[2]):
        for dx, dy, horizontal, vertical in OFFSETS:
            style = {"ha": horizontal, "va": vertical, "fontsize": 7, "color": "0.2", "in_layout": False}
            text = axis.annotate(name, (x, y), (dx, dy), textcoords="offset points", **style)
            box = text.get_window_extent().expanded(*PADDING)
            if _within(box, inside) and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                if max(abs(dx), abs(dy)) > NEAR:
                    _leader(axis, x, y, dx, dy)
                break
            text.remove()


def _leader(axis: Any, x: float, y: float, dx: float, dy: float) -> None:
    line = {"arrowstyle": "-", "linewidth": 0.5, "color": "0.5", "shrinkA": 0, "shrinkB": 3}
    axis.annotate("", (x, y), (dx, dy), textcoords="offset points", arrowprops=line, in_layout=False)


def _around(axis: Any, x: float, y: float) -> Any:
    """A marker's box in pixels."""
    from matplotlib.transforms import Bbox

    centre = axis.transData.transform((x, y))
    size = 3.0 * axis.figure.dpi / 72
    return Bbox([centre - size, centre + size])


def _within(box: Any, frame: Any) -> bool:
    return bool(box.x0 >= frame.x0 and box.x1 <= frame.x1 and box.y0 >= frame.y0 and box.y1 <= frame.y1)
