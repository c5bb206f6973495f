"""From a composed config to checked specs: the one door. Only it, compose.py and configs.py see configs.

Everything that a user can get wrong in YAML or on the command line is told here, in one line.
Nothing after them sees a config object.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from pydantic.dataclasses import is_pydantic_dataclass

from retsweep.spec import interpolations, trust
from retsweep.spec.base import SpecError
from retsweep.spec.evaluate import Evaluate
from retsweep.spec.layer import LayerSpec
from retsweep.spec.layouts.base import Layout, pick
from retsweep.spec.protocol import Protocol
from retsweep.spec.run import Model, RunSpec
from retsweep.spec.scale import Scale
from retsweep.spec.settings import Settings

Kind = TypeVar("Kind")

RUN_SECTIONS = (
    "layout",
    "layer",
    "scale",
    "model",
    "protocol",
    "corpus",
    "tokenizer",
    "task",
    "evaluate",
    "seed",
)
#: Sections that a trial's config.yaml lacks if it is older than they are.
LATER_SECTIONS = ("evaluate",)
SETTINGS = tuple(field.name for field in dataclasses.fields(Settings))
#: ``budget`` is what a scale suggests to a protocol (by interpolation), and the limits of a search;
#: ``sweep`` lists variants, ``search`` is how they are found.
OTHERS = ("budget", "sweep", "search")
#: What the class of a section must have: any class of retsweep would do else, and fail later.
NEEDED = {
    "layout": ("kind",),
    "layer": ("kind",),
    "corpus": ("label", "stamp", "dataset"),
    "tokenizer": ("name", "check", "stamp", "make"),
    "task": ("name", "reads_data", "trains", "computes"),
    "tracker": ("resolve", "open"),
}


def load(config: DictConfig) -> tuple[RunSpec, Settings]:
    """The run that ``config`` describes and how to carry it out. Raises SpecError."""
    return load_resolved(resolve(config))


def load_resolved(tree: Mapping[str, Any]) -> tuple[RunSpec, Settings]:
    """:func:`load` for what :func:`resolve` gave."""
    known = set(RUN_SECTIONS) | set(SETTINGS) | set(OTHERS)
    trust.check_text(tree)
    for key in tree:
        if key not in known:
            raise SpecError(f"unknown key {key!r}; accepted: {', '.join(sorted(known))}")
    needed = [key for key in (*RUN_SECTIONS, "tracker") if key not in LATER_SECTIONS]
    missing = [key for key in needed if key not in tree]
    if missing:
        raise SpecError(f"{', '.join(missing)} missing; a run needs {', '.join(needed)}")
    scale = construct(Scale, tree["scale"], "scale")
    layers = _layers(tree["layer"])
    layout = construct(Layout, tree["layout"], "layout")
    spec = RunSpec(
        scale=scale,
        layout=layout,
        layers=layout.stack(scale.layers, scale.heads, layers),
        model=construct(Model, tree["model"], "model"),
        protocol=construct(Protocol, tree["protocol"], "protocol"),
        corpus=construct(object, tree["corpus"], "corpus"),
        tokenizer=construct(object, tree["tokenizer"], "tokenizer"),
        task=construct(object, tree["task"], "task"),
        evaluate=construct(Evaluate, tree.get("evaluate", {}), "evaluate"),
        seed=_seed(tree["seed"]),
    )
    settings = {key: tree[key] for key in SETTINGS if key in tree}
    _check_named(spec)
    found = construct(Settings, settings, "")
    _check_kind(found.tracker, "tracker")
    return spec, found


def _check_named(spec: RunSpec) -> None:
    """Raises SpecError if the class of the corpus is only a base of corpora."""
    try:
        str(spec.corpus.label)
    except NotImplementedError as error:
        kind = type(spec.corpus)
        raise SpecError(
            f"corpus._target_={kind.__module__}.{kind.__qualname__} is what corpora have in common; "
            "accepted: a class such as those in conf/corpus"
        ) from error


def _layers(tree: Any) -> dict[str, LayerSpec]:
    """Layers that hold others come last: a mistake is told where it was made, not where it is used."""
    for name, body in tree.items() if isinstance(tree, Mapping) else [("", tree)]:
        if not isinstance(body, Mapping):
            where = f"layer.{name}" if name else "layer"
            raise SpecError(f"{where}={body!r} is not a section; accepted: a mapping of keys to values")
    inner_first = sorted(
        tree.items(), key=lambda item: any(isinstance(value, Mapping) for value in item[1].values())
    )
    layers = {name: construct(LayerSpec, body, f"layer.{name}") for name, body in inner_first}
    letters: dict[str, str] = {}
    for name, layer in layers.items():
        other = letters.setdefault(layer.letter, name)
        if other != name:
            raise SpecError(
                f"layer.{name}.letter={layer.letter} is that of {other} too; "
                f"accepted: a letter but {', '.join(sorted(letters))}"
            )
    return layers


def sweep_section(config: DictConfig) -> dict[str, Any] | None:
    """The sweep that ``config`` asks for, as plain data; None for a single run."""
    return resolve(config).get("sweep")


def construct(kind: type[Kind], body: Any, path: str) -> Kind:
    """The spec under ``path``, of the class that its ``_target_`` names (else ``kind`` itself)."""
    body = _plain(body, path)
    if not isinstance(body, Mapping):
        if isinstance(body, kind) and hasattr(body, "__dataclass_fields__"):
            _check_kind(body, path)
            return body  # it carried a _target_ of its own
        raise SpecError(f"{path}={body!r} is not a section; accepted: a mapping of keys to values")
    return _make(kind, body, path)


def _plain(value: Any, path: str) -> Any:
    """Lists become tuples and sections with a ``_target_`` the specs that they describe."""
    if isinstance(value, Mapping):
        fields = {str(key): _plain(item, f"{path}.{key}") for key, item in value.items()}
        return _make(_locate(fields.pop("_target_"), path), fields, path) if "_target_" in fields else fields
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_plain(item, f"{path}[{index}]") for index, item in enumerate(value))
    return value


def _check_kind(made: Any, path: str) -> None:
    """Raises SpecError unless ``made`` can serve as the section under ``path``."""
    section = path.partition(".")[0]
    fields = dataclasses.fields(made) if dataclasses.is_dataclass(made) else ()
    here = {*dir(type(made)), *(field.name for field in fields)}
    missing = [name for name in NEEDED.get(section, ()) if name not in here]
    if missing:
        said = f"{type(made).__module__}.{type(made).__qualname__}"
        raise SpecError(
            f"{path}._target_={said} is no {section} (it has no {', '.join(missing)}); "
            f"accepted: a class such as those in conf/{section}"
        )


def _locate(target: Any, path: str) -> type[Any]:
    module, name = trust.check_target(target, path)
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the modules of a package raise when they are imported
        said = " ".join(str(error).split()) or type(error).__name__
        raise SpecError(f"{path}._target_={target} cannot be found: {said}") from error
    if not (isinstance(found, type) and is_pydantic_dataclass(found)):
        raise SpecError(f"{path}._target_={target} is no spec; accepted: a class made with @spec")
    return found


def _make(kind: type[Kind], fields: Mapping[str, Any], path: str) -> Kind:
    if not dataclasses.is_dataclass(kind):
        raise SpecError(f"{path}._target_ is missing; accepted: the class of a spec")
    accepted = [field.name for field in dataclasses.fields(kind)]
    for key in fields:
        if key not in accepted:
            where = f"{path}.{key}" if path else key
            raise SpecError(f"unknown key {where!r}; accepted: {', '.join(accepted) or 'none'}")
    sections = {key: value for key, value in fields.items() if isinstance(value, Mapping)}
    if sections:  # a spec inside a spec needs no _target_: its field says what it is
        kinds = get_type_hints(kind)
        made = {
            key: _make(kinds[key], value, f"{path}.{key}" if path else key)
            for key, value in sections.items()
            if isinstance(kinds[key], type) and dataclasses.is_dataclass(kinds[key])
        }
        fields = {**fields, **made}
    try:
        return kind(**fields)
    except ValidationError as error:
        raise SpecError(_one_line(error, path)) from error


def _one_line(error: ValidationError, path: str) -> str:
    """What pydantic says, without its bullets and links: the first complaint is enough."""
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, SpecError):
        return str(cause)
    # A union reports one complaint a member; the field's own name is all a user can act on.
    where = ".".join([path] * bool(path) + [str(part) for part in first["loc"][:1]])
    complaints = dict.fromkeys(
        item["msg"].removeprefix("Input should be ").replace("a valid tuple", "a list: [a,b]")
        for item in error.errors()
        if item["loc"][:1] == first["loc"][:1]
    )
    if first["type"].startswith("missing"):
        return f"{where} is missing; give {where}=..."
    return f"{where}={first.get('input')!r} is not accepted; accepted: {' or '.join(complaints)}"


def resolve(config: DictConfig) -> dict[str, Any]:
    """``config`` as plain data, interpolations filled in. Raises SpecError."""
    interpolations.check(OmegaConf.to_container(config, resolve=False))
    layer = config.get("layer", {})
    names = list(map(str, layer)) if isinstance(layer, DictConfig) else []
    mixer = OmegaConf.select(config, "layout.mixer", default=None)
    if mixer is not None and names:  # before interpolations that go through it fail less clearly
        pick(dict.fromkeys(names), str(mixer))  # type: ignore[arg-type]
    try:
        tree = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        if "parent node" not in str(error):
            raise SpecError(str(error).splitlines()[0]) from error
        others = ", ".join(name for name in names if name != mixer)
        raise SpecError(
            f"layout.mixer={mixer} would stand inside itself; accepted: {others}; for layers of several "
            "kinds: layout=pattern layout.pattern=AH"
        ) from error
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}


def _seed(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise SpecError(f"seed={value!r} is not accepted; accepted: a whole number from 0 to 2^31 - 1")
    return value
