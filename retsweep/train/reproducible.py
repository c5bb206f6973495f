"""Random numbers and kernels that depend on the seed and the step, never on the process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """The generator seed of one step, in the process ``rank`` of those that share its batch. Hashed,
    because torch's CPU generator reads 32 bits of it."""
    named = f"retsweep dropout {seed} {step}" + (f" {rank}" if rank else "")
    digest = hashlib.blake2b(named.encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little")


def seed_step(seed: int, step: int, device: torch.device, rank: int = 0) -> None:
    """Seeds the generator that dropout on ``device`` draws from.

    Not torch.manual_seed, which visits every kind of device and costs a hundred times as much.
    """
    number = step_seed(seed, step, rank)
    if device.type == "cuda":
        torch.cuda.manual_seed(number)
    else:
        torch.default_generator.manual_seed(number)


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Deterministic kernels on the CPU; the caller's generators and settings come back afterwards.

    On a GPU nothing is asked for: deterministic kernels there cost speed, and bit-identity is
    promised on the CPU only.
    """
    before = torch.are_deterministic_algorithms_enabled()
    debugging: Any = torch.utils.deterministic  # its one setting is unknown to mypy
    fill = debugging.fill_uninitialized_memory
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if device.type == "cpu":
            torch.use_deterministic_algorithms(True)
            # It would fill every fresh tensor with NaN, which costs time and only helps debugging.
            debugging.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)
            debugging.fill_uninitialized_memory = fill
