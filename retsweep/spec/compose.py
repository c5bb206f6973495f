"""Finds conf/ and composes it with Hydra: the library's way to what the command line gets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from retsweep.spec.base import SpecError
from retsweep.spec.run import RunSpec
from retsweep.spec.secret import hidden
from retsweep.spec.settings import Settings

#: Letters of an override that a message repeats.
LONGEST = 200


def conf_folder() -> Path:
    """conf/ inside the package (a wheel), else at the root of the checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise SpecError(f"no conf/config.yaml in {package} or beside it: the installation is broken")


def choices(group: str) -> list[str]:
    """The YAML files of a config group, by name."""
    return sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))


def load_spec(overrides: Sequence[str] = ()) -> RunSpec:
    """The RunSpec that ``python -m retsweep OVERRIDES`` would run. Raises SpecError."""
    return load_run(overrides)[0]


def load_run(overrides: Sequence[str] = ()) -> tuple[RunSpec, Settings]:
    """``load_spec`` with the settings beside it."""
    from retsweep.spec.load import load

    return load(compose(overrides))


def compose(overrides: Sequence[str] = ()):  # type: ignore[no-untyped-def]  # a DictConfig: see load.py
    """conf/ with ``overrides`` (Hydra's grammar), every layer of conf/layer in it.

    Raises SpecError in one line for what Hydra says in nine.
    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    for item in overrides:
        _check_grammar(item)
    GlobalHydra.instance().clear()
    every_layer = f"layer=[{','.join(choices('layer'))}]"
    try:
        with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
            return hydra.compose("config", [every_layer, *overrides])
    except Exception as error:  # Hydra's own, and what YAML, OmegaConf and Python's int() raise below it
        raise SpecError(_explain(str(error), list(overrides))) from error


def _check_grammar(item: str) -> None:
    """Raises SpecError unless ``item`` is one key=value without a list of choices."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    prompt = " or a file: prompt_file=FILE" if item.startswith("prompt=") else ""
    try:
        parsed = OverridesParser.create().parse_override(item)
    except Exception as error:  # its grammar's, and int()'s for thousands of digits
        raise SpecError(
            f"{hidden(item)[:LONGEST]!r} is not key=value in Hydra's grammar; values with commas, question "
            f"marks or equals signs want quotes: {item.partition('=')[0]}='\"...\"'{prompt}"
        ) from error
    if parsed.is_sweep_override():
        raise SpecError(
            f"{hidden(item)!r} gives several values to one run; "
            + (
                f"a comma wants quotes: prompt='\"...\"'{prompt}"
                if prompt
                else "for a list write key=[a,b], for several runs a sweep: +sweep=NAME, seeds=N"
            )
        )


def _explain(complaint: str, overrides: list[str]) -> str:
    """Hydra's complaint in one line: what was wrong, and what is accepted there."""
    if found := re.search(r"Could not find '([^/']+)/([^']+)'", complaint):
        group, choice = found.groups()
        return f"unknown {group} {choice!r}; known: {', '.join(choices(group))}"
    if found := re.search(r"Could not override '([^']+)'", complaint):
        key = found.group(1)
        return f"unknown key {key!r}; accepted: {', '.join(_siblings(key, overrides))}"
    return "; ".join(line.strip() for line in complaint.splitlines()[:2] if line.strip())


def _siblings(key: str, overrides: list[str]) -> list[str]:
    """The keys that exist where ``key`` was looked for, once the overrides of it are left out."""
    section, _, _ = key.rpartition(".")
    others = [item for item in overrides if item.lstrip("+~").partition("=")[0] != key]
    node = compose(others) if len(others) < len(overrides) else {}
    for part in filter(None, section.split(".")):
        node = node.get(part) or {} if hasattr(node, "get") else {}
    return sorted(str(name) for name in node if name != "_target_") if hasattr(node, "keys") else []
