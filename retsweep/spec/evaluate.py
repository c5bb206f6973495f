"""What is asked of a trained model beyond the perplexities of its corpus: probes, and their options."""

from __future__ import annotations

import dataclasses
import importlib.util
import pkgutil
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PositiveInt

from retsweep.spec.base import LABEL, SpecError, spec

#: Where probes are found: each is a module of this package, and its name is the probe's.
PROBES = "retsweep.tasks.probes"


def known_probes() -> list[str]:
    """The names that ``evaluate.probes`` may hold."""
    package = importlib.util.find_spec(PROBES)
    assert package is not None
    return sorted(module.name for module in pkgutil.iter_modules(package.submodule_search_locations))


def _pairs(value: Any) -> Any:
    """A mapping of a domain to a glob, or to several, as a tuple of pairs: it can be hashed. Raises
    SpecError for a glob that is no text."""
    if value is None:
        return ()
    if isinstance(value, Mapping):
        return tuple((str(name), _globs(str(name), globs)) for name, globs in sorted(value.items()))
    return value


def _globs(domain: str, globs: Any) -> tuple[str, ...]:
    found: list[str] = []
    for glob in globs if isinstance(globs, (list, tuple)) else (globs,):
        if not isinstance(glob, str):
            raise SpecError(
                f"evaluate.ood.domains={{{domain}: {glob!r}}} is not accepted: {glob!r} is no file pattern; "
                f"accepted: {{{domain}: x*.txt}}, {{{domain}: [x*.txt,y.txt]}}"
            )
        found.append(glob)
    return tuple(found)


@spec
class Ood:
    """Text from outside the corpus, for the probe ``ood``. What it says enters a run's identity as its
    hash, so neither where it lies nor how its domains are spelt does."""

    path: str | None = dataclasses.field(default=None, metadata=LABEL)
    """A folder of .txt files; None for the bundled default (``retsweep/data/bundled.py``)."""
    domains: Annotated[tuple[tuple[str, tuple[str, ...]], ...], BeforeValidator(_pairs)] = dataclasses.field(
        default=(), metadata=LABEL
    )
    """Each domain with the globs, below ``path``, of its files. None: a subfolder is a domain, and files
    beside the subfolders are in none."""
    tokens: PositiveInt | None = None
    """Read the first so many tokens of each file only; None for all."""
    text: str | None = None
    """The hash of what is read. The plan fills it in; a run that finds other text refuses."""


@spec
class Evaluate:
    """``probes``: in any order, each once."""

    probes: Annotated[tuple[str, ...], AfterValidator(lambda names: tuple(sorted(set(names))))] = ()
    ood: Ood = dataclasses.field(default_factory=Ood)

    def __post_init__(self) -> None:
        for name in self.probes:
            if name not in (known := known_probes()):
                raise SpecError(f"unknown probe {name!r} in evaluate.probes; known: {', '.join(known)}")

    @property
    def idle(self) -> tuple[str, ...]:
        """Options of probes that are not asked for."""
        return tuple(
            field.name for field in dataclasses.fields(self) if field.name not in ("probes", *self.probes)
        )
