"""``python -m benchmarks.chaos [--faults=N ...]``: a study on PostgreSQL, shared by several machines, under
faults at random moments.

Tiny models train for real. The machines are parents with host names and runs folders of their own; the
faults (``--kinds``) hit workers, parents, the server and the disks, at moments drawn from ``--seed``. One
study follows the other until all faults are injected; after each, the ledger, the files and the numbers
are held against the same runs undisturbed. With ``--search`` a study is a search of 16 architectures with
halving, and its proposals are judged too. Linux; needs PostgreSQL (Debian: postgresql), and root for
full disks. The last line reads ``faults=N lost=N doubled=N``.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.chaos.faults import KINDS, Fault, Kind, plan
from benchmarks.chaos.machines import MARK, Machine, own_mounts, own_names
from benchmarks.chaos.server import NoServer, Server, server
from benchmarks.chaos.storm import Hangs, Place, Storm
from benchmarks.chaos.verdict import Verdict, judge, judge_proposals
from benchmarks.chaos.watch import Watch, quantile
from retsweep.sweep.progress import clock
from retsweep.sweep.study import Entry

EXIT_GOOD, EXIT_DAMAGE, EXIT_CANNOT = 0, 1, 2
TELL_SECONDS = 20.0
EVERY, PATIENCE = 1, 60
WORDS, LETTERS = 400, "abcdefghijklmnopqrstuvwxyz"
#: A search is over every network of these letters and so many layers.
LETTERS_SEARCHED, LAYERS_SEARCHED = "AR", 4
SPLITS = {"train": 6000, "valid": 600, "test": 600}


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 only if all faults were injected and nothing was lost, doubled or different."""
    options = _options(arguments)
    if own_mounts() and MARK not in os.environ:  # disks that are mounted go with this process
        command = [*own_mounts(), sys.executable, "-m", "benchmarks.chaos", *arguments]
        os.execvpe(command[0], command, {**os.environ, MARK: "mounts"})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_DAMAGE))  # with all that is cleaned up then
    try:
        with server() as found, tempfile.TemporaryDirectory(prefix="chaos") as folder:
            return _Chaos(options, found, Path(folder)).run()
    except (NoServer, Hangs) as error:
        print(f"benchmarks.chaos: {error}", file=sys.stderr)
        return EXIT_CANNOT if isinstance(error, NoServer) else EXIT_DAMAGE


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=200, help="how many are injected (200)")
    parser.add_argument("--seed", type=int, default=0, help="of their moments, order and targets (0)")
    parser.add_argument("--machines", type=int, default=2, help="parents at a time (2)")
    parser.add_argument("--workers", type=int, default=2, help="of each parent (2)")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of faults: {','.join(KINDS)}")
    parser.add_argument("--pace", type=float, default=4.0, help="seconds between two faults, on average (4)")
    parser.add_argument("--grace", type=int, default=4, help="heartbeat.grace of the sweeps, seconds (4)")
    parser.add_argument("--runs", type=int, default=20, help="of each study (20)")
    parser.add_argument("--steps", type=int, default=300, help="of each run (300)")
    parser.add_argument("--search", action="store_true", help="each study is a search: 16 runs, some paused")
    options = parser.parse_args(arguments)
    if options.search:
        options.runs = len(LETTERS_SEARCHED) ** LAYERS_SEARCHED
    options.kinds = options.kinds.split(",")
    unknown = sorted(set(options.kinds) - set(KINDS))
    if unknown:
        parser.error(f"--kinds={','.join(unknown)} is not accepted; accepted: {', '.join(KINDS)}")
    return options


