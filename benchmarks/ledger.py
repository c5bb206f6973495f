"""What a study trained and when: whole runs, and also what stopped at a rung, diverged or broke off.

Read from the study's storage, where every trial has its times; a published folder, or one whose storage
is gone, has rows alone, in the order in which they stand.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.rows import Row, TableError, read_rows

#: Of a study's proposals, which stand in a study of their own beside it.
PROPOSALS = "-search"


@dataclass(frozen=True)
class Trained:
    """One run: ``steps`` that were trained of it, and its row if it came to an end. ``place``: when it
    ended, or when it was last taken up where it did not (its steps count early rather than late): seconds
    since 1970, or the number of its row where nothing says when."""

    hash: str
    steps: int
    row: Row | None
    place: float


def ledger(folder: Path, storage: str | None = None) -> tuple[list[Trained], bool]:
    """The runs of a study in the order of their places, and whether these are times. ``storage``: its
    URL, if it is not the SQLite file in its folder. Raises TableError."""
    url = storage or os.environ.get("RETSWEEP_STORAGE")
    if not url and not (folder / "study.db").is_file():
        rows = read_rows(folder)
        return [_of_row(row, place) for place, row in enumerate(rows)], False
    found: dict[str, Trained] = {}
    for trial in _trials(folder, url):
        one = _of_trial(trial)
        if one is not None and _counts_more(one, found.get(one.hash)):
            found[one.hash] = one
    if not any(one.row for one in found.values()):
        raise TableError(f"{folder.name} holds no finished trial yet")
    return sorted(found.values(), key=lambda one: (one.place, one.hash)), True


def _of_row(row: Row, place: float) -> Trained:
    steps = row.get("steps")
    return Trained(str(row.get("spec_hash")), steps if isinstance(steps, int) else 0, row, place)


def _of_trial(trial: Any) -> Trained | None:
    """None for what never began."""
    said: Mapping[str, Any] = trial.user_attrs
    when = trial.datetime_complete or trial.datetime_start
    if "spec_hash" not in said or when is None:
        return None
    row = said.get("row") if trial.state.name == "COMPLETE" else None
    if row is not None:
        return _of_row(row, when.timestamp())
    rungs = [int(steps) for steps in said.get("rungs") or {}]
    done = max([(said.get("steps") or [0])[0], *rungs])
    return Trained(said["spec_hash"], done, None, when.timestamp())


def _counts_more(one: Trained, known: Trained | None) -> bool:
    """Of several attempts at one run the one with the row, else the one that got furthest: attempts go on
    from the same checkpoint."""
    if known is None:
        return True
    return (one.row is not None, one.steps) > (known.row is not None, known.steps)


def _trials(folder: Path, url: str | None) -> Sequence[Any]:
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    from retsweep.spec import SpecError
    from retsweep.sweep.storage import open_study, storage_url

    name = folder.resolve().name
    try:
        found: Iterable[Any] = open_study(storage_url(url, folder), name, create=False).get_trials(
            deepcopy=False
        )
    except KeyError as error:
        raise TableError(f"the storage has no study {name!r}; a folder is called as its study") from error
    except (SpecError, OptunaError, SQLAlchemyError) as error:
        said = str(getattr(error, "orig", None) or error).strip().splitlines()
        raise TableError(f"the storage of {name} cannot be read: {said[-1] if said else error}") from error
    return list(found)
