"""One study on several machines, while everything around it breaks; and the clean command at the end."""

from __future__ import annotations

import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from benchmarks.chaos.faults import Fault
from benchmarks.chaos.machines import Machine, marked, send, sweep_up
from benchmarks.chaos.server import Server
from benchmarks.chaos.watch import Watch
from retsweep.search.proposals import Proposal, Proposals
from retsweep.search.settings import Search
from retsweep.spec.settings import Heartbeat
from retsweep.sweep.patience import Patience, StorageLost
from retsweep.sweep.storage import storage_url
from retsweep.sweep.study import Entry, Study

Target = TypeVar("Target")

TICK_SECONDS, LOOK_SECONDS = 0.05, 0.3
#: Until a parent that ended by itself (a full disk, a server that was away) is started again, and until a
#: fault that found nothing to hit is tried again.
RETURN_SECONDS, AGAIN_SECONDS = 1.0, 0.2
#: So many faults may still be felt when the next one comes.
OVERLAPPING = 2
#: When nothing has moved for so long, something hangs.
HANGS_SECONDS = 180.0


class Hangs(Exception):
    """A study does not end as it should. The text is one line that says how it stands."""


@dataclass(frozen=True)
class Place:
    """Where a storm happens: ``command`` is what every machine runs, ``runs`` the hashes that it asks for,
    ``disks`` whether runs folders are small file systems, ``mark`` that of the processes, ``search`` whether
    it is one, of which runs may end paused."""

    server: Server
    folder: Path
    command: Sequence[str]
    runs: Sequence[str]
    machines: int
    disks: bool
    mark: str
    search: bool = False