class _Chaos:
    """All studies of one call, and what is told of them."""

    def __init__(self, options: argparse.Namespace, found: Server, folder: Path) -> None:
        self.options, self.server, self.folder = options, found, folder
        self.mark = secrets.token_hex(8)
        self.watch = Watch()
        self.verdict = Verdict()
        self.codes: Counter[int] = Counter()
        self.tracebacks = 0
        self.began = self.told = time.monotonic()
        self.studies = 0
        self.study = ""

    def run(self) -> int:
        kinds = self._possible_kinds()
        asked = plan(self.options.faults, kinds, self.options.seed, self.options.pace, self.options.grace)
        _write_corpus(self.folder / "text", self.options.seed)
        unbroken = self._undisturbed()
        self.began = time.monotonic()
        faults = deque(asked)
        while self.injected < len(asked):
            self._storm(faults, unbroken)
        return self._figures(len(asked))

    @property
    def injected(self) -> int:
        return len(self.watch.hits)

    def _possible_kinds(self) -> list[Kind]:
        if not own_names():
            print("machines share one host name: unshare --uts is not permitted here", flush=True)
        if "full-disk" in self.options.kinds and not own_mounts():
            print("no full disks: mounting takes root, which this is not", flush=True)
            return [kind for kind in self.options.kinds if kind != "full-disk"]
        return list(self.options.kinds)

    @property
    def command(self) -> list[str]:
        options = self.options
        return [
            *(self._searched if options.search else self._listed),
            *("scale=tiny", "tokenizer=bytes", "corpus=text"),
            *(f"corpus.path={self.folder / 'text'}", f"cache={self.folder / 'cache'}"),
            *(f"protocol.steps={options.steps}", "protocol.checkpoint_every=10"),
            *("tracker=none", "device=cpu", f"workers={options.workers}", "retries=1000"),
            *(
                f"heartbeat.every={EVERY}",
                f"heartbeat.grace={options.grace}",
                f"heartbeat.patience={PATIENCE}",
            ),
        ]

    @property
    def _listed(self) -> list[str]:
        return ["layout=type_c", "layout.attention=1", f"seeds={self.options.runs}"]

    @property
    def _searched(self) -> list[str]:
        """Every architecture of a space, so that the runs are known beforehand; which of them stop at the
        rung is decided by who comes first."""
        rung = max(1, self.options.steps // 3)
        free = ("heads", "split", "form", "ffn", "decay")
        return [
            *("+sweep=pareto", f"scale.layers={LAYERS_SEARCHED}", f"protocol.evaluation.every={rung}"),
            f"search.space.letters=[{','.join(LETTERS_SEARCHED)}]",
            *(f"search.space.{name}=null" for name in free),
            *(f"search.trials={10 * self.options.runs}", "search.halving.buckets=2"),
        ]

    def _undisturbed(self) -> dict[str, Path]:
        """The folders of the runs' trials in a study that nothing happens to, by hash."""
        print(f"{self.options.runs} runs undisturbed, to compare with", flush=True)
        machine = Machine("undisturbed", self.folder / "undisturbed", self.mark)
        whole = ["search.halving.rungs=[]"] if self.options.search else []
        machine.start([*self.command, *whole, "study=s"])
        while machine.parent is not None:
            time.sleep(0.1)
        found = {path.parent.name: path.parent for path in machine.folder.glob("s/trials/*/row.json")}
        if machine.ended or len(found) != self.options.runs:
            raise Hangs(f"undisturbed runs ended with {machine.ended}: {machine.said()}")
        return found

    def _storm(self, faults: deque[Fault], unbroken: Mapping[str, Path]) -> None:
        self.study = f"s{self.studies}"
        self.studies += 1
        folder = self.folder / self.study
        folder.mkdir()
        place = Place(
            self.server,
            folder,
            self.command,
            tuple(unbroken),
            self.options.machines,
            bool(own_mounts()),
            self.mark,
            self.options.search,
        )
        storm = Storm(place, self.study, faults, self.watch, self._tell)
        try:
            entries = storm.run()
            folders = [machine.folder / self.study for machine in storm.machines]
            found = judge(entries, unbroken, folders[-1], folders, paused=self.options.search)
            if self.options.search:
                found += judge_proposals(storm.proposals(), entries)
            self.tracebacks += self._read_logs(storm.machines)
        finally:
            storm.close()
        self.verdict += found
        self.codes += storm.codes
        self._say(f"{self.study} on {len(storm.machines)} machines, {len(entries)} trials: {found.line()}")
        for line in found.said:
            print(f"  {line}", flush=True)

    def _read_logs(self, machines: Sequence[Machine]) -> int:
        found = 0
        for machine in machines:
            if machine.tracebacks():
                print(f"{machine.name}:\n{machine.all_said()}", flush=True)
            found += machine.tracebacks()
        return found

    # ---- what is told ------------------------------------------------------------------------
    def _tell(self, standing: Mapping[str, Entry]) -> None:
        if time.monotonic() - self.told > TELL_SECONDS:
            done = sum(entry.state == "complete" for entry in standing.values())
            paused = sum(entry.state == "paused" for entry in standing.values())
            self._say(f"{self.study}: {done}/{self.options.runs} runs" + f", {paused} paused" * bool(paused))

    def _say(self, text: str) -> None:
        self.told = time.monotonic()
        share = self.injected / self.options.faults
        left = (self.told - self.began) * (1 - share) / share if share else None
        about = f", about {clock(left)} left" if left is not None else ""
        print(f"{self.injected}/{self.options.faults} faults{about}; {text}", flush=True)

    def _figures(self, asked: int) -> int:
        verdict = self.verdict
        print(f"\n{'fault':<16}{'injected':>10}{'with a run':>12}{'median s':>10}{'p95 s':>8}")
        for kind in (*KINDS, None):
            of_kind = [hit for hit in self.watch.hits if kind in (None, hit.kind)]
            seconds = self.watch.seconds(kind)
            shown = (
                (f"{statistics.median(seconds):.1f}", f"{quantile(seconds, 0.95):.1f}")
                if seconds
                else ("", "")
            )
            print(f"{kind or 'all':<16}{len(of_kind):>10}{len(seconds):>12}{shown[0]:>10}{shown[1]:>8}")
        ends = ", ".join(f"{code}: {count}" for code, count in sorted(self.codes.items()))
        print(f"parents ended with {ends}; tracebacks in logs: {self.tracebacks}")
        print(verdict.line())
        if seconds:
            median, p95 = statistics.median(seconds), quantile(seconds, 0.95)
            print(f"from a fault until every run that it hit went on: median {median:.1f} s, p95 {p95:.1f} s")
        print(f"{clock(time.monotonic() - self.began)} in all")
        print(f"faults={self.injected} lost={verdict.lost} doubled={verdict.doubled}", flush=True)
        good = verdict.good and self.injected >= asked and not self.tracebacks
        return EXIT_GOOD if good else EXIT_DAMAGE


def _write_corpus(folder: Path, seed: int) -> None:
    """Words that follow one another by chance: enough to learn something from."""
    chance = random.Random(seed)
    words = ["".join(chance.choices(LETTERS, k=chance.randint(2, 8))) for _ in range(WORDS)]
    folder.mkdir()
    for split, count in SPLITS.items():
        (folder / f"{split}.txt").write_text(" ".join(chance.choices(words, k=count)) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
