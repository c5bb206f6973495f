"""Whether a row.json or a plan.json is what was written: both carry a checksum of the rest of them, under
the key ``check`` (``retsweep/sweep/files.py`` writes it; older files have none)."""

from __future__ import annotations

import json
import zlib
from typing import Any

CHECK = "check"


def unsealed(content: Any) -> Any:
    """``content`` without its checksum. Raises ValueError if that is of something else."""
    if not isinstance(content, dict) or CHECK not in content:
        return content
    rest = {key: value for key, value in content.items() if key != CHECK}
    if zlib.crc32(json.dumps(rest, sort_keys=True).encode()) != content[CHECK]:
        raise ValueError("its checksum is of something else")
    return rest
