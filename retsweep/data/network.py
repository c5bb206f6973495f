"""Whether the HuggingFace hub can be reached, asked once instead of found out by retries."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request

from retsweep.spec import SpecError

PROBE_SECONDS = 3.0


def require_hub(what: str, instead: str) -> None:
    """Raises SpecError within seconds where the hub does not answer, instead of minutes of retries.

    HF_HUB_OFFLINE=1 skips the question: then only what was downloaded before is used.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}:
        return
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    answered: list[bool] = []
    # Name resolution knows no time limit, hence the thread that may be left behind.
    probe = threading.Thread(target=lambda: answered.append(_answers(endpoint)), daemon=True)
    probe.start()
    probe.join(PROBE_SECONDS + 1)
    if not any(answered):
        raise SpecError(
            f"{what}, and {endpoint} cannot be reached; {instead}, or set "
            "HF_HUB_OFFLINE=1 if it was downloaded before"
        )


def _answers(endpoint: str) -> bool:
    """Whether anything at ``endpoint`` speaks HTTP; proxies of the environment are honoured."""
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=PROBE_SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error).strip().splitlines() or [""])[0] or type(error).__name__
