"""What was measured, as it is shown: a bar with the time left, two tables, what differs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.contestants import GROUPS
from benchmarks.options import Options
from benchmarks.targets import Judged


@dataclass(frozen=True)
class Measured:
    """``speed``: tokens a second, of the median turn; ``ratio``: ours to this peer's, None for ours."""

    what: str
    name: str
    speed: float
    ratio: float | None


class Report:
    """Hears what happens; ``absent`` says by name why someone does not take part, ``turns`` are all that
    will be taken."""

    def __init__(self, options: Options, absent: dict[str, str], turns: int) -> None:
        self.options, self.absent = options, dict(absent)
        self.parameters: dict[str, int] = {}
        self.blocks: dict[str, int] = {}
        self.measured: list[Measured] = []
        self.judged: list[Judged] = []
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self.progress = Progress(*columns, console=Console(stderr=True))
        self.bar = self.progress.add_task("building the models", total=turns)

    def begin(self, what: str) -> None:
        self.progress.update(self.bar, description=what)
        if not self.progress.console.is_terminal:  # where no bar moves
            self.progress.console.print(what)

    def add(self, measured: Measured) -> None:
        """Also says it at once: a run that is stopped has not measured in vain."""
        self.measured.append(measured)
        ratio = "" if measured.ratio is None else f", ours {measured.ratio:.3f} times as fast"
        self.progress.console.print(
            f"{measured.what} {measured.name}: {measured.speed:,.1f} tokens/s{ratio}", highlight=False
        )

    def leave_out(self, name: str, why: str) -> None:
        """One that was to take turns, and failed before its first."""
        self.absent[name] = f"{self.absent[name]}; {why}" if name in self.absent else why
        total = self.progress.tasks[self.bar].total or 0
        self.progress.update(self.bar, total=total - self.options.rounds - 1)
        self.progress.console.print(f"not measured: {why}", highlight=False, markup=False, soft_wrap=True)

    def tick(self) -> None:
        self.progress.advance(self.bar)

    def print(self, console: Console) -> None:
        console.print(self._settings())
        console.print(self._speeds())
        for group in GROUPS.values():
            for one in group:
                if one.name in self.absent:
                    why = self.absent[one.name]
                    console.print(f"not measured: {why}", highlight=False, markup=False, soft_wrap=True)
                if one.differs and any(one.name == measured.name for measured in self.measured):
                    console.print(f"{one.name} differs: {'; '.join(one.differs)}", highlight=False)

    def _settings(self) -> str:
        given = dataclasses.asdict(self.options)
        return ", ".join(f"{name} {'+'.join(v) if isinstance(v, tuple) else v}" for name, v in given.items())

    def _speeds(self) -> Table:
        unit = "tokens/s" if self.options.clock == "wall" else "tokens/s of CPU time"
        table = Table("model", "version", "parameters", "in blocks", "what", unit, "ours to it")
        versions = {one.name: one.version for group in GROUPS.values() for one in group}
        for one in self.measured:
            ratio = "" if one.ratio is None else f"{one.ratio:.3f}"
            table.add_row(
                one.name,
                versions[one.name],
                *(
                    f"{sizes[one.name]:,}" if one.name in sizes else ""
                    for sizes in (self.parameters, self.blocks)
                ),
                one.what,
                f"{one.speed:,.1f}",
                ratio,
            )
        return table
