"""checkpoint.dir: what one machine put there, another goes on with; what is broken there is passed over."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from retsweep.spec import SpecError
from retsweep.train import checkpoint, store
from retsweep.train.store import Store
from tests.train.loops import run, run_to, valid_loss, without_clock
from tests.train.tiny import protocol, same_weights

RUN = {"protocol": protocol(every=5, checkpoint_every=5), "validate": valid_loss}


@pytest.fixture(params=["file", "memory"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    place = store.place(f"{request.param}://{tmp_path}/shared", "study")
    made = store.of_trial(place, secrets.token_hex(8))
    assert isinstance(made, Store)
    return made


def names(shared: Store) -> list[str]:
    system, folder = shared._open()
    return sorted(Path(path).name for path in system.ls(folder, detail=False))


def test_a_run_that_was_stopped_on_one_machine_goes_on_on_another(tmp_path: Path, shared: Store) -> None:
    whole, model = run(tmp_path / "whole", **RUN)
    run_to(17, tmp_path / "one", **RUN, saved=shared.put)
    assert [name for name in names(shared) if name.startswith("last")] == [
        "last-00000015.pt",
        "last-00000017.pt",
    ]
    other = tmp_path / "other"
    other.mkdir()
    shared.fetch(other)
    assert checkpoint.load(other / "last.pt")["step"] == 17
    resumed, same = run(other, **RUN, saved=shared.put)
    assert same_weights(same, model)
    assert without_clock(other) == without_clock(tmp_path / "whole")
    assert checkpoint.load(other / "best.pt")["step"] == whole.best_step == resumed.best_step
    assert len(names(shared)) <= 6, "of each kind the two newest"
    shared.clear()
    assert not shared._open()[0].exists(shared._open()[1])


def test_what_is_broken_there_falls_back_on_the_one_before(tmp_path: Path, shared: Store) -> None:
    run_to(17, tmp_path / "one", **RUN, saved=shared.put)
    system, folder = shared._open()
    content = system.cat_file(f"{folder}/last-00000017.pt")
    system.pipe_file(f"{folder}/last-00000017.pt", content[: len(content) // 2])
    other = tmp_path / "other"
    other.mkdir()
    with pytest.warns(UserWarning, match=r"last-00000017.pt is broken; an earlier one is tried"):
        shared.fetch(other)
    assert checkpoint.load(other / "last.pt")["step"] == 15
    assert {path.name for path in other.iterdir()} == {"last.pt", "best.pt", "metrics.jsonl"}


def test_what_is_further_on_here_stays(tmp_path: Path, shared: Store) -> None:
    run_to(10, tmp_path / "one", **RUN, saved=shared.put)
    run_to(12, tmp_path / "one", **RUN)
    shared.fetch(tmp_path / "one")
    assert checkpoint.load(tmp_path / "one" / "last.pt")["step"] == 12


class Lost(Exception):
    pass


def test_who_lost_the_claim_puts_nothing_there(tmp_path: Path, shared: Store) -> None:
    run_to(5, tmp_path / "one", **RUN, saved=shared.put)
    before = names(shared)

    def permit() -> None:
        raise Lost

    with pytest.raises(Lost):
        shared.put(tmp_path / "one" / "last.pt", 6, permit)
    assert names(shared) == before


def test_a_place_that_is_gone_costs_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    shared = Store(f"file://{tmp_path}/file/study/hash")
    with pytest.warns(UserWarning, match="last.pt stays on this machine"):
        run_to(5, tmp_path / "one", **RUN, saved=shared.put)
    assert checkpoint.load(tmp_path / "one" / "last.pt")["step"] == 5


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("memory://x", "is seen by one process alone"),
        ("nosuch://x/y", "is no place: Protocol not known: nosuch"),
        ("{folder}/file/below", "cannot be written"),
    ],
)
def test_a_place_that_cannot_serve_is_refused(tmp_path: Path, place: str, said: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpecError, match=said) as caught:
        store.check(place.format(folder=tmp_path))
    assert "\n" not in str(caught.value)
    store.check(None)
    store.check(str(tmp_path / "new" / "one"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_place_is_the_same_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert store.place("ckpt", "s") == f"file://{tmp_path}/ckpt/s"
    assert store.place(None, "s") is None
