"""python -m benchmarks.peers: our Transformer and RetNet against other people's, in one process.

Equal shapes, tokens, loss (all positions), optimiser (fused AdamW), precision and threads, no dropout
anywhere; models take turns, and a ratio is the median over rounds of the two times of one round. Equal
work is checked: a peer whose parameters, in all or in its blocks alone, differ from ours by more than a
fiftieth is refused, and what differs within that is printed. A peer that is not there, or fails, is named
in the last line. Exit status: 0 if every target holds, 1 if one does not, 2 if nothing could be measured,
or not the peers without which the targets say nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.options import WHAT, NotMeasured, Options

if TYPE_CHECKING:
    from benchmarks.contestants import Contestant
    from retsweep.spec.run import RunSpec


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        return run(parse(arguments))
    except NotMeasured as error:
        print(f"benchmarks.peers: {error}", file=sys.stderr)
        return 2


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Raises NotMeasured for what cannot be; argparse leaves by itself for what it does not know."""
    from benchmarks import targets

    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--what", default=",".join(WHAT), help="train, decode (default: both)")
    parser.add_argument("--scale", default="paper", help="a name of conf/scale (default: paper)")
    parser.add_argument("--batch", type=int, help="training sequences (default: 4 on a CPU, 32 on a GPU)")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each model (default: 9)")
    parser.add_argument(
        "--head-tokens",
        type=int,
        default=254,
        help="protocol.head_tokens of ours (default: 254; 0: all at once)",
    )
    parser.add_argument("--context", type=int, default=2048, help="of decoding (default: 2048)")
    parser.add_argument("--tokens", type=int, default=4, help="decoded in a turn (default: 4)")
    parser.add_argument("--threads", type=int, default=1, help="of torch on a CPU (default: 1)")
    parser.add_argument("--precision", choices=("fp32", "bf16", "tf32"), help="(default: fp32, GPU: bf16)")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: for a busy machine")
    given = parser.parse_args(arguments)
    if not re.fullmatch(r"cpu|cuda(:\d+)?", given.device):
        raise NotMeasured(f"--device={given.device} is not accepted; accepted: cpu, cuda, cuda:N")
    kind = given.device.partition(":")[0]
    what = tuple(given.what.split(","))
    if not what or set(what) - set(WHAT):
        raise NotMeasured(f"--what={given.what} is not accepted; accepted: train, decode, train,decode")
    given.batch = targets.BATCH[kind] if given.batch is None else given.batch
    given.head_tokens = given.head_tokens or None
    for name in ("batch", "rounds", "head_tokens", "tokens", "threads"):
        if (number := getattr(given, name)) is not None and number < 1:
            raise NotMeasured(f"--{name.replace('_', '-')}={number} is not accepted; accepted: 1 or more")
    if given.context < 2:
        raise NotMeasured(f"--context={given.context} is not accepted; accepted: 2 or more")
    given.precision = given.precision or ("fp32" if kind == "cpu" else "bf16")
    if kind == "cpu" and given.precision == "tf32":
        raise NotMeasured("--precision=tf32 is of a GPU's tensor cores; accepted on a CPU: fp32, bf16")
    return Options(**{**vars(given), "what": what})


def run(options: Options) -> int:
    """Measures, prints, and returns the exit status."""
    import torch
    from rich.console import Console

    from benchmarks.measure import Measure
    from benchmarks.report import Report
    from benchmarks.targets import verdict

    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is fetched, and a look for it would wait
    if options.kind == "cuda" and not (seen := torch.cuda.device_count()):
        raise NotMeasured(f"--device={options.device}: torch {torch.__version__} sees no GPU here")
    if (index := options.device.partition(":")[2]) and int(index) >= seen:
        raise NotMeasured(f"--device={options.device} is not here; accepted: cuda:0 to cuda:{seen - 1}")
    torch.set_num_threads(options.threads)
    specs = {group: _spec(options.scale, group) for group in ("attention", "retention")}
    groups, absent = present(options.kind)
    products = len(groups) if "train" in options.what else 0  # a matrix product a round, see Measure
    taking = sum(what in one.what for group in groups.values() for one in group for what in options.what)
    report = Report(options, absent, (taking + products) * (options.rounds + 1))
    with report.progress:
        for group, contestants in groups.items():
            measure = Measure(options, specs[group], contestants, report)
            for what in options.what:
                measure.train() if what == "train" else measure.decode()
    report.print(Console())
    print(verdict(report.judged, list(report.absent)))
    return 0 if all(one.holds for one in report.judged) else 1


def present(kind: str) -> tuple[dict[str, list[Contestant]], dict[str, str]]:
    """(who takes part on that kind of device, by group, ours first; why the others do not). Raises
    NotMeasured without a peer that is required there."""
    from benchmarks.contestants import GROUPS, REQUIRED, Unavailable

    groups: dict[str, list[Contestant]] = {}
    absent: dict[str, str] = {}
    for group, contestants in GROUPS.items():
        for one in contestants:
            try:
                one.check(kind)
                groups.setdefault(group, []).append(one)
            except Unavailable as error:
                absent[one.name] = str(error)
    for name in REQUIRED[kind]:
        if name in absent:
            raise NotMeasured(absent[name])
    return groups, absent


def _spec(scale: str, group: str) -> RunSpec:
    """The Transformer of ``scale``, or its RetNet."""
    from retsweep.spec import load_spec
    from retsweep.spec.base import SpecError

    layers = "${scale.layers}" if group == "attention" else "0"
    try:
        return load_spec([f"scale={scale}", f"layout.attention={layers}"])
    except SpecError as error:
        raise NotMeasured(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
