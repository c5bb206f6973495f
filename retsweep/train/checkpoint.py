"""Checkpoints that are whole or absent: written beside their place, synced, moved over it."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

#: Raised when the meaning of what is stored changes: an older file is then no longer resumed.
FORMAT = 1


class BrokenCheckpoint(Exception):
    """The file is not a checkpoint that can be loaded. Its text says why, in one line."""


def write_atomically(
    path: Path, write: Callable[[BinaryIO], None], permit: Callable[[], object] = lambda: None
) -> None:
    """Gives ``path`` the content that ``write`` writes; a crash at any moment leaves the old one.

    ``permit`` is called at the last moment, when all is written: an exception from it leaves the
    old one too. The temporary file carries the process id, so that two writers do not share one.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        permit()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def remove_leftovers(folder: Path) -> None:
    """Removes what writers left in ``folder`` that were killed: nobody else writes there now."""
    for temporary in folder.glob(".*.tmp"):
        temporary.unlink(missing_ok=True)


def save(path: Path, content: Mapping[str, Any], permit: Callable[[], object] = lambda: None) -> None:
    """Writes tensors and plain values, nothing that ``weights_only`` loading would refuse. ``permit``
    as in :func:`write_atomically`."""
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
