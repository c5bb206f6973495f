"""The space of a search: from a proposal's parameters to the overrides that compose to its run."""

from __future__ import annotations

import copy
import dataclasses
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retsweep.search.settings import Space
from retsweep.spec import RunSpec, SpecError
from retsweep.spec.compose import compose
from retsweep.spec.configs import run_sections, set_values
from retsweep.spec.identity import spec_hash
from retsweep.spec.load import load_resolved, resolve
from retsweep.sweep.plan import NO_DATA, Planned
from retsweep.sweep.variants import Run

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

#: Parameters, by name: what Optuna chooses.
Params = Mapping[str, Any]
LAYOUT, PATTERN = "layout=pattern", "layout.pattern"
HYBRID = "hybrid"
#: The config keys that parameters set; those of a hybrid, where there is one.
KEYS = {"heads": "scale.heads", "ffn": "scale.ffn", "decay": "layer.msr.decay"}
FORM, SPLIT = "layer.hybrid.form", "layer.hybrid.attention_heads"


@dataclass(frozen=True)
class Architectures:
    """A :class:`Space` over a base run: ``choices`` by parameter, ``letter_00`` ... from the embedding up.
    ``hybrid`` is the letter of the layer whose heads are split; ``configured`` has what the base run has of
    the choices, but for letters."""

    choices: Mapping[str, tuple[Any, ...]]
    period: int
    heads: int
    hybrid: str
    more: frozenset[str]
    configured: Params

    @staticmethod
    def of(space: Space, base: RunSpec, hybrid: str, tree: Mapping[str, Any]) -> Architectures:
        """Raises SpecError if the space does not fit the base run, whose resolved config is ``tree``."""
        depth, period = base.scale.layers, space.period or base.scale.layers
        if period > depth:
            raise SpecError(f"search.space.period={period} is out of range; accepted: 1 to {depth}")
        choices: dict[str, tuple[Any, ...]] = {f"letter_{at:02}": space.letters for at in range(period)}
        widths = [max(1, round(factor * base.scale.ffn)) for factor in space.ffn or ()]
        split = hybrid in space.letters
        lists = {
            "heads": space.heads,
            "split": space.split if split else None,
            "form": space.form if split else None,
            "ffn": tuple(dict.fromkeys(widths)),
            "decay": space.decay,
            **space.more,
        }
        choices |= {name: tuple(found) for name, found in lists.items() if found}
        found = _configured(tree, base.scale.heads, space.more)
        configured = {name: found[name] for name in choices if found.get(name) in choices[name]}
        return Architectures(choices, period, base.scale.heads, hybrid, frozenset(space.more), configured)

    # ---- parameters --------------------------------------------------------------------------
    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """As Optuna has them."""
        from optuna.distributions import CategoricalDistribution

        return {name: CategoricalDistribution(found) for name, found in self.choices.items()}

    @property
    def size(self) -> int:
        """How many there are, counting those that differ in nothing but what is without effect."""
        return math.prod(len(found) for found in self.choices.values())

    def draw(self, source: random.Random) -> dict[str, Any]:
        return {name: source.choice(found) for name, found in self.choices.items()}

    def each_choice(self) -> Iterator[tuple[str, Params]]:
        """Every choice once, beside the first of all others: what a user can have got wrong, in words."""
        first = {name: found[0] for name, found in self.choices.items()}
        for name, found in self.choices.items():
            for choice in found if name not in self._letters else ():
                yield f"search.space.{name}={choice}", {**first, name: choice}
        for letter in self.choices["letter_00"]:
            yield f"search.space.letters: {letter}", {**first, **dict.fromkeys(self._letters, letter)}

    @property
    def ends(self) -> list[Params]:
        """Layers of one letter each, for every letter, the rest as configured; what is not, is left open."""
        alike = (dict.fromkeys(self._letters, letter) for letter in self.choices["letter_00"])
        return [{**letters, **self.configured} for letters in alike]

    def is_end(self, params: Params) -> bool:
        """Not where there is but one letter: then costs have other ends."""
        return len(self.ends) > 1 and any(end.items() <= params.items() for end in self.ends)

    @property
    def _letters(self) -> list[str]:
        return [f"letter_{at:02}" for at in range(self.period)]

    # ---- from parameters to configs ----------------------------------------------------------
    def values(self, params: Params) -> dict[str, Any]:
        """What ``params`` set, by config key; nothing that is without effect."""
        pattern = "".join(params[name] for name in self._letters)
        found: dict[str, Any] = {PATTERN: pattern}
        found |= {key: params[name] for name, key in KEYS.items() if name in params}
        if self.hybrid in pattern:
            if "split" in params:
                heads = params.get("heads", self.heads)
                found[SPLIT] = min(max(round(params["split"] * heads), 1), heads - 1)
            if "form" in params:
                found[FORM] = params["form"]
        return found | {key: params[key] for key in sorted(self.more)}

    def overrides(self, params: Params) -> list[str]:
        """The same in Hydra's grammar. (Text is quoted: NAN would be a number.)"""
        return [LAYOUT, *(f"{key}={_quoted(value)}" for key, value in self.values(params).items())]

    def label(self, params: Params) -> str:
        """A name for the screen: the letters, and what else is chosen."""
        values = self.values(params)
        rest = (f"{key.rpartition('.')[2]}={value}" for key, value in list(values.items())[1:])
        return " ".join([values[PATTERN], *rest])


