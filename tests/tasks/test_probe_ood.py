"""The probe ``ood``, from a folder of text to a row's columns."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from retsweep.data.prepare import prepare
from retsweep.model import build
from retsweep.spec import RunSpec, SpecError, load_spec
from retsweep.spec.identity import spec_hash
from retsweep.sweep.plan import identify
from retsweep.sweep.variants import wanted
from retsweep.tasks import probes
from retsweep.tasks.base import InterruptedRun, Workspace
from retsweep.train import checkpoint
from tests.tasks.test_train import losses_by_hand, mean_perplexity

FILES = {
    "songs/one.txt": "A retention head forgets.\n" * 9,
    "songs/two.txt": "Hey! " * 50,
    "top.txt": "zq " * 30,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        file = tmp_path / "ood" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "ood"


@pytest.fixture
def overrides(corpus, folder) -> list[str]:
    text = ["corpus=text", f"corpus.path={corpus}", "tokenizer=bytes", f"evaluate.ood.path={folder}"]
    return ["scale=tiny", "protocol.steps=4", "evaluate.probes=[ood]", *text]


@pytest.fixture
def run(cache, tmp_path):
    def execute(spec: RunSpec, **workspace) -> dict:
        return spec.task(spec, Workspace(tmp_path, "cpu", cache, **workspace))

    return execute


def ood(row: dict) -> dict:
    return {column: value for column, value in row.items() if column.startswith("ood_")}


def test_files_and_domains_are_read_by_the_trained_weights(run, overrides, tmp_path) -> None:
    spec = load_spec(overrides)
    row = run(spec)
    model = build(spec).eval()
    checkpoint.load_weights(model, tmp_path / "last.pt")
    encoder = prepare(spec.corpus, spec.tokenizer, spec.scale.vocabulary, tmp_path / "other").encoder()
    losses = {Path(name).stem: losses_by_hand(model, encoder.encode(text)) for name, text in FILES.items()}
    losses["domain_songs"] = losses["one"] + losses["two"]
    expected = {"ood_hash": row["ood_hash"]}
    for name, found in losses.items():  # a token is a byte
        expected[f"ood_ppl_{name}"] = pytest.approx(mean_perplexity(found), rel=1e-5)
        expected[f"ood_bits_per_byte_{name}"] = pytest.approx(
            math.fsum(found) / len(found) / math.log(2), rel=1e-5
        )
    assert len(losses["domain_songs"]) == sum(len(FILES[f"songs/{name}.txt"]) - 1 for name in ("one", "two"))
    assert ood(row) == expected
    assert row["ood_ppl_one"] < row["ood_ppl_two"]  # words of the corpus


def test_the_first_tokens_alone(run, overrides, folder) -> None:
    row = ood(run(load_spec([*overrides, "evaluate.ood.tokens=40"])))
    assert row["ood_tokens"] == 40
    for name, text in FILES.items():
        (folder / name).write_text(text[:40])
    whole = ood(run(load_spec(overrides)))
    assert {**whole, "ood_tokens": 40, "ood_hash": row["ood_hash"]} == row
    assert whole["ood_hash"] != row["ood_hash"]


def test_no_probe_no_column(run, overrides) -> None:
    assert not ood(run(load_spec([*overrides, "evaluate.probes=[]"])))


def test_a_diverged_run_has_no_column(run, overrides) -> None:
    row = run(load_spec([*overrides, "protocol.learning_rate=1e38", "protocol.warmup=0.0"]))
    assert row["status"].startswith("diverged@")
    assert not ood(row)


def test_the_text_is_part_of_what_a_run_is(overrides, cache, folder, run) -> None:
    def planned() -> tuple[str, RunSpec]:
        ((key, one),) = identify(wanted(overrides).runs, cache).items()
        assert key == spec_hash(one.spec, one.data_hash)
        return key, one.spec

    key, spec = planned()
    assert planned() == (key, spec)
    assert run(spec)["ood_hash"] == spec.evaluate.ood.text
    (folder / "top.txt").write_text("other words")
    assert planned()[0] != key
    with pytest.raises(SpecError, match=r"^the text of evaluate\.ood has changed since the sweep was plan"):
        run(spec)


def test_text_that_cannot_be_read_is_told_when_the_sweep_is_planned(overrides, cache, folder) -> None:
    with pytest.raises(SpecError, match="is not a folder"):
        identify(wanted([*overrides, f"evaluate.ood.path={folder}/no"]).runs, cache)
    assert identify(wanted([*overrides, f"evaluate.ood.path={folder}/no", "evaluate.probes=[]"]).runs, cache)


def test_it_stops_between_files_and_goes_on(run, overrides) -> None:
    spec = load_spec(overrides)
    before = ood(run(spec))
    with pytest.raises(InterruptedRun, match=r"stopped before .*one\.txt of the probe ood"):
        run(spec, stop=lambda: True)  # its training is over, so nothing else asks
    assert ood(run(spec)) == before


def test_the_bundled_default(run, overrides) -> None:
    row = ood(run(load_spec([*overrides, "evaluate.ood.path=null", "evaluate.ood.tokens=500"])))
    assert row["ood_ppl_licences"] == row["ood_ppl_domain_licences"] > 1
    assert row["ood_bits_per_byte_readmes"] == row["ood_bits_per_byte_domain_readmes"] > 0


def test_pinning_keeps_the_options() -> None:
    asked = load_spec(["evaluate.probes=[ood]", "evaluate.ood.tokens=7"]).evaluate
    found = probes.pinned(asked)
    assert found.ood.text
    assert dataclasses.replace(found, ood=dataclasses.replace(found.ood, text=None)) == asked
