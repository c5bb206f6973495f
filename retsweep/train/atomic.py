"""Files that are whole or absent: written beside their place, synced, moved over it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_atomically(
    path: Path, write: Callable[[BinaryIO], object], permit: Callable[[], object] = lambda: None
) -> None:
    """Gives ``path`` the content that ``write`` writes; a crash at any moment leaves the old one.

    ``permit`` is called at the last moment, when all is written: an exception from it leaves the
    old one too. The temporary file's name is partly chance, so that no two writers share one, on
    however many machines.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("xb") as file:
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
