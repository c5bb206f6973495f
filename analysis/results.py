"""Publishes a study as small text: ``python -m analysis.results STUDY NAME [--partial]``.

Writes into ``results/<NAME>/``: ``rows.csv`` (every column of every row, exact), ``curves.csv``
(loss curves, thinned), ``plan.json``, the table that those rows give, what it ran on, the commands,
and the figures as SVG. The folder is a study like any other for the commands of this package. Paths,
storages and accounts of the machine stay out of it; a study that is not finished is published with
``--partial`` only, and says so.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis import scrub, table
from analysis.aggregate import has_ended
from analysis.check import unsealed
from analysis.curves import PUBLISHED_CURVES, Curve, csv_of_curves, read_metrics
from analysis.plan import PLAN, Plan, read_plan
from analysis.rows import PUBLISHED_ROWS, Row, TableError, csv_of, find_study, read_rows, write_atomically

RESULTS = Path("results")
USAGE = "usage: python -m analysis.results STUDY NAME [--partial]"
UNKNOWN = "not recorded (the study has no plan.json)"
#: What an earlier publication of the same name may have left, beside files of these names.
FIGURE_SUFFIXES = (".svg", ".png", ".pdf")


@dataclasses.dataclass(frozen=True)
class Standing:
    """How far a study is: ``missing`` are its runs without a row, ``failed`` those that broke off."""

    finished: int
    wanted: int
    missing: tuple[str, ...]
    failed: tuple[str, ...]

    @property
    def line(self) -> str:
        """ "92 of 96 runs finished; without a row: Type C 7:1 seed 2", in one line."""
        said = [f"{self.finished} of {self.wanted} runs finished"]
        said += [f"failed: {', '.join(self.failed)}"] if self.failed else []
        said += [f"without a row: {_some(self.missing)}"] if self.missing else []
        return "; ".join(said)


def publish(study: Path, target: Path, partial: bool = False) -> tuple[list[Path], str]:
    """Writes the study's files into ``target``: the files, and what was not drawn, in words. Raises
    TableError, and leaves ``target`` as it was, for a study that is unfinished (unless ``partial``)
    or published already."""
    if not (study / "trials").is_dir():
        raise TableError(f"{study} is no study that ran here (it has no trials/): nothing to publish")
    rows = in_order(read_rows(study), read_plan(study))
    standing = standing_of(study, rows)
    if not partial and standing.finished < standing.wanted:
        raise TableError(f"{study}: {standing.line}; --partial publishes it as it stands")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".publishing-", dir=target.parent) as staging:
        staged = Path(staging) / target.name  # the table's title is its folder's name
        staged.mkdir()
        _write(study, staged, rows, standing)
        undrawn = _draw(staged)
        _check(staged)
        return _replace(staged, target), undrawn


def in_order(rows: Sequence[Row], plan: Plan | None = None) -> list[Row]:
    """The rows as the table has its lines, those of a line by seed. Raises TableError."""
    places: dict[str, int] = {}
    for place, line in enumerate(table.build("", rows, plan).lines):
        places.setdefault(str(line.get("variant_hash")), place)
    return sorted(rows, key=lambda row: (places.get(row["variant_hash"], len(places)), row["seed"]))


def standing_of(study: Path, rows: Sequence[Row]) -> Standing:
    """Wanted are the plan's variants, or those that have rows, each with every seed that the plan
    names or that any row has; and the runs that were begun."""
    plan, raw = read_plan(study), _raw_plan(study)
    seeds = sorted({*raw.get("seeds", ()), *(row["seed"] for row in rows)})
    labels = {row["variant_hash"]: str(row["architecture"]) for row in rows}
    for member in plan.members if plan else ():
        said = ", ".join(member.said.values())
        label = labels.get(member.variant_hash, f"variant {member.variant_hash[:6]}")
        labels[member.variant_hash] = f"{label} ({said})" if said and "(" not in label else label
    known = {(row["variant_hash"], row["seed"]): row for row in rows}
    wanted = {(variant, seed) for variant in labels for seed in seeds}
    missing = [f"{labels[variant]} seed {seed}" for variant, seed in wanted - known.keys()]
    # Trials that began and have no row are among the missing, as a rule. Without a plan they may be
    # all that shows how much is to come.
    trials = [path.parent for path in sorted(study.glob("trials/*/config.yaml"))]
    begun = [trial.name for trial in trials if not (trial / "row.json").exists()]
    missing += [f"trial {name[:6]}" for name in begun[len(missing) :]]
    broken = [key for key, row in known.items() if not has_ended(row)]
    failed = tuple(f"{labels[variant]} seed {seed}" for variant, seed in broken)
    return Standing(len(known) - len(failed), len(known) + len(missing), tuple(sorted(missing)), failed)


def _some(names: Sequence[str], shown: int = 8) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


# ---- the files -------------------------------------------------------------------------------
def _write(study: Path, folder: Path, rows: Sequence[Row], standing: Standing) -> None:
    published = [scrubbed(row) for row in rows]
    raw = _raw_plan(study)
    plan = {**scrub.value(raw), "commands": [scrub.command(line) for line in raw.get("commands", ())]}
    files = {PUBLISHED_ROWS: csv_of(published)}
    curves = _curves(study, rows)
    if curves:
        files[PUBLISHED_CURVES] = csv_of_curves(curves)
    if raw:
        files[PLAN] = json.dumps(plan, indent=1) + "\n"
    files["environment.txt"] = environment(study.resolve().name, published, plan, standing)
    files["command.txt"] = commands(plan.get("commands", ()))
    for name, text in files.items():
        write_atomically(folder / name, text.encode())
    table.write(folder)  # from what was just written, as any reader would
    if standing.finished < standing.wanted:
        page = folder / "table.md"
        title, _, rest = page.read_text(encoding="utf-8").partition("\n")
        write_atomically(page, f"{title}\n\n**Unfinished: {standing.line}.**\n{rest}".encode())


def _draw(folder: Path) -> str:
    """The figures of the published rows and curves, as SVG: why some, or all, are missing."""
    from analysis.figures.__main__ import write

    try:
        _, missing = write(folder)
    except TableError as error:  # a study of counts, or no matplotlib
        return f"no figures: {str(error).replace(f'{folder}: ', '')}"
    return "; ".join(f"not drawn: {name} ({reason})" for name, reason in missing.items())


def scrubbed(row: Row) -> Row:
    """The row without paths of the machine; what a run raised, also without its names."""
    clean: Row = scrub.value(row)
    if isinstance(row.get("error"), str):
        clean["error"] = scrub.error(row["error"])
    return clean


def _curves(study: Path, rows: Sequence[Row]) -> list[tuple[Row, Curve]]:
    """The rows whose trial left metrics, with them, in the rows' order."""
    trials = {path.parent: json.loads(path.read_text()) for path in study.glob("trials/*/row.json")}
    metrics = {
        (row["variant_hash"], row["seed"]): folder / "metrics.jsonl"
        for folder, row in sorted(trials.items())
        if (folder / "metrics.jsonl").is_file()
    }
    keys = [(row["variant_hash"], row["seed"]) for row in rows]
    return [(row, read_metrics(metrics[key])) for row, key in zip(rows, keys, strict=True) if key in metrics]


