"""Weights & Biases as a mirror of metrics and rows: never a source, and never in a run's way.

Everything that touches wandb happens on a thread of its own, fed by a queue (``mirror.py``). A server
that is slow, absent or broken therefore costs a run one warning and, at its end, a few seconds of
waiting. wandb itself is imported on that thread (``session.py``), in the process that tracks, and nowhere
else. ``choice.py`` has the trackers of ``conf/tracker``, ``base.py`` what they have in common.
"""

from retsweep.tracking.base import Mode, Resolution, Sent, Silence, TrackedRun, Tracker
from retsweep.tracking.choice import Auto, Decided, NoTracker, Wandb, find_key
from retsweep.tracking.mirror import Mirror
from retsweep.tracking.session import Session, agent_run, content, is_written, reach_server

__all__ = [
    "Auto",
    "Decided",
    "Mirror",
    "Mode",
    "NoTracker",
    "Resolution",
    "Sent",
    "Session",
    "Silence",
    "TrackedRun",
    "Tracker",
    "Wandb",
    "agent_run",
    "content",
    "find_key",
    "is_written",
    "reach_server",
]
