"""Every file in conf/sweep: each variant can be built, at every scale that has its layers."""

from __future__ import annotations

import pytest

from retsweep.spec.compose import choices
from retsweep.sweep.plan import identify
from retsweep.sweep.variants import wanted

TOY = ("~task", "+task._target_=tests.sweep.toy.Toy")


@pytest.mark.parametrize("name", choices("sweep"))
def test_every_variant_loads_and_has_a_name_of_its_own(name: str) -> None:
    found = wanted([f"+sweep={name}", *TOY])
    planned = identify(found.runs, None)  # type: ignore[arg-type]  # the toy reads no data
    assert len(planned) == len(found.runs), "the sweep lists a variant twice"
    labels = [run.label for run in found.runs]
    assert len(set(labels)) == len(labels)
    assert found.study.startswith(f"{name}-"), "a sweep's name is that of its file"


@pytest.mark.parametrize("name", choices("sweep"))
def test_every_sweep_fits_the_paper_and_the_tiny_scale(name: str) -> None:
    for scale in ("paper", "tiny"):
        assert {run.spec.scale.name for run in wanted([f"+sweep={name}", f"scale={scale}", *TOY]).runs} == {
            scale
        }
