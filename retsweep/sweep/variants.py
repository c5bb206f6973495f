"""From a command line to the list of runs: the sweep's variants times seeds, each checked."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from retsweep.spec import RunSpec, Settings, SpecError
from retsweep.spec.compose import choices, compose
from retsweep.spec.configs import check_settings, run_sections, set_values, without_sweep
from retsweep.spec.load import load_resolved, resolve, sweep_section
from retsweep.spec.secret import hidden
from retsweep.spec.trust import check_name
from retsweep.sweep import blocks
from retsweep.sweep.blocks import MOST, Variant, is_group, key_of
from retsweep.sweep.match import matched


@dataclass(frozen=True)
class Run:
    """One run that is wanted. ``config`` is its resolved config as plain data; ``label`` its name
    on the screen; ``reference`` marks a line to compare with, not a member of the sweep. ``said``
    is what the sweep calls its variant; ``extra`` are columns that its row gets as they are."""

    spec: RunSpec
    label: str
    reference: bool
    config: Mapping[str, Any]
    said: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """Everything a command asks for: the runs (equal ones are listed as often as they were asked
    for; the first seed of every variant comes before the second of any), how to carry them out,
    the study's name, and that of the sweep ("single" for a run of its own)."""

    runs: tuple[Run, ...]
    settings: Settings
    study: str
    sweep: str = "single"


@dataclass(frozen=True)
class Loaded:
    """A variant, checked: its run with the first seed, and columns that its rows get as they are."""

    variant: Variant
    spec: RunSpec
    tree: Mapping[str, Any]
    extra: Mapping[str, Any]


def wanted(overrides: Sequence[str]) -> Wanted:
    """Compose, load and check every run that ``overrides`` ask for. Raises SpecError."""
    return wanted_from(compose(overrides), overrides)


def wanted_from(config: Any, overrides: Sequence[str]) -> Wanted:
    """:func:`wanted` for a config that is composed already (from ``overrides``)."""
    section = sweep_section(config)
    if section is not None or any(item.startswith("hydra") for item in overrides):  # files from elsewhere
        check_settings(config, overrides)
    if section is None:
        one, settings = _load(Variant(()), resolve(config))
        study = settings.study or _study_name("single", [one.spec], settings)
        return Wanted(_seeded([one], settings.seeds or 1), settings, study)
    return _sweep(config, section, list(overrides))


def _load(variant: Variant, tree: Mapping[str, Any]) -> tuple[Loaded, Settings]:
    """The variant of a resolved config, its FFN width solved where ``match`` asks for it."""
    spec, settings = load_resolved(tree)
    spec, tree, extra = matched(spec, tree, settings.match, optional=variant.reference)
    return Loaded(variant, spec, tree, extra), settings


def _sweep(config: Any, section: Mapping[str, Any], overrides: list[str]) -> Wanted:
    composer = _Composer(config, overrides)
    loaded: list[Loaded] = []
    settings: Settings | None = None
    given = {key_of(override): override.partition("=")[2] for override in overrides}
    for variant in blocks.variants(section, given):
        try:
            one, settings = _load(variant, composer.tree(variant))
        except SpecError as error:
            raise SpecError(f"variant {variant}: {error}" if str(variant) else str(error)) from error
        loaded.append(one)
    if settings is None:
        raise SpecError("the sweep lists no variants; accepted: sweep.variants, a list of blocks")
    # Seeds are for what is random: a count is the same with each.
    suggested = blocks.seeds(section) if loaded[0].spec.task.reads_data else 1
    name = str(section.get("name", "sweep"))
    study = settings.study or _study_name(name, [one.spec for one in loaded], settings)
    return Wanted(_seeded(loaded, settings.seeds or suggested), settings, study, name)


class _Composer:
    """Composes variants, as seldom as it can: Hydra takes a fifth of a second each time.

    Only choices of groups need Hydra. Values are set on a copy of what it composed for the choices.
    """

    def __init__(self, config: Any, overrides: list[str]) -> None:
        self._overrides = overrides
        self._known: dict[tuple[object, ...], Any] = {(): without_sweep(copy.deepcopy(config))}

    def tree(self, variant: Variant) -> Mapping[str, Any]:
        """The variant's resolved config. Raises SpecError."""
        groups = tuple((key, value) for key, value in variant.values if is_group(key))
        for key, value in groups:
            if not isinstance(value, str):
                raise SpecError(f"{key}={value!r} is not accepted; accepted: {', '.join(choices(str(key)))}")
        values = {key: value for key, value in variant.values if not is_group(key)}
        if groups not in self._known:
            chosen = [f"{key}={value}" for key, value in groups]
            self._known[groups] = without_sweep(compose([*chosen, *self._overrides]))
        config = copy.deepcopy(self._known[groups])
        set_values(config, values)
        return resolve(config)


def _seeded(loaded: Sequence[Loaded], seeds: int) -> tuple[Run, ...]:
    """The runs, seed by seed: whoever stops half way has whole tables of fewer seeds."""
    names = labels(loaded)
    last = max(one.spec.seed for one in loaded) + seeds - 1
    if last >= 2**31 or seeds * len(loaded) > MOST:
        raise SpecError(
            f"seeds={seeds} of {len(loaded)} variants end with seed {last}; accepted: seeds below 2^31, and "
            f"{MOST} runs at most"
        )
    return tuple(
        Run(
            one.spec.with_seed(one.spec.seed + offset),
            f"{name} seed {one.spec.seed + offset}" if seeds > 1 else name,
            one.variant.reference,
            {**run_sections(one.tree), "seed": one.spec.seed + offset},
            one.variant.said,
            one.extra,
        )
        for offset in range(seeds)
        for one, name in zip(loaded, names, strict=True)
    )


def labels(loaded: Sequence[Loaded]) -> list[str]:
    """Architectures, with what the sweep calls the variant where it says something, and with all that
    a variant sets where different runs would still look alike."""
    names = [one.spec.layout.architecture(one.spec.layers, one.spec.scale.heads) for one in loaded]
    said = [", ".join(one.variant.said.values()) for one in loaded]
    names = [f"{name} [{words}]" if words else name for name, words in zip(names, said, strict=True)]
    return [f"{name}{_apart(one, name, names, loaded)}" for name, one in zip(names, loaded, strict=True)]


def _apart(one: Loaded, name: str, names: Sequence[str], loaded: Sequence[Loaded]) -> str:
    """What ``one`` sets otherwise than its namesakes that are other runs; "" without any."""
    namesakes = [other for other, known in zip(loaded, names, strict=True) if known == name]
    if all(other.spec == one.spec for other in namesakes):
        return ""
    own = dict(one.variant.values)
    missing = object()
    others = [dict(other.variant.values) for other in namesakes]
    differing = [key for key in own if any(other.get(key, missing) != own[key] for other in others)]
    return f" ({', '.join(hidden(f'{key}={own[key]}') for key in differing)})" if differing else ""


def _study_name(sweep: str, specs: Sequence[RunSpec], settings: Settings) -> str:
    """The sweep, and what all its runs share of task, scale and protocol. Matched and tuned runs get
    studies of their own: no table mixes them with others unasked."""
    labels = [(spec.task.name, spec.scale.name, spec.protocol.name) for spec in specs]
    shared = [names[0] for names in zip(*labels, strict=True) if len(set(names)) == 1]
    matching = [] if settings.match == "none" else [f"match_{settings.match}"]
    parts = [sweep, *shared, *matching, *([] if settings.tune.learning_rate is None else ["tuned"])]
    return check_name("-".join(parts), "study (from sweep.name, scale.name and protocol.name)")
