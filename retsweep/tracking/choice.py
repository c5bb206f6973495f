"""The trackers of conf/tracker, and whether W&B is configured on this machine."""

from __future__ import annotations

import netrc
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

from retsweep.spec.base import spec
from retsweep.tracking.base import Resolution, Silence, TrackedRun, Tracker
from retsweep.tracking.mirror import Mirror
from retsweep.tracking.session import server_url, start


@dataclass(frozen=True)
class Decided:
    """A tracker that has looked once, for all runs that it opens."""

    resolution: Resolution
    project: str
    entity: str | None

    def resolve(self) -> Resolution:
        return self.resolution

    def open(self, run: TrackedRun) -> Tracker:
        if self.resolution.mode == "none":
            return Silence()
        return Mirror(lambda mode: start(mode, run, self.project, self.entity), self.resolution.mode)


@spec
class NoTracker:
    """tracker=none."""

    def resolve(self) -> Resolution:
        return Resolution("none", "tracker=none")

    def open(self, run: TrackedRun) -> Tracker:
        return Silence()


@spec
class Wandb:
    """tracker=wandb: online with a key, offline without one, and as WANDB_MODE says."""

    project: str = "retsweep"
    entity: str | None = None

    def resolve(self) -> Resolution:
        return _resolve_wandb()

    def open(self, run: TrackedRun) -> Tracker:
        return Decided(self.resolve(), self.project, self.entity).open(run)


@spec
class Auto:
    """tracker=auto: wandb where it is configured (a key, or WANDB_MODE), else none."""

    project: str = "retsweep"
    entity: str | None = None

    def resolve(self) -> Resolution:
        if not os.environ.get("WANDB_MODE") and find_key() is None:
            return Resolution("none", "wandb is not configured (no key, no WANDB_MODE)")
        return _resolve_wandb()

    def open(self, run: TrackedRun) -> Tracker:
        return Decided(self.resolve(), self.project, self.entity).open(run)


def _resolve_wandb() -> Resolution:
    wanted = os.environ.get("WANDB_MODE", "").lower()
    key = find_key()
    if wanted == "disabled":
        return Resolution("none", "WANDB_MODE=disabled")
    if wanted in ("offline", "dryrun"):
        return Resolution("offline", f"WANDB_MODE={wanted}")
    if key is None:
        return Resolution("offline", "no key" + (f", in spite of WANDB_MODE={wanted}" if wanted else ""))
    return Resolution("online", f"WANDB_MODE={wanted}" if wanted else f"a key in {key}")


def find_key() -> str | None:
    """Where W&B's key lies ("WANDB_API_KEY", or a netrc's path); None if nowhere. Never the key."""
    if os.environ.get("WANDB_API_KEY"):
        return "WANDB_API_KEY"
    server = urlparse(server_url())
    hosts = dict.fromkeys((server.netloc, server.hostname or ""))  # `wandb login` writes the port, too
    given = os.environ.get("NETRC")
    for path in [Path(given)] if given else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            found = netrc.netrc(str(path))
            entries = [found.authenticators(host) for host in hosts]
        except (OSError, netrc.NetrcParseError):
            continue
        if any(entry is not None and entry[2] for entry in entries):
            return str(path)
    return None
