"""What a sweep shows while it runs: a bar with the time left, a line a running trial, the rows.

Everything is drawn from the study's entries, so that trials on other machines appear as well.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from retsweep.sweep.study import Entry

#: Without a terminal, a line with the standing now and then.
PLAIN_SECONDS = 30.0
GIGA = 1e9


class Estimate:
    """Seconds left, from the work done since this command began.

    Work is counted in trials. What a trial had done when it was first seen (it was resumed) is
    not this command's work.
    """

    def __init__(self, trials: int) -> None:
        self._trials = trials
        self._began = time.monotonic()
        self._first: dict[str, float] = {}
        self._latest: dict[str, float] = {}

    def see(self, standing: Mapping[str, Entry]) -> None:
        for spec_hash, entry in standing.items():
            if entry.state in ("complete", "failed", "lost"):
                self._first.setdefault(spec_hash, 0.0 if self._latest else 1.0)
                self._latest[spec_hash] = 1.0
            elif entry.steps[1]:
                fraction = entry.steps[0] / entry.steps[1]
                self._first.setdefault(spec_hash, fraction)
                self._latest[spec_hash] = fraction
            else:
                self._latest.setdefault(spec_hash, 0.0)

    @property
    def done(self) -> float:
        """Trials' worth of work that is behind, resumed and finished ones included."""
        return sum(self._latest.values())

    def seconds_left(self) -> float | None:
        """None before there is anything to go by."""
        worked = sum(self._latest[key] - first for key, first in self._first.items())
        if worked <= 0:
            return None
        return (time.monotonic() - self._began) * max(0.0, self._trials - self.done) / worked


class Screen:
    """Shows a sweep on a console: live on a terminal, in plain lines elsewhere."""

    def __init__(self, console: Console, labels: Mapping[str, str]) -> None:
        self._console, self._labels = console, labels
        self._estimate = Estimate(len(labels))
        self._shown: set[str] = set()
        self._spoke = time.monotonic()
        self._live = Live(console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        self._console.print(Text(text))

    def already(self, standing: Mapping[str, Entry]) -> int:
        """Takes what is complete as known, not news. Returns how many that is."""
        self._shown |= {spec_hash for spec_hash, entry in standing.items() if entry.state == "complete"}
        self._estimate.see(standing)
        return len(self._shown)

    def update(self, standing: Mapping[str, Entry]) -> None:
        self._estimate.see(standing)
        for spec_hash, entry in standing.items():
            over = entry.state in ("complete", "failed")
            if over and entry.row and spec_hash not in self._shown:
                self._shown.add(spec_hash)
                self.note(row_line(self._labels[spec_hash], entry.row))
        if self._console.is_terminal:
            self._live.update(self._picture(standing))
        elif time.monotonic() - self._spoke > PLAIN_SECONDS:
            self._spoke = time.monotonic()
            self.note(self._standing_line(standing))

    def _share(self, standing: Mapping[str, Entry]) -> float:
        """How much of the work is behind, from 0 to 1."""
        return self._estimate.done / len(self._labels)

    def _standing_line(self, standing: Mapping[str, Entry]) -> str:
        over = sum(entry.state in ("complete", "failed") for entry in standing.values())
        running = sum(entry.state == "running" for entry in standing.values())
        left = self._estimate.seconds_left()
        about = f", about {clock(left)} left" if left is not None else ""
        return f"{over}/{len(self._labels)} finished, {running} running{about}"

    def _picture(self, standing: Mapping[str, Entry]) -> Group:
        bar = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=30), TextColumn("{task.fields[at]}")
        )
        running = [(key, entry) for key, entry in standing.items() if entry.state == "running"]
        width = max((len(self._labels[key]) for key, _ in running), default=0)
        for key, entry in running:
            done, total = entry.steps
            at = f"{done}/{total}" if total else "starting"
            bar.add_task(f"  {self._labels[key]:<{width}}", total=total or None, completed=done, at=at)
        percent = round(100 * self._share(standing))
        bar.add_task(f"{'all':<{width + 2}}", total=100, completed=percent, at=self._standing_line(standing))
        return Group(bar)


def row_line(label: str, row: Mapping[str, Any]) -> str:
    """A finished row in a line: name, perplexity, GigaMACs, seconds; or why there is none."""
    parts = [f"{label:<24}"]
    status = row.get("status", "ok")
    if status != "ok":
        parts.append(str(status))
    if row.get("error"):
        parts.append(str(row["error"]))
    if _is_number(row.get("valid_ppl")):
        parts.append(f"valid_ppl {row['valid_ppl']:.2f}")
    macs = next((row[c] for c in ("macs_fvcore", "macs_train_forward") if _is_number(row.get(c))), None)
    if macs is not None:
        parts.append(f"{macs / GIGA:.4g} GMACs")
    if _is_number(row.get("seconds")):
        parts.append(clock(row["seconds"]))
    return "  ".join(parts)


def clock(seconds: float) -> str:
    """ "45 s", "3 min 20 s", "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
