"""From a command line to the list of runs: the sweep's blocks times seeds, each checked.

A block of ``conf/sweep/*.yaml`` maps keys to a value, a list (each member in turn) or
``{from, below}`` (counting up); the product of its keys is its variants. The command line wins:
a key that it gives is taken away from the sweep, and a group's choice with all that is below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from retsweep.spec import RunSpec, Settings, SpecError
from retsweep.spec.compose import choices, compose
from retsweep.spec.configs import run_sections, set_values, without_sweep
from retsweep.spec.load import load, load_resolved, resolve, sweep_section

#: What a sweep's section may hold.
SECTION = ("name", "variants", "references")


@dataclass(frozen=True)
class Run:
    """One run that is wanted. ``config`` is its resolved config as plain data; ``label`` its name
    on the screen; ``reference`` marks a line to compare with, not a member of the sweep."""

    spec: RunSpec
    label: str
    reference: bool
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Wanted:
    """Everything a command asks for: the runs (equal ones are listed as often as they were asked
    for), how to carry them out, and the study's name."""

    runs: tuple[Run, ...]
    settings: Settings
    study: str


@dataclass(frozen=True)
class _Variant:
    values: tuple[tuple[str, Any], ...]
    reference: bool

    def __str__(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.values)


def wanted(overrides: Sequence[str]) -> Wanted:
    """Compose, load and check every run that ``overrides`` ask for. Raises SpecError."""
    return wanted_from(compose(overrides), overrides)


def wanted_from(config: Any, overrides: Sequence[str]) -> Wanted:
    """:func:`wanted` for a config that is composed already (from ``overrides``)."""
    section = sweep_section(config)
    if section is None:
        tree = resolve(config)
        spec, settings = load_resolved(tree)
        runs = tuple(_seeded(spec, tree, settings.seeds, reference=False, suffix=""))
        return Wanted(runs, settings, settings.study or _study_name("single", spec))
    return _sweep(config, section, list(overrides))


def _sweep(config: Any, section: Mapping[str, Any], overrides: list[str]) -> Wanted:
    composer = _Composer(config, overrides)
    loaded: list[tuple[_Variant, RunSpec, Mapping[str, Any]]] = []
    for variant in _variants(section, {_key(override) for override in overrides}):
        try:
            tree = composer.tree(variant)
            spec, settings = load_resolved(tree)
        except SpecError as error:
            raise SpecError(f"variant {variant}: {error}" if str(variant) else str(error)) from error
        loaded.append((variant, spec, tree))
    if not loaded:
        raise SpecError("the sweep lists no variants; accepted: sweep.variants, a list of blocks")
    labels = _labels([(variant, spec) for variant, spec, _ in loaded])
    runs = tuple(
        run
        for (variant, spec, tree), suffix in zip(loaded, labels, strict=True)
        for run in _seeded(spec, tree, settings.seeds, reference=variant.reference, suffix=suffix)
    )
    return Wanted(
        runs, settings, settings.study or _study_name(str(section.get("name", "sweep")), load(config)[0])
    )


class _Composer:
    """Composes variants, as seldom as it can: Hydra takes a fifth of a second each time.

    Only choices of groups need Hydra. Values are set on a config that was composed for the same
    choices, and that no variant with other keys has touched.
    """

    def __init__(self, config: Any, overrides: list[str]) -> None:
        self._overrides = overrides
        self._known: dict[tuple[object, ...], Any] = {((), ()): config}

    def tree(self, variant: _Variant) -> Mapping[str, Any]:
        """The variant's resolved config. Raises SpecError."""
        groups = tuple((key, value) for key, value in variant.values if _is_group(key))
        values = {key: value for key, value in variant.values if not _is_group(key)}
        place = (groups, tuple(values))
        if place not in self._known:
            chosen = [f"{key}={value}" for key, value in groups]
            self._known[place] = without_sweep(compose([*chosen, *self._overrides]))
        set_values(self._known[place], values)
        return resolve(self._known[place])


def _variants(section: Mapping[str, Any], taken: set[str]) -> Iterator[_Variant]:
    if not isinstance(section, Mapping):
        raise SpecError(
            f"sweep={section!r} is not a sweep; known: {', '.join(choices('sweep'))} (+sweep=NAME)"
        )
    for key in section:
        if key not in SECTION:
            raise SpecError(f"unknown key 'sweep.{key}'; accepted: {', '.join(SECTION)}")
    for part in ("variants", "references"):
        for block in section.get(part) or ():
            if not isinstance(block, Mapping):
                raise SpecError(f"sweep.{part}: {block!r} is no block; accepted: keys with their values")
            kept = {
                str(key): _values(str(key), value)
                for key, value in block.items()
                if not _is_taken(key, taken)
            }
            for values in product(*kept.values()):
                yield _Variant(tuple(zip(kept, values, strict=True)), part == "references")


def _is_taken(key: str, taken: set[str]) -> bool:
    """Whether the command line speaks about ``key`` or about a group that it is part of."""
    return key in taken or any(key.startswith(f"{group}.") for group in taken if _is_group(group))


def _values(key: str, value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        if set(value) != {"from", "below"} or not all(type(end) is int for end in value.values()):
            raise SpecError(
                f"sweep: {key}={dict(value)} is not accepted; accepted: {{from: int, below: int}}"
            )
        return list(range(value["from"], value["below"]))
    return list(value) if isinstance(value, list) else [value]


def _key(override: str) -> str:
    """The config key that an override of the command line is about."""
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def _is_group(key: str) -> bool:
    return "." not in key and bool(choices(key))


def _seeded(
    spec: RunSpec, tree: Mapping[str, Any], seeds: int, *, reference: bool, suffix: str
) -> Iterator[Run]:
    name = spec.layout.architecture(spec.layers, spec.scale.heads) + suffix
    config = run_sections(tree)
    for seed in range(spec.seed, spec.seed + seeds):
        label = f"{name} seed {seed}" if seeds > 1 else name
        yield Run(spec.with_seed(seed), label, reference, {**config, "seed": seed})


def _labels(variants: Sequence[tuple[_Variant, RunSpec]]) -> list[str]:
    """What to add to each architecture's name so that no two variants look alike."""
    names = [spec.layout.architecture(spec.layers, spec.scale.heads) for _, spec in variants]
    return [
        f" ({', '.join(f'{k}={v}' for k, v in variant.values)})"
        if len({spec for (_, spec), other in zip(variants, names, strict=True) if other == name}) > 1
        else ""
        for (variant, _), name in zip(variants, names, strict=True)
    ]


def _study_name(sweep: str, spec: RunSpec) -> str:
    return f"{sweep}-{spec.task.name}-{spec.scale.name}-{spec.protocol.name}"
