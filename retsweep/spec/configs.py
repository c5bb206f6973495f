"""What the sweep needs of composed configs, so that omegaconf stays in this folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from retsweep.spec.base import SpecError
from retsweep.spec.compose import compose
from retsweep.spec.load import LATER_SECTIONS, RUN_SECTIONS


def set_values(config: DictConfig, values: Mapping[str, Any]) -> None:
    """Sets dotted keys of ``config``, in place. Raises SpecError for a key that is not there."""
    for key, value in values.items():
        parent, _, last = key.rpartition(".")
        section = OmegaConf.select(config, parent) if parent else config
        if not isinstance(section, DictConfig) or last not in section:
            known = sorted(map(str, section)) if isinstance(section, DictConfig) else ["none"]
            raise SpecError(f"unknown key {key!r}; accepted: {', '.join(known)}")
        try:
            OmegaConf.update(config, key, value)
        except OmegaConfBaseException as error:
            raise SpecError(f"{key}={value!r}: {str(error).splitlines()[0]}") from error


def without_sweep(config: DictConfig) -> DictConfig:
    """``config``, in place, less the sweep that it is part of: it need not be resolved each time."""
    with open_dict(config):
        config.pop("sweep", None)
    return config


def run_sections(tree: Mapping[str, Any]) -> dict[str, Any]:
    """All that makes a run, of a resolved config: what ``config.yaml`` in a trial's folder holds.

    Settings (storage URLs may carry passwords) and the sweep are left out.
    """
    return {key: tree[key] for key in RUN_SECTIONS if key in tree}


def from_file(path: Path, overrides: tuple[str, ...] = ()) -> DictConfig:
    """The run in a trial's ``config.yaml``, settings as composed, ``key=value`` on top; ``task=NAME`` is
    another task for the same run."""
    task = [override for override in overrides if override.startswith("task=")]
    config = compose(task)
    try:
        file = OmegaConf.load(path)
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} cannot be read: {error.strerror or error}") from error  # type: ignore[union-attr]
    except Exception as error:
        raise SpecError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(file, DictConfig):
        raise SpecError(f"{path} holds no config; accepted: a trial's config.yaml")
    OmegaConf.set_struct(config, False)
    for key in RUN_SECTIONS:
        if key in LATER_SECTIONS and key not in file:
            continue  # as composed
        if key not in file:
            raise SpecError(f"{path} has no section {key!r}; accepted: a trial's config.yaml")
        if key != "task" or not task:
            config[key] = file[key]
    values = [override for override in overrides if override not in task]
    try:
        return OmegaConf.merge(config, OmegaConf.from_dotlist(values))  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise SpecError(str(error).splitlines()[0]) from error


def plain_file(path: Path) -> dict[str, Any]:
    """What a trial's ``config.yaml`` says, as plain data. Raises SpecError."""
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path))
    except Exception as error:
        raise SpecError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise SpecError(f"{path} holds no config; accepted: a trial's config.yaml")
    return {str(key): value for key, value in tree.items()}


def as_yaml(tree: Any) -> str:
    """Plain data (or a config, interpolations kept) as YAML text."""
    return OmegaConf.to_yaml(tree if OmegaConf.is_config(tree) else OmegaConf.create(tree))
