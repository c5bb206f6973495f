"""Passwords and keys, taken out of whatever is printed or written.

What counts as one: a password in a URL, with the user's name (``postgresql+psycopg://...@host/db``); the
value of ``password=``, ``api_key=``, ``hf_token=`` and their like, and in a URL's query of ``key=``,
``token=``, ``sig=`` too; and the values themselves, wherever they stand, of environment variables that are
called so (``WANDB_API_KEY``, ``HF_TOKEN``, ``PGPASSWORD``), and of passwords in URLs that the environment
holds (``RETSWEEP_STORAGE``).
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, TextIO
from urllib.parse import unquote

INSTEAD = "..."
#: Shorter values are words as often as they are secrets: text would lose more than it hides.
SHORTEST = 6
#: Names of environment variables whose value is one.
_NAMED = re.compile(
    r"(^|_)(pass|passwd|pg(pass|password)|password|passphrase|secret|token|credentials?|(api_?|secret_?)?key)$",
    re.IGNORECASE,
)
#: Up to the last @ before a space, a quote or an end: passwords may hold @ and / themselves.
_IN_URL = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*:/+)(?!/|USER:PASSWORD@)(?P<account>[^\s'\"<>]*)@")
_CALLED_SO = (
    "(?:password|passwd|passphrase|secret|credential|(?:api|access|private)[_-]?key"
    "|(?:auth|access|api|bearer|hf)[_-]?token)"
)
_KEY = re.compile(rf"{_CALLED_SO}|^token$", re.IGNORECASE)
#: That there is none (null), or that there is one (true), is no secret.
_ASSIGNED = re.compile(
    rf"(?P<name>\b[\w-]*{_CALLED_SO}[\w-]*['\"]?\s*[=:]\s*['\"]?)"
    r"(?!(?:null|none|true|false)(?![^\s'\"&;,)}\]]))(?P<value>[^\s'\"&;,)}\]]+)",
    re.IGNORECASE,
)
_IN_QUERY = re.compile(
    r"(?P<name>[?&](?:[\w-]*[_-])?(?:key|token|sig|signature|credential)=)(?P<value>[^\s'\"&#;]+)",
    re.IGNORECASE,
)
#: A storage that is no URL may hold its password anywhere.
_STORAGE = re.compile(r"(?P<name>\bstorage=['\"]?)(?![^\s'\"]*:/)(?P<value>[^\s'\"]*@)")


def hidden(text: str, urls: Iterable[str] = ()) -> str:
    """``text`` without secrets: those of the environment, and those in ``urls``."""
    for value in _known(urls):
        text = text.replace(value, INSTEAD)
    text = _IN_URL.sub(rf"\g<scheme>{INSTEAD}@", text)
    text = _STORAGE.sub(rf"\g<name>{INSTEAD}@", text)
    text = _IN_QUERY.sub(rf"\g<name>{INSTEAD}", text)
    return _ASSIGNED.sub(rf"\g<name>{INSTEAD}", text)


def hidden_in(data: Any, urls: Iterable[str] = (), *, secret: bool = False) -> Any:
    """Plain ``data``, at any depth, as :func:`hidden` leaves text: what stands under a key that is called
    like a secret is one whatever it looks like, words and lists too. (Text would not say where a value
    ends, nor be YAML afterwards.) ``secret``: all of it is."""
    urls = tuple(urls)
    if isinstance(data, Mapping):
        return {
            key: hidden_in(value, urls, secret=secret or bool(_KEY.search(str(key))))
            for key, value in data.items()
        }
    if isinstance(data, (list, tuple)):
        return [hidden_in(item, urls, secret=secret) for item in data]
    if data is None or isinstance(data, bool) or data == "":
        return data
    said = INSTEAD if secret else hidden(str(data), urls)
    return data if said == str(data) else said


def carries_secret(data: Any, urls: Iterable[str] = ()) -> bool:
    """Whether :func:`hidden_in` would hide any of plain ``data``."""
    urls = tuple(urls)

    def differ(one: Any, other: Any) -> bool:
        if isinstance(one, Mapping):
            return any(differ(value, other[key]) for key, value in one.items())
        if isinstance(one, (list, tuple)):
            return any(differ(*pair) for pair in zip(one, other, strict=True))
        return bool(one != other)

    return differ(data, hidden_in(data, urls))


def _known(urls: Iterable[str]) -> list[str]:
    """Values that are secrets, longest first."""
    found: set[str] = set()
    for name, value in os.environ.items():
        if _NAMED.search(name):
            found.add(value)
        if "://" in value:
            found |= _passwords(value)
    for url in urls:
        found |= _passwords(url)
    return sorted((value for value in found if len(value) >= SHORTEST), key=len, reverse=True)


def _passwords(url: str) -> set[str]:
    """What a URL holds of them, as it is spelt there and as it is meant."""
    accounts = [match["account"].partition(":")[2] for match in _IN_URL.finditer(url)]
    given = [match["value"] for form in (_ASSIGNED, _IN_QUERY) for match in form.finditer(url)]
    return {spelling for value in (*accounts, *given) if value for spelling in (value, unquote(value))}


class Hiding(io.TextIOBase):
    """A stream for text that passes on what is written to it without secrets. A secret that is written in
    two pieces within a line is found too: a line is passed on when it ends, or at :meth:`flush`."""

    def __init__(self, stream: TextIO, urls: Iterable[str] = ()) -> None:
        self._stream, self._urls, self._begun = stream, tuple(urls), ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        whole, newline, self._begun = (self._begun + text).rpartition("\n")
        if newline:
            self._stream.write(hidden(whole, self._urls) + newline)
            self._stream.flush()
        return len(text)

    def flush(self) -> None:
        if self._begun:
            self._stream.write(hidden(self._begun, self._urls))
            self._begun = ""
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding
