"""The blocks of ``conf/sweep/*.yaml``, multiplied out into variants.

A block maps keys to a value, a list (each member in turn) or ``{from, below}`` (counting up); the
product of its keys is its variants. ``as`` says in words what a block's variants are (``{ladder:
published, step: causal mask}``); it changes no run and stands in the study's plan.json. With
``across`` every variant is combined with every variant of those blocks. The command line wins: a key
that it gives is taken away, and from a block that chooses a group otherwise also all that is below the
group. Not from a block with words, though: what it says would no longer be so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from retsweep.spec import SpecError
from retsweep.spec.compose import choices

#: What a sweep's section may hold.
SECTION = ("name", "seeds", "across", "variants", "references")
WORDS = "as"
#: Variants, and seeds of each: more is a slip, and would take the memory before it is told.
MOST = 100_000


@dataclass(frozen=True)
class Variant:
    """``values`` are set on the config, ``said`` is what its blocks call it."""

    values: tuple[tuple[str, Any], ...]
    reference: bool = False
    said: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.values)

    def over(self, other: Variant) -> Variant:
        """Both at once; where they speak about one key, this one counts."""
        values = tuple({**dict(other.values), **dict(self.values)}.items())
        return Variant(values, self.reference, {**other.said, **self.said})


def variants(section: Mapping[str, Any], taken: Mapping[str, str]) -> list[Variant]:
    """Every variant of a sweep's section, references last. ``taken``: what the command line gives, by
    key. Raises SpecError."""
    if not isinstance(section, Mapping):
        raise SpecError(
            f"sweep={section!r} is not a sweep; known: {', '.join(choices('sweep'))} (+sweep=NAME)"
        )
    for key in section:
        if key not in SECTION:
            raise SpecError(f"unknown key 'sweep.{key}'; accepted: {', '.join(SECTION)}")
    own = list(_blocks(section, "variants", taken))
    across = list(_blocks(section, "across", taken)) or [Variant(())]
    _check_count(len(own) * len(across))
    return [variant.over(other) for variant in own for other in across] + [
        Variant(variant.values, True, variant.said) for variant in _blocks(section, "references", taken)
    ]


def seeds(section: Mapping[str, Any]) -> int:
    """How many seeds the sweep gives a variant where nobody says otherwise."""
    count = section.get("seeds", 1)
    if type(count) is not int or not 1 <= count <= MOST:
        raise SpecError(f"sweep.seeds={count!r} is not accepted; accepted: a whole number from 1 to {MOST}")
    return count


def key_of(override: str) -> str:
    """The config key that an override of the command line is about."""
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def is_group(key: str) -> bool:
    return "." not in key and bool(choices(key))


def _blocks(section: Mapping[str, Any], part: str, taken: Mapping[str, str]) -> Iterator[Variant]:
    blocks = section.get(part) or ()
    if not isinstance(blocks, (list, tuple)):
        raise SpecError(f"sweep.{part}={blocks!r} is not accepted; accepted: a list of blocks")
    for block in blocks:
        if not isinstance(block, Mapping):
            raise SpecError(f"sweep.{part}: {block!r} is no block; accepted: keys with their values")
        said = block.get(WORDS, {})
        if not isinstance(said, Mapping) or not all(isinstance(word, str) for word in said.values()):
            raise SpecError(f"sweep.{part}: as={said!r} is not accepted; accepted: names with words")
        own = {str(key): value for key, value in block.items() if key != WORDS}
        lost = [key for key in own if _is_taken(key, own, taken)]
        if said and lost:
            words = ", ".join(said.values())
            raise SpecError(
                f"{' and '.join(lost)}: the sweep's {words!r} is about it, the command line cannot give it; "
                "accepted: the other keys, or a sweep of one's own"
            )
        kept = {key: _values(key, value) for key, value in own.items() if key not in lost}
        _check_count(math.prod(map(len, kept.values())))
        for values in product(*kept.values()):
            yield Variant(tuple(zip(kept, values, strict=True)), False, dict(said))


def _is_taken(key: str, block: Mapping[str, Any], taken: Mapping[str, str]) -> bool:
    """Whether the command line speaks about ``key``, or chooses a group otherwise than ``block`` does
    whose options ``key`` is one of."""
    group = key.partition(".")[0]
    if key in taken:
        return str(block[key]) != taken[key]
    return group in taken and is_group(group) and group in block and str(block[group]) != taken[group]


def _check_count(count: int) -> None:
    if count > MOST:
        raise SpecError(f"the sweep lists {count} variants; accepted: {MOST} at most")


def _values(key: str, value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        if set(value) != {"from", "below"} or not all(type(end) is int for end in value.values()):
            raise SpecError(
                f"sweep: {key}={dict(value)} is not accepted; accepted: {{from: int, below: int}}"
            )
        counted = range(value["from"], value["below"])
        _check_count(max(0, counted.stop - counted.start))
        return list(counted)
    return list(value) if isinstance(value, list) else [value]
