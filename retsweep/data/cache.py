"""Tokenised corpora on disk: a folder each, written whole or not at all, checked when opened."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

META = "meta.json"
#: Bytes read at once.
BLOCK = 1 << 20


class DamagedCacheError(Exception):
    """What is on disk is not what was written."""


def write_atomically(path: Path, data: bytes) -> None:
    """``data`` under ``path``, there after a crash or not at all, never in part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_folder(folder: Path, files: Mapping[str, bytes | NDArray[Any]], meta: Mapping[str, Any]) -> None:
    """A folder of ``files`` and a meta.json that describes them, put in place by one rename.

    A folder that is already there is replaced.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else np.ascontiguousarray(content).tobytes()
            write_atomically(scratch / name, data)
        described = {name: _describe(scratch / name) for name in files}
        write_checked(scratch / META, {**meta, "files": described})
        _put(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _sync_folder(folder.parent)


def read_folder(folder: Path) -> dict[str, Any]:
    """The ``meta`` of a folder whose files are those that were written. Raises DamagedCacheError."""
    content = read_checked(folder / META)
    try:
        for name, described in content["files"].items():
            if _describe(folder / name) != described:
                raise DamagedCacheError(f"{name} does not match its checksum")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCacheError(f"{type(error).__name__}: {error}") from error
    return content


def write_checked(path: Path, content: Mapping[str, Any]) -> None:
    """``content`` as JSON that carries its own checksum, whole or not at all."""
    checked = {**content, "check": _check(content)}
    write_atomically(path, json.dumps(checked, indent=1, sort_keys=True).encode())


def read_checked(path: Path) -> dict[str, Any]:
    """What :func:`write_checked` wrote. Raises DamagedCacheError, also if there is nothing."""
    try:
        written = json.loads(path.read_bytes())
        content = {key: value for key, value in written.items() if key != "check"}
        if written["check"] != _check(content):
            raise DamagedCacheError(f"{path.name} does not match its own checksum")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCacheError(f"{type(error).__name__}: {error}") from error
    return content


def remove_scratch(path: Path) -> None:
    """Removes what writers of ``path`` left beside it that were killed. Only under a lock that all
    writers of ``path`` take."""
    for left in path.parent.glob(f".{path.name}.*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _describe(path: Path) -> dict[str, int]:
    """Length of a file and CRC-32 of all of it: 1 ms for the default corpus, a second a gigabyte."""
    size = checksum = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            size += len(block)
            checksum = zlib.crc32(block, checksum)
    return {"bytes": size, "crc32": checksum}


def _put(scratch: Path, folder: Path) -> None:
    """``scratch`` becomes ``folder``; one that is in the way is moved aside first, then removed."""
    for _ in range(100):
        with contextlib.suppress(OSError):
            scratch.replace(folder)
            return
        if not folder.exists():
            break
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        with contextlib.suppress(FileNotFoundError):
            folder.replace(aside)
        shutil.rmtree(aside, ignore_errors=True)
    scratch.replace(folder)  # says why it cannot be


def _check(content: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