def environment(study: str, rows: Sequence[Row], plan: Mapping[str, Any], standing: Standing) -> str:
    """What ran where, by which code: one "name: value" a line; where machines differ (in Python, its
    platform or packages) a line for each of them."""
    environments = plan.get("environments") or [plan.get("environment", {})]
    lines = [
        f"study: {study}",
        f"sweep: {plan.get('sweep') or UNKNOWN}",
        f"runs: {standing.line}",
        f"variants: {len({row['variant_hash'] for row in rows})}",
        f"seeds: {' '.join(str(seed) for seed in sorted({row['seed'] for row in rows}))}",
        f"training time of all runs: {sum(row.get('seconds') or 0 for row in rows):,.0f} s",
        *([] if len(environments) > 1 else _facts(environments[0])),
    ]
    for title, column in (
        ("device", "device"),
        ("torch", "torch_version"),
        ("commit", "git_commit"),
        ("retsweep", "version"),
        ("corpus", "corpus"),
        ("tokenizer", "tokenizer"),
        ("data", "data_hash"),
    ):
        counts = Counter(str(row[column]) for row in rows if row.get(column) is not None)
        lines += [f"{title}: {value} ({count} runs)" for value, count in counts.items()]
    if len(environments) == 1:
        lines += [f"package: {name} {version}" for name, version in _packages(environments[0])]
    for place, said in enumerate(environments if len(environments) > 1 else (), start=1):
        packages = [f"{name} {version}" for name, version in _packages(said)]
        lines.append(f"environment {place}: {', '.join([*_facts(said), *packages])}")
    return "\n".join(lines) + "\n"


