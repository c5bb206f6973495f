"""From a command line to the list of runs: the sweep's blocks times seeds, each checked.

A block of ``conf/sweep/*.yaml`` maps keys to a value, a list (each member in turn) or
``{from, below}`` (counting up); the product of its keys is its variants. What the command line
says about a key takes that key away from the sweep: the command line wins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from retsweep.spec import RunSpec, Settings, SpecError
from retsweep.spec.compose import choices, compose
from retsweep.spec.configs import run_sections, with_values
from retsweep.spec.load import load, sweep_section

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
        spec, settings = load(config)
        runs = tuple(_seeded(spec, config, settings.seeds, reference=False, suffix=""))
        return Wanted(runs, settings, settings.study or _study_name("single", spec))
    return _sweep(config, section, list(overrides))


def _sweep(config: Any, section: Mapping[str, Any], overrides: list[str]) -> Wanted:
    base: dict[tuple[tuple[str, Any], ...], Any] = {(): config}
    loaded: list[tuple[_Variant, RunSpec, Any]] = []
    settings: Settings | None = None
    for variant in _variants(section, {_key(override) for override in overrides}):
        groups = tuple((key, value) for key, value in variant.values if _is_group(key))
        values = {key: value for key, value in variant.values if not _is_group(key)}
        try:
            if groups not in base:
                base[groups] = compose([*(f"{key}={value}" for key, value in groups), *overrides])
            varied = with_values(base[groups], values)
            spec, settings = load(varied)
        except SpecError as error:
            raise SpecError(f"variant {variant}: {error}" if str(variant) else str(error)) from error
        loaded.append((variant, spec, varied))
    if settings is None:
        raise SpecError("the sweep lists no variants; accepted: sweep.variants, a list of blocks")
    labels = _labels([(variant, spec) for variant, spec, _ in loaded])
    runs = tuple(
        run
        for (variant, spec, varied), suffix in zip(loaded, labels, strict=True)
        for run in _seeded(spec, varied, settings.seeds, reference=variant.reference, suffix=suffix)
    )
    name = settings.study or _study_name(str(section.get("name", "sweep")), load(config)[0])
    return Wanted(runs, settings, name)


def _variants(section: Mapping[str, Any], taken: set[str]) -> Iterator[_Variant]:
    if not isinstance(section, Mapping):
        raise SpecError(f"sweep={section!r} is not a sweep; known: {', '.join(choices('sweep'))} (+sweep=NAME)")
    for key in section:
        if key not in SECTION:
            raise SpecError(f"unknown key 'sweep.{key}'; accepted: {', '.join(SECTION)}")
    for part in ("variants", "references"):
        for block in section.get(part) or ():
            if not isinstance(block, Mapping):
                raise SpecError(f"sweep.{part}: {block!r} is no block; accepted: keys with their values")
            kept = {str(key): _values(str(key), value) for key, value in block.items() if key not in taken}
            for values in product(*kept.values()):
                yield _Variant(tuple(zip(kept, values, strict=True)), part == "references")


def _values(key: str, value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        if set(value) != {"from", "below"} or not all(type(end) is int for end in value.values()):
            raise SpecError(f"sweep: {key}={dict(value)} is not accepted; accepted: {{from: int, below: int}}")
        return list(range(value["from"], value["below"]))
    return list(value) if isinstance(value, list) else [value]


def _key(override: str) -> str:
    """The config key that an override of the command line is about."""
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def _is_group(key: str) -> bool:
    return "." not in key and bool(choices(key))


def _seeded(spec: RunSpec, config: Any, seeds: int, *, reference: bool, suffix: str) -> Iterator[Run]:
    name = spec.layout.architecture(spec.layers, spec.scale.heads) + suffix
    tree = run_sections(config)
    for seed in range(spec.seed, spec.seed + seeds):
        label = f"{name} seed {seed}" if seeds > 1 else name
        yield Run(spec.with_seed(seed), label, reference, {**tree, "seed": seed})


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
