"""Calls that may never return, as those into a mount whose server is gone: waited for, then left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")

#: Seconds that a call is waited for: 60 GB at 100 MB/s.
SECONDS = 600.0

#: By place, the call that this process has left behind there.
_behind: dict[str, threading.Thread] = {}


def bounded(place: str, act: Callable[[Callable[[], bool]], Result], seconds: float | None = None) -> Result:
    """What ``act`` returns or raises, on a thread of its own. Raises TimeoutError if that takes longer than
    ``seconds`` (None: SECONDS); at once where an earlier call to the same ``place`` is still out, so that
    a place that hangs is waited for once.

    A call that is left behind goes on if it can. ``act`` is given a function that says whether that has
    happened, to be asked before whatever nobody expects any more.
    """
    seconds = SECONDS if seconds is None else seconds
    if place in _behind and _behind[place].is_alive():
        raise TimeoutError("an earlier call has not been answered")
    answer: Future[Result] = Future()
    given_up = threading.Event()

    def run() -> None:
        try:
            answer.set_result(act(given_up.is_set))
        except BaseException as error:
            answer.set_exception(error)

    thread = threading.Thread(target=run, name="bounded", daemon=True)
    thread.start()
    thread.join(seconds)
    if not answer.done():
        given_up.set()
        _behind[place] = thread
        raise TimeoutError(f"no answer in {seconds:g} s")
    return answer.result()
