"""What a config may ask for, whoever wrote it.

Configs travel: a trial's config.yaml, a sweep from a colleague, overrides in a ledger that many machines
share. None of them may run code, read the environment, or name a file outside the folders that the user
chose. So a ``_target_`` is a class of retsweep or of a package that the **user** allowed, by
``allow=[mypackage]`` on the command line or by the environment variable RETSWEEP_ALLOW; a config cannot
allow itself anything. Nothing else is even imported.
"""

from __future__ import annotations

import contextlib
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from retsweep.spec.base import SpecError

#: Names the packages, beside retsweep, whose classes ``_target_`` may name.
VARIABLE = "RETSWEEP_ALLOW"
KEY = "allow"
OWN = "retsweep"
#: Of a folder's name: file systems take 255 bytes, and a study's name gets suffixes.
LONGEST_NAME = 200
#: What may stand in a run's free text and nowhere else: a line break, a tabulator.
FREE_TEXT = ("prompt",)
_DOTTED = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)*")
_NAME = re.compile(r"\w[\w.+=,@-]*")
#: Names that are no files on some systems, whatever follows a dot.
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


# ---- classes -----------------------------------------------------------------------------------
def allowed() -> tuple[str, ...]:
    """The packages whose classes a ``_target_`` may name. Raises SpecError for a name that is none."""
    names = [name for name in re.split(r"[,\s]+", os.environ.get(VARIABLE, "")) if name]
    for name in names:
        if not _DOTTED.fullmatch(name):
            raise SpecError(f"{VARIABLE}: {name!r} is no package's name; accepted: names, such as mypackage")
    return (OWN, *names)


def check_target(target: Any, path: str) -> tuple[str, str]:
    """Module and class of the ``_target_`` under ``path``. Raises SpecError, before anything of it is
    imported, unless its package is :func:`allowed`."""
    module, _, name = target.rpartition(".") if isinstance(target, str) else ("", "", "")
    if not _DOTTED.fullmatch(f"{module}.{name}"):
        raise SpecError(
            f"{path}._target_={target!r} is no class; accepted: MODULE.CLASS, no part of it private"
        )
    packages = allowed()
    if not any(is_inside(module, package) for package in packages):
        raise SpecError(
            f"{path}._target_={target} is not of a package that may be run; accepted: {', '.join(packages)}; "
            f"if you trust it: {KEY}=[{module.partition('.')[0]}] on the command line, or {VARIABLE}"
        )
    return module, name


def is_inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def is_allowance(override: str) -> bool:
    """Whether an override of the command line is ``allow=...``."""
    return override.partition("=")[0].lstrip("+") == KEY


@contextlib.contextmanager
def allowing(words: Sequence[str]) -> Iterator[None]:
    """What ``allow=[a,b]`` among the ``words`` of a command line names is allowed inside the block, here
    and in the processes that it starts. Raises SpecError for what is no list of names."""
    given = [word.partition("=")[2] for word in words if is_allowance(word)]
    names = [name.strip() for value in given for name in value.removeprefix("[").removesuffix("]").split(",")]
    for name in names:
        if not _DOTTED.fullmatch(name):
            raise SpecError(f"{KEY}={name!r} is no package's name; accepted: {KEY}=[mypackage]")
    before = os.environ.get(VARIABLE)
    if names:
        os.environ[VARIABLE] = ",".join([*([before] if before else []), *names])
    try:
        yield
    finally:
        if names and before is None:
            del os.environ[VARIABLE]
        elif names and before is not None:
            os.environ[VARIABLE] = before


# ---- names and text ----------------------------------------------------------------------------
def check_name(name: str, what: str) -> str:
    """``name``, if it can name a folder wherever it is put. Raises SpecError, which calls it ``what``."""
    usual = _NAME.fullmatch(name) and not _RESERVED.fullmatch(name) and not name.endswith(".")
    if not usual or len(name.encode("utf-8", "replace")) > LONGEST_NAME:
        shown = name if len(name) <= LONGEST_NAME else f"{name[:40]}..."
        raise SpecError(
            f"{what}={shown!r} is a folder name: no slashes or spaces; accepted: letters, digits and "
            f". _ - + = , @, a letter or digit first, {LONGEST_NAME} bytes at most"
        )
    return name


def check_text(value: Any, path: str = "") -> None:
    """Raises SpecError for text in ``value`` (plain data, at any depth) that no file or table can hold:
    control characters, and bytes that were no UTF-8."""
    if isinstance(value, str):
        if path not in FREE_TEXT and any(unicodedata.category(letter) in ("Cc", "Cs") for letter in value):
            raise SpecError(f"{path}={value!r} is not accepted; accepted: text without control characters")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            check_text(str(key), "a key")
            check_text(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, Sequence):
        for index, item in enumerate(value):
            check_text(item, f"{path}[{index}]")
