"""plan.json: what a study is about: its sweep, the commands that ran it, where, and who its members are.

Rows say what each run was; only the sweep knows that a variant is "the published protocol with a
causal mask", or that one variant is two steps of a ladder at once. The file grows with every
command that works on the study, and nothing that it says changes a number.
"""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock

from retsweep.spec import SpecError
from retsweep.spec.identity import variant_hash
from retsweep.spec.secret import hidden
from retsweep.sweep.files import intact, sealed, write_whole
from retsweep.sweep.plan import Planned

NAME = "plan.json"
#: What the file's keys hold: ``environment`` is where the last command ran, ``environments`` each once.
KINDS: Mapping[str, type] = {
    "sweep": str,
    "commands": list,
    "environment": dict,
    "environments": list,
    "seeds": list,
    "members": list,
}
PACKAGES = ("retsweep", "torch", "numpy", "tokenizers", "datasets", "optuna", "hydra-core", "fvcore")


def note(folder: Path, sweep: str, arguments: Sequence[str], planned: Mapping[str, Planned]) -> None:
    """Adds a command, the members that it asks for and where it ran to the study's plan.json. Raises
    SpecError if the file is damaged."""
    path = folder / NAME
    with FileLock(folder / f".{NAME}.lock"):
        before = read(folder)
        mine, here = members(planned.values()), environment()
        content = {
            "sweep": before.get("sweep", sweep),
            "commands": _each_once([*before.get("commands", ()), command(arguments)]),
            "environment": here,
            "environments": _each_once([*_environments(before), here]),
            "seeds": sorted({*before.get("seeds", ()), *(one.spec.seed for one in planned.values())}),
            "members": _each_once([*mine, *before.get("members", ())]),
        }
        write_whole(path, json.dumps(sealed(content), indent=1) + "\n")


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
    """The command line, for somebody else: without a password or a key."""
    return shlex.join(["python", "-m", "retsweep", *map(hidden, arguments)])


def read(folder: Path) -> dict[str, Any]:
    """What the study's plan.json says; nothing if there is none. Raises SpecError if it is damaged:
    what the file alone knows is not written over."""
    path = folder / NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no JSON"
        raise SpecError(f"{path} cannot be read: {reason}; delete it to start a new one") from error
    if not isinstance(found, dict):
        raise SpecError(f"{path} is damaged: it is no mapping; delete it to start a new one")
    for key, kind in KINDS.items():
        if not isinstance(found.get(key, kind()), kind):
            raise SpecError(f"{path} is damaged: {key!r} is no {kind.__name__}; delete it to start a new one")
    if not intact(found):
        raise SpecError(f"{path} is damaged: its checksum is of something else; delete it to start a new one")
    return found


def environment() -> dict[str, Any]:
    """Where this process runs."""
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


def _environments(before: Mapping[str, Any]) -> list[Any]:
    """Those of earlier commands; a file from before there was the list knows the last one only."""
    known = [before["environment"]] if "environment" in before else []
    return list(before.get("environments", known))


def _each_once(items: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for item in items:
        if item not in found:
            found.append(item)
    return found
