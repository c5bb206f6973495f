"""Brings what is wanted and what the study holds together, under the study's lock."""

from __future__ import annotations

from collections.abc import Mapping

from retsweep.sweep.patience import Patience
from retsweep.sweep.storage import exclusive
from retsweep.sweep.study import Study


def open_and_reconcile(
    url: str, name: str, wanted: Mapping[str, str], patience: Patience | None = None, *, whole: bool = False
) -> Study:
    """At the start of a sweep: opens (or creates) the study, ends the trials of the dead, and
    enqueues each of ``wanted`` (hash -> label) that is not complete, waiting or alive.

    Runs that failed, or whose worker died too often, get a fresh start. ``whole``: each is wanted to its
    end, one that a search has stopped, or would stop, at a rung too.
    """
    with exclusive(url, name, patience):
        study = Study(url, name, create=True, patience=patience)
        study.bury()
        standing = study.standing(wanted)
        for spec_hash, label in wanted.items():
            entry = standing.get(spec_hash)
            if entry is None or entry.state in ("failed", "lost"):
                carried = entry.carried if entry else {}
                study.enqueue(
                    spec_hash, label, attempt=0, **(carried | {"until": None} if whole else carried)
                )
            elif whole and entry.until is not None and entry.state != "complete":
                study.promote(entry.trial, None)
    return study


def reconcile(
    study: Study, url: str, name: str, wanted: Mapping[str, str], retries: int, *, whole: bool = False
) -> None:
    """During and at the end of a sweep: ends the trials of the dead, and enqueues each lost run
    again, ``retries`` times at most. What raised stays failed until the next start. ``whole`` as above."""
    with exclusive(url, name, study.patience):
        study.bury()
        for spec_hash, entry in study.standing(wanted).items():
            if entry.state == "lost" and not entry.given_up(retries):
                carried = entry.carried | ({"until": None} if whole else {})
                study.enqueue(spec_hash, wanted[spec_hash], entry.attempt + entry.begun, **carried)
