"""Checkpoints: whole or absent (``atomic.py``), checked when they are read, and kept in pairs.

A pair is what a run goes on from: last.pt, and best.pt, the weights that validation chose by then. While a
run trains, the pair before is kept beside it as last.old.pt and best.old.pt, so that one broken file costs
the steps since, and no number: on a CPU the run gets to the same bits again. The old pair is made by links
and takes no time; on disk it doubles what a run holds until it has its row, from about 4 to about 8 times
its weights (weights and two moments, and the best weights). Nothing is executed by loading any of them.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from retsweep.train.atomic import write_atomically

#: Raised when the meaning of what is stored changes: an older file is then no longer resumed.
FORMAT = 1
LAST, BEST = "last.pt", "best.pt"
#: What the pair before is called; removed when the run has its row, or is paused.
OLD = {LAST: "last.old.pt", BEST: "best.old.pt"}


class BrokenCheckpoint(Exception):
    """The file is not a checkpoint that can be loaded. Its text says why, in one line."""


def remove_leftovers(folder: Path) -> None:
    """Removes what a training left in ``folder`` that was killed: nobody else trains there now. (Its
    row may be about to be written.)"""
    for pattern in (".*.pt.*.tmp", ".metrics.jsonl.*.tmp"):
        for temporary in folder.glob(pattern):
            temporary.unlink(missing_ok=True)


def save(path: Path, content: Mapping[str, Any], permit: Callable[[], object] = lambda: None) -> None:
    """Writes tensors and plain values, nothing that ``weights_only`` loading would refuse. ``permit``
    as in :func:`retsweep.train.atomic.write_atomically`."""
    write_atomically(path, lambda file: torch.save({"format": FORMAT, **content}, file), permit)


def keep_pair(folder: Path) -> None:
    """Makes the pair in ``folder`` the old one, before another takes its place. Whatever moment this ends
    at, last.pt is there, and an old last.pt has its best weights beside it under one name or the other."""
    for name in (BEST, LAST):
        if (folder / name).exists():
            _second_name(folder / name, folder / OLD[name])


def _second_name(path: Path, other: Path) -> None:
    """``path`` under the name ``other`` too, in place of what was there."""
    temporary = other.with_name(f".{other.name}.link.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:  # a file system without links: the bytes again
        with path.open("rb") as source:
            write_atomically(other, lambda file: shutil.copyfileobj(source, file))
        return
    temporary.replace(other)


def restore(folder: Path, last: Path, best: Path | None) -> None:
    """Puts what a run goes on from under the usual names, over what is broken there."""
    for path, name in ((best, BEST), (last, LAST)):
        if path is not None and path.name != name:
            _second_name(path, folder / name)


def remove_old_pair(folder: Path) -> None:
    for name in OLD.values():
        (folder / name).unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any]:
    """What was saved, tensors on the CPU. Raises BrokenCheckpoint, FileNotFoundError.

    torch does not compare the checksums of its own archive; ``testzip`` does, so that a flipped
    bit is found here and not as a strange perplexity.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise BrokenCheckpoint(f"{path}: checksum of {damaged} is wrong")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (BrokenCheckpoint, FileNotFoundError, MemoryError):
        raise
    except Exception as error:  # zip, pickle and torch each raise their own for damaged bytes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BrokenCheckpoint(f"{path}: {reason}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise BrokenCheckpoint(f"{path}: not a checkpoint of format {FORMAT}")
    _check_parts(content, path)
    return content


def _check_parts(content: Mapping[str, Any], path: Path) -> None:
    """Raises BrokenCheckpoint unless ``content`` has what every checkpoint has: it may be another
    program's."""
    weights, step = content.get("weights", ""), content.get("step")
    named = isinstance(weights, Mapping) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in weights.items()
    )
    if not (named or weights is None) or type(step) is not int or step < 0:
        raise BrokenCheckpoint(f"{path}: not a checkpoint of retsweep (no weights by name, or no step)")


def load_best(folder: Path, step: int, valid_loss: float) -> tuple[Path, dict[str, Any]]:
    """The weights that validation chose after ``step``, from best.pt or its old one, and which of them.
    Raises BrokenCheckpoint, which says why best.pt will not do."""
    reasons = []
    for name in (BEST, OLD[BEST]):
        path = folder / name
        try:
            content = load(path)
        except FileNotFoundError:
            reasons.append(f"{path}: no such file")
            continue
        except BrokenCheckpoint as error:
            reasons.append(str(error))
            continue
        found = content["step"], content.get("valid_loss")
        if found == (step, valid_loss) and content["weights"] is not None:
            return path, content
        reasons.append(f"{path}: not of step {step} of this run")
    raise BrokenCheckpoint(reasons[0])


def pairs(folder: Path) -> Iterator[Path]:
    """The files that a run may go on from, the latest first."""
    for name in (LAST, OLD[LAST]):
        if (folder / name).exists():
            yield folder / name


def check_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Raises BrokenCheckpoint unless ``weights`` fit ``model``, which is left untouched."""
    wanted = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in model.state_dict().items()}
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in weights.items()}
    if wanted != found:
        odd = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise BrokenCheckpoint(f"{path}: made for another model ({odd[0]} differs)")


def load_weights(model: nn.Module, path: Path) -> int:
    """Gives ``model`` the weights of last.pt or best.pt; returns the step they were taken after.

    Raises BrokenCheckpoint, FileNotFoundError.
    """
    content = load(path)
    if content["weights"] is None:
        raise BrokenCheckpoint(f"{path}: holds no weights, the run diverged before its first checkpoint")
    check_weights(model, content["weights"], path)
    model.load_state_dict(content["weights"])
    return int(content["step"])
