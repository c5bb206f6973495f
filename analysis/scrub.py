"""Takes a machine's own names out of what is published: paths, storages, accounts.

What stands for a path keeps its last part (``PATH_TO/wikitext-2``): a reader must know which folder
to put there. Text without such names is returned as it is.
"""

from __future__ import annotations

import getpass
import re
import shlex
import socket
from typing import Any

PLACEHOLDER = "PATH_TO"
#: Settings whose value names an account or a server, whatever it looks like.
PRIVATE_KEYS = ("storage", "tracker.entity")

_PART = r"[\w.+@~-]+"
#: /a/b, ~/a/b, C:\a\b and ../a/b, but neither a/b ("bits/byte") nor </g> nor https://a/b.
_PATH = re.compile(
    rf"(?<![\w.<>~/\\-])(?:~?/|[A-Za-z]:[\\/]|(?:\.\.[\\/])+)(?:{_PART}[\\/]+)*(?P<last>{_PART})[\\/]?"
)
_URL = re.compile(r"\b(?P<scheme>[a-z][a-z0-9+.-]*):/{2,}(?P<rest>[^\s'\"<>)\]]+)", re.IGNORECASE)


def command(line: str) -> str:
    """A command line without paths, storages and accounts of the machine that it ran on."""
    try:
        words = shlex.split(line)
    except ValueError:  # an open quote: no shell would have run it
        return text(line)
    return shlex.join(_argument(word) for word in words)


def _argument(word: str) -> str:
    key, equals, value = word.partition("=")
    if not equals:
        return text(word)
    if key.lstrip("+~") in PRIVATE_KEYS and value not in ("", "null"):
        return f"{key}={key.rpartition('.')[2].upper()}"
    if re.match(r"~?/|[A-Za-z]:[\\/]|\.\.[\\/]", value):  # spaces are part of it
        last = re.split(r"[\\/]+", value.rstrip("\\/"))[-1]
        return f"{key}={PLACEHOLDER}/{last}"
    return f"{key}={text(value)}"


def text(said: str) -> str:
    """``said`` with every absolute path, and every address that is not of the web, replaced."""
    return _PATH.sub(rf"{PLACEHOLDER}/\g<last>", _URL.sub(_address, said))


def error(said: str) -> str:
    """:func:`text` for a message of any library: also without this machine's and its user's name."""
    for name, instead in ((socket.gethostname(), "HOST"), (_user(), "USER")):
        if name:
            said = re.sub(rf"\b{re.escape(name)}\b", instead, said)
    return text(said)


def value(content: Any) -> Any:
    """:func:`text` in every text of a JSON value."""
    if isinstance(content, str):
        return text(content)
    if isinstance(content, list):
        return [value(item) for item in content]
    if isinstance(content, dict):
        return {key: value(item) for key, item in content.items()}
    return content


def private_in(said: str) -> list[str]:
    """What :func:`text` would replace: absolute paths, paths that leave the folder, addresses."""
    addresses = [match.group() for match in _URL.finditer(said) if _address(match) != match.group()]
    return [*addresses, *(match.group() for match in _PATH.finditer(said))]


def _address(match: re.Match[str]) -> str:
    if match["scheme"].lower() in ("http", "https") and "@" not in match["rest"]:
        return match.group()
    return f"{match['scheme']}://..."


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no such user here: nothing to hide
        return ""
