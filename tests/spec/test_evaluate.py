"""The section ``evaluate``: what it accepts, and what of it is part of a run's identity."""

from __future__ import annotations

from pathlib import Path

import pytest

from retsweep.spec import SpecError, load_spec
from retsweep.spec.compose import compose
from retsweep.spec.configs import as_yaml, from_file, run_sections
from retsweep.spec.evaluate import Evaluate, Ood, known_probes
from retsweep.spec.identity import spec_hash
from retsweep.spec.load import load, resolve

TINY = ["scale=tiny", "layout.attention=2"]
ON = "evaluate.probes=[ood]"


def identity(*overrides: str) -> str:
    return spec_hash(load_spec([*TINY, *overrides]), "d")


def test_a_run_without_probes_is_the_run_it_was() -> None:
    assert identity("evaluate.ood.tokens=5", "evaluate.ood.path=x") == identity()
    assert identity(ON) != identity()
    assert identity(ON, "task=count") == identity("task=count")  # it trains nothing


def test_where_text_lies_is_not_what_it_is() -> None:
    assert identity(ON, "evaluate.ood.path=x", "evaluate.ood.domains={a:[x*],b:[y*]}") == identity(ON)
    assert identity(ON, "evaluate.ood.tokens=5") != identity(ON)
    assert identity(ON, "+evaluate.ood.text=0123") != identity(ON)


def test_domains_and_probes_have_no_order() -> None:
    one = load_spec([ON, "evaluate.ood.domains={b:y*,a:[x*,z*]}"])
    assert one.evaluate.ood.domains == (("a", ("x*", "z*")), ("b", ("y*",)))
    assert one == load_spec(["evaluate.probes=[ood,ood]", "evaluate.ood.domains={a:[x*,z*],b:[y*]}"])
    assert hash(one)


def test_an_unknown_probe_names_the_known_ones() -> None:
    assert "ood" in known_probes()
    with pytest.raises(SpecError, match=r"^unknown probe 'rote' in evaluate\.probes; known: .*\bood\b"):
        load_spec(["evaluate.probes=[ood,rote]"])


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("evaluate.probes=ood", r"evaluate\.probes='ood' is not accepted"),
        ("evaluate.ood.tokens=0", r"evaluate\.ood\.tokens=0 is not accepted; accepted: greater than 0"),
        ("evaluate.ood.folder=x", r"unknown key 'evaluate\.ood\.folder'; accepted: domains, path, tokens"),
        ("evaluate.ood.domains=[x]", r"evaluate\.ood\.domains="),
        (
            "evaluate.ood.domains={b:x*,a:3}",
            r"^evaluate\.ood\.domains=\{a: 3\} is not accepted: 3 is no file pattern; accepted: \{a: ",
        ),
        (
            "evaluate.ood.domains={a:[x*,null]}",
            r"domains=\{a: None\} is not accepted: None is no file pattern",
        ),
        (
            "evaluate.ood.domains={a:{b:c}}",
            r"domains=\{a: \{'b': 'c'\}\} is not accepted: .* no file pattern",
        ),
    ],
)
def test_bad_input_is_one_line(override: str, complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint) as told:
        load_spec([override])
    assert "\n" not in str(told.value)


def test_a_config_of_before_there_was_the_section_is_read(tmp_path: Path) -> None:
    tree = run_sections(resolve(compose([*TINY, "seed=3"])))
    assert tree.pop("evaluate")
    file = tmp_path / "config.yaml"
    file.write_text(as_yaml(tree))
    spec, _ = load(from_file(file))
    assert spec == load_spec([*TINY, "seed=3"])
    assert spec.evaluate == Evaluate()
    spec, _ = load(from_file(file, ("evaluate.probes=[ood]",)))
    assert spec.evaluate == Evaluate(probes=("ood",), ood=Ood())


def test_a_config_with_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    asked = [*TINY, ON, "evaluate.ood.path=x", "evaluate.ood.domains={a:[x*]}"]
    file = tmp_path / "config.yaml"
    file.write_text(as_yaml(run_sections(resolve(compose(asked)))))
    assert load(from_file(file))[0] == load_spec(asked)
