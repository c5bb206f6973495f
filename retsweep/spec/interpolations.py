"""Which ``${...}`` a config may hold: references to its own keys, and the two of the environment that
conf/config.yaml has. A config from elsewhere could otherwise write any secret of the environment into a
row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import grammar_parser
from omegaconf.errors import OmegaConfBaseException

from retsweep.spec.base import SpecError

#: The resolvers that are run, and under which key.
KNOWN = {
    "storage": "${oc.env:RETSWEEP_STORAGE,null}",
    "cache": "${oc.env:RETSWEEP_CACHE,null}",
}


def check(value: Any, path: str = "") -> None:
    """Raises SpecError for a ``${resolver:...}`` in ``value`` (a config's plain data, unresolved, at any
    depth) that is none of the KNOWN ones. Nothing is resolved."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            check(key, "a key")
            check(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            check(item, f"{path}[{index}]")
    elif isinstance(value, str) and "${" in value and KNOWN.get(path) != value:
        for said in _resolvers(value, path):
            raise SpecError(
                f"{path}: {said} is not accepted; accepted: ${{key}} of the config itself "
                "(the environment is read for storage and cache alone)"
            )


def _resolvers(value: str, path: str) -> Iterator[str]:
    try:
        nodes = [grammar_parser.parse(value)]
    except OmegaConfBaseException as error:
        raise SpecError(f"{path}={value!r}: {str(error).splitlines()[0]}") from error
    while nodes:
        node = nodes.pop()
        if type(node).__name__ == "InterpolationResolverContext":
            yield node.getText()
        nodes.extend(getattr(node, "children", None) or ())
