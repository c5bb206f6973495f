"""What a study was asked for: ``plan.json`` beside its rows, as the sweep wrote it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.check import unsealed
from analysis.rows import TableError

PLAN = "plan.json"


@dataclass(frozen=True)
class Member:
    """One place of a variant in a sweep. ``said`` is what the sweep calls it there ("as" in the
    file): ``{"ladder": "published", "step": "causal mask"}``, or nothing."""

    variant_hash: str
    said: Mapping[str, str] = field(default_factory=dict)
    reference: bool = False


@dataclass(frozen=True)
class Plan:
    """``commands`` ran on the study, in order; ``members`` stand in the order of display. One
    variant may be several members; rows join them by ``variant_hash``."""

    sweep: str | None
    commands: tuple[str, ...]
    environment: Mapping[str, Any]
    members: tuple[Member, ...]


def read_plan(study: Path) -> Plan | None:
    """The plan of ``study``; None if it has none (an older one). Raises TableError if damaged."""
    path = study / PLAN
    if not path.is_file():
        return None
    try:
        return _plan(unsealed(json.loads(path.read_text(encoding="utf-8"))))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TableError(f"{path} is damaged ({type(error).__name__}: {error})") from error


def _plan(content: Mapping[str, Any]) -> Plan:
    return Plan(
        sweep=content.get("sweep"),
        commands=tuple(content.get("commands", ())),
        environment=dict(content.get("environment", {})),
        members=tuple(
            Member(
                variant_hash=member["variant_hash"],
                said={str(key): str(value) for key, value in (member.get("as") or {}).items()},
                reference=bool(member.get("reference", False)),
            )
            for member in content["members"]
        ),
    )
