"""What is wrong with a study after the storm: its ledger, its files, its numbers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from retsweep.search.proposals import Proposal
from retsweep.sweep.study import Entry
from retsweep.train import checkpoint

#: Columns that a clock or the machine's memory measured, no two runs have the same, and ``check``, the sum
#: of all columns (of a file it is looked at where it is read). Nor what PREFLIGHT
#: begins: the checks of a variant are made once a study, by whichever of its runs comes first.
MEASURED = (
    *("seconds", "trial_seconds", "trial_training_seconds", "tokens_per_second"),
    *("gemm_flops_per_second", "mfu", "peak_memory_bytes", "check"),
)
PREFLIGHT = "preflight_"


@dataclass
class Verdict:
    """Counts; all but ``rows`` and ``weights``, what was compared, should be 0. ``lost`` and ``doubled`` are
    runs with no finished trial, or several; ``open`` trials that wait or run after the end; ``missing``
    rows that the last machine has not in its files, and weights that no machine has; ``differing`` rows or
    weights that are not those of the unbroken run, to the bit; ``broken`` files that are not whole.
    ``said`` has a line for each of these."""

    rows: int = 0
    weights: int = 0
    lost: int = 0
    doubled: int = 0
    open: int = 0
    missing: int = 0
    differing: int = 0
    broken: int = 0
    said: tuple[str, ...] = ()

    def __add__(self, other: Verdict) -> Verdict:
        names = [one.name for one in fields(Verdict)]
        return Verdict(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def good(self) -> bool:
        return not any((self.lost, self.doubled, self.open, self.missing, self.differing, self.broken))

    def line(self) -> str:
        return (
            f"{self.rows} rows and {self.weights} weights compared with unbroken runs: {self.differing} "
            f"differ; {self.missing} missing, {self.broken} files broken, {self.open} trials left open"
        )


def judge(
    entries: Iterable[Entry],
    unbroken: Mapping[str, Path],
    last: Path,
    folders: Iterable[Path],
    *,
    paused: bool = False,
) -> Verdict:
    """``unbroken`` has the folder of each run's undisturbed trial, by hash; ``last`` is the study's folder
    of the machine that ran last, ``folders`` those of all. ``paused``: runs may be so, and have no row."""
    entries, folders = list(entries), list(folders)
    finished = Counter(entry.hash for entry in entries if entry.state == "complete")
    rows = {entry.hash: entry.row for entry in entries if entry.state == "complete"}
    resting = {entry.hash for entry in entries if paused and entry.state == "paused"} - rows.keys()
    verdict = Verdict(
        lost=sum(not finished[key] for key in unbroken if key not in resting),
        doubled=sum(finished[key] > 1 for key in unbroken) + len(finished.keys() - unbroken.keys()),
        open=sum(entry.state in ("waiting", "running") for entry in entries),
        broken=sum(_broken_files(folder) for folder in folders),
    )
    verdict.said += tuple(
        f"trial {entry.trial} of {entry.hash} is {entry.state}"
        for entry in entries
        if entry.state in ("waiting", "running")
    )
    for key, reference in unbroken.items():
        if key in resting:
            continue
        row = rows.get(key)
        verdict.rows += 1
        verdict.missing += row is None or _read(last / "trials" / key / "row.json") != row
        columns = _differing(row or {}, _read(reference / "row.json"))
        if row is not None and columns:
            verdict.differing += 1
            verdict.said += (f"row of {key}: {', '.join(columns)}",)
        found = [_weights(folder / "trials" / key) for folder in folders]
        ended = [weights for weights in found if weights is not None]
        expected = _weights(reference)
        verdict.weights += 1
        verdict.missing += not ended or expected is None
        if expected is not None and not all(_equal(one, expected) for one in ended):
            verdict.differing += 1
            verdict.said += (f"weights of {key}",)
    return verdict


def judge_proposals(proposals: Iterable[Proposal], entries: Iterable[Entry]) -> Verdict:
    """A search's: none is left open, and every finished run is told by exactly one of those that were not
    answered by another."""
    proposals = list(proposals)
    told = Counter(one.hash for one in proposals if one.state == "told" and not one.known)
    finished = {entry.hash for entry in entries if entry.state == "complete"}
    answered = {one.hash for one in proposals if one.state == "told"}
    left = [one for one in proposals if one.state == "open"]
    return Verdict(
        open=len(left),
        said=tuple(f"proposal {one.number} of {one.hash} is open" for one in left),
        lost=len(finished - answered),
        doubled=sum(count > 1 for count in told.values()),
    )


def _differing(row: Mapping[str, Any], unbroken: Mapping[str, Any]) -> list[str]:
    """Each column that differs, with both values."""
    compared = (name for name in {**unbroken, **row} if not name.startswith(PREFLIGHT))
    names = [name for name in compared if name not in MEASURED]
    return [
        f"{name}={row.get(name)!r} instead of {unbroken.get(name)!r}"
        for name in names
        if repr(row.get(name)) != repr(unbroken.get(name))
    ]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


def _weights(folder: Path) -> dict[str, torch.Tensor] | None:
    """Of a run that has ended in ``folder``; None if none has."""
    try:
        content = checkpoint.load(folder / "last.pt")
    except (FileNotFoundError, checkpoint.BrokenCheckpoint):  # the latter counts by itself
        return None
    return dict(content["weights"]) if content["state"]["status"] == "ok" else None


def _equal(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _broken_files(folder: Path) -> int:
    """Files of a study's folder that cannot be read as what they are. (Hidden ones are leftovers of writers
    that were killed: nobody reads them, and the next run there removes them.)"""
    broken = 0
    for path in folder.rglob("*"):
        if path.name.startswith("."):
            continue
        try:
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".pt":
                checkpoint.load(path)
        except (ValueError, checkpoint.BrokenCheckpoint):
            broken += 1
    return broken
