import json

import pytest

import retsweep.preflight.once as module
from retsweep.preflight import PreflightError
from retsweep.preflight.once import code_identity, key, once
from tests.costs.specs import loaded
from tests.preflight.test_checks import network


@pytest.fixture
def checks(monkeypatch):
    """How often a spec was really checked."""
    made = []

    def counted(spec):
        made.append(spec)
        return {"preflight": "ok", "preflight_seconds": 0.1 * len(made)}

    monkeypatch.setattr(module, "preflight", counted)
    return made


def test_a_variant_is_checked_once_and_another_for_itself(tmp_path, checks):
    spec, folder = loaded("scale=tiny", "tokenizer=bytes"), tmp_path / "study" / "preflight"
    first = once(spec, folder, "one")
    assert once(spec.with_seed(1), folder, "one") == first
    assert len(checks) == 1
    once(spec, folder, "two")
    assert len(checks) == 2
    assert sorted(path.name for path in folder.iterdir()) == ["one.json", "two.json"]
    assert dict(json.loads((folder / "one.json").read_text())["columns"]) == first


@pytest.mark.parametrize("text", ["", "{", "[]", '{"preflight": "no"}', "\x00"])
def test_a_damaged_file_is_told_checked_again_and_mended(tmp_path, checks, text, caplog):
    (tmp_path / "key.json").write_text(text)
    columns = once(loaded("scale=tiny", "tokenizer=bytes"), tmp_path, "key")
    assert len(checks) == 1
    assert f"{tmp_path / 'key.json'} is damaged" in caplog.text
    assert once(loaded("scale=tiny", "tokenizer=bytes"), tmp_path, "key") == columns
    assert len(checks) == 1


def test_a_changed_number_and_another_variants_file_are_not_believed(tmp_path, checks):
    spec = loaded("scale=tiny", "tokenizer=bytes")
    columns = once(spec, tmp_path, "one")
    assert list(columns) == list(once(spec, tmp_path, "one")), "in the same order"
    text = (tmp_path / "one.json").read_text()
    (tmp_path / "two.json").write_text(text)
    once(spec, tmp_path, "two")
    (tmp_path / "one.json").write_text(text.replace("0.1", "0.2"))
    once(spec, tmp_path, "one")
    assert len(checks) == 3


def test_a_failure_is_kept_nowhere(tmp_path):
    for _ in range(2):
        with pytest.raises(PreflightError):
            once(network("census of parameters"), tmp_path, "key")
    assert list(tmp_path.iterdir()) == []


def test_the_key_is_that_of_what_is_checked():
    tiny = ("scale=tiny", "tokenizer=bytes")
    spec = loaded(*tiny)
    assert key(spec).endswith(f"-{code_identity()}")
    same = ("protocol.learning_rate=0.5", "protocol.steps=7", "protocol.batch=3", "seed=4")
    assert key(loaded(*tiny, *same)) == key(spec)
    for other in ("layout.attention=1", "model.start=torch", "protocol.weight_decay=0.5", "scale.ffn=64"):
        assert key(loaded(*tiny, other)) != key(spec), other


def test_the_code_has_a_name_that_its_sources_decide(tmp_path, monkeypatch):
    assert len(code_identity()) == 12
    assert code_identity() == code_identity.__wrapped__()
    (tmp_path / "a.py").write_text("1")
    monkeypatch.setattr(module.retsweep, "__file__", str(tmp_path / "a.py"))
    before = code_identity.__wrapped__()
    (tmp_path / "a.py").write_text("2")
    assert code_identity.__wrapped__() != before