class Builder:
    """Makes runs of proposals: the base is composed once, and values are set on copies of it. ``pinned``
    has the evaluation and the task as they are pinned to what they read; ``data_hash`` as in plan.py."""

    def __init__(self, config: Any, pinned: RunSpec, data_hash: str = NO_DATA) -> None:
        self._config, self._pinned, self._data_hash = config, pinned, data_hash
        self._trees: dict[tuple[tuple[str, Any], ...], Mapping[str, Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without resolved configs: settings are in them, a storage's password perhaps."""
        return {**self.__dict__, "_trees": {}}

    @staticmethod
    def of(base: Sequence[str], pinned: RunSpec, always: Mapping[str, Any]) -> Builder:
        """That of ``base``, overrides, with the values in ``always`` set in every run."""
        config = compose([*base, LAYOUT])
        set_values(config, always)
        return Builder(config, pinned)

    def reading(self, pinned: RunSpec, data_hash: str) -> Builder:
        """The same for data that is known."""
        return Builder(self._config, pinned, data_hash)

    def spec(self, values: Mapping[str, Any]) -> tuple[RunSpec, Mapping[str, Any]]:
        """The run with ``values`` set, and its resolved config. Raises SpecError."""
        tree = self._resolved({key: value for key, value in values.items() if key != PATTERN})
        tree = {**tree, "layout": {**tree["layout"], "pattern": values[PATTERN]}}
        spec, _ = load_resolved(tree)
        return dataclasses.replace(spec, evaluate=self._pinned.evaluate, task=self._pinned.task), tree

    def _resolved(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The config with ``values`` set, which takes a while, and any pattern: nothing refers to it."""
        key = tuple(values.items())
        if key not in self._trees:
            config = copy.deepcopy(self._config)
            set_values(config, values)
            self._trees[key] = resolve(config)
        return self._trees[key]

    def planned(self, space: Architectures, params: Params) -> Planned:
        """Raises SpecError."""
        spec, tree = self.spec(space.values(params))
        label = space.label(params)
        return Planned(Run(spec, label, False, run_sections(tree)), self._data_hash, ((0, {}),))

    def hash(self, spec: RunSpec) -> str:
        return spec_hash(spec, self._data_hash)


def _configured(tree: Mapping[str, Any], heads: int, more: Iterable[str]) -> dict[str, Any]:
    """The value of every parameter but letters in a resolved config; None where it has none."""
    keys = {**KEYS, "form": FORM, **{key: key for key in more}}
    found = {name: _at(tree, key) for name, key in keys.items()}
    attention_heads = _at(tree, SPLIT)
    found["split"] = 0.5 if attention_heads is None else attention_heads / heads
    return found


def _at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def check(space: Architectures, builder: Builder) -> None:
    """Raises SpecError, which names the choice, for one that can be built with nothing."""
    for said, params in space.each_choice():
        try:
            builder.spec(space.values(params))
        except SpecError as error:
            raise SpecError(f"{said}: {error}") from error


def _quoted(value: Any) -> str:
    if isinstance(value, str):
        return f"'{value}'"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
