"""What the sweep needs of composed configs, so that omegaconf stays in this folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from retsweep.spec.base import SpecError
from retsweep.spec.compose import compose
from retsweep.spec.load import LATER_SECTIONS, RUN_SECTIONS

#: What a trial's config.yaml never reaches: bytes, and sections within sections.
LARGEST, DEEPEST = 1 << 20, 32
#: What the command line alone may set: where a command writes, what it reads, whom it tells.
OF_THE_USER = ("runs", "cache", "storage", "checkpoint", "launcher", "tracker", "prompt_file")


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
    config, file = compose(task), _tree(path)
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
    except Exception as error:
        raise SpecError(" ".join(str(error).split()) or type(error).__name__) from error


def plain_file(path: Path) -> dict[str, Any]:
    """What a trial's ``config.yaml`` says, as plain data. Raises SpecError."""
    tree = OmegaConf.to_container(_tree(path))
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}


def _tree(path: Path) -> DictConfig:
    try:
        file = OmegaConf.create(_yaml(path))
    except SpecError:
        raise
    except Exception as error:  # OmegaConf's own, YAML's for tags and doubled keys, int()'s for long numbers
        raise SpecError(f"{path} is no config: {' '.join(str(error).split())}") from error
    if not isinstance(file, DictConfig):
        raise SpecError(f"{path} holds no config; accepted: a trial's config.yaml")
    return file


def _yaml(path: Path) -> str:
    """The text of a YAML file that is as plain as a trial's config.yaml: no aliases, which a few lines can
    multiply to more than any memory holds, and neither large nor deep. Raises SpecError."""
    try:
        data = path.read_bytes()
        if len(data) > LARGEST:
            raise SpecError(
                f"{path} has {len(data)} bytes; accepted: a trial's config.yaml, {LARGEST} at most"
            )
        text, depth = data.decode("utf-8"), 0
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > DEEPEST:
                raise SpecError(
                    f"{path} has aliases, or is nested deeper than {DEEPEST}; accepted: plain YAML"
                )
    except (OSError, ValueError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise SpecError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    return text


def check_settings(config: DictConfig, overrides: Sequence[str]) -> None:
    """Raises SpecError if a file of a group (a sweep from elsewhere) says where things are written, or
    whom they are told: that is the command line's, and conf/config.yaml's."""
    own = [item for item in overrides if item.lstrip("+~").partition("=")[0].partition(".")[0] in OF_THE_USER]
    usual, found = (OmegaConf.to_container(one, resolve=False) for one in (compose(own), config))
    assert isinstance(usual, dict)
    assert isinstance(found, dict)
    for key in OF_THE_USER:
        if found.get(key) != usual.get(key):
            raise SpecError(
                f"{key}={found.get(key)!r} stands in a file of a config group, where it is not accepted; "
                f"accepted: {key}=... on the command line"
            )


def as_yaml(tree: Any) -> str:
    """Plain data (or a config, interpolations kept) as YAML text."""
    return OmegaConf.to_yaml(tree if OmegaConf.is_config(tree) else OmegaConf.create(tree))
