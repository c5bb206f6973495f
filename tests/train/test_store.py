"""checkpoint.dir: what one machine put there, another goes on with; what is broken there is passed over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from retsweep.spec import SpecError
from retsweep.train import bounded, checkpoint, store
from retsweep.train.store import Store
from tests.train.loops import run, run_to, valid_loss, without_clock
from tests.train.tiny import protocol, same_weights

TRIAL = "0123456789abcdef"
RUN = {"protocol": protocol(every=5, checkpoint_every=5), "validate": valid_loss}


@pytest.fixture(params=["file", "memory"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    place = store.place(f"{request.param}://{tmp_path}/shared", "study")
    made = store.of_trial(place, TRIAL)
    assert isinstance(made, Store)
    return made


def on(tmp_path: Path, machine: str) -> Path:
    """The trial's folder there."""
    folder = tmp_path / machine / TRIAL
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def names(shared: Store) -> list[str]:
    system, folder = shared._open()
    return sorted(Path(path).name for path in system.ls(folder, detail=False))


def test_a_run_that_was_stopped_on_one_machine_goes_on_on_another(tmp_path: Path, shared: Store) -> None:
    whole, model = run(tmp_path / "whole", **RUN)
    run_to(17, on(tmp_path, "one"), **RUN, saved=shared.put)
    assert [name for name in names(shared) if name.startswith("last")] == [
        "last-00000015.pt",
        "last-00000017.pt",
    ]
    other = on(tmp_path, "other")
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
    run_to(17, on(tmp_path, "one"), **RUN, saved=shared.put)
    system, folder = shared._open()
    content = system.cat_file(f"{folder}/last-00000017.pt")
    system.pipe_file(f"{folder}/last-00000017.pt", content[: len(content) // 2])
    other = on(tmp_path, "other")
    with pytest.warns(UserWarning, match=r"last-00000017.pt is broken; an earlier one is tried"):
        shared.fetch(other)
    assert checkpoint.load(other / "last.pt")["step"] == 15
    assert {path.name for path in other.iterdir()} == {"last.pt", "best.pt", "metrics.jsonl"}


def test_what_is_further_on_here_stays(tmp_path: Path, shared: Store) -> None:
    run_to(10, on(tmp_path, "one"), **RUN, saved=shared.put)
    run_to(12, on(tmp_path, "one"), **RUN)
    shared.fetch(on(tmp_path, "one"))
    assert checkpoint.load(on(tmp_path, "one") / "last.pt")["step"] == 12


def damage(shared: Store, name: str, how: Callable[[bytes], bytes]) -> None:
    system, folder = shared._open()
    system.pipe_file(f"{folder}/{name}", how(system.cat_file(f"{folder}/{name}")))


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    data = bytearray(content)
    for place in range(0, len(data), 97):
        data[place] ^= 4
    return bytes(data)


@pytest.mark.parametrize("how", [cut, flip])
def test_best_weights_that_are_broken_there_fall_back_on_a_pair_that_is_whole(
    tmp_path: Path, shared: Store, how: Callable[[bytes], bytes]
) -> None:
    run_to(15, on(tmp_path, "one"), **RUN, saved=shared.put)
    damage(shared, "best-00000015.pt", how)
    other = on(tmp_path, "other")
    with pytest.warns(UserWarning, match=r"best-00000015\.pt is broken, .* before step 15 is tried"):
        shared.fetch(other)
    assert checkpoint.load(other / "last.pt")["step"] == 10
    assert checkpoint.load(other / "best.pt")["step"] == 10
    assert {path.name for path in other.iterdir()} == {"last.pt", "best.pt", "metrics.jsonl"}


def test_best_weights_that_are_broken_twice_cost_no_steps_unless_there_are_others_here(
    tmp_path: Path, shared: Store
) -> None:
    run_to(12, on(tmp_path, "one"), **RUN)
    run_to(15, on(tmp_path, "two"), **RUN, saved=shared.put)
    for name in ("best-00000010.pt", "best-00000015.pt"):
        damage(shared, name, cut)
    one, three = on(tmp_path, "one"), on(tmp_path, "three")
    with pytest.warns(UserWarning, match="is broken"):
        shared.fetch(one)
    assert checkpoint.load(one / "last.pt")["step"] == 12, "which has its own"
    with pytest.warns(UserWarning, match="is broken"):
        shared.fetch(three)
    with pytest.warns(UserWarning, match="goes on from step 15, without the weights of its best step"):
        run(three, **RUN)


def test_what_is_another_runs_there_is_named_and_left(tmp_path: Path, shared: Store) -> None:
    run_to(12, on(tmp_path, "one"), **RUN, saved=shared.put)
    strange = tmp_path / "feedfeedfeedfeed"
    run_to(20, strange, **RUN)
    system, folder = shared._open()
    system.put_file(str(strange / "last.pt"), f"{folder}/last-00000020.pt")
    for machine, step in (("one", 12), ("other", 12)):
        with pytest.warns(UserWarning, match="last-00000020.pt is of another run, 'feedfeedfeedfeed'"):
            shared.fetch(on(tmp_path, machine))
        assert checkpoint.load(on(tmp_path, machine) / "last.pt")["step"] == step


def test_what_turns_out_to_be_another_runs_leaves_what_was_here(tmp_path: Path, shared: Store) -> None:
    """One of before checkpoints said whose they are."""
    run_to(12, on(tmp_path, "one"), **RUN, saved=shared.put)
    content = checkpoint.load(on(tmp_path, "one") / "last.pt")
    del content["of"]
    state = {**content["state"], "step": 20}
    checkpoint.save(tmp_path / "strange.pt", {**content, "run": {"steps": 40, "seed": 4}, "state": state})
    system, folder = shared._open()
    system.put_file(str(tmp_path / "strange.pt"), f"{folder}/last-00000020.pt")
    with pytest.warns(UserWarning, match="its curve lacks the lines"):
        shared.fetch(on(tmp_path, "one"))
    with pytest.warns(UserWarning, match="goes on from step 12: .* of a run with other steps or seed"):
        run(on(tmp_path, "one"), **RUN)


@dataclass
class Hanging:
    """A place that does not answer its ``call`` th call until it is let go."""

    shared: Store
    call: int
    calls: int = 0
    gone: threading.Event = field(default_factory=threading.Event)

    def __call__(self) -> Any:
        self.calls += 1
        if self.calls >= self.call:
            self.gone.wait()
        return Store._open(self.shared)

    def let_go(self) -> None:
        self.gone.set()
        bounded._behind[self.shared._place].join()


@pytest.mark.parametrize("call", [1, 2], ids=["copying", "moving"])
def test_a_place_that_hangs_costs_a_warning_and_gets_nothing_late(
    call: int, tmp_path: Path, shared: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "SECONDS", 0.3)
    hanging = Hanging(shared, call)
    shared._open = hanging  # type: ignore[method-assign]
    with pytest.warns(UserWarning, match="stays on this machine") as told:
        run_to(5, on(tmp_path, "one"), **RUN, saved=shared.put)
    assert checkpoint.load(on(tmp_path, "one") / "last.pt")["step"] == 5
    said = [str(one.message) for one in told]
    assert said[0].endswith("metrics.jsonl stays on this machine: no answer in 0.3 s")
    assert said[-1].endswith("last.pt stays on this machine: an earlier call has not been answered")
    hanging.let_go()
    assert names(shared) == [], "the claim may be another's by then"


def test_a_place_that_hangs_does_not_hold_back_a_run_that_begins(
    tmp_path: Path, shared: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_to(15, on(tmp_path, "one"), **RUN, saved=shared.put)
    run_to(5, on(tmp_path, "two"), **RUN)
    monkeypatch.setattr(bounded, "SECONDS", 0.3)
    hanging = Hanging(shared, 2)
    shared._open = hanging  # type: ignore[method-assign]
    with pytest.warns(UserWarning, match="nothing is here, and training starts anew: no answer in 0.3 s"):
        shared.fetch(on(tmp_path, "three"))
    with pytest.warns(UserWarning, match="training goes on from what is here: an earlier call"):
        shared.fetch(on(tmp_path, "two"))
    hanging.let_go()
    assert list(on(tmp_path, "three").glob("*.pt")) == []
    assert checkpoint.load(on(tmp_path, "two") / "last.pt")["step"] == 5


def test_what_a_place_says_of_its_password_is_not_repeated(tmp_path: Path) -> None:
    shared = Store("nosuch://someone:canary@host/study/hash?token=canary-too")
    with pytest.warns(UserWarning, match=r"nosuch://\.\.\.@host/study/hash\?token=\.\.\.") as told:
        shared.fetch(tmp_path)
    assert "canary" not in str(told[0].message)


class Lost(Exception):
    pass


def test_who_lost_the_claim_puts_nothing_there(tmp_path: Path, shared: Store) -> None:
    run_to(5, on(tmp_path, "one"), **RUN, saved=shared.put)
    before = names(shared)

    def permit() -> None:
        raise Lost

    with pytest.raises(Lost):
        shared.put(on(tmp_path, "one") / "last.pt", 6, permit)
    assert names(shared) == before


def test_a_place_that_is_gone_costs_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    shared = Store(f"file://{tmp_path}/file/study/hash")
    with pytest.warns(UserWarning, match="last.pt stays on this machine"):
        run_to(5, on(tmp_path, "one"), **RUN, saved=shared.put)
    assert checkpoint.load(on(tmp_path, "one") / "last.pt")["step"] == 5


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


def test_a_place_that_hangs_is_refused_when_a_command_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = threading.Event()
    monkeypatch.setattr(store, "_probe", lambda system, path: gone.wait())
    monkeypatch.setattr(store, "CHECK_SECONDS", 0.1)
    with pytest.raises(SpecError, match=r"cannot be written: no answer in 0\.1 s; accepted: "):
        store.check(str(tmp_path))
    gone.set()


def test_the_place_is_the_same_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert store.place("ckpt", "s") == f"file://{tmp_path}/ckpt/s"
    assert store.place(None, "s") is None
