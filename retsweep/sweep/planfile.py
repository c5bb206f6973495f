"""plan.json: what a study is about: its sweep, the commands that ran it, where, and who its members are.

Rows say what each run was; only the sweep knows that a variant is "the published protocol with a
causal mask", or that one variant is two steps of a ladder at once. The file grows with every
command that works on the study, and nothing that it says changes a number.
"""

from __future__ import annotations

import json
import platform
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock

from retsweep.spec.identity import variant_hash
from retsweep.sweep.files import write_whole
from retsweep.sweep.plan import Planned

NAME = "plan.json"
PACKAGES = ("retsweep", "torch", "numpy", "tokenizers", "datasets", "optuna", "hydra-core", "fvcore")


def note(folder: Path, sweep: str, arguments: Sequence[str], planned: Mapping[str, Planned]) -> None:
    """Adds a command and the members that it asks for to the study's plan.json."""
    path = folder / NAME
    with FileLock(folder / f".{NAME}.lock"):
        before = _read(path)
        mine = members(planned.values())
        content = {
            "sweep": before.get("sweep", sweep),
            "commands": _each_once([*before.get("commands", ()), command(arguments)]),
            "environment": environment(),
            "seeds": sorted({*before.get("seeds", ()), *(one.spec.seed for one in planned.values())}),
            "members": _each_once([*mine, *before.get("members", ())]),
        }
        write_whole(path, json.dumps(content, indent=1) + "\n")


def members(planned: Iterable[Planned]) -> list[dict[str, Any]]:
    """Each variant under each of its names once, in the order of the sweep."""
    listed = [
        (place, {"variant_hash": hashed, "as": dict(said), "reference": one.run.reference})
        for one in planned
        for hashed in (variant_hash(one.spec, one.data_hash),)
        for place, said in one.said
    ]
    return _each_once([member for _, member in sorted(listed, key=lambda item: item[0])])


def command(arguments: Sequence[str]) -> str:
    """The command line, for somebody else: without a password in a storage URL."""
    shown = [re.sub(r"://[^@/]*@", "://...@", argument) for argument in arguments]
    return shlex.join(["python", "-m", "retsweep", *shown])


def environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return {}


def _each_once(items: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for item in items:
        if item not in found:
            found.append(item)
    return found
