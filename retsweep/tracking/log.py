"""Reads a run's own log, the .wandb file from which `wandb sync` sends it: LevelDB's log format after a
header of 7 bytes, in blocks of 32 KiB (https://github.com/google/leveldb/blob/main/doc/log_format.md), with
a wandb.proto Record in each. Imports wandb."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEADER, BLOCK, HEAD = 7, 32768, 7
#: Kinds of LevelDB's records: whole ones, and the last piece of one.
WHOLE, LAST = 1, 4


def records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file, up to the first that is not whole: its writer was killed."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from wandb.proto import wandb_internal_pb2

    data, at, found = path.read_bytes(), HEADER, b""
    while data[:4] == b":W&B" and at + HEAD <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEAD:  # no room for a record's head: the block is padded
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        piece = data[at + HEAD : at + HEAD + size]
        if len(piece) < size:
            return
        found += piece
        at += HEAD + size
        if kind in (WHOLE, LAST):
            record = wandb_internal_pb2.Record()
            try:
                record.ParseFromString(found)
            except DecodeError:
                return
            found = b""
            yield record


def last_step(folder: Path) -> int:
    """The last step in the log of a run's ``folder``; -1 if it holds none."""
    step = -1
    for path in folder.glob("*.wandb"):
        for record in records(path):
            for item in record.history.item:
                if (item.key or ".".join(item.nested_key)) == "_step":
                    step = max(step, json.loads(item.value_json))
    return step