class Storm:
    """``faults`` are taken from the left as long as the study is under way; ``tell`` hears how it stands."""

    def __init__(
        self,
        place: Place,
        study: str,
        faults: deque[Fault],
        watch: Watch,
        tell: Callable[[Mapping[str, Entry]], None],
    ) -> None:
        self.place, self.study, self.watch = place, study, watch
        self.machines: list[Machine] = []
        self.codes: Counter[int] = Counter()
        """How parents ended: exit codes, negative for signals."""
        self._faults, self._tell = faults, tell
        self._moved = time.monotonic()
        self._due = self._moved + self._gap()
        self._later: list[tuple[float, Callable[[], object]]] = []
        self._absent: set[Machine] = set()
        self._ended_by: dict[Machine, Fault] = {}
        self._away = False
        self._ledger: Study | None = None
        self._standing: dict[str, Entry] = {}

    # ---- the course of it --------------------------------------------------------------------
    def run(self) -> list[Entry]:
        """Until every run has its row and every process has left, and a last command has tidied up: the
        study's trials. Raises Hangs. Nothing of it runs afterwards."""
        try:
            for _ in range(self.place.machines):
                self._join()
            looked = 0.0
            while not self._over():
                now = time.monotonic()
                self._do_what_is_due(now)
                if now - looked > LOOK_SECONDS:
                    self._look(now)
                    looked = now
                self._notice_ends(now)
                if self._faults and now >= self._due and self._under_way():
                    self._try(self._faults[0], now)
                if now - self._moved > HANGS_SECONDS:
                    raise Hangs(f"{self.study}: nothing has moved for {HANGS_SECONDS:.0f} s: {self._said()}")
                time.sleep(TICK_SECONDS)
            return self._tidy()
        finally:
            for machine in self.machines:
                machine.end()
            sweep_up(self.place.mark)

    def close(self) -> None:
        """Lets go of the machines' disks, and of what is on them."""
        for machine in self.machines:
            machine.unmount()

    def _over(self) -> bool:
        gone = all(machine.parent is None for machine in self.machines)
        return self._complete() and gone and not self._later and not self.watch.open

    def _complete(self) -> bool:
        standing, ends = self._standing, ("complete", *["paused"] * self.place.search)
        return all(key in standing and standing[key].state in ends for key in self.place.runs)

    def _under_way(self) -> bool:
        """Faults hit a study of which something runs (whatever starts or waits beside it is hit too), and
        few at a time: else a slow machine does nothing but start."""
        runs = any(entry.state == "running" and entry.steps[0] for entry in self._standing.values())
        return runs and self.watch.felt <= OVERLAPPING

    def _do_what_is_due(self, now: float) -> None:
        due = [action for at, action in self._later if at <= now]
        self._later = [(at, action) for at, action in self._later if at > now]
        for action in due:
            action()

    def _look(self, now: float) -> None:
        """At the ledger; an empty one, or a server that is away, says nothing."""
        try:
            if self._ledger is None:
                self._ledger = self._open()
            standing = self._ledger.standing(self.place.runs)
        except (StorageLost, KeyError):
            return
        if standing != self._standing:
            self._moved = now
        self._standing = standing
        self.watch.see(standing, now)
        self._tell(standing)

    def _open(self) -> Study:
        url = storage_url(self.place.server.url, self.place.folder)
        at_once = Patience(url, Heartbeat(patience=0), say=lambda _: None)
        return Study(url, self.study, patience=at_once)

    def _tidy(self) -> list[Entry]:
        """The same command once more, undisturbed, where the last machine was."""
        machine = self.machines[-1]
        machine.start(self._command())
        deadline = time.monotonic() + HANGS_SECONDS
        while machine.parent is not None and time.monotonic() < deadline:
            time.sleep(TICK_SECONDS)
        if machine.ended != 0:
            raise Hangs(f"{self.study}: the last command ended with {machine.ended}: {machine.said()}")
        left = marked(self.place.mark)
        if left:
            raise Hangs(f"{self.study}: processes {left} are left")
        return self._open().entries()

    def proposals(self) -> list[Proposal]:
        """Those of a search, oldest first."""
        objectives = Search(trials=1).objectives
        return Proposals(self._open().storage, self.study, objectives).all()

    def _said(self) -> str:
        stand = Counter(entry.state for entry in self._standing.values())
        alive = [machine.name for machine in self.machines if machine.parent is not None]
        last = self.machines[-1].said()
        return f"{dict(stand)} of {len(self.place.runs)} runs, parents on {alive}; the last one said: {last}"

    # ---- machines ----------------------------------------------------------------------------
    def _join(self) -> None:
        name = f"{self.study}-m{len(self.machines)}"
        place = self.place
        machine = Machine(name, place.folder / name, place.mark, disk=place.disks, storage=place.server.url)
        self.machines.append(machine)
        machine.start(self._command())

    def _command(self) -> list[str]:
        return [*self.place.command, f"study={self.study}"]

    def _notice_ends(self, now: float) -> None:
        """Parents that have ended come back, as their users would have them, while there is work."""
        for machine in self.machines:
            if machine in self._absent or machine.ended is None:
                continue
            self.codes[machine.ended] += 1
            self._absent.add(machine)
            fault = self._ended_by.pop(machine, None)
            seconds = fault.seconds if fault else RETURN_SECONDS
            self._later.append((now + seconds, partial(self._return, machine, bool(fault and fault.fresh))))

    def _return(self, machine: Machine, fresh: bool) -> None:
        if self._complete():
            return
        if fresh:
            self._join()
            return
        self._absent.remove(machine)
        machine.start(self._command())

    # ---- faults ------------------------------------------------------------------------------
    def _try(self, fault: Fault, now: float) -> None:
        """Injects a fault, or tries again soon if it finds nothing to hit."""
        if not self._inject(fault, now):
            self._due = now + AGAIN_SECONDS
            return
        self._moved = now
        self._faults.popleft()  # not before: what one study has no time for is the next one's
        self._due = now + self._gap()

    def _gap(self) -> float:
        return self._faults[0].gap if self._faults else 0.0

    def _inject(self, fault: Fault, now: float) -> bool:
        match fault.kind:
            case "restart-server" | "crash-server" | "cut-sessions":
                return self._hit_server(fault, now)
            case "full-disk":
                return self._hit_disk(fault, now)
            case "kill-parent" | "term-parent" | "stop-parent":
                return self._hit_parent(fault, now)
            case "kill-worker" | "term-worker" | "stop-worker":
                found = [pid for machine in self._present() for pid in machine.workers()]
                return bool(found) and self._signal(fault, _pick(found, fault), [_pick(found, fault)], now)

    def _present(self) -> list[Machine]:
        return [machine for machine in self.machines if machine.parent is not None]

    def _hit_parent(self, fault: Fault, now: float) -> bool:
        present = self._present()
        if not present:
            return False
        machine = _pick(present, fault)
        if fault.kind != "stop-parent":
            self._ended_by[machine] = fault
        held = machine.workers() if fault.kind != "stop-parent" else []
        return machine.parent is not None and self._signal(fault, machine.parent, held, now)

    def _signal(self, fault: Fault, pid: int, holders: Collection[int], now: float) -> bool:
        """``holders`` are the workers whose runs it hits."""
        runs = self._held_by(holders)
        number = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "stop": signal.SIGSTOP}[fault.kind[:4]]
        if not send(number, pid):
            return False
        if number == signal.SIGSTOP:
            self._later.append((now + fault.seconds, partial(send, signal.SIGCONT, pid)))
        self.watch.hit(fault.kind, now, runs)
        return True

    def _hit_server(self, fault: Fault, now: float) -> bool:
        if self._away:
            return False
        runs = self._held_by(None)
        if fault.kind == "cut-sessions":
            self.place.server.cut()
            self.watch.hit(fault.kind, now, runs)
            return True
        self.place.server.stop("fast" if fault.kind == "restart-server" else "immediate")
        self._away = True
        self._later.append((now + fault.seconds, self._bring_server_back))
        self.watch.hit(fault.kind, now, runs, lambda: not self._away)
        return True

    def _bring_server_back(self) -> None:
        self.place.server.start()
        self._away = False

    def _hit_disk(self, fault: Fault, now: float) -> bool:
        present = [machine for machine in self._present() if machine.disk and not machine.full]
        if not present:
            return False
        machine = _pick(present, fault)
        runs = self._held_by(machine.workers())
        machine.fill()
        self._later.append((now + fault.seconds, machine.free))
        self.watch.hit(fault.kind, now, runs, lambda: not machine.full)
        return True

    def _held_by(self, workers: Collection[int] | None) -> list[str]:
        """The runs that these processes (None: all) have in hand, as far as the last look tells."""
        return [
            key
            for key, entry in self._standing.items()
            if entry.state == "running"
            and entry.worker is not None
            and (workers is None or entry.worker["pid"] in workers)
        ]


def _pick(candidates: Sequence[Target], fault: Fault) -> Target:
    return candidates[int(fault.pick * len(candidates))]
