"""What a check says when it fails."""

from __future__ import annotations


class PreflightError(Exception):
    """A spec that must not be trained. One line: which check, what was expected, what was seen."""

    def __init__(self, check: str, expected: str, seen: str) -> None:
        super().__init__(f"{check}: expected {expected}; seen: {seen}")
        self.check, self.expected, self.seen = check, expected, seen
