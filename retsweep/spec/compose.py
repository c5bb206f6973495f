"""Finds conf/ and composes it with Hydra: the library's way to what the command line gets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from retsweep.spec.base import SpecError
from retsweep.spec.run import RunSpec
from retsweep.spec.settings import Settings


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
    from hydra.errors import HydraException

    GlobalHydra.instance().clear()
    every_layer = f"layer=[{','.join(choices('layer'))}]"
    try:
        with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
            return hydra.compose("config", [every_layer, *overrides])
    except HydraException as error:
        raise SpecError(fold(error)) from error


def fold(error: BaseException) -> str:
    """Hydra's explanation in one line, with the choices it lists."""
    cause = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if cause is not None and str(cause) not in str(error):
        lines += [line.strip() for line in str(cause).splitlines()[:1]]
    kept = [line for line in lines if not line.startswith(("Config search path", "provider=", "Set the env", "See https", "full_key", "object_type"))]
    return "; ".join(kept).replace(":;", ":")
