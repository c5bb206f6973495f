"""Malformed command lines, configs and sweeps: one clear line or a valid run, never a traceback, never a
half-made study. ``make fuzz`` tries thousands."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from retsweep.__main__ import main
from retsweep.spec import RunSpec, SpecError, configs
from retsweep.spec import compose as compose_module
from retsweep.spec.compose import choices, compose
from retsweep.spec.identity import spec_hash
from retsweep.spec.load import load, resolve
from retsweep.sweep import command, variants
from retsweep.sweep.engine import Outcome
from tests.safety.nasty import data, examples, flat, words

GROUPS = ["layer", "layout", "scale", "corpus", "tokenizer", "task", "tracker", "protocol", "sweep", "typo"]
FIRST = ("scale=tiny", "tracker=none", "task=count")


@functools.cache
def plain() -> dict[str, Any]:
    """The default config, tiny, interpolations filled in."""
    return resolve(compose(["scale=tiny", "tracker=none"]))


KEYS = [*sorted(flat(plain())), "sweep", "sweep.variants", "hydra.searchpath", "hydra", "budget", "allow", ""]


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """No trial is run, no group composed twice, and no user's settings are read."""
    once = functools.lru_cache(None)(lambda overrides: compose(list(overrides)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "Engine", NoEngine)
        patch.setattr(configs, "compose", lambda overrides=(): copy.deepcopy(once(tuple(overrides))))
        patch.delenv("RETSWEEP_STORAGE", raising=False)
        patch.delenv("RETSWEEP_CACHE", raising=False)
        yield


class NoEngine:
    def __init__(self, *arguments: Any) -> None:
        pass

    def run(self) -> Outcome:
        return Outcome("done", (), (), ())


@contextmanager
def nowhere() -> Iterator[Path]:
    """An empty folder to work in."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def call(*given_words: str) -> tuple[int, str, str]:
    """main(): the exit code, and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(list(given_words))
    return code, out.getvalue(), err.getvalue()


def told_in_one_line(code: int, out: str, err: str) -> None:
    assert code == 2, err
    assert out == ""
    assert err.startswith("retsweep: ")
    assert err.count("\n") == 1, err
    assert len(err) > len("retsweep: x\n")
    err.encode()  # it can be printed anywhere


# ---- the command line ----------------------------------------------------------------------------
chosen = st.sampled_from(GROUPS).flatmap(
    lambda group: st.sampled_from(choices(group) or ["x"]).map(lambda choice: f"{group}={choice}")
)
overrides = st.one_of(
    st.builds("{}{}={}".format, st.sampled_from(["", "", "", "+", "++", "~"]), st.sampled_from(KEYS), words),
    st.builds("{}{}={}".format, st.sampled_from(["", "+"]), st.sampled_from(GROUPS), words),
    chosen,
    st.builds("~{}".format, st.sampled_from(KEYS)),
    words,
)


@examples(15)
@given(st.lists(overrides, min_size=1, max_size=4))
def test_any_words_compose_or_are_one_line(said: list[str]) -> None:
    with nowhere() as folder:
        code, out, err = call("--cfg", *(word for word in said if not word.startswith("-")))
        if code == 0:
            assert isinstance(yaml.safe_load(out), dict)
            assert err == ""
        else:
            told_in_one_line(code, out, err)
        assert list(folder.iterdir()) == []


@examples(8)
@given(st.lists(overrides, min_size=1, max_size=3))
def test_a_command_makes_a_whole_study_or_nothing(said: list[str]) -> None:
    if any(word.lstrip("+~").startswith(("runs=", "cache=", "storage=", "task=", "-")) for word in said):
        return  # where the user says; and tasks that read data
    with nowhere() as folder:
        code, out, err = call(*FIRST, *said)
        written = [path for path in folder.rglob("*") if path.is_file()]
        if code == 0:
            assert all(path.is_relative_to(folder / "runs") for path in written)
            assert len(list(folder.glob("runs/*/plan.json"))) == 1
        else:
            told_in_one_line(code, out, err)
            assert written == []


# ---- a trial's config.yaml -------------------------------------------------------------------------
def valid_text() -> str:
    return configs.as_yaml(configs.run_sections(plain()))


@st.composite
def torn(draw: st.DrawFn) -> str:
    """A config.yaml with pieces cut out, put in, or swapped."""
    text = valid_text()
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(text)))
        end = min(len(text), begin + draw(st.integers(0, 12)))
        text = text[:begin] + draw(words) + text[end:]
    return text


@st.composite
def altered(draw: st.DrawFn) -> str:
    """A config.yaml whose keys hold, lack or have beside them what they should not."""
    tree = copy.deepcopy(configs.run_sections(plain()))
    for _ in range(draw(st.integers(1, 3))):
        key = draw(st.sampled_from(KEYS))
        *path, last = key.split(".")
        section: Any = tree
        for part in path:
            section = section.get(part) if isinstance(section, dict) else None
        if not isinstance(section, dict):
            continue
        if draw(st.booleans()):
            section[draw(st.sampled_from([last, last, "_target_", "x"]))] = draw(data)
        else:
            section.pop(last, None)
    return str(yaml.safe_dump(tree, allow_unicode=True))


def is_run(spec: Any) -> None:
    """Whether what was loaded is sound: it has an identity, and a name."""
    assert isinstance(spec, RunSpec)
    assert len(spec_hash(spec, "")) == 16
    assert spec.layout.architecture(spec.layers, spec.scale.heads)


@examples(25)
@given(st.one_of(torn(), altered()))
def test_any_config_file_loads_or_is_one_line(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        with contextlib.suppress(SpecError):
            spec, _ = load(configs.from_file(path))
            is_run(spec)


# ---- a sweep's YAML ----------------------------------------------------------------------------------
USUAL = ["layout", "layout.attention", "as", "seed", "scale.d_model", "study", "protocol"]
VALUES = [[0, 1], {"from": 0, "below": 3}, {"from": 0, "below": 10**12}, "type_b", {"a": "b"}]
blocks = st.dictionaries(
    st.one_of(st.sampled_from(USUAL), st.sampled_from(KEYS), st.text(max_size=5)),
    st.one_of(data, st.sampled_from(VALUES)),
    max_size=3,
)
sections = st.one_of(
    data,
    st.fixed_dictionaries(
        {"variants": st.one_of(st.lists(blocks, max_size=3), data)},
        optional={
            "name": st.one_of(data, words),
            "seeds": data,
            "across": st.one_of(st.lists(blocks, max_size=2), data),
            "references": st.one_of(st.lists(blocks, max_size=2), data),
            "x": data,
        },
    ),
)


@examples(20)
@given(sections)
def test_any_sweep_lists_runs_or_is_one_line(section: Any) -> None:
    config = configs.compose(FIRST)
    OmegaConf.set_struct(config, False)
    try:
        config["sweep"] = section
    except Exception:  # it cannot stand in a YAML either
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variants, "check_settings", lambda *_: None)  # it composes, and is tested elsewhere
        with contextlib.suppress(SpecError):
            wanted = variants.wanted_from(config, list(FIRST))
            for run in wanted.runs[:3]:
                is_run(run.spec)
            assert "/" not in wanted.study


def test_the_names_of_the_fuzzer_exist() -> None:
    assert compose_module.conf_folder().is_dir()
    assert {"layout.attention", "scale.layers", "seed"} <= set(KEYS)
