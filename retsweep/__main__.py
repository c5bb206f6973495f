"""``python -m retsweep [group=choice] [key=value]``: the only place that sees argv."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from retsweep import __version__

EXIT_BAD, EXIT_INTERRUPTED = 2, 130

USAGE = """\
usage: python -m retsweep [+sweep=NAME] [GROUP=CHOICE ...] [KEY=VALUE ...]
       python -m retsweep runs/STUDY/trials/HASH/config.yaml [KEY=VALUE ...]

Runs one variant, or with +sweep=NAME all variants of a sweep, as trials of a study in runs/STUDY/.
The same command again skips what is finished and goes on with what is not.

  --cfg      print the composed config and leave
  --version  print the version
  --help     print this
"""

EXAMPLES = """\
examples:
  python -m retsweep +sweep=ar_ratio                  all 31 models of the report, and the table
  python -m retsweep +sweep=ar_ratio seeds=3 limit.minutes=30
  python -m retsweep +sweep=ar_ratio scale=paper task=count study=macs
  python -m retsweep layout=type_c layout.attention=3 scale=tiny
  python -m retsweep layout=pattern layout.pattern=RRRA protocol.learning_rate=1e-3
  python -m retsweep layout=type_c task=generate prompt="Returns the"   text from what was trained
  python -m retsweep task=mirror study=NAME           a study that is there already, sent to W&B

settings: study, storage (or RETSWEEP_STORAGE, for a URL with ? or ,), runs, cache (or RETSWEEP_CACHE),
  workers, seeds, retries, device, limit.minutes, tracker; of fairness: match, tune.learning_rate;
  of task=generate: prompt, or prompt_file for what has ? or , in it
exit codes: 0 finished or limit.minutes over, 1 a run or the storage failed, 2 not understood,
  130 Ctrl-C, 143 SIGTERM
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code; everything that a user got wrong is one line."""
    began = time.monotonic()
    words = list(sys.argv[1:] if arguments is None else arguments)
    flags = [word for word in words if word.startswith("-")]
    words = [word for word in words if not word.startswith("-")]
    for flag in flags:
        if flag in ("-h", "--help"):
            print(help_text())
            return 0
        if flag == "--version":
            print(f"retsweep {__version__}")
            return 0
        if flag in ("-m", "--multirun"):
            return _complain(f"{flag} is not needed: +sweep=NAME runs the whole sweep")
        if flag != "--cfg":
            return _complain(f"unknown option {flag}; accepted: --help, --version, --cfg, and KEY=VALUE")
    return _run(words, began, only_config="--cfg" in flags)


def _run(words: list[str], began: float, *, only_config: bool) -> int:
    from retsweep.spec.base import SpecError

    try:
        from retsweep.sweep import command

        if only_config:
            print(command.config(words), end="")
            return 0
        return command.run(words, began)
    except SpecError as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        print("retsweep: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def help_text() -> str:
    """Usage, the config groups with their choices (a line of comment each), examples."""
    from retsweep.spec.compose import choices, conf_folder

    lines = [USAGE, "groups and their choices:"]
    groups = sorted(path.name for path in conf_folder().iterdir() if path.is_dir())
    for group in groups:
        prefix = "+sweep" if group == "sweep" else group
        listed = ", ".join(choices(group))
        lines.append(f"  {prefix + '=':<12}{listed}")
    return "\n".join([*lines, "", EXAMPLES])


def _complain(text: str) -> int:
    print(f"retsweep: {' '.join(text.split())}", file=sys.stderr)
    return EXIT_BAD


if __name__ == "__main__":
    sys.exit(main())
