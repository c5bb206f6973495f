"""The door: what is wrong is told in one line that lists what is accepted."""

from __future__ import annotations

import dataclasses

import pytest

from retsweep.spec import SpecError, load_run, load_spec
from retsweep.spec.compose import choices

BAD = {
    "layout.attention=13": "layout.attention=13 is out of range; accepted: 0 to 12",
    "layout.attention=-1": "layout.attention=-1 is out of range; accepted: 0 to 12",
    "layout.attention=two": "layout.attention='two' is not accepted",
    "scale.heads=7": "scale.heads=7 does not divide scale.d_model=64; these do: 1, 2, 4, 8, 16, 32, 64",
    "scale.heads=64": "rotary",
    "scale.layers=0": "scale.layers=0 is not accepted; accepted: greater than 0",
    "scale.layers=2.5": "scale.layers=2.5 is not accepted",
    "scale=huge": "unknown scale 'huge'; known: paper",
    "layout.depth=3": "unknown key 'layout.depth'; accepted: attention, mixer",
    "+layout.depth=3": "unknown key 'layout.depth'; accepted: mixer, attention",
    "layer.msr.gamma=3": "unknown key 'layer.msr.gamma'; accepted: ",
    "+layer.msr.gamma=3": "unknown key 'layer.msr.gamma'; accepted: ",
    "layer.msr.decay=fast": "layer.msr.decay='fast' is not accepted; accepted: 'retnet' or 'log_spaced'",
    "layer.msr.letter=RR": "layer.msr.letter='RR' is not accepted",
    "protocol.precision=fp16": "protocol.precision='fp16' is not accepted; accepted: 'fp32', 'bf",
    "protocol.epochs=3": "give either protocol.steps or protocol.epochs",
    "protocol.learning_rate=0": "protocol.learning_rate=0 is not accepted; accepted: greater than 0",
    "model.dropout=1": "model.dropout=1 is not accepted; accepted: less than 1",
    "seed=-1": "seed=-1 is not accepted",
    "seed=one": "seed='one' is not accepted",
    "seeds=0": "seeds=0 is not accepted",
    "device=tpu": "device='tpu' is not accepted",
    "keep=none": "keep='none' is not accepted; accepted: 'checkpoints' or 'rows'",
    "study=a/b": "study='a/b' is a folder name",
    "typo=1": "unknown key 'typo'; accepted: ",
    "+typo=1": "unknown key 'typo'; accepted: ",
    "layout.mixer=retnet": "unknown layer 'retnet'; known: ",
    "layout.mixer=hybrid": "layout.mixer=hybrid would stand inside itself; accepted: attention, msr, none",
    "layer.msr.letter=A": "letter=A is that of",
    "protocol.clip=inf": "protocol.clip=inf is not accepted; accepted: a finite number",
    "~corpus": "corpus missing",
    "~task": "task missing",
    "~corpus._target_": "corpus._target_ is missing",
    "tokenizer=words": "unknown tokenizer 'words'; known: bpe, bytes, gpt2",
    "storage=sqlite://a?b=c": "is not key=value in Hydra's grammar",
    "layout.attention=1,2": "gives several values to one run",
}


@pytest.mark.parametrize("override", BAD)
def test_bad_values_get_one_line(override: str) -> None:
    with pytest.raises(SpecError) as error:
        load_spec([override])
    assert BAD[override] in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["layout=type_c", "layout.attention=0"], "layout.attention=0 is out of range; accepted: 1 to 7"),
        (["layout=type_c", "layout.attention=8"], "layout.attention=8 is out of range; accepted: 1 to 7"),
        (
            ["layout=pattern", "layout.pattern=RXR"],
            "unknown layer letter 'X' in layout.pattern; known: A (",
        ),
        (["layout=pattern", "layout.pattern=''"], "layout.pattern is empty"),
        (["layout=pattern", "scale=tiny", "layout.pattern=RRRRA"], "has 5 letters; accepted: 1 to 4"),
    ],
)
def test_layouts_that_do_not_fit(overrides: list[str], said: str) -> None:
    with pytest.raises(SpecError) as error:
        load_spec(overrides)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("scale", choices("scale"))
def test_every_scale_loads_as_it_is(scale: str) -> None:
    spec = load_spec([f"scale={scale}"])
    assert spec.scale.name == scale
    assert len(spec.layers) == spec.scale.layers


def test_specs_are_frozen_and_hashable() -> None:
    spec = load_spec(["scale=tiny"])
    assert hash(spec) == hash(load_spec(["scale=tiny"]))
    assert spec == load_spec(["scale=tiny"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.seed = 1  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.scale.layers = 1  # type: ignore[misc]


def test_an_integer_serves_as_a_float() -> None:
    assert load_spec(["protocol.clip=2"]).protocol.clip == 2.0


def test_settings_stand_beside_the_run() -> None:
    _, settings = load_run(["study=mine", "workers=3", "limit.minutes=1"])
    assert (settings.study, settings.workers, settings.limit.minutes) == ("mine", 3, 1)


def test_published_turns_its_defects_on_in_hybrids_too() -> None:
    spec = load_spec(["protocol=published", "layout=type_c", "layout.attention=4"])
    assert spec.leaky
    assert spec.layers[0].attention.mask == "leaky"  # type: ignore[attr-defined]
    assert spec.layers[0].mixer.start == "inverse_hidden"  # type: ignore[attr-defined]
    assert not load_spec(["protocol=published", "layout.attention=0"]).leaky
    assert not load_spec(["layout=type_c"]).leaky
