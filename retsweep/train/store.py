"""Checkpoints where other machines reach them: ``checkpoint.dir``, a folder or a URL that fsspec knows.

A trial works in its own folder. What its checkpoints are made of is copied to DIR/STUDY/HASH when it is
written, each under the step that it is of (last-00000350.pt), and copied back where a trial begins that is
further on there than here. A copy is written under a name of chance and moved to its own, and checked when
it is read; of each kind the two newest are kept, so that a broken one can fall back on the one before.

A place that does not answer costs a run a warning and no more: its checkpoints are still here.
"""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from retsweep.spec.base import SpecError

#: What a checkpoint is made of; last.pt, which names the others, is put last.
LINES, BEST, LAST = "metrics.jsonl", "best.pt", "last.pt"
KEPT = 2
ACCEPTED = "accepted: a folder that can be written, or a URL that fsspec knows (s3://BUCKET/FOLDER)"


def check(place: str | None) -> None:
    """Raises SpecError, in one line, unless ``place`` can be written. Leaves nothing behind in a folder of
    this machine, and an empty folder at most elsewhere."""
    if place is None:
        return
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(place)
    except ImportError as error:
        raise SpecError(f"checkpoint.dir={place} needs a package: {_one_line(error)}") from error
    except Exception as error:  # of the driver that the URL names
        raise SpecError(f"checkpoint.dir={place!r} is no place: {_one_line(error)}; {ACCEPTED}") from error
    if "memory" in _protocols(system):
        raise SpecError(f"checkpoint.dir={place} is seen by one process alone; {ACCEPTED}")
    try:
        if "file" in _protocols(system):
            while not system.exists(path):
                path = system._parent(path)
        else:
            system.makedirs(path, exist_ok=True)
        probe = f"{path.rstrip('/')}/.{secrets.token_hex(6)}.tmp"
        system.pipe_file(probe, b"retsweep")
        system.rm_file(probe)
    except Exception as error:
        said = _one_line(error)
        raise SpecError(f"checkpoint.dir={place} cannot be written: {said}; {ACCEPTED}") from error


def place(directory: str | None, study: str) -> str | None:
    """The URL of a study's place below ``directory``, the same wherever a worker runs."""
    if directory is None:
        return None
    from fsspec.core import url_to_fs

    system, path = url_to_fs(directory)
    if "file" in _protocols(system):
        directory = system.unstrip_protocol(path)  # absolute: workers may be elsewhere
    return f"{directory.rstrip('/')}/{study}"


def of_trial(study: str | None, spec_hash: str) -> Store | Nowhere:
    """Of a trial, in a study's :func:`place`."""
    return Nowhere() if study is None else Store(f"{study}/{spec_hash}")


class Nowhere:
    """checkpoint.dir=null."""

    def put(self, path: Path, step: int, permit: Callable[[], object] = lambda: None) -> None: ...

    def fetch(self, folder: Path) -> None: ...

    def clear(self) -> None: ...


class Store:
    """The checkpoints of one trial at ``url``."""

    def __init__(self, url: str) -> None:
        self.url = url

    def put(self, path: Path, step: int, permit: Callable[[], object] = lambda: None) -> None:
        """Copies a file of a checkpoint, which is of ``step``. ``permit`` is called before it takes its
        place: what it raises goes through, and leaves the place as it was."""
        name = _named(path.name, step)
        try:
            system, folder = self._open()
            temporary, final = f"{folder}/.{name}.{secrets.token_hex(6)}.tmp", f"{folder}/{name}"
            system.makedirs(folder, exist_ok=True)
            system.put_file(str(path), temporary)
        except Exception as error:
            self._warn(f"{path.name} stays on this machine", error)
            return
        try:
            permit()
        except BaseException:
            self._quietly(system.rm_file, temporary)
            raise
        try:
            system.mv(temporary, final)
            for old in self._steps(path.name)[KEPT:]:
                system.rm_file(f"{folder}/{_named(path.name, old)}")
        except Exception as error:
            self._warn(f"{path.name} stays on this machine", error)

    def fetch(self, folder: Path) -> None:
        """Brings the newest checkpoint that is whole into ``folder``, if it is further on than what is
        there. Nobody else writes there."""
        here = _step_of(folder / LAST)
        try:
            steps = [step for step in self._steps(LAST) if here is None or step > here]
        except Exception as error:
            self._warn("what is there is not gone on from", error)
            return
        for step in steps:
            last = self._get(LAST, step, folder)
            if last is None:
                continue
            content = _content(last)
            if content is None:
                warnings.warn(
                    f"{self.url}/{_named(LAST, step)} is broken; an earlier one is tried", stacklevel=2
                )
                last.unlink()
                continue
            best = content["state"].get("best_step")
            for name, of in ((LINES, step), (BEST, best)):
                found = None if of is None else self._get(name, of, folder)
                if found is not None:
                    found.replace(folder / name)
            last.replace(folder / LAST)
            return

    def clear(self) -> None:
        """Removes the trial's place."""
        try:
            system, folder = self._open()
            if system.exists(folder):
                system.rm(folder, recursive=True)
        except Exception as error:
            self._warn("it is left as it is", error)

    def _get(self, name: str, step: int, folder: Path) -> Path | None:
        """A copy beside its place in ``folder``, under a name that a killed training's leftovers have."""
        copy = folder / f".{name}.{secrets.token_hex(6)}.tmp"
        try:
            system, place = self._open()
            system.get_file(f"{place}/{_named(name, step)}", str(copy))
        except Exception as error:
            copy.unlink(missing_ok=True)
            self._warn(f"{_named(name, step)} cannot be read", error)
            return None
        return copy

    def _steps(self, name: str) -> list[int]:
        """Of which steps there is a file ``name``, the newest first."""
        system, folder = self._open()
        if not system.exists(folder):
            return []
        system.invalidate_cache()
        listed = [PurePosixPath(str(path)).name for path in system.ls(folder, detail=False)]
        stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
        digits = [one.removeprefix(f"{stem}-").removesuffix(suffix) for one in listed if one.endswith(suffix)]
        found = {int(one) for one in digits if one.isdecimal()}
        return sorted((step for step in found if _named(name, step) in listed), reverse=True)

    def _open(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        system, path = url_to_fs(self.url)
        return system, path.rstrip("/")

    def _quietly(self, act: Callable[..., object], *arguments: str) -> None:
        try:
            act(*arguments)
        except Exception as error:
            self._warn("a temporary file is left there", error)

    def _warn(self, what: str, error: Exception) -> None:
        warnings.warn(f"checkpoint.dir, {self.url}: {what}: {_one_line(error)}", stacklevel=3)


def _named(name: str, step: int) -> str:
    path = PurePosixPath(name)
    return f"{path.stem}-{step:08d}{path.suffix}"


def _content(path: Path) -> dict[str, Any] | None:
    """What a last.pt holds; None for one that is broken or absent."""
    from retsweep.train import checkpoint

    try:
        content = checkpoint.load(path)
        content["state"]["step"], content["run"], content["weights"]
    except (checkpoint.BrokenCheckpoint, FileNotFoundError, KeyError, TypeError):
        return None
    return content


def _step_of(last: Path) -> int | None:
    content = _content(last)
    return None if content is None else int(content["state"]["step"])


def _protocols(system: Any) -> tuple[str, ...]:
    named = system.protocol
    return (named,) if isinstance(named, str) else tuple(named)


def _one_line(error: BaseException) -> str:
    said = str(error).strip().splitlines()
    return said[0] if said else type(error).__name__
