"""Pre-flight once a variant: its seeds differ in nothing that is checked.

``once(spec, folder, key(spec))`` is the call.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

import retsweep
from retsweep.data.cache import DamagedCacheError, read_checked, write_checked
from retsweep.preflight import preflight
from retsweep.spec.identity import variant_hash
from retsweep.spec.run import RunSpec

log = logging.getLogger(__name__)


def once(spec: RunSpec, folder: Path, key: str) -> dict[str, Any]:
    """The columns of ``preflight(spec)``, kept in ``folder``/``key``.json for whoever asks next.

    ``key`` stands for all that the outcome depends on: :func:`key`. Two who ask at the same time both
    check. Only what passes is kept. Raises PreflightError.
    """
    path = folder / f"{key}.json"
    kept = _kept(path, key)
    if kept is not None:
        return kept
    columns = preflight(spec)
    folder.mkdir(parents=True, exist_ok=True)
    write_checked(path, {"key": key, "columns": [list(pair) for pair in columns.items()]})  # in their order
    return columns


def key(spec: RunSpec) -> str:
    """A name for the variant and the code that checks it. Learning rate, length and batch are left
    out, which the checks have of their own: a rate that is tried costs nothing more."""
    own = dataclasses.replace(spec.protocol, learning_rate=1.0, steps=1, epochs=None, batch=1)
    return f"{variant_hash(dataclasses.replace(spec, protocol=own), data_hash='')}-{code_identity()}"


@functools.cache
def code_identity() -> str:
    """A hash of the package's sources and of torch's version: what a check's outcome depends on beside
    the spec. Unlike a commit it tells two edits of one checkout apart, and a wheel has it too."""
    root = Path(retsweep.__file__).resolve().parent
    digest = hashlib.sha256(version("torch").encode())
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _kept(path: Path, key: str) -> dict[str, Any] | None:
    """What the file holds for ``key``; None if there is none, or it is damaged: then the check is cheap."""
    if not path.exists():
        return None
    try:
        content = read_checked(path)
        if content["key"] != key:
            raise DamagedCacheError(f"it was written as {content['key']}")
        found = dict(content["columns"])
    except (DamagedCacheError, KeyError, TypeError, ValueError) as error:
        log.warning("%s is damaged (%s): the check is made again", path, error)
        return None
    return found if found.get("preflight") == "ok" else None
