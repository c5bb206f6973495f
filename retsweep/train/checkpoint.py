"""Checkpoints: whole or absent (``atomic.py``), and checked when they are read."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from retsweep.train.atomic import write_atomically

#: Raised when the meaning of what is stored changes: an older file is then no longer resumed.
FORMAT = 1


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
    except (BrokenCheckpoint, FileNotFoundError):
        raise
    except Exception as error:  # zip, pickle and torch each raise their own for damaged bytes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BrokenCheckpoint(f"{path}: {reason}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise BrokenCheckpoint(f"{path}: not a checkpoint of format {FORMAT}")
    return content


def check_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Raises BrokenCheckpoint unless ``weights`` fit ``model``, which is left untouched."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
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
