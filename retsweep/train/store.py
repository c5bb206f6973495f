"""Checkpoints where other machines reach them: ``checkpoint.dir``, a folder or a URL that fsspec knows.

A trial works in its own folder. What its checkpoints are made of is copied to DIR/STUDY/HASH when it is
written, each under the step that it is of (last-00000350.pt), and copied back where a trial begins that is
further on there than here. A copy is written under a name of chance and moved to its own, and checked when
it is read; of each kind the two newest are kept, so that a broken one can fall back on the one before.

A place that fails, or does not answer (``bounded.py``), costs a run a warning and no more: its checkpoints
are still here.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from retsweep.spec.base import SpecError
from retsweep.spec.secret import hidden
from retsweep.train.atomic import is_full
from retsweep.train.bounded import bounded

#: What a checkpoint is made of; last.pt, which names the others, is put last.
LINES, BEST, LAST = "metrics.jsonl", "best.pt", "last.pt"
KEPT = 2
#: How the folder's name begins, in a trial's, where what is fetched is checked before it counts.
INBOX = ".fetched-"
#: Seconds in which a place has to answer before anything is begun.
CHECK_SECONDS = 60.0
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
        raise SpecError(f"checkpoint.dir={place} needs a package: {_one_line(error, place)}") from error
    except Exception as error:  # of the driver that the URL names
        said = _one_line(error, place)
        raise SpecError(f"checkpoint.dir={place!r} is no place: {said}; {ACCEPTED}") from error
    if "memory" in _protocols(system):
        raise SpecError(f"checkpoint.dir={place} is seen by one process alone; {ACCEPTED}")
    try:
        bounded(place, lambda late: _probe(system, path), CHECK_SECONDS)
    except Exception as error:
        said = _one_line(error, place)
        raise SpecError(f"checkpoint.dir={place} cannot be written: {said}; {ACCEPTED}") from error


def _probe(system: Any, path: str) -> None:
    if "file" in _protocols(system):
        while not system.exists(path):
            path = system._parent(path)
    else:
        system.makedirs(path, exist_ok=True)
    probe = f"{path.rstrip('/')}/.{secrets.token_hex(6)}.tmp"
    system.pipe_file(probe, b"retsweep")
    system.rm_file(probe)


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
    """The checkpoints of one trial at ``url``, which ends with its spec_hash."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._place, _, self._hash = url.rpartition("/")

    def put(self, path: Path, step: int, permit: Callable[[], object] = lambda: None) -> None:
        """Copies a file of a checkpoint, which is of ``step``. ``permit`` is called before it takes its
        place: what it raises goes through, and leaves the place as it was."""
        name = _named(path.name, step)
        temporary = f".{name}.{secrets.token_hex(6)}.tmp"

        def copy(late: Callable[[], bool]) -> None:
            system, folder = self._open()
            system.makedirs(folder, exist_ok=True)
            system.put_file(str(path), f"{folder}/{temporary}")
            if late():
                system.rm_file(f"{folder}/{temporary}")

        def move(late: Callable[[], bool]) -> None:
            system, folder = self._open()
            if late():  # what was permitted then may be another's by now
                system.rm_file(f"{folder}/{temporary}")
                return
            system.mv(f"{folder}/{temporary}", f"{folder}/{name}")
            steps = self._steps(path.name)
            # What is further on is not of this training: fetch would have gone on from it, were it good.
            gone = [old for old in steps if old > step] + [old for old in steps if old <= step][KEPT:]
            for old in gone:
                system.rm_file(f"{folder}/{_named(path.name, old)}")

        if not self._done(f"{path.name} stays on this machine", copy):
            return
        try:
            permit()
        except BaseException:
            self._done("a temporary file is left there", lambda late: self._remove(temporary))
            raise
        self._done(f"{path.name} stays on this machine", move)

    def fetch(self, folder: Path) -> None:
        """Brings the newest checkpoint that is whole, and this trial's, into ``folder``, if it is further on
        than what is there, which becomes the old pair. Nobody else writes there."""
        from retsweep.train import checkpoint

        for left in folder.glob(f"{INBOX}*"):  # by one that was killed, or left behind
            shutil.rmtree(left, ignore_errors=True)
        here = _step_of(folder / LAST)
        known = any(checkpoint.pairs(folder))
        then = "training goes on from what is here" if known else "nothing is here, and training starts anew"
        inbox = Path(tempfile.mkdtemp(prefix=INBOX, dir=folder))
        found: list[Path] = []
        said: list[str] = []
        try:
            self._done(then, lambda late: found.extend(self._newest(inbox, here, said)), full=False)
        except OSError:
            shutil.rmtree(inbox, ignore_errors=True)
            raise
        for line in tuple(said):
            self._tell(line)
        for one in found:
            if here is not None:
                checkpoint.keep_pair(folder)
            for name in (LINES, BEST, LAST):
                if (one / name).exists():
                    (one / name).replace(folder / name)
        shutil.rmtree(inbox, ignore_errors=True)

    def clear(self) -> None:
        """Removes the trial's place."""

        def remove(late: Callable[[], bool]) -> None:
            system, folder = self._open()
            if system.exists(folder) and not late():
                system.rm(folder, recursive=True)

        self._done("it is left as it is", remove)

    def _newest(self, inbox: Path, here: int | None, said: list[str]) -> list[Path]:
        """A folder in ``inbox`` with the newest checkpoint there that is good and further on than ``here``;
        none if there is none. One whose best weights are gone is passed over for an older one that has its
        own, as in ``resume.py``, and gone on from where there is none here either. ``said`` gets what is to
        be told."""
        from retsweep.train.checkpoint import BrokenCheckpoint

        lame: list[Path] = []
        for step in self._steps(LAST):
            if here is not None and step <= here:
                break
            folder = inbox / f"{step:08d}"
            folder.mkdir()
            try:
                state = self._last(step, folder)
            except BrokenCheckpoint as error:
                said.append(f"{error}; an earlier one is tried")
                continue
            try:
                self._get(LINES, step, folder)
            except BrokenCheckpoint as error:
                said.append(f"{error}; its curve lacks the lines")
            try:
                self._best(state, folder)
            except BrokenCheckpoint as error:
                said.append(f"{error}; a checkpoint from before step {step} is tried")
                (folder / BEST).unlink(missing_ok=True)
                lame = lame or [folder]
                continue
            return [folder]
        return lame if here is None else []

    def _last(self, step: int, folder: Path) -> Mapping[str, Any]:
        """The state in the last.pt of ``step``, which is in ``folder`` from now on. Raises BrokenCheckpoint
        unless it is whole, and this trial's."""
        from retsweep.train.checkpoint import BrokenCheckpoint

        self._get(LAST, step, folder)
        content = _content(folder / LAST)
        if content is None:
            raise BrokenCheckpoint(f"{_named(LAST, step)} is broken")
        of = content.get("of", self._hash)  # older ones do not say it
        if of != self._hash:
            raise BrokenCheckpoint(f"{_named(LAST, step)} is of another run, {of!r:.40}")
        state: Mapping[str, Any] = content["state"]
        return state

    def _best(self, state: Mapping[str, Any], folder: Path) -> None:
        """Brings the best weights that ``state`` speaks of, if it does. Raises BrokenCheckpoint unless they
        are whole, and those."""
        from retsweep.train import checkpoint

        step, loss = state.get("best_step"), state.get("best_loss")
        if step is None or loss is None:
            return
        self._get(BEST, step, folder)
        try:
            checkpoint.load_best(folder, step, loss)
        except checkpoint.BrokenCheckpoint as error:
            raise checkpoint.BrokenCheckpoint(f"{_named(BEST, step)} is broken, or another's") from error

    def _get(self, name: str, step: int, folder: Path) -> None:
        """Copies a file into ``folder``. Raises BrokenCheckpoint if it cannot be read."""
        from retsweep.train.checkpoint import BrokenCheckpoint

        try:
            system, place = self._open()
            system.get_file(f"{place}/{_named(name, step)}", str(folder / name))
        except Exception as error:
            if is_full(error):  # of this machine: what is there may be good
                raise
            said = _one_line(error, self.url)
            raise BrokenCheckpoint(f"{_named(name, step)} cannot be read: {said}") from error

    def _steps(self, name: str) -> list[int]:
        """Of which steps there is a file ``name``, the newest first."""
        system, folder = self._open()
        system.invalidate_cache()
        if not system.exists(folder):
            return []
        listed = [PurePosixPath(str(path)).name for path in system.ls(folder, detail=False)]
        stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
        digits = [one.removeprefix(f"{stem}-").removesuffix(suffix) for one in listed if one.endswith(suffix)]
        found = {int(one) for one in digits if one.isdecimal()}
        return sorted((step for step in found if _named(name, step) in listed), reverse=True)

    def _open(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        system, path = url_to_fs(self.url)
        return system, path.rstrip("/")

    def _remove(self, name: str) -> None:
        system, folder = self._open()
        system.rm_file(f"{folder}/{name}")

    def _done(self, otherwise: str, act: Callable[[Callable[[], bool]], object], full: bool = True) -> bool:
        """Whether the place did ``act`` in time; ``otherwise`` says what follows if it did not. ``full``:
        whether a disk without space is the place's; else its error goes through."""
        try:
            bounded(self._place, act)
        except Exception as error:
            if is_full(error) and not full:
                raise
            self._tell(f"{otherwise}: {_one_line(error, self.url)}")
            return False
        return True

    def _tell(self, what: str) -> None:
        warnings.warn(hidden(f"checkpoint.dir, {self.url}: {what}", [self.url]), stacklevel=4)


def _named(name: str, step: int) -> str:
    path = PurePosixPath(name)
    return f"{path.stem}-{step:08d}{path.suffix}"


def _content(path: Path) -> dict[str, Any] | None:
    """What a last.pt holds; None for one that is broken or absent."""
    from retsweep.train import checkpoint

    try:
        content = checkpoint.load(path)
    except (checkpoint.BrokenCheckpoint, FileNotFoundError):
        return None
    state = content.get("state")
    if not isinstance(state, dict) or type(state.get("step")) is not int or "run" not in content:
        return None
    return content if type(state.get("best_step")) in (int, type(None)) else None


def _step_of(last: Path) -> int | None:
    content = _content(last)
    return None if content is None else int(content["state"]["step"])


def _protocols(system: Any) -> tuple[str, ...]:
    named = system.protocol
    return (named,) if isinstance(named, str) else tuple(named)


def _one_line(error: BaseException, url: str) -> str:
    """What ``error`` says, without the secrets of ``url``."""
    said = str(error).strip().splitlines()
    return hidden(said[0], [url]) if said else type(error).__name__