def _facts(said: Mapping[str, Any]) -> list[str]:
    return [f"{name}: {said.get(name, UNKNOWN)}" for name in ("python", "platform")]


def _packages(said: Mapping[str, Any]) -> list[tuple[str, str]]:
    return list(said.get("packages", {}).items())


def commands(lines: Iterable[str]) -> str:
    """The commands that ran on the study, in order, as a shell takes them."""
    lines = list(lines)
    if not lines:
        return "# not recorded: the study has no plan.json\n"
    head = ["# What ran on this study, in order; each goes on where the one before it stopped."]
    if any(f"{scrub.PLACEHOLDER}/" in line for line in lines):
        head.append(f"# {scrub.PLACEHOLDER}/ stands for a folder of the machine that it ran on.")
    return "\n".join([*head, *lines]) + "\n"


def _raw_plan(study: Path) -> dict[str, Any]:
    path = study / PLAN
    return dict(unsealed(json.loads(path.read_text(encoding="utf-8")))) if path.is_file() else {}


# ---- into place ------------------------------------------------------------------------------
def _check(folder: Path) -> None:
    """Raises TableError if a file names the machine all the same: better not published than that."""
    for path in sorted(folder.iterdir()):
        found = scrub.private_in(path.read_text(encoding="utf-8"))
        if found:
            raise TableError(f"{path.name} would publish {found[0]!r}; nothing was written")


def _replace(staged: Path, target: Path) -> list[Path]:
    """Moves the files into ``target``, and takes away what an earlier publication left there."""
    target.mkdir(exist_ok=True)
    new = {path.name for path in staged.iterdir()}
    for old in target.iterdir():
        if old.suffix in FIGURE_SUFFIXES or old.name in _NAMES - new:
            old.unlink()
    return [Path(shutil.move(path, target / path.name)) for path in sorted(staged.iterdir())]


_NAMES = {PUBLISHED_ROWS, PUBLISHED_CURVES, PLAN, "environment.txt", "command.txt", "contrasts.csv"}


def main(arguments: Sequence[str]) -> int:
    """The command: 0, 1 with one line on standard error, 2 for bad arguments."""
    named = [argument for argument in arguments if argument != "--partial"]
    if len(named) != 2 or any(argument.startswith("-") for argument in named):
        print(USAGE, file=sys.stderr)
        return 2
    try:
        if not re.fullmatch(r"\w[\w.-]*", named[1]):
            raise TableError(f"NAME {named[1]!r} is no plain name; accepted: letters, digits, '_', '-', '.'")
        study = find_study(named[0])
        files, undrawn = publish(study, RESULTS / named[1], partial="--partial" in arguments)
        print(*files, *([undrawn] if undrawn else []), sep="\n")
    except TableError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
