"""Pre-flight once a variant: its seeds differ in nothing that is checked.

``once(spec, folder, key(spec))`` is the call.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import retsweep
from retsweep.preflight import preflight
from retsweep.spec.identity import variant_hash
from retsweep.spec.run import RunSpec
from retsweep.train.atomic import write_atomically


def once(spec: RunSpec, folder: Path, key: str) -> dict[str, Any]:
    """The columns of ``preflight(spec)``, kept in ``folder``/``key``.json for whoever asks next.

    ``key`` stands for all that the outcome depends on: :func:`key`. Two who ask at the same time both
    check. Only what passes is kept. Raises PreflightError.
    """
    path = folder / f"{key}.json"
    kept = _kept(path)
    if kept is not None:
        return kept
    columns = preflight(spec)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(columns, indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))
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


def _kept(path: Path) -> dict[str, Any] | None:
    """What the file holds; None if there is none, or it is damaged: then the check is cheap."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("preflight") == "ok" else None
