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
    listed = {(key, tuple(said.items())) for key, one in planned.items() for _, said in one.said}
    assert len(listed) == len(found.runs), "the sweep lists a variant twice under one name"
    labels = [run.label for run in found.runs]
    assert len(set(labels)) == len(labels)
    assert found.study.startswith(f"{name}-"), "a sweep's name is that of its file"


@pytest.mark.slow
@pytest.mark.parametrize("name", choices("sweep"))
@pytest.mark.parametrize("scale", [["scale=paper"], ["scale=tiny", "scale.layers=12", "scale.heads=8"]])
def test_every_sweep_fits_12_layers_of_8_heads_at_any_width(name: str, scale: list[str]) -> None:
    found = wanted([f"+sweep={name}", *scale, *TOY])
    assert {f"scale={run.spec.scale.name}" for run in found.runs} == {scale[0]}
