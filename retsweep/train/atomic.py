"""Files that are whole or absent: written beside their place, synced, moved over it."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

#: No space on the device, or in the user's quota.
FULL = (errno.ENOSPC, errno.EDQUOT)


def is_full(error: BaseException | None) -> bool:
    """Whether ``error`` comes of a disk without space. (torch's archives say it in words of their own, and
    keep what it was as the context.)"""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


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
